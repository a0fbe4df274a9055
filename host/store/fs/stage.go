//go:build linux || darwin || freebsd

package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// staged is the content of a file that a transaction writes: in memory while it is
// small, and a file in the staging directory when it is not any more, or when it is
// to be committed. The descriptor is open only while it is used: a transaction may
// write more files than a process may open.
//
// Of a large file that is changed, the beginning is not copied until something is
// written there: up to kept, its bytes are those of base. A file that only grows
// is never copied at all, see stepGrow.
type staged struct {
	b    *backend
	name string       // "" while it is in memory
	held []byte       // what is in memory
	f    *os.File     // nil while idle
	like *unix.Stat_t // of the file that it will replace, if any
	base int          // -1 if there is none
	kept int64
	ctx  context.Context // of the transaction: bounds the copy

	// By Prepare.
	made     overlay.Version
	mode     uint32
	uid, gid uint32
	grow     bool
	isInline bool
	content  []byte
}

const (
	// inlineSize is the size in bytes up to which a file's content is written to
	// the journal with its commit, instead of being made durable by itself; and
	// up to which it is copied at once when it is changed.
	inlineSize = 64 << 10
	// inlineTotal bounds what of that one commit may have.
	inlineTotal = 1 << 20
	// heldTotal bounds what of small files a transaction has in memory. It is as
	// much as the journal takes of them.
	heldTotal = inlineTotal
	// maxBases is how many files of a transaction may be open for not having been
	// copied. Those beyond are.
	maxBases = 64
)

// Stage implements overlay.Backend. A file that its owner made read-only stays
// so: replacing it by rename would otherwise not even notice.
func (b *backend) Stage(ctx context.Context, from overlay.LowerFile, n int64) (overlay.Staged, error) {
	if from != nil && from.(*lowerFile).st.Mode&0o222 == 0 {
		return nil, fmt.Errorf("write to a file that is read-only on the host: %w", store.ErrDenied)
	}
	s := &staged{b: b, base: -1, ctx: ctx}
	if from == nil {
		return s, nil
	}
	src := from.(*lowerFile)
	s.like = &src.st
	var err error
	if n <= inlineSize && s.resize(n) {
		_, err = src.readPart(s.held, 0) // shorter than it was: the commit will notice
	} else {
		if err := s.spill(); err != nil {
			return nil, err
		}
		if n > inlineSize && b.bases < maxBases {
			if s.base, err = unix.FcntlInt(uintptr(src.fd), unix.F_DUPFD_CLOEXEC, 0); err == nil {
				b.bases++
				s.kept = n
				return s, nil
			}
			s.base = -1
		}
		err = s.copy(ctx, src.fd, n)
	}
	if err != nil {
		s.Discard()
		return nil, fmt.Errorf("stage copy of file: %w", fileError(err))
	}
	return s, nil
}

// resize makes what is in memory size bytes long. ok is false if that is too much
// for memory.
func (s *staged) resize(size int64) (ok bool) {
	was := int64(len(s.held))
	if size > inlineSize || s.b.held+size-was > heldTotal {
		return false
	}
	s.b.held += size - was
	if size <= was {
		s.held = s.held[:size]
		return true
	}
	s.held = slices.Grow(s.held, int(size-was))[:size]
	clear(s.held[was:])
	return true
}

// spill makes a file of what is in memory.
func (s *staged) spill() error {
	if s.name != "" {
		return nil
	}
	if err := s.create(); err != nil {
		return err
	}
	if err := s.b.disk.write(s.f, s.held, 0); err != nil {
		return fileError(err)
	}
	s.forget()
	return nil
}

// create makes the file. 0666 less the owner's umask, as any program of theirs
// would make it. The directory above is 0700.
func (s *staged) create() error {
	s.b.staged++
	name := fmt.Sprintf("f%d", s.b.staged)
	f, err := s.b.disk.create(s.b.stage, name, 0o666)
	if err != nil {
		return fmt.Errorf("stage file: %w", fileError(err))
	}
	s.name, s.f = name, f
	if s.b.fresh == nil {
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return fmt.Errorf("stage file: %w", fileError(err))
		}
		s.b.fresh = &st
	}
	return nil
}

// forget lets go of what is in memory.
func (s *staged) forget() {
	s.b.held -= int64(len(s.held))
	s.held = nil
}

// copy takes the first n bytes of a file: by sharing them, where the file system
// can, or in the kernel, or else by hand.
func (s *staged) copy(ctx context.Context, src int, n int64) error {
	const chunk = 16 << 20
	var buf []byte
	for off := int64(0); off < n; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		part := min(n-off, chunk)
		k, err := 0, errors.ErrUnsupported
		if buf == nil && part > inlineSize { // for a small file it costs more than it saves
			k, err = copyRange(int(s.f.Fd()), src, off, part)
		}
		if err != nil { // one of many, for file systems that cannot
			if buf == nil {
				buf = make([]byte, min(n-off, 1<<20))
			}
			if k, err = (&lowerFile{fd: src}).readPart(buf[:min(part, int64(len(buf)))], off); err != nil {
				return err
			}
			if _, err := s.f.WriteAt(buf[:k], off); err != nil {
				return err
			}
		}
		if k == 0 { // shorter than it was: the commit will notice
			return s.extend(n)
		}
		off += int64(k)
	}
	return nil
}

