//go:build !unix

package engine

import "io/fs"

// foreign knows no permission bits here: the directory is as private as the
// access list that it inherits.
func foreign(fs.FileInfo) string { return "" }
