//go:build !unix

package natsobj

import "io/fs"

// othersRead cannot tell here: mode bits say nothing of who may read a file.
func othersRead(fs.FileInfo) bool { return false }