// extend makes the file at least size long.
func (s *staged) extend(size int64) error {
	info, err := s.f.Stat()
	if err != nil || info.Size() >= size {
		return err
	}
	return s.f.Truncate(size)
}

// readPart reads what there is of p at off, nothing at the end.
func (f *lowerFile) readPart(p []byte, off int64) (int, error) {
	n, err := f.ReadAt(p, off)
	if err == io.EOF {
		err = nil
	}
	return n, err
}

// whole copies what was left in the base.
func (s *staged) whole() error {
	if s.base < 0 {
		return nil
	}
	if err := s.open(); err != nil {
		return err
	}
	if err := s.copy(s.ctx, s.base, s.kept); err != nil {
		return fmt.Errorf("stage copy of file: %w", fileError(err))
	}
	s.letBase()
	return nil
}

func (s *staged) letBase() {
	if s.base >= 0 {
		unix.Close(s.base)
		s.base, s.kept = -1, 0
		s.b.bases--
	}
}

// grows reports whether the file, of the given size, is was with something after
// it, and may be made so in place: it has no other name, which may be outside, no
// set-uid bit, which would go on to hold for what a guest wrote, and may be
// written.
func (s *staged) grows(dir int, name string, was overlay.Attr, size int64) bool {
	if s.base < 0 || attrOf(s.like).Version.ID != was.Version.ID || s.kept != was.Size || size <= s.kept {
		return false
	}
	fd, err := openat(dir, name, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && attrOf(&st).Same(was) && st.Nlink == 1 && st.Mode&(unix.S_ISUID|unix.S_ISGID|unix.S_ISVTX) == 0
}

// seal gives the file its times and its owner's permissions. It is made durable,
// or else content says that all of it is to be in the journal.
//
// What is in memory becomes a file that takes the place of what was replaced
// before, if there is one to be had.
func (s *staged) seal(step overlay.Step, inline bool) error {
	if s.isInline = inline; inline && s.name == "" {
		s.content = s.held
		if s.reuse() {
			defer s.Idle()
			return s.complete(step)
		}
		if err := s.create(); err != nil {
			return err
		}
		if err := s.b.disk.write(s.f, s.held, 0); err != nil {
			return err
		}
	}
	if err := s.open(); err != nil {
		return err
	}
	defer s.Idle()
	if err := s.extend(step.Size); err != nil {
		return err
	}
	if inline && s.content == nil {
		s.content = make([]byte, step.Size)
		if _, err := io.ReadFull(io.NewSectionReader(s.f, 0, step.Size), s.content); err != nil {
			return err
		}
	}
	if err := s.complete(step); err != nil || inline {
		return err
	}
	return s.b.disk.sync(int(s.f.Fd()))
}

// complete gives an open file the permissions and times that it will have, and
// notes what the file system made of them.
func (s *staged) complete(step overlay.Step) error {
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
	if err := setTimes(s.b.stage, s.name, step.Atime, step.Mtime); err != nil {
		return err
	}
	// What the file system made of the times, not what it was told.
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	s.made = attrOf(&st).Version
	s.mode, s.uid, s.gid = uint32(st.Mode)&0o777, st.Uid, st.Gid
	return nil
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
	if err := s.spill(); err != nil || s.f != nil {
		return err
	}
	fd, err := openat(s.b.stage, s.name, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open staged file: %w", fileError(err))
	}
	s.f = os.NewFile(uintptr(fd), s.name)
	return nil
}

func (s *staged) ReadAt(p []byte, off int64) (int, error) {
	if s.name == "" {
		n := copy(p, s.held[min(off, int64(len(s.held))):])
		if n < len(p) {
			return n, io.EOF
		}
		return n, nil
	}
	if err := s.open(); err != nil {
		return 0, err
	}
	total := 0
	if off < s.kept {
		part := p[:min(int64(len(p)), s.kept-off)]
		n, err := (&lowerFile{fd: s.base}).readPart(part, off)
		if err != nil {
			return n, err
		}
		clear(part[n:]) // shorter than it was: the commit will notice
		total = len(part)
		if p, off = p[total:], off+int64(total); len(p) == 0 {
			return total, nil
		}
	}
	n, err := s.f.ReadAt(p, off)
	if err != io.EOF {
		err = fileError(err)
	}
	return total + n, err
}

func (s *staged) WriteAt(p []byte, off int64) (int, error) {
	if end := off + int64(len(p)); s.name == "" && s.resize(max(end, int64(len(s.held)))) {
		return copy(s.held[off:], p), nil
	}
	if err := s.open(); err != nil {
		return 0, err
	}
	if off < s.kept {
		if err := s.whole(); err != nil {
			return 0, err
		}
	}
	n, err := s.f.WriteAt(p, off)
	return n, fileError(err)
}

func (s *staged) Truncate(size int64) error {
	if s.name == "" && s.resize(size) {
		return nil
	}
	if err := s.open(); err != nil {
		return err
	}
	s.kept = min(s.kept, size)
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
	s.letBase()
	s.forget()
	if s.name == "" {
		return
	}
	_ = s.b.disk.unlink(s.b.stage, s.name) // what remains is swept when the store is opened
}
