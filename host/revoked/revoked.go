// Package revoked keeps which delegations were taken back, where scripts that carry
// them arrive. A List is a directory with a file for each:
//
//	list := revoked.Open("peers/bob/policy/revoked")
//	err := list.Check(verified.Chain()) // nil, or why the script must not run
//	file, err := revoked.Add(dir, id, sealed)
//
// A file is named after the delegation's id, 64 hexadecimal digits and ".revoked".
// One that says nothing more is the word of the directory's owner, and holds for
// whatever delegation of that id. One with a sealed revocation in it, which has
// "-" and some of its own digest in its name, holds if its signer issued the
// delegation or one that it passes on: a stranger's takes nothing back. A file that
// cannot be read as it should is the owner's word too, as a mistake must not let
// anything in; so is nothing but a regular file.
//
// A List looks at its directory when it is asked, which only scripts that carry a
// chain cause, and reads it again if it changed: what was taken back is so for the
// next script. Where it cannot be read, or has more than MaxFiles files, every chain
// is refused.
package revoked

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

// MaxFiles bounds a directory, and so the memory and the time that reading it takes.
const MaxFiles = 10_000

// suffix ends the name of a revocation.
const suffix = ".revoked"

// List is the revocations of one directory. Its methods may be called from any
// goroutine.
type List struct {
	dir string

	mu    sync.Mutex
	read  bool
	at    time.Time // when it was read
	mtime time.Time // of the directory then; zero if there was none
	err   error
	files map[string]file
	by    map[script.Digest][]peer.ID
}

// file is what a file says; it is not read again while it looks the same.
type file struct {
	size  int64
	mtime time.Time
	id    script.Digest
	by    peer.ID // "": the owner of the directory
}

// Open returns the list in dir, which need not be there.
func Open(dir string) *List { return &List{dir: dir} }

// Error is why a script with a chain must not run.
type Error struct {
	Delegation script.Digest // zero if it is not known what was taken back
	By         peer.ID       // who took it back; "" for the owner of the list
	err        error
}

func (e *Error) Error() string {
	switch {
	case e.err != nil:
		return "it cannot be told which delegations were taken back: the owner has to mend that"
	case e.By != "":
		return fmt.Sprintf("delegation %s was taken back by %s", e.Delegation.Short(), e.By.Short())
	}
	return fmt.Sprintf("delegation %s was taken back", e.Delegation.Short())
}

// Unwrap is what is wrong with the list, for its owner; nil if nothing.
func (e *Error) Unwrap() error { return e.err }

// Check reports, with an *Error, whether a delegation of chain was taken back.
func (l *List) Check(chain []envelope.Link) error {
	if len(chain) == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refresh()
	if l.err != nil {
		return &Error{err: l.err}
	}
	for i, link := range chain {
		for _, by := range l.by[link.ID] {
			issued := slices.ContainsFunc(chain[:i+1], func(l envelope.Link) bool { return l.Issuer == by })
			if by == "" || issued {
				return &Error{Delegation: link.ID, By: by}
			}
		}
	}
	return nil
}

// settled is how old a change must be for its time to tell it from a later one: file
// systems round.
const settled = 2 * time.Second

// refresh reads the directory, if that may have changed.
func (l *List) refresh() {
	info, err := os.Stat(l.dir)
	var mtime time.Time
	switch {
	case err == nil:
		mtime = info.ModTime()
	case !errors.Is(err, fs.ErrNotExist):
		l.read, l.err = true, err
		return
	}
	if l.read && l.err == nil && mtime.Equal(l.mtime) && (mtime.IsZero() || l.at.Sub(mtime) > settled) {
		return
	}
	l.at, l.mtime, l.read = time.Now(), mtime, true
	if l.err = nil; mtime.IsZero() {
		l.files, l.by = nil, nil
		return
	}
	l.err = l.load()
}

