package module

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/circles-host/circles/host/script"
)

// What was in force is kept in the layer's directory, to go back to and to pin:
//
//	modules/guestbook.wasm                      what is saved
//	modules/.versions/guestbook/<digest>.wasm   what was in force, and is
//
// A version is kept when it comes into force, as a copy: a file that is written in
// place would take what shares its bytes along. When it last came into force is the
// time of modification of what is kept. What has not the digest that it is named by
// is no version, and never run. The folder is safe to delete.
const versionsDir = ".versions"

// Keep says how much of the past of its modules a layer keeps. What is in force or
// pinned is kept always.
type Keep struct {
	Versions int   // of each module; 0 means 5
	Bytes    int64 // of all of them; 0 means 256 MiB
}

// Defaults of Keep.
const (
	DefaultVersions     = 5
	DefaultVersionBytes = 256 << 20
)

// maxKept bounds the files that are kept in a layer, and are looked at when one is
// added: names come and go.
const maxKept = 4 * MaxModules

func (k Keep) withDefaults() Keep {
	if k.Versions <= 0 {
		k.Versions = DefaultVersions
	}
	if k.Bytes <= 0 {
		k.Bytes = DefaultVersionBytes
	}
	return k
}

// Version is one that is kept of a module.
type Version struct {
	Name   string
	Digest script.Digest
	Suffix string // of its file: Suffix, or that of a text's language
	Size   int64
	Since  time.Time // when it last came into force
}

// Path is where it is kept in a layer's directory.
func (v Version) Path(dir string) string {
	return filepath.Join(dir, versionsDir, v.Name, hex.EncodeToString(v.Digest[:])+v.Suffix)
}

// kept is what is kept of v, or would be.
func (v *version) kept() Version {
	return Version{Name: v.name, Digest: v.info.Digest, Suffix: filepath.Ext(v.path)}
}

// Versions are those that are kept of a module in a layer's directory, the one that
// came into force last first.
func Versions(dir, name string) ([]Version, error) {
	if !ValidName(name) {
		return nil, fmt.Errorf("module name %q: want 1 to 63 of a-z, 0-9 and \"-\"", name)
	}
	entries, err := os.ReadDir(filepath.Join(dir, versionsDir, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list versions of %s: %w", name, err)
	}
	var list []Version
	for _, e := range entries {
		v := Version{Name: name, Suffix: filepath.Ext(e.Name())}
		v.Digest, err = script.ParseDigest(strings.TrimSuffix(e.Name(), v.Suffix))
		if err != nil || v.Suffix == "" || filepath.Base(v.Path("")) != e.Name() {
			continue // being written, or somebody else's
		}
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		v.Size, v.Since = info.Size(), info.ModTime()
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b Version) int {
		return cmp.Or(b.Since.Compare(a.Since), slices.Compare(a.Digest[:], b.Digest[:]))
	})
	return list, nil
}

