//go:build unix

package peer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// openRegular opens path for reading if it is a regular file. It follows no
// symbolic link in the last component, and a FIFO left there does not block it.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		if errors.Is(err, unix.ELOOP) {
			return nil, fmt.Errorf("open %s: a symbolic link, which is not followed here: name the file itself", path)
		}
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	if !info.Mode().IsRegular() {
		_ = f.Close()
		return nil, fmt.Errorf("open %s: not a regular file", path)
	}
	return f, nil
}

// checkPrivate reports whether only the user who runs this process can read f.
func checkPrivate(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; int(owner) != os.Geteuid() {
		return fmt.Errorf("the file belongs to user %d, not to %d who runs this: chown %d %s",
			owner, os.Geteuid(), os.Geteuid(), shellQuote(f.Name()))
	}
	const wider = fs.ModePerm &^ 0o600
	if mode := info.Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky); mode.Perm()&wider != 0 {
		return fmt.Errorf("the file's mode is %#o, so others may have read the key: if you trust it still, chmod 600 %s",
			mode.Perm(), shellQuote(f.Name()))
	}
	return nil
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// lockDir waits until no other process that asks has the directory, and returns
// what gives it back. The kernel does so too, when the process ends.
func lockDir(path string) (unlock func(), err error) {
	d, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(d.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		_ = d.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { _ = d.Close() }, nil
}
