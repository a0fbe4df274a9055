package wasi

import (
	"errors"
	"io"

	"github.com/tetratelabs/wazero/experimental/sys"
	wsys "github.com/tetratelabs/wazero/sys"

	"github.com/circles-host/circles/host/store"
)

// file is an open file or directory. It keeps what the store does not: the
// offset, and whether writes append.
type file struct {
	sys.UnimplementedFile // Readdir and Seek: fdReaddir and fdSeek do without
	fs                    *FS
	file                  store.File // nil in a root that has not been listed
	name                  string
	offset                int64
	charge                int // against the limit on handles
	dir, root             bool
	read, write, append   bool
	closed                bool
}

// check is the first step of each method.
func (h *file) check() error {
	if h.closed {
		return store.ErrClosed
	}
	return h.fs.ctx.Err()
}

// contents checks that a file is one, and open for what is wanted of it.
func (h *file) contents(allowed bool) error {
	if err := h.check(); err != nil {
		return err
	}
	if h.dir {
		return store.ErrIsDir
	}
	if !allowed {
		return store.ErrBadFile
	}
	return nil
}

// entries returns the directory for reading. The root is only now opened, so
// that a guard may refuse its list without refusing what is below.
func (h *file) entries() (store.File, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	if !h.dir {
		return nil, store.ErrBadFile
	}
	if h.file == nil {
		opened, err := h.fs.store.Open(h.name, store.FlagRead|store.FlagDirectory)
		if err != nil {
			return nil, err
		}
		h.file = opened
	}
	return h.file, nil
}

// Dev implements sys.File.
func (h *file) Dev() (uint64, sys.Errno) { return device, 0 }

// Ino implements sys.File.
func (h *file) Ino() (wsys.Inode, sys.Errno) {
	s, e := h.Stat()
	return s.Ino, e
}

// IsDir implements sys.File.
func (h *file) IsDir() (bool, sys.Errno) { return h.dir, 0 }

// IsAppend implements sys.File.
func (h *file) IsAppend() bool { return h.append }

// SetAppend implements sys.File.
func (h *file) SetAppend(on bool) sys.Errno {
	if err := h.check(); err != nil {
		return h.fs.refuse(err)
	}
	h.append = on
	return 0
}

// IsNonblock implements sys.PollableFile. A file never blocks, whatever a
// guest asks for.
func (h *file) IsNonblock() bool { return false }

// SetNonblock implements sys.PollableFile.
func (h *file) SetNonblock(bool) sys.Errno {
	if h.dir {
		return h.fs.refuse(store.ErrIsDir)
	}
	return h.fs.refuse(h.check())
}

// Poll implements sys.PollableFile.
func (h *file) Poll(sys.Pflag, int32) (bool, sys.Errno) { return true, 0 }

// Stat implements sys.File.
func (h *file) Stat() (wsys.Stat_t, sys.Errno) {
	if h.fs.probing {
		h.fs.probed = h
		return wsys.Stat_t{}, 0
	}
	info, err := h.info()
	if err != nil {
		return wsys.Stat_t{}, h.fs.refuse(err)
	}
	return stat(info), 0
}

func (h *file) info() (store.Info, error) {
	if err := h.check(); err != nil {
		return store.Info{}, err
	}
	if h.root {
		return h.fs.store.Stat(h.name, true)
	}
	return h.file.Stat()
}

// Read implements sys.File.
func (h *file) Read(b []byte) (int, sys.Errno) {
	n, e := h.Pread(b, h.offset)
	h.offset += int64(n)
	return n, e
}

// Pread implements sys.File.
func (h *file) Pread(b []byte, offset int64) (int, sys.Errno) {
	if err := h.contents(h.read); err != nil {
		return 0, h.fs.refuse(err)
	}
	if offset < 0 {
		return 0, h.fs.refuse(store.ErrInvalid)
	}
	n, err := h.file.ReadAt(b, offset)
	if err == io.EOF {
		err = nil
	}
	return n, h.fs.refuse(err)
}

// Write implements sys.File.
func (h *file) Write(b []byte) (int, sys.Errno) {
	offset := h.offset
	if h.append && !h.dir {
		info, err := h.info()
		if err != nil {
			return 0, h.fs.refuse(err)
		}
		offset = info.Size
	}
	n, e := h.Pwrite(b, offset)
	if n > 0 {
		h.offset = offset + int64(n)
	}
	return n, e
}

// Pwrite implements sys.File. It writes at offset also when the file appends,
// as POSIX has it and Linux does not.
func (h *file) Pwrite(b []byte, offset int64) (int, sys.Errno) {
	if err := h.contents(h.write); err != nil {
		return 0, h.fs.refuse(err)
	}
	if offset < 0 {
		return 0, h.fs.refuse(store.ErrInvalid)
	}
	if len(b) == 0 {
		return 0, 0
	}
	n, err := h.file.WriteAt(b, offset)
	return n, h.fs.refuse(err)
}

// seek moves the offset, for fd_seek and fd_tell.
func (h *file) seek(offset int64, whence uint32) (int64, error) {
	if err := h.contents(true); err != nil {
		return 0, err
	}
	var base int64
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		base = h.offset
	case io.SeekEnd:
		info, err := h.info()
		if err != nil {
			return 0, err
		}
		base = info.Size
	default:
		return 0, store.ErrInvalid
	}
	// The base is not negative, so a sum that overflows comes out negative.
	if base+offset < 0 {
		return 0, store.ErrInvalid
	}
	h.offset = base + offset
	return h.offset, nil
}

// Truncate implements sys.File.
func (h *file) Truncate(size int64) sys.Errno {
	if err := h.contents(h.write); err != nil {
		if errors.Is(err, store.ErrBadFile) {
			err = store.ErrInvalid // ftruncate(2) on a descriptor not open for writing
		}
		return h.fs.refuse(err)
	}
	if size < 0 {
		return h.fs.refuse(store.ErrInvalid)
	}
	return h.fs.refuse(h.file.Truncate(size))
}

// Utimens implements sys.File.
func (h *file) Utimens(atim, mtim int64) sys.Errno {
	if err := h.check(); err != nil {
		return h.fs.refuse(err)
	}
	if h.root {
		return h.fs.refuse(h.fs.store.SetTimes(h.name, true, moment(atim), moment(mtim)))
	}
	return h.fs.refuse(h.file.SetTimes(moment(atim), moment(mtim)))
}

// Close implements sys.File. It always succeeds: wazero keeps the descriptor
// of a file that does not close, and a guest that has given one up must get
// its place back. A failure to close is the storage's, and ends in FS.Err.
func (h *file) Close() sys.Errno {
	if h.closed {
		return 0
	}
	h.closed = true
	h.fs.open -= h.charge
	if h.file != nil {
		if err := h.file.Close(); err != nil && h.fs.failure == nil {
			h.fs.failure = err
		}
		h.file = nil
	}
	return 0
}

// link is a name whose times are to be set, without following it.
type link struct {
	sys.UnimplementedFile
	fs     *FS
	name   string
	follow bool
}

// Utimens implements sys.File.
func (l *link) Utimens(atim, mtim int64) sys.Errno {
	return l.fs.refuse(l.fs.store.SetTimes(l.name, l.follow, moment(atim), moment(mtim)))
}
