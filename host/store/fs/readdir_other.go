//go:build darwin || freebsd

package fs

import (
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/circles-host/circles/host/store/overlay"
)

// readDir reads at most limit names of an open directory.
func readDir(dir int, limit int) ([]overlay.Name, error) {
	fd, err := openat(dir, ".", dirFlags, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "directory")
	defer f.Close()
	list, err := f.Readdirnames(limit)
	if err != nil && err != io.EOF {
		return nil, err
	}
	names := make([]overlay.Name, 0, len(list))
	for _, name := range list {
		// Types are looked up through the descriptor: a path can be swapped.
		st, err := lstatat(dir, name)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return nil, err
		}
		names = append(names, overlay.Name{Name: name, Kind: kindOfMode(uint32(st.Mode))})
	}
	return names, nil
}
