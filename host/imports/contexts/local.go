package contexts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"github.com/circles-host/circles/host/records"
	"github.com/circles-host/circles/host/store"
)

// Local returns the context of a peer on this host, over the file system and the
// records of one of its transactions. What the peer's policy allows is decided by
// the guards that they were made with.
//
// report, if not nil, is told each error that the guest learns of only as "the
// host failed", for the host's own log.
func Local(id, name string, files store.FS, of *records.Collections, report func(error)) Context {
	return &local{id: id, name: name, files: files, records: of, report: report}
}

type local struct {
	id, name string
	files    store.FS
	records  *records.Collections
	report   func(error)
}

func (l *local) ID() string   { return l.id }
func (l *local) Name() string { return l.name }

// clean makes a guest's path absolute. It is lexical only as far as the leading
// slash goes: "a/../b" is left to the file system, where a may be a link.
func clean(p string) string {
	if p == "" || p[0] != '/' {
		return "/" + p
	}
	return p
}

func (l *local) Read(ctx context.Context, p string, limit int) ([]byte, error) {
	f, info, err := l.open(p)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info.Size > int64(limit) {
		return nil, &Error{Code: TooLarge, Message: fmt.Sprintf("cannot read %s at once: it has %d bytes, and the limit is %d; read it in parts with read-at", quote(p), info.Size, limit)}
	}
	return l.readAt(ctx, f, p, 0, info.Size)
}

func (l *local) ReadAt(ctx context.Context, p string, offset uint64, length int) ([]byte, error) {
	f, info, err := l.open(p)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if offset >= uint64(info.Size) {
		return nil, nil
	}
	// The file's size bounds what is allocated, not the length that was asked for.
	return l.readAt(ctx, f, p, int64(offset), min(int64(length), info.Size-int64(offset)))
}

// open opens a regular file for reading.
func (l *local) open(p string) (store.File, store.Info, error) {
	f, err := l.files.Open(clean(p), store.FlagRead)
	if err != nil {
		return nil, store.Info{}, l.fail("read", p, err)
	}
	info, err := f.Stat()
	if err == nil && info.Kind == store.KindDir {
		err = store.ErrIsDir
	}
	if err == nil && info.Size < 0 {
		err = fmt.Errorf("file of size %d", info.Size)
	}
	if err != nil {
		f.Close()
		return nil, store.Info{}, l.fail("read", p, err)
	}
	return f, info, nil
}

// readAt reads n bytes in pieces, so that a run that ends does not wait for a
// long read.
func (l *local) readAt(ctx context.Context, f store.File, p string, offset, n int64) ([]byte, error) {
	const piece = 1 << 20
	b := make([]byte, n)
	for done := int64(0); done < n; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		m, err := f.ReadAt(b[done:min(done+piece, n)], offset+done)
		done += int64(m)
		if errors.Is(err, io.EOF) || m == 0 && err == nil {
			return b[:done], nil
		}
		if err != nil {
			return nil, l.fail("read", p, err)
		}
	}
	return b, nil
}

// Write overwrites and then cuts to length. When it fails half-way the file may
// hold part of either; the transaction, not this function, is what makes a
// script's writes all or nothing.
func (l *local) Write(ctx context.Context, p string, data []byte) error {
	f, err := l.files.Open(clean(p), store.FlagWrite|store.FlagCreate|store.FlagTruncate)
	if err != nil {
		return l.fail("write", p, err)
	}
	return l.fill(ctx, f, "write", p, data)
}

func (l *local) Append(ctx context.Context, p string, data []byte) error {
	f, err := l.files.Open(clean(p), store.FlagWrite|store.FlagCreate|store.FlagAppend)
	if err != nil {
		return l.fail("append to", p, err)
	}
	return l.fill(ctx, f, "append to", p, data)
}

// fill writes all of data and closes f.
func (l *local) fill(ctx context.Context, f store.File, verb, p string, data []byte) error {
	const piece = 1 << 20
	for done := 0; done < len(data); {
		if err := ctx.Err(); err != nil {
			f.Close()
			return err
		}
		m, err := f.WriteAt(data[done:min(done+piece, len(data))], int64(done))
		done += m
		if err == nil && m == 0 {
			err = io.ErrShortWrite
		}
		if err != nil {
			f.Close()
			return l.fail(verb, p, err)
		}
	}
	if err := f.Close(); err != nil {
		return l.fail(verb, p, err)
	}
	return nil
}

func (l *local) List(_ context.Context, p string, limit int) ([]Entry, error) {
	f, err := l.files.Open(clean(p), store.FlagRead|store.FlagDirectory)
	if err != nil {
		return nil, l.fail("list", p, err)
	}
	defer f.Close()
	found, err := f.ReadDir(0, limit+1)
	if err != nil {
		return nil, l.fail("list", p, err)
	}
	if len(found) > limit {
		return nil, &Error{Code: TooLarge, Message: fmt.Sprintf("cannot list %s: it has more than %d entries; spread them over directories", quote(p), limit)}
	}
	entries := make([]Entry, len(found))
	for i, e := range found {
		entries[i] = Entry{e.Name, kindOf(e.Kind)}
	}
	return entries, nil
}

