package archive

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

// Source is a context that is exported. Dir, Peer and Name must be given. The
// caller holds the lock of its store until Write returns.
type Source struct {
	Dir string // of the context: with peer.toml, data/ and so on
	// Kept is where peer.toml, data/ and log/ are, if not in Dir: those of a context
	// that is stored in another way, written as a directory. What Dir has under these
	// names is then not looked at.
	Kept    string
	Peer    peer.ID
	Name    peer.Name
	WithKey bool      // the private key too: whoever has the archive then is the peer
	Time    time.Time // that the manifest bears; zero means now
	Limits  Limits
	// Warn is told what of data/ is left out, and why. nil drops it.
	Warn func(path, why string)
}

// Write writes a context to w, signed with key. It reads all files twice: for
// the manifest, which comes first, and for their contents; one that has changed
// in between is an error. After an error what was written to w is of no use.
//
// The same context at the same time makes the same bytes.
func Write(ctx context.Context, w io.Writer, s Source, key *peer.Key) (*Manifest, error) {
	s.Limits = s.Limits.withDefaults()
	if s.Time.IsZero() {
		s.Time = time.Now()
	}
	m, err := s.write(ctx, w, key)
	if err != nil {
		return nil, fmt.Errorf("export %s: %w", s.Name, err)
	}
	return m, nil
}

func (s Source) write(ctx context.Context, w io.Writer, key *peer.Key) (*Manifest, error) {
	x := &scan{source: s, ctx: ctx, roots: map[string]*os.Root{}}
	defer x.close()
	if err := x.all(); err != nil {
		return nil, err
	}
	m := &Manifest{Version: version, Peer: s.Peer, Name: s.Name, Time: s.Time.UTC().Truncate(time.Second), Members: x.members}
	text, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	if len(text) > maxManifest {
		return nil, fmt.Errorf("its list of files is %d bytes long, at most %d are written", len(text), maxManifest)
	}
	// What we could not read back would be found out when it is needed.
	if _, err := parseManifest(text, s.Limits); err != nil {
		return nil, err
	}
	signature := sign(text, key)
	for _, f := range []struct {
		name string
		text []byte
	}{{manifestName, text}, {signatureName, signature}} {
		h, err := head(f.name, len(f.text))
		if err != nil {
			return nil, err
		}
		for _, b := range [][]byte{h, f.text, padding(int64(len(f.text)))} {
			if _, err := w.Write(b); err != nil {
				return nil, err
			}
		}
	}
	for _, member := range m.Members {
		h, err := member.header()
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(h); err != nil {
			return nil, err
		}
		if member.Kind != File {
			continue
		}
		f, err := x.open(member.Path)
		if err != nil {
			return nil, err
		}
		digest, n, err := copyTo(ctx, w, f, member.Size)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", member.Path, err)
		}
		if n != member.Size || digest != member.Digest {
			return nil, fmt.Errorf("%s was changed while it was exported: export it again", member.Path)
		}
		if _, err := w.Write(padding(n)); err != nil {
			return nil, err
		}
	}
	_, err = w.Write(zeros[:])
	return m, err
}

// scan finds the members of a context.
type scan struct {
	source  Source
	ctx     context.Context
	roots   map[string]*os.Root // of each part, so that nothing leads from one to another
	members []Member
	bytes   int64
}

func (x *scan) close() {
	for _, r := range x.roots {
		r.Close()
	}
}

func (x *scan) all() error {
	top, err := os.OpenRoot(x.source.Dir)
	if err != nil {
		return err
	}
	x.roots[""] = top
	there, err := fs.ReadDir(top.FS(), ".")
	if err != nil {
		return err
	}
	if x.source.Kept != "" {
		if x.roots[identityFile], err = os.OpenRoot(x.source.Kept); err != nil {
			return err
		}
		there = slices.DeleteFunc(there, func(e fs.DirEntry) bool { return slices.Contains(kept, e.Name()) })
		for _, name := range kept {
			info, err := x.roots[identityFile].Lstat(name)
			if err != nil {
				return err
			}
			there = append(there, fs.FileInfoToDirEntry(info))
		}
	}
	for _, e := range there {
		name := e.Name()
		switch {
		case name == identityFile, name == keyFile && x.source.WithKey:
			if err := x.file(name); err != nil {
				return err
			}
		case slices.Contains(parts, name):
			if err := x.part(name); err != nil {
				return err
			}
		case name == keyFile, name == "tx", name == "worker.lock", strings.HasPrefix(name, "context."), name[0] == '.':
			// Ours, and of this host; or hidden.
		default:
			x.warn(name, "it is no part of a context")
		}
	}
	slices.SortFunc(x.members, func(a, b Member) int { return cmp.Compare(a.Path, b.Path) })
	return nil
}

func (x *scan) warn(path, why string) {
	if x.source.Warn != nil {
		x.source.Warn(path, why)
	}
}

