package peer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// eventually waits for what a lookup finds out by itself.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not seen: %s", what)
}

func open(t testing.TB, root string) *Directory {
	t.Helper()
	d, err := OpenDirectory(root)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func identityText(id ID) string { return fmt.Sprintf("id = %q\n", string(id)) }

func TestDirectoryHoldAndRoute(t *testing.T) {
	root := t.TempDir()
	alice, bob, carol, host := key(t, 1), key(t, 2), key(t, 3), key(t, 4)
	d := open(t, root)

	held, err := d.Hold("alice", alice.ID(), alice, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Hold("bob", bob.ID(), nil, ""); err != nil {
		t.Fatal(err)
	}
	if err := d.SetRoute("carol", Route{ID: carol.ID(), URL: "https://worker.example:8443", Host: host.ID()}); err != nil {
		t.Fatal(err)
	}
	// This directory, and one that is opened afterwards, know the same.
	for i, d := range []*Directory{d, open(t, root)} {
		if p := d.Problems(); len(p) > 0 {
			t.Fatal(i, p)
		}
		if e, ok := d.ByID(alice.ID()); !ok || e != held || !e.Held() || !d.Holds(alice.ID()) {
			t.Errorf("%d: alice is %+v", i, e)
		}
		want := Entry{ID: carol.ID(), Name: "carol", URL: "https://worker.example:8443", Host: host.ID()}
		if e, ok := d.ByName("carol"); !ok || e != want || e.Held() || d.Holds(carol.ID()) {
			t.Errorf("%d: carol is %+v", i, e)
		}
		if d.NameOf(alice.ID(), bob.ID()) != "bob" || d.NameOf(alice.ID(), host.ID()) != "" {
			t.Errorf("%d: names", i)
		}
		if all := d.All(); len(all) != 3 || all[0].Name != "alice" || all[1].Name != "bob" || all[2].Name != "carol" {
			t.Errorf("%d: all: %+v", i, all)
		}
		for _, s := range []string{"carol", string(carol.ID())} {
			if e, err := d.Resolve(s); err != nil || e != want {
				t.Errorf("%d: resolve %s: %+v, %v", i, s, e, err)
			}
		}
		if e, err := d.Resolve(string(host.ID())); err != nil || e != (Entry{ID: host.ID()}) {
			t.Errorf("%d: a stranger is %+v, %v", i, e, err)
		}
		if _, err := d.Resolve("dave"); err == nil || !strings.Contains(err.Error(), "alice, bob, carol") {
			t.Errorf("%d: %v does not say who there is", i, err)
		}
	}
	k, err := held.Key()
	if err != nil || k.ID() != alice.ID() {
		t.Errorf("alice's key: %v", err)
	}
	if b, _ := d.ByName("bob"); b.Held() {
		if _, err := b.Key(); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("bob's key, which is elsewhere: %v", err)
		}
	}
	circles, err := ParseCircles("f", []byte(`friends = ["bob", "carol"]`), d.Knows)
	if err != nil {
		t.Fatal(err)
	}
	meet := d.Meet(bob.ID(), alice.ID(), circles)
	if fmt.Sprintf("%s %v %s %v", meet.Caller, meet.Caller.Circles, meet.Target, meet.Target.Circles) != "bob [friends] alice []" {
		t.Errorf("parties: %+v", meet)
	}
}

func TestDirectoryRefusesDoubleNames(t *testing.T) {
	d := open(t, t.TempDir())
	alice, bob := key(t, 1), key(t, 2)
	if _, err := d.Hold("alice", alice.ID(), alice, ""); err != nil {
		t.Fatal(err)
	}
	if err := d.SetRoute("bob", Route{ID: bob.ID()}); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"the same again":       second(d.Hold("alice", alice.ID(), alice, "")),
		"her name":             second(d.Hold("alice", key(t, 3).ID(), nil, "")),
		"her id":               second(d.Hold("alice2", alice.ID(), nil, "")),
		"another's key":        second(d.Hold("carol", key(t, 3).ID(), alice, "")),
		"bad name":             second(d.Hold("../up", key(t, 3).ID(), nil, "")),
		"bad id":               second(d.Hold("carol", "did:key:z6Mk", nil, "")),
		"route by her name":    d.SetRoute("alice", Route{ID: key(t, 3).ID()}),
		"route to her":         d.SetRoute("alice2", Route{ID: alice.ID()}),
		"route to who is here": d.SetRoute("alice", Route{ID: alice.ID()}),
		"second name of bob":   d.SetRoute("robert", Route{ID: bob.ID()}),
		"bad url":              d.SetRoute("carol", Route{ID: key(t, 3).ID(), URL: "worker"}),
		"url with password":    d.SetRoute("carol", Route{ID: key(t, 3).ID(), URL: "https://u:p@worker"}),
		"remove a stranger":    second(d.Remove("carol")),
	} {
		if err == nil {
			t.Errorf("%s: allowed", what)
		}
	}
	if all := d.All(); len(all) != 2 || len(d.Problems()) > 0 {
		t.Errorf("something came of it: %v, %v", all, d.Problems())
	}
	left, err := os.ReadDir(filepath.Join(d.root, peersDir))
	if err != nil || len(left) != 1 {
		t.Errorf("something was left: %v", left)
	}
	// A peer that had only a route moves in; its petname stays.
	if _, err := d.Hold("bob", bob.ID(), bob, ""); err != nil {
		t.Fatal(err)
	}
	if e, _ := d.ByID(bob.ID()); !e.Held() {
		t.Error("bob is not held")
	}
}

