//go:build darwin || freebsd

package fs

func newBeneath(dir string) (beneath, error) { return newWalkRoot(dir) }
