package fs

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// readDir reads at most limit names of an open directory. os.File.ReadDir would
// do, but where the file system keeps no types in directories it looks them up
// by path, and a path can have been swapped.
func readDir(dir int, limit int) ([]overlay.Name, error) {
	var names []overlay.Name
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.Getdents(dir, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return names, err
		}
		// struct linux_dirent64: ino 8, off 8, reclen 2, type 1, name.
		for rest := buf[:n]; len(rest) >= 19; {
			size := int(binary.NativeEndian.Uint16(rest[16:]))
			if size < 19 || size > len(rest) {
				return nil, unix.EIO
			}
			name, _, _ := bytes.Cut(rest[19:size], []byte{0})
			kind := kindOfDirent(rest[18])
			rest = rest[size:]
			if s := string(name); s != "." && s != ".." {
				if len(names) == limit {
					return names, nil
				}
				if kind == 0 {
					st, err := lstatat(dir, s)
					if err == unix.ENOENT {
						continue
					}
					if err != nil {
						return nil, err
					}
					kind = kindOfMode(uint32(st.Mode))
				}
				names = append(names, overlay.Name{Name: s, Kind: kind})
			}
		}
	}
}

func kindOfDirent(t byte) store.Kind {
	switch t {
	case unix.DT_REG:
		return store.KindFile
	case unix.DT_DIR:
		return store.KindDir
	case unix.DT_LNK:
		return store.KindLink
	case unix.DT_UNKNOWN:
		return 0
	}
	return store.KindOther
}
