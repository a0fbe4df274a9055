package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
)

var (
	bob  = key(1)
	noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
)

func key(seed byte) *peer.Key {
	k, err := peer.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32))
	if err != nil {
		panic(err)
	}
	return k
}

// tree makes a context: "path=content", "path/" and "path>target".
func tree(t testing.TB, members ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, m := range append([]string{"peer.toml=id = \"x\"\n", "peer.key=secret", "tx/journal=x", "worker.lock=", "log/", "policy/p.cedar=permit;"}, members...) {
		name, content, isFile := strings.Cut(m, "=")
		name, target, isLink := strings.Cut(name, ">")
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		var err error
		switch {
		case isLink:
			err = os.Symlink(target, path)
		case isFile:
			if err = os.WriteFile(path, []byte(content), 0o640); err == nil {
				err = os.Chtimes(path, noon, noon.Add(123456789))
			}
		default:
			err = os.MkdirAll(path, 0o700)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func source(dir string) Source { return Source{Dir: dir, Peer: bob.ID(), Name: "bob", Time: noon} }

func export(t testing.TB, s Source) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := Write(t.Context(), &b, s, bob); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// look lists what is below dir, as tree takes it, with modes and times.
func look(t testing.TB, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		info, err := e.Info()
		if err != nil {
			return err
		}
		switch {
		case e.IsDir():
			name += "/"
		case e.Type() == fs.ModeSymlink:
			target, _ := os.Readlink(path)
			name += ">" + target
		default:
			content, _ := os.ReadFile(path)
			name += fmt.Sprintf("=%s %v %v", content, info.Mode(), info.ModTime().UTC())
		}
		list = append(list, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

var deep = "data/" + strings.Repeat("directory/", 20) + "file=deep"

func sample(t testing.TB) string {
	return tree(t, "data/a=hello", "data/empty=", "data/dir/", "data/dir/b="+strings.Repeat("x", 5000), "data/dir/up>../a", "data/gone>nowhere/../x",
		"data/name\nwith ünïcode=1", deep, "modules/m.wasm=\x00asm", "schema/s=1", "data/down>dir/b")
}

func TestRoundTrip(t *testing.T) {
	dir := sample(t)
	s := source(dir)
	var warned []string
	s.Warn = func(path, _ string) { warned = append(warned, path) }
	b := export(t, s)
	if !bytes.Equal(b, export(t, s)) {
		t.Error("the same context made two different archives")
	}
	if !slices.Equal(slices.Compact(warned), []string{"data/gone"}) {
		t.Errorf("warned of %q", warned)
	}
	a, err := Open(iotest.OneByteReader(bytes.NewReader(b)), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if m := a.Manifest(); a.Signer() != bob.ID() || m.Peer != bob.ID() || m.Name != "bob" || !m.Time.Equal(noon) || m.HasKey() {
		t.Errorf("signed by %s: %+v", a.Signer(), m)
	}
	to := t.TempDir()
	if err := a.Extract(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	want := slices.DeleteFunc(look(t, dir), func(s string) bool {
		return strings.HasPrefix(s, "peer.key") || strings.HasPrefix(s, "tx/") || strings.HasPrefix(s, "worker") || strings.HasPrefix(s, "data/gone")
	})
	if got := look(t, to); !slices.Equal(got, want) {
		t.Errorf("extracted\n%q\nwant\n%q", got, want)
	}
	if err := a.Extract(t.Context(), t.TempDir()); err == nil {
		t.Error("extracted twice from one reader")
	}
	if err := open(t, b).Extract(t.Context(), to); err == nil {
		t.Error("extracted into what is not empty")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := open(t, b).Extract(ctx, t.TempDir()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := Write(ctx, io.Discard, s, bob); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	sets, err := os.ReadDir(to)
	if err != nil || len(sets) != 6 {
		t.Errorf("%v, %v", sets, err)
	}
}

func open(t testing.TB, b []byte) *Archive {
	t.Helper()
	a, err := Open(bytes.NewReader(b), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestIsTar: any tar reads it.
func TestIsTar(t *testing.T) {
	b := export(t, source(sample(t)))
	a := open(t, b)
	r := tar.NewReader(bytes.NewReader(b))
	var names []string
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if content, err := io.ReadAll(r); err != nil || int64(len(content)) != h.Size {
			t.Errorf("%s: %v", h.Name, err)
		}
		names = append(names, strings.TrimSuffix(h.Name, "/"))
	}
	want := []string{manifestName, signatureName}
	for _, m := range a.Manifest().Members {
		want = append(want, m.Path)
	}
	if !slices.Equal(names, want) {
		t.Errorf("tar lists %q, want %q", names, want)
	}
}

// TestEncodingStays: archives are kept for years, and read by comparing headers
// with those that archive/tar writes now. When this fails, that has changed, and
// this package must make the old ones itself.
func TestEncodingStays(t *testing.T) {
	h := sha256.New()
	for _, m := range []Member{
		{Path: "data", Kind: Dir, Mode: 0o700},
		{Path: "data/" + strings.Repeat("long/", 60) + "ü", Kind: File, Mode: 0o640, Time: noon.Add(5), Size: 9 << 30, Digest: script.Digest{1}},
		{Path: "data/link", Kind: Link, Target: strings.Repeat("x/", 100)},
		{Path: "data/späth", Kind: Dir, Mode: 0o755, Time: time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		b, err := m.header()
		if err != nil {
			t.Fatal(err)
		}
		h.Write(b)
	}
	const want = "87f23707a033a177086721c0bc9c94d45064c536b6df4c16d6a6ed029f01f016"
	if got := fmt.Sprintf("%x", h.Sum(nil)); got != want {
		t.Errorf("headers have the digest %s, had %s", got, want)
	}
}

func TestKey(t *testing.T) {
	s := source(tree(t))
	if b := export(t, s); bytes.Contains(b, []byte("secret")) {
		t.Error("the key is in an archive that was not to have it")
	}
	s.WithKey = true
	b := export(t, s)
	a := open(t, b)
	to := t.TempDir()
	if !a.Manifest().HasKey() {
		t.Error("the key is not in it")
	}
	if err := a.Extract(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(to, "peer.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's mode is %v, %v", info.Mode(), err)
	}
}

func TestWhatCannotBeKept(t *testing.T) {
	tests := []struct{ name, member, want string }{
		{"a policy that is elsewhere", "policy/q.cedar>/etc/passwd", "policy/q.cedar: the link leads to an absolute path"},
		{"a policy beyond", "policy/q.cedar>../peer.key", "leads out of policy/"},
		{"a link in a log", "log/1.log>2.log", "a log has no links"},
		{"a name that is none", "modules/\xff=1", "not UTF-8"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Write(t.Context(), io.Discard, source(tree(t, tt.member)), bob)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v; want %q", err, tt.want)
			}
		})
	}
	s := source(tree(t, "data/key>../peer.key", "data/abs>/etc/passwd", "data/\xff=1", "data/a=1"))
	var warned []string
	s.Warn = func(path, why string) { warned = append(warned, path+": "+why) }
	b := export(t, s)
	if len(warned) != 3 || bytes.Contains(b, []byte("secret")) {
		t.Errorf("warned: %q", warned)
	}
	if n, size := open(t, b).Manifest().Files(); n != 3 || size == 0 {
		t.Errorf("%d files of %d bytes", n, size)
	}
}

func TestLimits(t *testing.T) {
	s := source(tree(t, "data/a=1"))
	if err := os.Truncate(filepath.Join(s.Dir, "data", "a"), 1<<40); err != nil {
		t.Fatal(err)
	}
	if _, err := Write(t.Context(), io.Discard, s, bob); err == nil || !strings.Contains(err.Error(), "holes included") {
		t.Errorf("a hole of a TiB: %v", err)
	}
	s = source(sample(t))
	b := export(t, s)
	for _, l := range []Limits{{Members: 5}, {Bytes: 100}} {
		s.Limits = l
		if _, err := Write(t.Context(), io.Discard, s, bob); err == nil {
			t.Errorf("%+v: written", l)
		}
		if _, err := Open(bytes.NewReader(b), l); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: opened, %v", l, err)
		}
	}
}

// swapper changes a file when the manifest has been written.
type swapper struct {
	path string
	io.Writer
}

func (s swapper) Write(b []byte) (int, error) {
	if err := os.WriteFile(s.path, []byte("other"), 0o600); err != nil {
		return 0, err
	}
	return len(b), nil
}

func TestChangedMeanwhile(t *testing.T) {
	s := source(tree(t, "data/a=hello"))
	_, err := Write(t.Context(), swapper{path: filepath.Join(s.Dir, "data", "a")}, s, bob)
	if err == nil || !strings.Contains(err.Error(), "data/a was changed while it was exported") {
		t.Errorf("%v", err)
	}
}

// check reads a whole archive and writes nothing.
func check(b []byte) error {
	a, err := Open(bytes.NewReader(b), Limits{})
	if err != nil {
		return err
	}
	return a.each(context.Background(), func(_ Member, content io.Reader) error {
		_, err := io.Copy(io.Discard, content)
		return err
	})
}

func TestEveryByteCounts(t *testing.T) {
	b := export(t, source(tree(t, "data/a=hello", "data/l>a", "data/"+strings.Repeat("x", 150)+"=1")))
	if err := check(b); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(b); i += 5 { // which comes to every place of a header in turn
		b[i] ^= 1 << (i / 5 % 8)
		if err := check(b); !errors.Is(err, ErrInvalid) {
			t.Fatalf("byte %d of %d was changed: %v", i, len(b), err)
		}
		b[i] ^= 1 << (i / 5 % 8)
	}
	for n := 0; n < len(b); n += 61 {
		if err := check(b[:n]); !errors.Is(err, ErrInvalid) {
			t.Fatalf("cut to %d of %d bytes: %v", n, len(b), err)
		}
	}
	if err := check(append(b, 0)); !errors.Is(err, ErrInvalid) {
		t.Errorf("a byte more: %v", err)
	}
	if err := check(append(b, zeros[:]...)); !errors.Is(err, ErrInvalid) {
		t.Errorf("two blocks more: %v", err)
	}
}

// forge signs a manifest that Write would not write, and the members that stand
// in it, with the content "x" for each file.
func forge(t testing.TB, edit func(*Manifest)) []byte {
	t.Helper()
	x := script.Digest(sha256.Sum256([]byte("x")))
	m := &Manifest{Version: version, Peer: bob.ID(), Name: "bob", Time: noon, Members: []Member{
		{Path: "data", Kind: Dir, Mode: 0o700},
		{Path: "data/a", Kind: File, Mode: 0o600, Size: 1, Digest: x},
		{Path: "log", Kind: Dir, Mode: 0o700},
		{Path: "peer.toml", Kind: File, Mode: 0o600, Size: 1, Digest: x},
	}}
	edit(m)
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return forgeText(t, text, m.Members)
}

func forgeText(t testing.TB, text []byte, members []Member) []byte {
	var b bytes.Buffer
	signature := sign(text, key(9))
	for _, f := range []struct {
		name string
		text []byte
	}{{manifestName, text}, {signatureName, signature}} {
		h, err := head(f.name, len(f.text))
		if err != nil {
			t.Fatal(err)
		}
		b.Write(h)
		b.Write(f.text)
		b.Write(padding(int64(len(f.text))))
	}
	for _, m := range members {
		if h, err := m.header(); err == nil { // else there is no such tar
			b.Write(h)
		}
		if m.Kind == File {
			b.WriteString("x")
			b.Write(padding(1))
		}
	}
	b.Write(zeros[:])
	return b.Bytes()
}

// TestHostileManifests: that somebody signed it makes nothing in it good.
func TestHostileManifests(t *testing.T) {
	if err := check(forge(t, func(*Manifest) {})); err != nil {
		t.Fatal("the harmless one: ", err)
	}
	x := script.Digest(sha256.Sum256([]byte("x")))
	file := func(path string) Member { return Member{Path: path, Kind: File, Mode: 0o600, Size: 1, Digest: x} }
	link := func(path, target string) Member { return Member{Path: path, Kind: Link, Target: target} }
	with := func(ms ...Member) func(*Manifest) {
		return func(m *Manifest) {
			m.Members = append(m.Members, ms...)
			slices.SortStableFunc(m.Members, func(a, b Member) int { return strings.Compare(a.Path, b.Path) })
		}
	}
	tests := map[string]func(*Manifest){
		"up":                         with(file("../x")),
		"up from inside":             with(file("data/../../x")),
		"absolute":                   with(file("/etc/x")),
		"a dot":                      with(file("data/./x")),
		"two slashes":                with(file("data//x")),
		"no name":                    with(file("")),
		"the top itself":             with(Member{Path: ".", Kind: Dir}),
		"a NUL":                      with(file("data/x\x00y")),
		"a part that is none":        with(Member{Path: "tx", Kind: Dir}, file("tx/journal")),
		"the worker's lock":          with(file("worker.lock")),
		"twice":                      with(file("data/a")),
		"not sorted":                 func(m *Manifest) { slices.Reverse(m.Members) },
		"below a file":               with(file("data/a/b")),
		"below nothing":              with(file("data/b/c")),
		"through a link":             with(link("data/b", "."), file("data/b/c")),
		"a part that is a link":      with(link("modules", "data")),
		"a part that is a file":      with(file("modules")),
		"the identity is a link":     func(m *Manifest) { m.Members[3] = link("peer.toml", "data/a") },
		"the key is a directory":     with(Member{Path: "peer.key", Kind: Dir}),
		"no identity":                func(m *Manifest) { m.Members = m.Members[:3] },
		"no members":                 func(m *Manifest) { m.Members = nil },
		"a link to the root":         with(link("data/l", "/")),
		"a link out":                 with(link("data/l", "..")),
		"a link to another part":     with(link("data/l", "../policy")),
		"a link out by another":      with(Member{Path: "data/d", Kind: Dir}, link("data/d/here", "."), link("data/d/out", "here/../../x")),
		"a link that is long":        with(link("data/l", strings.Repeat("x", maxPath+1))),
		"a link to nothing":          with(link("data/l", "")),
		"a link in the log":          with(link("log/1", "2")),
		"a link with a size":         with(Member{Path: "data/l", Kind: Link, Target: "a", Size: 1}),
		"a file with a target":       with(Member{Path: "data/l", Kind: File, Target: "a", Digest: x}),
		"a device":                   with(Member{Path: "data/null", Kind: "device"}),
		"no kind":                    with(Member{Path: "data/null"}),
		"setuid":                     func(m *Manifest) { m.Members[1].Mode = 0o4755 },
		"a bomb":                     func(m *Manifest) { m.Members[1].Size = 1 << 50 },
		"a negative size":            func(m *Manifest) { m.Members[1].Size = -1 },
		"a size that is not so":      func(m *Manifest) { m.Members[1].Size = 2 },
		"no digest":                  func(m *Manifest) { m.Members[1].Digest = script.Digest{} },
		"another digest":             func(m *Manifest) { m.Members[1].Digest = script.Digest{1} },
		"a long name":                with(file("data/" + strings.Repeat("x", maxName+1))),
		"deep":                       with(file("data" + strings.Repeat("/x", maxDepth))),
		"nobody's":                   func(m *Manifest) { m.Peer = "did:key:x" },
		"a name that is a path":      func(m *Manifest) { m.Name = "../bob" },
		"another version":            func(m *Manifest) { m.Version = 2 },
		"a directory with a content": func(m *Manifest) { m.Members[0].Size = 1 },
	}
	for name, edit := range tests {
		t.Run(name, func(t *testing.T) {
			outside := t.TempDir()
			dir := filepath.Join(outside, "in")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			a, err := Open(bytes.NewReader(forge(t, edit)), Limits{})
			if err == nil {
				err = a.Extract(t.Context(), dir)
			}
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%v", err)
			}
			if there, _ := os.ReadDir(outside); len(there) != 1 {
				t.Errorf("written outside: %v", there)
			}
		})
	}
}

// TestSizesThatOverflow: a sum of sizes that turns negative is below any limit.
func TestSizesThatOverflow(t *testing.T) {
	b := forge(t, func(m *Manifest) { m.Members[3].Size = math.MaxInt64 })
	if _, err := Open(bytes.NewReader(b), Limits{}); err == nil || !strings.Contains(err.Error(), "bytes together") {
		t.Errorf("%v", err)
	}
}

func TestHostileArchives(t *testing.T) {
	good := forge(t, func(*Manifest) {})
	a := open(t, good)
	text, _ := json.Marshal(a.Manifest())
	members := a.Manifest().Members
	x := script.Digest(sha256.Sum256([]byte("x")))
	tests := map[string][]byte{
		"nothing":                nil,
		"zeros":                  make([]byte, 4096),
		"no signature":           slices.Concat(good[:block+(len(text)+block-1)/block*block], good[len(good)-2*block:]),
		"a member that is more":  forgeText(t, text, slices.Insert(slices.Clone(members), 2, Member{Path: "data/b", Kind: File, Mode: 0o600, Size: 1, Digest: x})),
		"a member at the end":    forgeText(t, text, append(slices.Clone(members), Member{Path: "policy", Kind: Dir, Mode: 0o700})),
		"a member that is less":  forgeText(t, text, members[:3]),
		"a member that differs":  forgeText(t, text, append(slices.Clone(members[:2]), Member{Path: "log", Kind: Link, Target: "data"}, members[3])),
		"a field of others":      forgeText(t, bytes.Replace(text, []byte(`"kind"`), []byte(`"x":1,"kind"`), 1), members),
		"members of no kind":     forgeText(t, []byte(`{"version":1,"peer":"`+string(bob.ID())+`","name":"bob","time":"2026-06-01T12:00:00Z","members":7}`), nil),
		"something follows":      forgeText(t, append(slices.Clone(text), '{', '}'), members),
		"a manifest of brackets": forgeText(t, []byte(strings.Repeat("[", 100_000)), nil),
		"empty members":          forgeText(t, []byte(`{"version":1,"peer":"`+string(bob.ID())+`","name":"bob","time":"2026-06-01T12:00:00Z","members":[`+strings.Repeat("{},", 100_000)+`{}]}`), nil),
	}
	huge, err := head(manifestName, maxManifest+1)
	if err != nil {
		t.Fatal(err)
	}
	tests["a manifest too large"] = append(huge, zeros[:]...)
	claimed, err := head(manifestName, maxManifest)
	if err != nil {
		t.Fatal(err)
	}
	tests["a manifest that is not there"] = append(claimed, zeros[:]...)

	// One that GNU tar or archive/tar would blow up: a sparse file.
	var sparse bytes.Buffer
	w := tar.NewWriter(&sparse)
	if err := w.WriteHeader(&tar.Header{Name: manifestName, Size: 0, Mode: 0o600, Format: tar.FormatPAX, PAXRecords: map[string]string{"VENDOR.x": "1"}}); err != nil {
		t.Fatal(err)
	}
	tests["records that are none of ours"] = bytes.ReplaceAll(sparse.Bytes(), []byte("VENDOR.x"), []byte("GNU.spar"))

	for name, b := range tests {
		t.Run(name, func(t *testing.T) {
			if err := check(b); !errors.Is(err, ErrInvalid) {
				t.Errorf("%v", err)
			}
		})
	}
	failing := iotest.TimeoutReader(iotest.OneByteReader(bytes.NewReader(good)))
	if _, err := Open(failing, Limits{}); err == nil || errors.Is(err, ErrInvalid) {
		t.Errorf("a disk that fails is taken for a bad archive: %v", err)
	}
}

func TestSignatureHasOneSpelling(t *testing.T) {
	text := []byte("{}")
	good := string(sign(text, bob))
	if who, err := verify(text, []byte(good)); who != bob.ID() || err != nil {
		t.Fatal(who, err)
	}
	for _, bad := range []string{"", good + "\n", good[:len(good)-1], strings.Replace(good, "v1", "v2", 1), strings.ReplaceAll(good, "\n", "\r\n"),
		strings.Replace(good, "==\n", "\n", 1), good[:len(good)-10] + "\r" + good[len(good)-10:], strings.Replace(good, string(bob.ID()), string(key(2).ID()), 1)} {
		if _, err := verify(text, []byte(bad)); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
	if _, err := verify([]byte("{} "), []byte(good)); err == nil {
		t.Error("accepted for another text")
	}
}

func TestCheckLog(t *testing.T) {
	var entries []store.Entry
	var prev [32]byte
	for i := range 3 {
		e := store.Entry{Seq: uint64(i + 1), Prev: prev, Time: noon, Data: []byte{byte(i)}}
		entries, prev = append(entries, e), e.Hash()
	}
	log := func(es []store.Entry, err error) func(func(store.Entry, error) bool) {
		return func(yield func(store.Entry, error) bool) {
			for _, e := range es {
				if !yield(e, nil) {
					return
				}
			}
			if err != nil {
				yield(store.Entry{}, err)
			}
		}
	}
	if n, head, err := CheckLog(log(entries, nil)); n != 3 || head != prev || err != nil {
		t.Errorf("%d, %v, %v", n, head, err)
	}
	if n, head, err := CheckLog(log(nil, nil)); n != 0 || !head.IsZero() || err != nil {
		t.Errorf("empty: %d, %v, %v", n, head, err)
	}
	altered := slices.Clone(entries)
	altered[1].Data = []byte("other")
	for name, es := range map[string][]store.Entry{
		"an entry was changed": altered, "the first is gone": entries[1:], "one is gone": {entries[0], entries[2]}, "one is there twice": {entries[0], entries[0]},
	} {
		if _, _, err := CheckLog(log(es, nil)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := CheckLog(log(entries, io.ErrClosedPipe)); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("%v", err)
	}
}

// FuzzManifest: whatever is accepted has paths that stay inside and can be
// written, in order.
func FuzzManifest(f *testing.F) {
	a := open(f, forge(f, func(*Manifest) {}))
	text, _ := json.Marshal(a.Manifest())
	f.Add(text)
	a = open(f, export(f, source(sample(f))))
	text, _ = json.Marshal(a.Manifest())
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parseManifest(text, Limits{}.withDefaults())
		if err != nil {
			return
		}
		last := ""
		for _, m := range m.Members {
			if !filepath.IsLocal(m.Path) || m.Path <= last || m.Size < 0 {
				t.Errorf("accepted %+v after %q", m, last)
			}
			last = m.Path
			if _, err := m.header(); err != nil {
				t.Errorf("%+v has no header: %v", m, err)
			}
		}
	})
}

// FuzzOpen: an archive that is accepted is, to the byte, what its manifest says.
func FuzzOpen(f *testing.F) {
	good := forge(f, func(*Manifest) {})
	f.Add(good)
	f.Add(good[:700])
	f.Add(export(f, source(tree(f, "data/a=1"))))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := check(b); err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%v", err)
		}
	})
}
