package history

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"

	"github.com/circles-host/circles/host/records"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
)

// Find returns the manifest of a script, or a *NotKeptError. Its digest must be
// compared with the receipt of the script that has its key.
func (h *History) Find(ctx context.Context, tx store.Tx, id script.ID) (*Manifest, error) {
	private := tx.Private()
	names, err := list(private, dir)
	if err != nil && !errors.Is(err, store.ErrNotExist) {
		return nil, fmt.Errorf("look up what is kept of script %s: %w", id.Short(), err)
	}
	for _, n := range slices.Backward(names) {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		b := &bucket{name: n}
		m, err := manifest(ctx, private, b, id)
		if m != nil || err != nil {
			return m, err
		}
	}
	return nil, &NotKeptError{id, "nothing is kept of it: it changed nothing, or it is too long ago, or it was not done here"}
}

// manifest reads the one of a script in a bucket; nil if there is none.
func manifest(ctx context.Context, private store.FS, b *bucket, id script.ID) (*Manifest, error) {
	enc, err := read(ctx, private, b.path(name(id)), maxManifest)
	switch {
	case errors.Is(err, store.ErrNotExist), errors.Is(err, store.ErrNotDir):
		return nil, nil
	case errors.Is(err, store.ErrTooBig), errors.Is(err, store.ErrLoop), errors.Is(err, store.ErrSpecial), errors.Is(err, store.ErrIsDir):
		return nil, &NotKeptError{id, fmt.Sprintf("what was written down about it is no file of the host's: %v", err)}
	case err != nil:
		return nil, fmt.Errorf("look up what is kept of script %s: %w", id.Short(), err)
	}
	m, err := decode(enc, id)
	if err != nil {
		return nil, &NotKeptError{id, fmt.Sprintf("what was written down about it is damaged, or of a newer version: %v", err)}
	}
	m.bucket = b
	return m, nil
}