// Read returns the bytes of a version that is kept in dir. Errors wrap ErrNotFound
// if they are not what they were.
func (v Version) Read(dir string) ([]byte, error) {
	wasm, err := readKept(v.Path(dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read version of %s: %w", v.Name, err)
	}
	if err != nil || sha256.Sum256(wasm) != v.Digest {
		return nil, fmt.Errorf("%w: %s of module %s is not kept any more, or is damaged", ErrNotFound, v.Digest, v.Name)
	}
	return wasm, nil
}

// readKept reads a module's file, if it is one.
func readKept(path string) ([]byte, error) {
	f, info, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info.Size() > MaxBytes {
		return nil, fmt.Errorf("%s is not a file of at most %d bytes", path, MaxBytes)
	}
	return io.ReadAll(io.LimitReader(f, MaxBytes))
}

// keep writes down that v, which is b, comes into force.
func keep(dir string, v Version, b []byte) error {
	path := v.Path(dir)
	if isKept(dir, v, len(b)) {
		return touch(dir, v)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("keep version: %w", err)
	}
	// It is not waited for until it is durable: a power cut in the seconds after costs a
	// version that nothing runs, and what is torn has another digest.
	if err := writeWhole(filepath.Dir(path), filepath.Base(path), b, 0o600, false); err != nil {
		return fmt.Errorf("keep version: %w", err)
	}
	return touch(dir, v)
}

// touch makes v the version that came into force last, unless it is that.
func touch(dir string, v Version) error {
	all, err := Versions(dir, v.Name)
	if err != nil || len(all) > 0 && all[0].same(v) && (len(all) == 1 || all[0].Since.After(all[1].Since)) {
		return err
	}
	now := time.Now()
	if len(all) > 0 && !now.After(all[0].Since) { // a clock that was put back, or is coarse
		now = all[0].Since.Add(time.Millisecond)
	}
	if err := os.Chtimes(v.Path(dir), now, now); err != nil {
		return fmt.Errorf("keep version: %w", err)
	}
	return nil
}

// same reports whether two versions of one name are one: a text in one language is
// not what the same text is in another.
func (v Version) same(as Version) bool { return v.Digest == as.Digest && v.Suffix == as.Suffix }

// isKept reports whether a version of some size is kept, without a look inside.
func isKept(dir string, v Version, size int) bool {
	info, err := os.Lstat(v.Path(dir))
	return err == nil && info.Mode().IsRegular() && info.Size() == int64(size)
}

// writeWhole writes a file, whole or not at all; durable, so that this holds after a
// power cut too.
func writeWhole(dir, name string, b []byte, mode fs.FileMode, durable bool) error {
	f, err := os.CreateTemp(dir, ".adding-*") // the dot hides it from a Layer
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if durable {
		err = errors.Join(err, f.Sync())
	}
	if err = errors.Join(err, f.Chmod(mode), f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// forget removes what is more than k, of a layer's directory. What inForce says is
// kept.
func forget(dir string, k Keep, inForce func(Version) bool) error {
	k = k.withDefaults()
	names, err := os.ReadDir(filepath.Join(dir, versionsDir))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("forget versions: %w", err)
	}
	var spare []Version // which may go, and
	var size int64      // how much all take
	var count int
	var errs []error
	remove := func(v Version) {
		errs = append(errs, os.Remove(v.Path(dir)))
		_ = os.Remove(filepath.Join(dir, versionsDir, v.Name)) // if it was the last
	}
	for _, e := range names {
		all, err := Versions(dir, e.Name())
		if err != nil {
			continue // not a name
		}
		of := 0
		for _, v := range all {
			held := inForce(v)
			if of++; of > k.Versions && !held {
				remove(v)
				continue
			}
			size, count = size+v.Size, count+1
			if !held {
				spare = append(spare, v)
			}
		}
	}
	slices.SortFunc(spare, func(a, b Version) int { return a.Since.Compare(b.Since) })
	for _, v := range spare {
		if size <= k.Bytes && count <= maxKept {
			break
		}
		remove(v)
		size, count = size-v.Size, count-1
	}
	return errors.Join(errs...)
}

// keepVersion keeps what has come into force; b is nil if it was not read. It runs
// with l.loading held.
func (l *Layer) keepVersion(v *version, b []byte) error {
	kept := v.kept()
	if b == nil {
		if isKept(l.dir, kept, v.info.Size) {
			return nil
		}
		var err error
		if b, err = v.read(); err != nil {
			return err
		}
	}
	l.keptMore = true
	return keep(l.dir, kept, b)
}

// forgetVersions removes what is more than the layer keeps, if that may have become
// more.
func (l *Layer) forgetVersions() error {
	if !l.keptMore {
		return nil
	}
	l.keptMore = false
	current, pins := *l.current.Load(), l.pins.Load()
	return forget(l.dir, l.keeps, func(kept Version) bool {
		if v := current[kept.Name]; v != nil && v.kept().same(kept) {
			return true
		}
		return pins != nil && pins.Pin[kept.Name] == kept.Digest
	})
}

// ErrNoVersion is wrapped by the error about a version that cannot be gone back to.
var ErrNoVersion = errors.New("no such version")

// Rollback puts a version that is kept of a module back into its file, where a
// layer that is open takes it over, whole or not at all: to, or, if that is zero,
// the one that was in force before. It returns what was in the file, a zero Version
// if there was none, and what is now. The former is kept, so that going back can be
// undone by going back. Errors wrap ErrNoVersion if there is no such version, or if
// the name is pinned: then the file is not what runs. Modules are the files with one of
// the suffixes; none means Suffix.
func Rollback(dir, name string, to script.Digest, suffixes ...string) (from, now Version, err error) {
	pins, err := ReadPins(dir)
	if err != nil {
		return from, now, err
	}
	if pins != nil && !pins.Pin[name].IsZero() {
		return from, now, fmt.Errorf("%w: module %s is pinned to %s; pin it to the other one, or take the pin away first", ErrNoVersion, name, pins.Pin[name])
	}
	all, err := Versions(dir, name)
	if err != nil {
		return from, now, err
	}
	from, err = saved(dir, name, suffixes)
	if err != nil {
		return from, now, err
	}
	i := slices.IndexFunc(all, func(v Version) bool {
		if to.IsZero() {
			return !v.same(from)
		}
		return v.Digest == to
	})
	if i < 0 {
		what := "no version before this one is kept"
		if !to.IsZero() {
			what = to.String() + " is not kept"
		}
		return from, now, fmt.Errorf("%w: of module %s %s; there are %s", ErrNoVersion, name, what, digests(all))
	}
	now = all[i]
	b, err := now.Read(dir)
	if err != nil {
		return from, now, err
	}
	if now.same(from) {
		return from, now, nil
	}
	if err := writeWhole(dir, name+now.Suffix, b, 0o644, true); err != nil {
		return from, now, fmt.Errorf("go back: %w", err)
	}
	if from.Suffix != "" && from.Suffix != now.Suffix { // else there would be two of one name
		if err := os.Remove(filepath.Join(dir, name+from.Suffix)); err != nil {
			return from, now, fmt.Errorf("go back: %w", err)
		}
	}
	return from, now, touch(dir, now)
}

// KeepSaved keeps what is in the file of a name, if there is one, so that what is put
// in its place can be taken back although no worker has run what was there.
// Modules are the files with one of the suffixes; none means Suffix.
func KeepSaved(dir, name string, suffixes ...string) error {
	_, err := saved(dir, name, suffixes)
	return err
}

// saved is what is in the file of a name, which is kept, if it is not yet; zero if
// there is no file.
func saved(dir, name string, suffixes []string) (found Version, err error) {
	if len(suffixes) == 0 {
		suffixes = []string{Suffix}
	}
	for _, suffix := range suffixes {
		b, err := readKept(filepath.Join(dir, name+suffix))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return found, fmt.Errorf("keep what is saved: %w", err)
		}
		if found.Suffix != "" {
			return found, fmt.Errorf("keep what is saved: both %[1]s%[2]s and %[1]s%[3]s are in %[4]s; remove one", name, found.Suffix, suffix, dir)
		}
		found = Version{Name: name, Digest: sha256.Sum256(b), Suffix: suffix, Size: int64(len(b))}
		if !isKept(dir, found, len(b)) {
			if err := keep(dir, found, b); err != nil {
				return found, err
			}
		}
	}
	return found, nil
}

func digests(all []Version) string {
	if len(all) == 0 {
		return "none"
	}
	var list []string
	for _, v := range all {
		list = append(list, v.Digest.String())
	}
	return strings.Join(list, ", ")
}
