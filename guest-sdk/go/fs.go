package circles

import (
	"errors"
	"io"
	"io/fs"
	"strings"
)

// FS shows the context as an fs.FS, to be given to code that reads one:
// fs.WalkDir, template.ParseFS, a handler that is tested with an fstest.MapFS. It
// implements fs.ReadFileFS, fs.ReadDirFS and fs.StatFS. Files are read in parts,
// as their Read is called, and are io.Seekers and io.ReaderAts.
func (c *Context) FS() fs.FS { return contextFS{c} }

type contextFS struct{ context *Context }

var (
	_ fs.ReadFileFS = contextFS{}
	_ fs.ReadDirFS  = contextFS{}
	_ fs.StatFS     = contextFS{}
	_ io.ReadSeeker = (*file)(nil)
	_ io.ReaderAt   = (*file)(nil)
)

// pathError is what package io/fs wants: a *fs.PathError, with the name as it was
// given. The *Error is still found in it by errors.As.
func pathError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

func (f contextFS) Open(name string) (fs.File, error) {
	info, err := f.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return &dir{fs: f, name: name, info: info}, nil
	}
	return &file{context: f.context, name: name, info: info}, nil
}

func (f contextFS) ReadFile(name string) ([]byte, error) {
	if !fs.ValidPath(name) {
		return nil, pathError("read", name, fs.ErrInvalid)
	}
	b, err := f.context.ReadFile(name)
	return b, pathError("read", name, cause(err))
}

func (f contextFS) ReadDir(name string) ([]fs.DirEntry, error) {
	if !fs.ValidPath(name) {
		return nil, pathError("readdir", name, fs.ErrInvalid)
	}
	list, err := f.context.ReadDir(name)
	return list, pathError("readdir", name, cause(err))
}

func (f contextFS) Stat(name string) (fs.FileInfo, error) {
	if !fs.ValidPath(name) {
		return nil, pathError("stat", name, fs.ErrInvalid)
	}
	info, err := f.context.Stat(name)
	return info, pathError("stat", name, cause(err))
}

// cause drops what a *fs.PathError around the error says itself.
func cause(err error) error {
	if e, ok := err.(*Error); ok {
		return &Error{Code: e.Code, Message: e.Message}
	}
	return err
}

// file is an open file: a name and a position. Reading goes back to the host each
// time, in parts of at most maxPart.
type file struct {
	context *Context
	name    string
	info    fs.FileInfo
	offset  int64
	closed  bool
}

// maxPart bounds what one Read makes the host allocate in the guest.
const maxPart = 1 << 20

func (f *file) Stat() (fs.FileInfo, error) {
	if f.closed {
		return nil, pathError("stat", f.name, fs.ErrClosed)
	}
	return f.info, nil
}

func (f *file) Read(p []byte) (int, error) {
	n, err := f.part(p, f.offset)
	f.offset += int64(n)
	return n, err
}

func (f *file) ReadAt(p []byte, offset int64) (int, error) {
	for n := 0; ; {
		k, err := f.part(p[n:], offset+int64(n))
		if n += k; n == len(p) || err != nil {
			return n, err
		}
	}
}

// part reads at least one byte, unless p is empty or the file ends.
func (f *file) part(p []byte, offset int64) (int, error) {
	switch {
	case f.closed:
		return 0, pathError("read", f.name, fs.ErrClosed)
	case offset < 0:
		return 0, pathError("read", f.name, fs.ErrInvalid)
	case len(p) == 0:
		return 0, nil
	}
	b, err := f.context.ReadAt(f.name, uint64(offset), uint32(min(len(p), maxPart)))
	if err != nil {
		return 0, pathError("read", f.name, cause(err))
	}
	if len(b) == 0 {
		return 0, io.EOF
	}
	return copy(p, b), nil
}

func (f *file) Seek(offset int64, whence int) (int64, error) {
	switch {
	case f.closed:
		return 0, pathError("seek", f.name, fs.ErrClosed)
	case whence == io.SeekStart:
	case whence == io.SeekCurrent:
		offset += f.offset
	case whence == io.SeekEnd:
		offset += f.info.Size()
	default:
		return 0, pathError("seek", f.name, errors.New("invalid whence"))
	}
	if offset < 0 {
		return 0, pathError("seek", f.name, fs.ErrInvalid)
	}
	f.offset = offset
	return offset, nil
}

func (f *file) Close() error {
	if f.closed {
		return pathError("close", f.name, fs.ErrClosed)
	}
	f.closed = true
	return nil
}

// dir is an open directory, listed when first read.
type dir struct {
	fs     contextFS
	name   string
	info   fs.FileInfo
	list   []fs.DirEntry
	listed bool
	closed bool
}

func (d *dir) Stat() (fs.FileInfo, error) {
	if d.closed {
		return nil, pathError("stat", d.name, fs.ErrClosed)
	}
	return d.info, nil
}

func (d *dir) Read([]byte) (int, error) {
	return 0, pathError("read", d.name, &Error{Code: IsDirectory})
}

func (d *dir) ReadDir(n int) ([]fs.DirEntry, error) {
	if d.closed {
		return nil, pathError("readdir", d.name, fs.ErrClosed)
	}
	if !d.listed {
		list, err := d.fs.ReadDir(d.name)
		if err != nil {
			return nil, err
		}
		d.list, d.listed = list, true
	}
	if n <= 0 {
		n = len(d.list)
	} else if len(d.list) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.list))
	list := d.list[:n:n]
	d.list = d.list[n:]
	return list, nil
}

func (d *dir) Close() error {
	if d.closed {
		return pathError("close", d.name, fs.ErrClosed)
	}
	d.closed = true
	return nil
}

// base is the last element of a path, "." for the root.
func base(path string) string {
	path = strings.Trim(path, "/")
	if path == "" {
		return "."
	}
	return path[strings.LastIndexByte(path, '/')+1:]
}