func (l *local) Stat(_ context.Context, p string) (Stat, error) {
	info, err := l.files.Stat(clean(p), true)
	if err != nil {
		return Stat{}, l.fail("stat", p, err)
	}
	s := Stat{Kind: kindOf(info.Kind)}
	if info.Kind == store.KindFile && info.Size > 0 {
		s.Size = uint64(info.Size)
	}
	// A time before 1970, which an owner's file may well have, has no place in
	// the WIT type.
	if ms := info.Mtime.UnixMilli(); ms > 0 && !info.Mtime.IsZero() {
		s.Modified = uint64(ms)
	}
	return s, nil
}

func (l *local) MakeDirectory(_ context.Context, p string) error {
	if err := l.files.Mkdir(clean(p)); err != nil {
		return l.fail("make directory", p, err)
	}
	return nil
}

func (l *local) Remove(_ context.Context, p string) error {
	if path.Clean(clean(p)) == "/" {
		return &Error{Code: Invalid, Message: "cannot remove the root of a context; remove what is in it"}
	}
	// By far most of what is removed is a file; only what turns out to be a
	// directory costs a second look.
	err := l.files.Unlink(clean(p))
	if errors.Is(err, store.ErrIsDir) {
		err = l.files.Rmdir(clean(p))
	}
	if err != nil {
		return l.fail("remove", p, err)
	}
	return nil
}

func kindOf(k store.Kind) Kind {
	switch k {
	case store.KindFile:
		return File
	case store.KindDir:
		return Directory
	case store.KindLink:
		return Link
	}
	return Other
}

// fail puts a store's error into words for the script's owner. Only a guard's
// own sentence is passed along; other texts may name the host's paths.
func (l *local) fail(verb, p string, err error) error {
	return l.failed(verb, clean(p), quote(p), err)
}

// failed is fail of what, which quoted shows.
func (l *local) failed(verb, what, quoted string, err error) error {
	code, why := IO, "the host failed; its own log says more"
	switch {
	case errors.Is(err, store.ErrDenied):
		says := guardSays(err)
		if says != "" && strings.Contains(says, what) {
			return &Error{Code: Denied, Message: says, Err: err} // says it all
		}
		code, why = Denied, says
		if says == "" {
			why = "the policy of " + owner(l) + " does not allow it"
			l.tell(verb, quoted, err) // or the host's own user may not open it
		}
	case errors.Is(err, store.ErrNotExist):
		code, why = NotFound, "there is no such file or directory"
	case errors.Is(err, store.ErrExists):
		code, why = Exists, "there is something with that name; remove it first, or choose another"
	case errors.Is(err, store.ErrNotDir):
		code, why = NotDirectory, "it is not a directory, or part of the path is not"
	case errors.Is(err, store.ErrIsDir):
		code, why = IsDirectory, "it is a directory; list it, or name a file in it"
	case errors.Is(err, store.ErrNotEmpty):
		code, why = NotEmpty, "the directory has entries; remove them first"
	case errors.Is(err, store.ErrEscapes):
		code, why = Invalid, "the path leads out of the context; paths start at its root, /"
	case errors.Is(err, store.ErrLoop):
		code, why = Invalid, "there are too many symbolic links on the way"
	case errors.Is(err, store.ErrNameTooLong):
		code, why = Invalid, "the path or a name in it is too long"
	case errors.Is(err, store.ErrSpecial):
		code, why = Invalid, "it is neither a file nor a directory, and scripts may use nothing else"
	case errors.Is(err, store.ErrInvalid):
		code, why = Invalid, "the path is not a valid one"
	case errors.Is(err, store.ErrTooBig):
		code, why = TooLarge, "the file would grow over the limit for one file"
	case errors.Is(err, store.ErrQuota):
		code, why = TooLarge, "the context's quota is used up; remove something, or ask its owner for more"
	case errors.Is(err, store.ErrReadOnly):
		code, why = ReadOnlyContext, "this script may not change the context of "+owner(l)
	case errors.Is(err, store.ErrTooManyOpen):
		code, why = TooLarge, "this script has too many files open; close some"
	default:
		l.tell(verb, quoted, err)
	}
	return &Error{Code: code, Message: "cannot " + verb + " " + quoted + ": " + why, Err: err}
}

// tell reports an error of which the guest does not learn the text.
func (l *local) tell(verb, quoted string, err error) {
	if l.report != nil {
		l.report(fmt.Errorf("%s %s in the context of %s: %w", verb, quoted, owner(l), err))
	}
}

// guardSays returns the sentence of the guard that said no: what the store
// joined to ErrDenied as its cause. Errors that are ErrDenied themselves are not
// a guard's, EACCES among them, and may name the host's paths.
func guardSays(err error) string {
	if !errors.Is(err, store.ErrDenied) {
		return err.Error()
	}
	switch e := err.(type) {
	case interface{ Unwrap() []error }:
		for _, sub := range e.Unwrap() {
			if s := guardSays(sub); s != "" {
				return s
			}
		}
	case interface{ Unwrap() error }:
		if sub := e.Unwrap(); sub != nil && errors.Is(sub, store.ErrDenied) {
			return guardSays(sub)
		}
	}
	return ""
}

// maxShown bounds how much of a guest's path a message repeats.
const maxShown = 200

// quote shows a guest's path in a message, as the guest wrote it unless it
// would not print.
func quote(p string) string { return printed(clean(p)) }

func printed(p string) string {
	if len(p) > maxShown {
		p = p[:maxShown] + "…"
	}
	if q := strconv.Quote(p); len(q) != len(p)+2 {
		return q
	}
	return p
}