// Undo puts back what the script changed, in files and in records, which are those
// of tx. If something that it changed is no longer as it left it, the error is a
// *ConflictError and nothing may be committed.
func (m *Manifest) Undo(ctx context.Context, tx store.Tx, of *records.Collections) error {
	if m.Why != "" {
		return &NotKeptError{m.Script, m.Why}
	}
	u := &undoing{
		Manifest: m, ctx: ctx, tx: tx, of: of, files: tx.Files(nil), private: tx.Private(),
		dirs: map[string]bool{"/": true}, conflict: &ConflictError{Script: m.Script, Now: map[string]script.Blob{}},
	}
	for _, step := range []func() error{u.compare, u.verify, u.undoRecords, u.aside, u.clear, u.dirsAndLinks, u.contents} {
		err := step()
		if err == nil && len(u.conflict.Paths) > 0 {
			err = u.conflict
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// undoing is one Undo. Changes of one path are next to each other, a removal
// first; a directory is before what is in it.
type undoing struct {
	*Manifest
	ctx            context.Context
	tx             store.Tx
	of             *records.Collections
	files, private store.FS

	dirs     map[string]bool // whether a directory is there, and not a link to one
	temp     string          // where what moves is meanwhile
	moving   map[string]string
	conflict *ConflictError
}

// compare looks whether everything is as the script left it.
func (u *undoing) compare() error {
	for i, c := range u.changes {
		if u.ctx.Err() != nil {
			return context.Cause(u.ctx)
		}
		last := i == len(u.changes)-1 || u.changes[i+1].Path != c.Path
		if c.Was.Kind == store.KindDir && c.Kind == store.ChangeRemove {
			u.dirs[c.Path] = false
		}
		if !last {
			continue // something else has taken its place, which comes next
		}
		there, err := u.within(c.Path)
		if err != nil {
			return err
		}
		if !there {
			continue // in a directory that the script removed, or that is in conflict
		}
		as, err := u.as(c)
		if err != nil {
			return fmt.Errorf("compare %s with what script %s left: %w", c.Path, u.Script.Short(), err)
		}
		if !as {
			u.conflict.add(c.Path)
		}
	}
	return nil
}

// within checks that the directories above a path are there, and directories, so
// that no link leads from it anywhere else.
func (u *undoing) within(p string) (bool, error) {
	d := path.Dir(p)
	if there, known := u.dirs[d]; known {
		return there, nil
	}
	if there, err := u.within(d); !there || err != nil {
		return false, err
	}
	info, err := u.files.Stat(d, false)
	if err != nil && !errors.Is(err, store.ErrNotExist) && !errors.Is(err, store.ErrNotDir) {
		return false, err
	}
	u.dirs[d] = err == nil && info.Kind == store.KindDir
	if !u.dirs[d] {
		u.conflict.add(d)
	}
	return u.dirs[d], nil
}

// as reports whether a path is as a change left it.
func (u *undoing) as(c change) (bool, error) {
	info, err := u.files.Stat(c.Path, false)
	if errors.Is(err, store.ErrNotExist) || errors.Is(err, store.ErrNotDir) {
		return c.Kind == store.ChangeRemove, nil
	}
	if err != nil {
		return false, err
	}
	switch c.Kind {
	case store.ChangeRemove:
		return false, nil
	case store.ChangeMkdir:
		return info.Kind == store.KindDir, nil
	case store.ChangeSymlink:
		if info.Kind != store.KindLink {
			return false, nil
		}
		target, err := u.files.Readlink(c.Path)
		return target == c.Link, err
	case store.ChangeTimes:
		// A directory's changes with whatever happens in it.
		return info.Kind == c.Was.Kind && (info.Kind == store.KindDir || info.Mtime.Equal(c.Times.Mtime.time())), nil
	}
	if info.Kind != store.KindFile {
		return false, nil
	}
	from, want := int64(0), c.New
	if c.End != nil {
		from, want = c.End.At, &c.End.After
	}
	if info.Size != from+want.Size && (c.End != nil || info.Size > maxCopied) {
		return false, nil // and who knows by whom
	}
	f, err := u.files.Open(c.Path, store.FlagRead|store.FlagNoFollow)
	if err != nil {
		return false, err
	}
	defer f.Close()
	is, err := Digest(u.ctx, io.NewSectionReader(f, from, info.Size-from))
	if err == nil && c.End == nil && is != *want && len(u.conflict.Now) < maxConflicts {
		u.conflict.Now[c.Path] = is
	}
	return is == *want, err
}

// keptAs is where what a change kept is, and what it must be.
func (u *undoing) keptAs(c change) (at string, want script.Blob) {
	want = script.Blob{}
	if c.How == howEnd {
		want = c.End.Before
	} else if c.Old != nil {
		want = *c.Old
	}
	return u.bucket.path(fmt.Sprintf("%s.%d", name(u.Script), c.N)), want
}

// verify checks what is kept before it is used.
func (u *undoing) verify() error {
	for _, c := range u.changes {
		if c.N == 0 {
			continue
		}
		at, want := u.keptAs(c)
		is, err := u.blob(at)
		switch {
		case errors.Is(err, store.ErrNotExist), errors.Is(err, store.ErrSpecial), errors.Is(err, store.ErrLoop), errors.Is(err, store.ErrIsDir):
			return &NotKeptError{u.Script, fmt.Sprintf("what was at %s before it is no longer kept; if it was undone, and that undone again, then undo the latter", c.Path)}
		case err != nil:
			return fmt.Errorf("read what was at %s before: %w", c.Path, err)
		case is != want:
			return &NotKeptError{u.Script, fmt.Sprintf("what is kept of %s is not what was there before it: it is damaged", c.Path)}
		}
	}
	return nil
}

func (u *undoing) blob(at string) (script.Blob, error) {
	f, err := u.private.Open(at, store.FlagRead|store.FlagNoFollow)
	if err != nil {
		return script.Blob{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return script.Blob{}, err
	}
	return Digest(u.ctx, io.NewSectionReader(f, 0, info.Size))
}

// aside moves what the script had moved to a directory that is gone again in the
// end: two files that changed places could not be moved back one after the other.
func (u *undoing) aside() error {
	for _, c := range u.changes {
		if c.From == "" {
			continue
		}
		if u.temp == "" {
			u.temp = "/undo-" + rand.Text()
			u.moving = map[string]string{}
			if err := u.files.Mkdir(u.temp); err != nil {
				return u.failed("make a directory for what moves back", "", err)
			}
		}
		to := fmt.Sprintf("%s/%d", u.temp, len(u.moving))
		if err := u.files.Rename(c.Path, to); err != nil {
			return u.failed("move back", c.Path, err)
		}
		u.moving[c.From] = to
	}
	return nil
}

// clear removes what the script made, from the deepest on.
func (u *undoing) clear() error {
	for _, c := range slices.Backward(u.changes) {
		var err error
		switch {
		case c.Kind == store.ChangeCreate && c.From == "", c.Kind == store.ChangeSymlink:
			err = u.files.Unlink(c.Path)
		case c.Kind == store.ChangeMkdir:
			if err = u.files.Rmdir(c.Path); errors.Is(err, store.ErrNotEmpty) {
				err = u.others(c.Path)
			}
		}
		if err != nil {
			return u.failed("remove", c.Path, err)
		}
	}
	return nil
}

// others reports what is in a directory that the script made, and was not put
// there by it.
func (u *undoing) others(dir string) error {
	d, err := u.files.Open(dir, store.FlagRead|store.FlagDirectory|store.FlagNoFollow)
	if err != nil {
		return err
	}
	defer d.Close()
	entries, err := d.ReadDir(0, maxConflicts+1)
	for _, e := range entries {
		u.conflict.add(path.Join(dir, e.Name))
	}
	if err == nil && len(entries) == 0 { // of a name that is no text
		u.conflict.add(dir)
	}
	return err
}

// dirsAndLinks makes again the directories and links that the script removed.
func (u *undoing) dirsAndLinks() error {
	for _, c := range u.changes {
		var err error
		gone := c.Kind == store.ChangeRemove
		switch {
		case gone && c.Was.Kind == store.KindDir:
			err = u.files.Mkdir(c.Path)
		case c.Was.Kind == store.KindLink && (gone || c.Kind == store.ChangeSymlink):
			if err = u.files.Symlink(c.Was.Link, c.Path); err == nil {
				err = u.files.SetTimes(c.Path, false, c.Was.Atime.time(), c.Was.Mtime.time())
			}
		}
		if err != nil {
			return u.failed("make again", c.Path, err)
		}
	}
	return nil
}

// contents brings back what was in files, and their times.
func (u *undoing) contents() error {
	for _, c := range u.changes {
		var err error
		at, _ := u.keptAs(c)
		switch c.How {
		case howMoved:
			err = u.files.Rename(u.moving[c.Path], c.Path)
			delete(u.moving, c.Path)
		case howWhole:
			err = u.tx.Restore(at, c.Path)
		case howCut, howEnd:
			err = u.cut(c, at)
		}
		if err == nil && (c.Kind == store.ChangeTimes || c.How != howNot) {
			err = u.files.SetTimes(c.Path, false, c.Was.Atime.time(), c.Was.Mtime.time())
		}
		if err != nil {
			return u.failed("bring back", c.Path, err)
		}
	}
	for _, at := range u.moving { // its like had come to where it was
		if err := u.files.Unlink(at); err != nil {
			return u.failed("remove", "", err)
		}
	}
	if u.temp != "" {
		if err := u.files.Rmdir(u.temp); err != nil {
			return u.failed("remove the directory of what moved back", "", err)
		}
	}
	return nil
}

// cut shortens a file to what the script left alone of it, and puts back what
// came after that.
func (u *undoing) cut(c change, at string) error {
	f, err := u.files.Open(c.Path, store.FlagWrite|store.FlagNoFollow)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(c.Cut); err != nil || c.How == howCut {
		return err
	}
	kept, err := u.private.Open(at, store.FlagRead|store.FlagNoFollow)
	if err != nil {
		return err
	}
	defer kept.Close()
	to := onlyWriter{io.NewOffsetWriter(f, c.Cut)}
	if _, err := io.CopyBuffer(to, ending{io.NewSectionReader(kept, 0, c.End.Before.Size), u.ctx}, make([]byte, 64<<10)); err != nil {
		return err
	}
	return u.private.Unlink(at)
}

// failed says what did not work. A manifest that speaks of what cannot be was not
// made by us, or a file has changed while we look.
func (u *undoing) failed(what, path string, err error) error {
	switch {
	case u.ctx.Err() != nil:
		return context.Cause(u.ctx)
	case errors.Is(err, store.ErrEscapes):
		return &NotKeptError{u.Script, fmt.Sprintf("it removed the link %s, which led out of the context, and no such link is made", path)}
	case errors.Is(err, store.ErrNotExist), errors.Is(err, store.ErrExists), errors.Is(err, store.ErrNotDir), errors.Is(err, store.ErrIsDir),
		errors.Is(err, store.ErrInvalid):
		if path != "" {
			u.conflict.add(path)
			return u.conflict
		}
	}
	return fmt.Errorf("%s %s: %w", what, path, err)
}
