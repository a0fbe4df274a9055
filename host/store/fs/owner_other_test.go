//go:build darwin || freebsd

package fs

func device(string) bool { return false }