func second[T any](_ T, err error) error { return err }

// People write circles.toml; what they wrote stays, to the byte.
func TestSetRouteKeepsTheRestOfTheFile(t *testing.T) {
	root := t.TempDir()
	file := filepath.Join(root, rootConfig)
	bob, carol := key(t, 2).ID(), key(t, 3).ID()
	before := `# my host
listen = ["127.0.0.1:7070"]

[limits] # generous
wall = "5s"

# bob, from work
[peers.bob]   # moved in May
id = "` + string(bob) + `" # checked by phone
url = "https://old.example"

[storage]
backend = "fs" # no newline here`
	write(t, file, before)
	d := open(t, root)
	if err := d.SetRoute("carol", Route{ID: carol, URL: `https://c.example/?q="\é`}); err != nil {
		t.Fatal(err)
	}
	read := func() string {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if got := read(); !strings.HasPrefix(got, before+"\n") {
		t.Fatalf("the rest has changed:\n%s", got)
	}
	if e, _ := d.ByName("carol"); e.URL != `https://c.example/?q="\é` {
		t.Fatalf("carol is %+v", e)
	}
	if err := d.SetRoute("bob", Route{ID: bob, URL: "https://new.example", Host: carol}); err != nil {
		t.Fatal(err)
	}
	if e, _ := d.ByName("bob"); e.URL != "https://new.example" || e.Host != carol {
		t.Fatalf("bob is %+v", e)
	}
	for _, name := range []Name{"bob", "carol"} {
		if _, err := d.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	got := read()
	for _, kept := range []string{"# my host\nlisten = [\"127.0.0.1:7070\"]\n\n[limits] # generous\nwall = \"5s\"\n", "[storage]\nbackend = \"fs\" # no newline here\n"} {
		if !strings.Contains(got, kept) {
			t.Errorf("%q is gone from\n%s", kept, got)
		}
	}
	if strings.Contains(got, "did:key") || len(d.All()) != 0 {
		t.Errorf("they are still there:\n%s", got)
	}
	// Where it does not know how, it says so and leaves the file alone.
	odd := "peers = { bob = { id = \"" + string(bob) + "\" } }\n"
	write(t, file, odd)
	if err := d.SetRoute("bob", Route{ID: bob, URL: "https://x"}); err == nil || !strings.Contains(err.Error(), "by hand") {
		t.Errorf("an inline table: %v", err)
	}
	if read() != odd {
		t.Errorf("it was changed: %s", read())
	}
}

func TestDirectoryRemoveSetsAside(t *testing.T) {
	root := t.TempDir()
	d := open(t, root)
	alice := key(t, 1)
	e, err := d.Hold("alice", alice.ID(), alice, "")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(e.Dir, "data", "diary"), "dear")
	aside, err := d.Remove("alice")
	if err != nil {
		t.Fatal(err)
	}
	if d.Holds(alice.ID()) || open(t, root).Holds(alice.ID()) {
		t.Error("still held")
	}
	if b, err := os.ReadFile(filepath.Join(aside, "data", "diary")); err != nil || string(b) != "dear" {
		t.Errorf("her data: %q, %v", b, err)
	}
	if _, err := d.Hold("alice", alice.ID(), alice, ""); err != nil {
		t.Errorf("she cannot come back: %v", err)
	}
}

// What other processes do to the directory is seen without being told.
func TestDirectoryKeepsUp(t *testing.T) {
	root := t.TempDir()
	d := open(t, root)
	alice, bob, carol := key(t, 1).ID(), key(t, 2).ID(), key(t, 3).ID()

	if _, err := open(t, root).Hold("alice", alice, nil, ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, "alice, added elsewhere", func() bool { return d.Holds(alice) })

	dir := filepath.Join(root, peersDir, "bob")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	eventually(t, "that bob is incomplete", func() bool { return len(d.Problems()) == 1 })
	// Finished much later, by hand; the directory above does not change by that.
	long := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Dir(dir), long, long); err != nil {
		t.Fatal(err)
	}
	eventually(t, "that nothing happens", func() bool {
		d.look()
		d.mu.Lock()
		defer d.mu.Unlock()
		return !d.peers.fresh
	})
	write(t, filepath.Join(dir, identityFile), identityText(bob))
	eventually(t, "bob", func() bool { return d.Holds(bob) && len(d.Problems()) == 0 })

	if err := os.Rename(dir, filepath.Join(root, "elsewhere")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "that bob has left", func() bool { return !d.Holds(bob) })

	write(t, filepath.Join(root, rootConfig), "[peers.carol]\n"+identityText(carol))
	eventually(t, "carol's name", func() bool { return d.NameOf(alice, carol) == "carol" })

	// A file that does not parse leaves the routes that were.
	write(t, filepath.Join(root, rootConfig), "[peers.carol\n")
	eventually(t, "the broken file", func() bool { return len(d.Problems()) == 1 })
	if d.NameOf(alice, carol) != "carol" {
		t.Error("a broken circles.toml took carol's name away")
	}
	if err := os.Remove(filepath.Join(root, rootConfig)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "that it is gone", func() bool { return len(d.Problems()) == 0 && d.NameOf(alice, carol) == "" })
}

