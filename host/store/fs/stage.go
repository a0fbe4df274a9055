//go:build linux || darwin || freebsd

package fs

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// staged is a file in the staging directory. Its descriptor is open only while
// it is used: a transaction may write more files than a process may open.
type staged struct {
	dir  int // the staging directory
	name string
	f    *os.File     // nil while idle
	like *unix.Stat_t // of the file that it will replace, if any
}

// Stage implements overlay.Backend. A file that its owner made read-only stays
// so: replacing it by rename would otherwise not even notice.
func (b *backend) Stage(ctx context.Context, from overlay.LowerFile, n int64) (overlay.Staged, error) {
	if from != nil && from.(*lowerFile).st.Mode&0o222 == 0 {
		return nil, fmt.Errorf("write to a file that is read-only on the host: %w", store.ErrDenied)
	}
	b.staged++
	s := &staged{dir: b.stage, name: fmt.Sprintf("f%d", b.staged)}
	// 0666 less the owner's umask, as any program of theirs would make it. The
	// directory above is 0700.
	fd, err := openat(s.dir, s.name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o666)
	if err != nil {
		return nil, fmt.Errorf("stage file: %w", fileError(err))
	}
	s.f = os.NewFile(uintptr(fd), s.name)
	if from != nil {
		if err := s.copy(ctx, from.(*lowerFile), n); err != nil {
			s.Discard()
			return nil, fmt.Errorf("stage copy of file: %w", fileError(err))
		}
	}
	return s, nil
}

// copy takes n bytes of src.
func (s *staged) copy(ctx context.Context, src *lowerFile, n int64) error {
	s.like = &src.st
	buf := make([]byte, min(n, 1<<20))
	for off := int64(0); off < n; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		k, err := src.ReadAt(buf[:min(n-off, int64(len(buf)))], off)
		if k > 0 {
			if _, err := s.f.WriteAt(buf[:k], off); err != nil {
				return err
			}
			off += int64(k)
		}
		if err == io.EOF { // shorter than it was: the commit will notice
			return s.f.Truncate(n)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// seal gives the file its times and its owner's permissions, and makes it
// durable.
func (s *staged) seal(atime, mtime time.Time) error {
	if err := s.open(); err != nil {
		return err
	}
	defer s.Idle()
	fd := int(s.f.Fd())
	if s.like != nil {
		if os.Geteuid() == 0 { // else it is ours already, or not ours to give
			if err := unix.Fchown(fd, int(s.like.Uid), int(s.like.Gid)); err != nil {
				return err
			}
		}
		// Never set-uid, set-gid or sticky: a guest chose what the file holds.
		if err := unix.Fchmod(fd, uint32(s.like.Mode)&0o777); err != nil {
			return err
		}
	}
	if err := setTimes(s.dir, s.name, atime, mtime); err != nil {
		return err
	}
	return s.f.Sync()
}

// setTimes sets the times of an entry, of a link its own.
func setTimes(dir int, name string, atime, mtime time.Time) error {
	var ts [2]unix.Timespec
	for i, t := range []time.Time{atime, mtime} {
		var err error
		if ts[i], err = unix.TimeToTimespec(t); err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(dir, name, ts[:], unix.AT_SYMLINK_NOFOLLOW)
}

// open opens the file again after it was idle.
func (s *staged) open() error {
	if s.f != nil {
		return nil
	}
	fd, err := openat(s.dir, s.name, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open staged file: %w", fileError(err))
	}
	s.f = os.NewFile(uintptr(fd), s.name)
	return nil
}

func (s *staged) ReadAt(p []byte, off int64) (int, error) {
	if err := s.open(); err != nil {
		return 0, err
	}
	n, err := s.f.ReadAt(p, off)
	if err == io.EOF {
		return n, err
	}
	return n, fileError(err)
}

func (s *staged) WriteAt(p []byte, off int64) (int, error) {
	if err := s.open(); err != nil {
		return 0, err
	}
	n, err := s.f.WriteAt(p, off)
	return n, fileError(err)
}

func (s *staged) Truncate(size int64) error {
	if err := s.open(); err != nil {
		return err
	}
	return fileError(s.f.Truncate(size))
}

func (s *staged) Idle() {
	if s.f != nil {
		s.f.Close()
		s.f = nil
	}
}

func (s *staged) Discard() {
	s.Idle()
	_ = unix.Unlinkat(s.dir, s.name, 0) // what remains is swept when the store is opened
}
