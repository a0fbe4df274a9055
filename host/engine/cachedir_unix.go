//go:build unix

package engine

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// foreign says why others than this process's user can write to a directory,
// or "".
func foreign(info fs.FileInfo) string {
	if perm := info.Mode().Perm(); perm&0o022 != 0 {
		return fmt.Sprintf("is writable by others (mode %#o)", perm)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fmt.Sprintf("belongs to user %d", st.Uid)
	}
	return ""
}
