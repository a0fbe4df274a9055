//go:build unix && !solaris && !aix

package host

import (
	"os"

	"golang.org/x/sys/unix"
)

// tryLock locks f, or returns ErrServed when somebody else has it locked. The
// kernel gives a lock up when its holder dies.
func tryLock(f *os.File, shared bool) error {
	how := unix.LOCK_EX
	if shared {
		how = unix.LOCK_SH
	}
	err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK {
		return ErrServed
	}
	return err
}