func (l *List) load() error {
	root, err := os.OpenRoot(l.dir + "/.") // what is no directory fails at once, a pipe too
	if err != nil {
		return err
	}
	defer root.Close()
	dir, err := root.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	entries, err := dir.ReadDir(MaxFiles + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if len(entries) > MaxFiles {
		return fmt.Errorf("%s has more than %d files: remove those of delegations that are over", l.dir, MaxFiles)
	}
	files, by := map[string]file{}, map[script.Digest][]peer.ID{}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok || strings.HasPrefix(name, ".") {
			continue
		}
		digits, _, _ := strings.Cut(name, "-")
		id, err := script.ParseDigest(digits)
		if err != nil {
			return fmt.Errorf("%s: a revocation is named after a delegation: %w", filepath.Join(l.dir, e.Name()), err)
		}
		f := file{id: id}
		if info, err := e.Info(); err == nil {
			f.size, f.mtime = info.Size(), info.ModTime()
		}
		if known, ok := l.files[e.Name()]; ok && known.size == f.size && known.mtime.Equal(f.mtime) && l.at.Sub(f.mtime) > settled {
			f = known
		} else if e.Type().IsRegular() && f.size > 0 && f.size <= maxFile {
			f.by = signerOf(root, e.Name(), id)
		}
		files[e.Name()] = f
		by[id] = append(by[id], f.by)
	}
	l.files, l.by = files, by
	return nil
}

// maxFile is the length of the longest file that says who took something back.
const maxFile = 2 * script.MaxRevocation

// signerOf is who signed the revocation of id in a file; "" if nobody did.
func signerOf(root *os.Root, name string, id script.Digest) peer.ID {
	text, err := root.ReadFile(name)
	if err != nil {
		return ""
	}
	sealed, err := envelope.ParseText(envelope.RevocationText, text)
	if err != nil {
		return ""
	}
	r, err := envelope.OpenRevocation(sealed[0])
	if err != nil || r.Delegation != id {
		return ""
	}
	return r.Issuer
}

// Add takes back the delegation with that id for those whose list is in dir, which
// it makes if need be: as the word of dir's owner or, with sealed, as that of its
// signer. It returns the file's name. What was taken back already is so still.
func Add(dir string, id script.Digest, sealed []byte) (name string, err error) {
	text := []byte("the delegation of this id was taken back here\n")
	name = fmt.Sprintf("%x%s", id[:], suffix)
	if sealed != nil {
		r, err := envelope.OpenRevocation(sealed)
		if err != nil {
			return "", fmt.Errorf("take back delegation %s: %w", id.Short(), err)
		}
		if r.Delegation != id {
			return "", fmt.Errorf("take back delegation %s: the revocation is of %s", id.Short(), r.Delegation.Short())
		}
		text = envelope.Text(envelope.RevocationText, sealed)
		digest := sha256.Sum256(sealed)
		name = fmt.Sprintf("%x-%x%s", id[:], digest[:8], suffix)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("take back delegation %s: %w", id.Short(), err)
	}
	temporary := filepath.Join(dir, ".new-"+rand.Text())
	defer func() { _ = os.Remove(temporary) }()
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		_, err = f.Write(text)
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err == nil {
		err = os.Rename(temporary, filepath.Join(dir, name))
	}
	if err != nil {
		return "", fmt.Errorf("take back delegation %s: %w", id.Short(), err)
	}
	return name, nil
}

// Entry is one revocation of a directory.
type Entry struct {
	File       string
	Delegation script.Digest
	By         peer.ID // "": the owner of the directory
}

// All returns what was taken back in dir, sorted by file.
func All(dir string) ([]Entry, error) {
	l := Open(dir)
	l.refresh()
	if l.err != nil {
		return nil, fmt.Errorf("read revocations: %w", l.err)
	}
	all := make([]Entry, 0, len(l.files))
	for name, f := range l.files {
		all = append(all, Entry{name, f.id, f.by})
	}
	slices.SortFunc(all, func(a, b Entry) int { return strings.Compare(a.File, b.File) })
	return all, nil
}
