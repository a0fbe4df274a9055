//go:build linux || darwin || freebsd

package fs

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// beneath opens directories under one directory. A path is relative, clean and,
// as far as we know, free of links: if a component has become a link, the call
// fails, or (os.Root) stays inside; in no case does it lead out. All else is
// done with *at calls on the result and a single name, which follow nothing.
type beneath interface {
	// openDir returns a descriptor that the caller closes. The path is not ".".
	// Its errors are bare errnos.
	openDir(path string) (int, error)
	// root is the descriptor of the directory itself.
	root() int
	close() error
}

const dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC | unix.O_NONBLOCK

// walkRoot is a beneath on os.Root, for where there is no openat2.
type walkRoot struct {
	r *os.Root
	f *os.File
}

func newWalkRoot(dir string) (beneath, error) {
	r, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	f, err := r.Open(".")
	if err != nil {
		r.Close()
		return nil, err
	}
	return &walkRoot{r, f}, nil
}

func (w *walkRoot) root() int { return int(w.f.Fd()) }

func (w *walkRoot) openDir(path string) (int, error) {
	// The last component is opened by us: os.Root ignores O_NOFOLLOW.
	at := w.root()
	name := path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		f, err := w.r.OpenFile(path[:i], dirFlags, 0)
		if err != nil {
			var errno unix.Errno
			if errors.As(err, &errno) {
				return -1, errno
			}
			return -1, unix.ELOOP // os.Root has no name for a link that leads out
		}
		defer f.Close()
		at, name = int(f.Fd()), path[i+1:]
	}
	return openat(at, name, dirFlags|unix.O_NOFOLLOW, 0)
}

func (w *walkRoot) close() error {
	w.f.Close()
	return w.r.Close()
}

func openat(dir int, name string, flags int, perm uint32) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags, perm)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// split parts a path into its directory, "." if there is none, and a name.
func split(path string) (dir, name string) {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return ".", path
}