// part adds a directory of the context, which may be a link to another disk.
func (x *scan) part(name string) error {
	root, err := os.OpenRoot(filepath.Join(x.home(name), name))
	if err != nil {
		return err
	}
	x.roots[name] = root
	if err := x.add(Member{Path: name, Kind: Dir, Mode: 0o700}); err != nil {
		return err
	}
	return x.dir(name)
}

// kept is what Source.Kept has.
var kept = []string{identityFile, "data", "log"}

// home is the directory in which a part is.
func (x *scan) home(name string) string {
	if x.source.Kept != "" && slices.Contains(kept, name) {
		return x.source.Kept
	}
	return x.source.Dir
}

// in returns the root in which a member lies, and its path there.
func (x *scan) in(path string) (*os.Root, string) {
	part, below, ok := strings.Cut(path, "/")
	switch {
	case ok:
		return x.roots[part], filepath.FromSlash(below)
	case slices.Contains(parts, part):
		return x.roots[part], "."
	}
	if own, ok := x.roots[part]; ok { // peer.toml of Kept
		return own, part
	}
	return x.roots[""], part
}

func (x *scan) dir(path string) error {
	if x.ctx.Err() != nil {
		return context.Cause(x.ctx)
	}
	root, below := x.in(path)
	d, err := root.Open(below)
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		there, err := d.ReadDir(1024) // it may hold millions
		for _, e := range there {
			if err := x.entry(path+"/"+e.Name(), e); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (x *scan) entry(path string, e fs.DirEntry) error {
	if wrong := pathProblem(path); wrong != "" {
		return x.leave(path, wrong)
	}
	root, below := x.in(path)
	switch {
	case e.Type().IsRegular():
		return x.file(path)
	case e.IsDir():
		info, err := root.Lstat(below)
		if err != nil {
			return err
		}
		if err := x.add(Member{Path: path, Kind: Dir, Mode: uint32(info.Mode().Perm()), Time: stamp(info)}); err != nil {
			return err
		}
		return x.dir(path)
	case e.Type() == fs.ModeSymlink:
		target, err := root.Readlink(below)
		if err != nil {
			return err
		}
		target = filepath.ToSlash(target)
		if wrong := linkProblem(path, target); wrong != "" {
			return x.leave(path, wrong)
		}
		if strings.HasPrefix(path, "log/") {
			return x.leave(path, "a log has no links")
		}
		return x.add(Member{Path: path, Kind: Link, Target: target})
	}
	return x.leave(path, "it is neither a file, a directory nor a link")
}

// leave leaves out what cannot be kept.
func (x *scan) leave(path, why string) error {
	if !strings.HasPrefix(path, "data/") {
		return fmt.Errorf("%s: %s; mend or remove it: a context without it would not be the same", path, why)
	}
	x.warn(path, why)
	return nil
}

func (x *scan) file(path string) error {
	f, err := x.open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	// Of a file with holes nothing is read in vain.
	if info.Size() > x.source.Limits.Bytes-x.bytes {
		return fmt.Errorf("%s: the files have more than %d bytes together, holes included", path, x.source.Limits.Bytes)
	}
	digest, n, err := copyTo(x.ctx, io.Discard, f, x.source.Limits.Bytes-x.bytes)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	x.bytes += n
	m := Member{Path: path, Kind: File, Mode: uint32(info.Mode().Perm()), Time: stamp(info), Size: n, Digest: digest}
	if path == keyFile {
		m.Mode = 0o600
	}
	return x.add(m)
}

func (x *scan) add(m Member) error {
	if len(x.members) == x.source.Limits.Members {
		return fmt.Errorf("it has more than %d files and directories", x.source.Limits.Members)
	}
	x.members = append(x.members, m)
	return nil
}

// open opens a file, and nothing that would block or is none.
func (x *scan) open(path string) (*os.File, error) {
	root, below := x.in(path)
	before, err := root.Lstat(below)
	if err != nil {
		return nil, err
	}
	f, err := root.OpenFile(below, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || !os.SameFile(before, info)) {
		err = errors.New("it is not a file")
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// stamp is a file's time of modification, zero if it is one that JSON cannot say.
func stamp(info fs.FileInfo) time.Time {
	t := info.ModTime().UTC()
	if t.Year() < 1970 || t.Year() > 9999 {
		return time.Time{}
	}
	return t
}

// copyTo copies at most limit bytes and returns the digest of them.
func copyTo(ctx context.Context, w io.Writer, r io.Reader, limit int64) (d script.Digest, n int64, err error) {
	hash := sha256.New()
	for n < limit {
		if ctx.Err() != nil {
			return d, n, context.Cause(ctx)
		}
		m, err := io.CopyN(io.MultiWriter(w, hash), r, min(limit-n, 1<<20))
		n += m
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return d, n, err
		}
	}
	return script.Digest(hash.Sum(nil)), n, nil
}