// Two changes within one tick of the file system's clock leave one time; what was
// read between them must not pass for the last word.
func TestStampOfWhatHasJustChanged(t *testing.T) {
	dir := t.TempDir()
	look := func() stamp {
		s, err := stampOf(dir)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := look(); !s.changed(look()) {
		t.Error("a directory made just now counts as unchanged")
	}
	long := time.Now().Add(-time.Hour)
	if err := os.Chtimes(dir, long, long); err != nil {
		t.Fatal(err)
	}
	s := look()
	if s.changed(look()) {
		t.Error("a directory that nobody touched counts as changed")
	}
	write(t, filepath.Join(dir, "x"), "")
	if !s.changed(look()) {
		t.Error("a new name is not seen")
	}
}

func TestEntryKeyIsThePeersOwn(t *testing.T) {
	d := open(t, t.TempDir())
	alice, bob := key(t, 1), key(t, 2)
	e, err := d.Hold("alice", alice.ID(), nil, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteKeyFile(filepath.Join(e.Dir, keyFile), bob); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Key(); err == nil || !strings.Contains(err.Error(), string(bob.ID())) {
		t.Errorf("bob's key was taken for alice's: %v", err)
	}
	if _, err := (Entry{ID: bob.ID(), Name: "bob"}).Key(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the key of a peer elsewhere: %v", err)
	}
}

// One peer's broken files are reported and take nobody else out.
func TestDirectoryToleratesBrokenPeers(t *testing.T) {
	root := t.TempDir()
	good, twin := key(t, 1).ID(), key(t, 2).ID()
	at := func(name string) string { return filepath.Join(root, peersDir, name, identityFile) }
	write(t, at("good"), "# hello\n"+identityText(good))
	for name, text := range map[string]string{
		"empty": "", "syntax": "id = ", "bad-id": `id = "did:key:z6Mk"`, "number": "id = 7",
		"unknown": identityText(key(t, 3).ID()) + "\ncolour = 1\n", "huge": strings.Repeat("#", maxConfigFile+1),
		"twin-a": identityText(twin), "twin-b": identityText(twin), "twin-c": identityText(twin), "Upper": identityText(key(t, 4).ID()),
	} {
		write(t, at(name), text)
	}
	if err := os.Mkdir(filepath.Join(root, peersDir, "bare"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(at("dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, peersDir, "README"), "a file is nobody")
	write(t, filepath.Join(root, peersDir, ".hidden", identityFile), identityText(key(t, 5).ID()))
	d := open(t, root)
	if all := d.All(); len(all) != 1 || all[0].ID != good {
		t.Errorf("served: %+v", all)
	}
	var said strings.Builder
	for _, p := range d.Problems() {
		fmt.Fprintln(&said, p)
	}
	for _, want := range []string{
		at("empty") + ": id is missing", at("syntax") + ":1:", at("bad-id") + ":1:", at("number") + ":1:",
		at("unknown") + ":3: unknown key \"colour\"", at("huge") + ": longer than", filepath.Dir(at("twin-a")) + " and " + filepath.Dir(at("twin-b")),
		filepath.Dir(at("twin-c")), `petname "Upper"`, at("bare") + ": no such file", at("dir") + ": not a regular file",
	} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("nothing said of %q in:\n%s", want, said.String())
		}
	}
	if n := len(d.Problems()); n != 11 {
		t.Errorf("%d problems, want 11", n)
	}
}

func TestRoutesErrorsSayWhere(t *testing.T) {
	id := string(key(t, 1).ID())
	for _, test := range []struct{ name, text, want string }{
		{"no id", "x = 1\n[peers.bob]\nurl = \"https://a\"\n", "f:2: [peers.bob]: id is missing"},
		{"bad id", "[peers.bob]\nid = \"bob\"\n", "f:2:"},
		{"bad name", "\n[peers.Bob]\nid = \"" + id + "\"\n", "f:2: [peers.Bob]: petname"},
		{"bad url", "[peers.bob]\nid = \"" + id + "\"\nurl = \"worker\"\n", "f:3: [peers.bob]: url"},
		{"misspelt key", "[peers.bob]\nid = \"" + id + "\"\nurll = \"https://a\"\n", "f:3: unknown key \"urll\""},
		{"bad host", "[peers.bob]\nid = \"" + id + "\"\nhost = \"did:web:x\"\n", "f:3: [peers.bob]: id"},
		{"dotted", "a = 1\npeers.bob.id = \"x\"\n", "f:2: [peers.bob]: id"},
		{"inline", "a = 1\npeers = {bob = {id = \"x\"}}\n", "f:2: [peers.bob]: id"},
		{"no table", "peers = 1\n", "f:1:"},
		{"syntax elsewhere", "[peers.bob]\nid = \"" + id + "\"\n[x", "f:3:"},
	} {
		if _, err := parseRoutes("f", []byte(test.text)); err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s: %v, want %s…", test.name, err, test.want)
		}
	}
	// What else is in the file is not this package's to judge.
	if r, err := parseRoutes("f", []byte("listen = 7\n[limits]\nx = 1\n[peers.bob]\nid = \""+id+"\"\n")); err != nil || len(r) != 1 {
		t.Errorf("%v, %v", r, err)
	}
}

// A route must not name a stranger by the petname of a peer that is here, nor
// take a peer that is here elsewhere.
func TestRouteNeverShadowsWhoIsHere(t *testing.T) {
	root := t.TempDir()
	alice, mallory := key(t, 1).ID(), key(t, 2).ID()
	write(t, filepath.Join(root, peersDir, "alice", identityFile), identityText(alice))
	write(t, filepath.Join(root, rootConfig), fmt.Sprintf("[peers.alice]\n%s[peers.al]\n%surl = \"https://x\"\n", identityText(mallory), identityText(alice)))
	d := open(t, root)
	if e, _ := d.ByName("alice"); e.ID != alice || !e.Held() {
		t.Errorf("alice is %+v", e)
	}
	if e, _ := d.ByID(alice); e.Name != "alice" || e.URL != "" {
		t.Errorf("alice is %+v", e)
	}
	if d.Knows("al") || d.NameOf(alice, mallory) != "" {
		t.Error("a second name took effect")
	}
	if len(d.Problems()) != 2 {
		t.Errorf("problems: %v", d.Problems())
	}
	// Nor is a route a way around a context here that cannot be read.
	write(t, filepath.Join(root, peersDir, "alice", identityFile), "id = ")
	if err := d.Refresh(); err != nil {
		t.Fatal(err)
	}
	if d.Knows("alice") {
		t.Error("alice, whose file is broken, is who the route says")
	}
}

// A flood of ids that nobody has must not make the host look at its disk for each.
func TestFloodOfUnknownIDsDoesNotScan(t *testing.T) {
	root := t.TempDir()
	for i := range byte(20) {
		write(t, filepath.Join(root, peersDir, fmt.Sprint("p", i), identityFile), identityText(key(t, i).ID()))
	}
	write(t, filepath.Join(root, peersDir, "broken", identityFile), "") // worth another look each time
	d := open(t, root)
	began := time.Now()
	looks, before := 0, d.next.Load()
	const misses = 200_000
	for i := range misses {
		if d.Holds(ID(fmt.Sprint("did:key:z6Mk", i))) {
			t.Fatal("held")
		}
		if now := d.next.Load(); now != before {
			looks, before = looks+1, now
		}
	}
	if most := int(time.Since(began)/checkEvery) + 1; looks > most {
		t.Errorf("%d looks at the disk for %d misses in %s, at most %d are due", looks, misses, time.Since(began), most)
	}
}

// Lookups go on, right, while peers come and go: run with -race.
func TestDirectoryHammer(t *testing.T) {
	root := t.TempDir()
	d := open(t, root)
	stays := key(t, 200)
	if _, err := d.Hold("stays", stays.ID(), stays, ""); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var readers, writers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if e, ok := d.ByID(stays.ID()); !ok || e.Name != "stays" || !d.Knows("stays") {
					t.Error("who stays was gone for a moment")
					return
				}
				for _, e := range d.All() {
					if e.Held() && e.Dir != filepath.Join(root, peersDir, string(e.Name)) {
						t.Errorf("half an entry: %+v", e)
					}
				}
				if p := d.Problems(); len(p) > 0 {
					t.Errorf("half a peer was seen: %v", p)
					return
				}
			}
		})
	}
	for w := range byte(2) {
		other := open(t, root) // as another process would
		writers.Go(func() {
			for i := range byte(6) {
				k := key(t, w*100+i)
				name := Name(fmt.Sprintf("w%d-%d", w, i))
				if _, err := other.Hold(name, k.ID(), k, ""); err != nil {
					t.Error(err)
				}
				if err := other.SetRoute("r-"+name, Route{ID: key(t, w*100+i+50).ID(), URL: "https://x"}); err != nil {
					t.Error(err)
				}
				if i%2 == 0 {
					if _, err := other.Remove(name); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	writers.Wait()
	eventually(t, "everybody", func() bool { return len(d.All()) == 1+2*3+2*6 })
	close(stop)
	readers.Wait()
}

func FuzzEditRoute(f *testing.F) {
	id := string(key(f, 1).ID())
	f.Add([]byte("# a\n[peers.bob]\nid = \"" + id + "\"\n[x]\ny = 1\n"))
	f.Add([]byte("peers.bob.id = \"" + id + "\"\n"))
	f.Add([]byte("[peers]\n[peers.bob]\nid = '''" + id + "'''\nurl = \"\"\"\nhttps://a\"\"\"\n[peers.bob.x]\n"))
	f.Add([]byte("[[peers.bob]]\n[peers.\"bob\"]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		before, err := parseRoutes("f", text)
		if err != nil {
			return
		}
		for _, r := range []*Route{nil, {ID: ID(id), URL: "https://x"}} {
			out, err := editRoute("f", text, "bob", r)
			if err != nil {
				continue
			}
			after, err := parseRoutes("f", out)
			if err != nil {
				t.Fatalf("%q became %q: %v", text, out, err)
			}
			if got, ok := after["bob"]; ok != (r != nil) || ok && got != *r {
				t.Fatalf("%q became %q", text, out)
			}
			delete(before, "bob")
			delete(after, "bob")
			if !equalRoutes(before, after) {
				t.Fatalf("%q became %q: others changed", text, out)
			}
		}
	})
}

func BenchmarkByIDMiss(b *testing.B) {
	d := open(b, b.TempDir())
	b.ReportAllocs()
	for b.Loop() {
		d.ByID("did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp")
	}
}
