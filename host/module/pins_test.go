package module_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/script"
)

// pins writes the file of a layer's pins.
func pins(t *testing.T, dir, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, module.PinsFile), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func digest(wasm []byte) script.Digest { return sha256.Sum256(wasm) }

// saying asks for logic, and wants an answer, or "" for nothing that is found.
type saying struct {
	*testing.T
	ask func(script.Logic) (string, error)
}

func (s saying) wants(want string, logic script.Logic) {
	s.Helper()
	got, err := s.ask(logic)
	if got != want || want != "" && err != nil || want == "" && !errors.Is(err, module.ErrNotFound) {
		s.Errorf("%+v: %q, %v; want %q", logic, got, err, want)
	}
}

// TestPin: a pinned name is that version, whatever is saved over its file; who takes
// the pin away has the file's.
func TestPin(t *testing.T) {
	e, dir, events := newEngine(t), t.TempDir(), new(log)
	l := module.Config{Label: "peer", Dir: dir, Engine: e, Report: events.add}.Open(t.Context())
	defer l.Close()
	s := saying{t, func(logic script.Logic) (string, error) { return answer(t, e, logic, l) }}
	m := script.Logic{Name: "m"}
	reload := func(problem string) {
		t.Helper()
		if err := l.Reload(t.Context()); problem == "" && err != nil || problem != "" && (err == nil || !strings.Contains(err.Error(), problem)) {
			t.Errorf("problem %v, want %q", err, problem)
		}
	}
	for _, text := range []string{"one", "two"} {
		add(t, dir, "m", says(text))
		reload("")
	}
	pins(t, dir, fmt.Sprintf("[pin]\nm = %q\n", digest(says("one"))))
	reload("")
	s.wants("one", m)
	if ev := events.await(t, module.Held, "m"); len(ev.Notes) != 1 || !strings.Contains(ev.Notes[0], fmt.Sprint(digest(says("two")))) || ev.Digest != digest(says("one")) {
		t.Errorf("held: %+v", ev)
	}
	add(t, dir, "m", says("three"))
	reload("")
	s.wants("one", m)
	events.await(t, module.Held, "m")
	if err := os.Remove(filepath.Join(dir, "m.wasm")); err != nil {
		t.Fatal(err)
	}
	reload("")
	s.wants("one", m)

	// A pin to what nobody has, and a file with a mistake in it, leave what is in force.
	add(t, dir, "m", says("four"))
	pins(t, dir, fmt.Sprintf("[pin]\nm = %q\n", digest(says("nobody's"))))
	reload("the nearest that is kept of m is sha256:")
	s.wants("one", m)
	pins(t, dir, "[pin]\nm = 1\n")
	reload("stays in force")
	s.wants("one", m)
	if ev := events.await(t, module.Broken, module.PinsFile); !strings.Contains(ev.Err.Error(), "pins.toml:2") {
		t.Errorf("broken: %v", ev.Err)
	}

	pins(t, dir, "")
	reload("")
	s.wants("four", m)
}

// TestPinsAreKeptToAtAStart: what was pinned before a start is after it, and what
// cannot be known to be allowed does not run.
func TestPinsAreKeptToAtAStart(t *testing.T) {
	cache, hosts, peers := t.TempDir(), t.TempDir(), t.TempDir()
	if err := os.Chmod(cache, 0o700); err != nil {
		t.Fatal(err)
	}
	add(t, hosts, "m", says("host's"))
	add(t, hosts, "other", says("other"))
	add(t, peers, "m", says("old"))
	wants := func(text string, m, o, carried string) {
		t.Helper()
		pins(t, peers, text)
		e, below := start(t, cache, hosts)
		l := module.Config{Label: "peer", Dir: peers, Engine: e, Below: below}.Open(t.Context())
		defer l.Close()
		s := saying{t, func(logic script.Logic) (string, error) {
			got, err := answer(t, e, logic, l, below)
			if errors.Is(err, module.ErrPins) {
				got, err = "unread", nil
			}
			return got, err
		}}
		s.wants(m, script.Logic{Name: "m"})
		s.wants(o, script.Logic{Name: "other"})
		s.wants(carried, script.Logic{Wasm: says("carried")})
	}
	wants("", "old", "other", "carried")
	add(t, peers, "m", says("new"))
	wants(fmt.Sprintf("[pin]\nm = %q\n", digest(says("old"))), "old", "other", "carried")
	wants("[pin]\nm = 1\n", "unread", "unread", "unread")
	e, below := start(t, cache, hosts)
	l := module.Config{Label: "peer", Dir: peers, Engine: e, Below: below}.Open(t.Context())
	if f, err := module.Named("m", l); err == nil || l.Problem() == nil {
		t.Errorf("by a module's call it finds %+v", f)
	}
	pins(t, peers, fmt.Sprintf("[pin]\nm = %q\n", digest(says("old"))))
	if err := l.Reload(t.Context()); err != nil { // mended
		t.Error(err)
	}
	if got, err := answer(t, e, script.Logic{Name: "m"}, l); got != "old" {
		t.Errorf("%q, %v", got, err)
	}
	l.Close()
	// Neither the file's nor the host's is what its owner wants.
	wants(fmt.Sprintf("[pin]\nm = %q\n", digest(says("nobody's"))), "", "other", "carried")
	// The host has it, by whatever name; it is the peer's own from then on.
	wants(fmt.Sprintf("[pin]\nm = %q\n", digest(says("other"))), "other", "other", "carried")
	add(t, hosts, "other", says("changed"))
	wants(fmt.Sprintf("[pin]\nm = %q\n", digest(says("other"))), "other", "changed", "carried")
	// What is kept is not believed, but looked at.
	kept := filepath.Join(peers, ".versions", "m", fmt.Sprintf("%x.wasm", digest(says("other"))))
	if err := os.WriteFile(kept, says("evil!"), 0o600); err != nil {
		t.Fatal(err)
	}
	wants(fmt.Sprintf("[pin]\nm = %q\n", digest(says("other"))), "", "changed", "carried")
}

// TestPinsThatAreWrittenInPlace: a file that is empty for the moment in which it is
// written does not take the pins away.
func TestPinsThatAreWrittenInPlace(t *testing.T) {
	e, dir := newEngine(t), t.TempDir()
	add(t, dir, "m", says("old"))
	var replaced atomic.Bool
	l := module.Config{Label: "peer", Dir: dir, Engine: e, Report: func(ev module.Event) {
		if ev.Kind == module.Replaced {
			replaced.Store(true)
		}
	}}.Open(t.Context())
	defer l.Close()
	text := fmt.Sprintf("[pin]\nm = %q\n", digest(says("old")))
	pins(t, dir, text)
	if err := l.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	add(t, dir, "m", says("new"))
	for rounds, tries := 0, 0; rounds < 3 && tries < 100; tries++ {
		replaced.Store(false)
		began := time.Now()
		pins(t, dir, "")
		reloaded := make(chan error)
		go func() { reloaded <- l.Reload(t.Context()) }()
		time.Sleep(2 * time.Millisecond) // so that it looks at the empty one
		pins(t, dir, text)
		moment := time.Since(began) < 20*time.Millisecond // else this machine made it longer
		if err := <-reloaded; err != nil {
			t.Error(err)
		}
		if moment {
			rounds++
			if replaced.Load() {
				t.Error("another version ran for a moment")
			}
		}
	}
	if err := l.Reload(t.Context()); err != nil {
		t.Error(err)
	}
	if got, err := answer(t, e, script.Logic{Name: "m"}, l); got != "old" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestAPinWaitsForTheLayerBelow: what comes there later is found by Retry.
func TestAPinWaitsForTheLayerBelow(t *testing.T) {
	e, hosts, peers := newEngine(t), t.TempDir(), t.TempDir()
	var l *module.Layer
	below := module.Config{Label: "host", Dir: hosts, Engine: e, Report: func(module.Event) {
		if l != nil {
			l.Retry(t.Context())
		}
	}}.Open(t.Context())
	defer below.Close()
	pins(t, peers, fmt.Sprintf("[pin]\nm = %q\n[map]\nasked = \"late\"\n", digest(says("late"))))
	l = module.Config{Label: "peer", Dir: peers, Engine: e, Below: below}.Open(t.Context())
	defer l.Close()
	s := saying{t, func(logic script.Logic) (string, error) { return answer(t, e, logic, l, below) }}
	s.wants("", script.Logic{Name: "m"})
	s.wants("", script.Logic{Name: "asked"})
	if problem := fmt.Sprint(l.Problem()); !strings.Contains(problem, "[map] asked: there is no module late; there are: none") {
		t.Errorf("problem: %s", problem)
	}
	add(t, hosts, "late", says("late"))
	if err := below.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.wants("late", script.Logic{Name: "m"})
	s.wants("late", script.Logic{Name: "asked"})
	if err := l.Problem(); err != nil {
		t.Error(err)
	}
}

// TestMap: the target decides what a name, a digest, and carried code stand for.
func TestMap(t *testing.T) {
	e, hosts, peers := newEngine(t), t.TempDir(), t.TempDir()
	add(t, hosts, "guestbook", says("host's guestbook"))
	add(t, hosts, "lower", says("lower"))
	add(t, peers, "mine", says("mine"))
	pins(t, peers, fmt.Sprintf("[map]\nguestbook = \"mine\"\n%q = \"mine\"\n%q = \"lower\"\n",
		digest(says("brought")), "sha256:"+strings.ToUpper(fmt.Sprintf("%x", digest(says("host's guestbook"))))))
	pins(t, hosts, "[map]\nmine = \"lower\"\nelse = \"lower\"\n")
	below := module.Config{Label: "host", Dir: hosts, Engine: e}.Open(t.Context())
	defer below.Close()
	l := module.Config{Label: "peer", Dir: peers, Engine: e, Below: below}.Open(t.Context())
	defer l.Close()
	for _, tt := range []struct {
		logic   script.Logic
		want    string
		name    string
		layer   string
		instead bool
	}{
		{script.Logic{Name: "guestbook"}, "mine", "mine", "peer", true},
		{script.Logic{Wasm: says("brought")}, "mine", "mine", "peer", true},
		{script.Logic{Digest: digest(says("brought"))}, "mine", "mine", "peer", true},
		{script.Logic{Digest: digest(says("host's guestbook"))}, "lower", "lower", "host", true},
		{script.Logic{Wasm: says("something else")}, "something else", "", module.Carried, false},
		{script.Logic{Name: "mine"}, "mine", "mine", "peer", false}, // the host's map is for what the peer has not
		{script.Logic{Name: "else"}, "lower", "lower", "host", true},
		{script.Logic{Name: "lower"}, "lower", "lower", "host", false},
	} {
		f, err := module.Find(tt.logic, l, below)
		if err != nil {
			t.Errorf("%+v: %v", tt.logic, err)
			continue
		}
		p, err := f.Program(t.Context(), e)
		if err != nil {
			t.Fatal(err)
		}
		if f.Name != tt.name || f.Layer != tt.layer || f.Instead != tt.instead || f.Digest != digest(says(tt.want)) || p.Digest() != f.Digest {
			t.Errorf("%+v: %s of %s, instead %v", tt.logic, f.Name, f.Layer, f.Instead)
		}
		f.Release()
	}
	// What runs in its place can call what it stands in for.
	own, err := module.Named("guestbook", l, below)
	if err != nil || own.Layer != "host" || own.Instead {
		t.Fatalf("%+v, %v", own, err)
	}
	own.Release()
	if f, err := module.Named("else", l, below); !errors.Is(err, module.ErrNotFound) {
		t.Errorf("%+v, %v", f, err)
	}
	// What it is mapped to goes away: it is not what it was mapped away from.
	if err := os.Remove(filepath.Join(peers, "mine.wasm")); err != nil {
		t.Fatal(err)
	}
	if err := l.Reload(t.Context()); err == nil {
		t.Error("no problem")
	}
	if f, err := module.Find(script.Logic{Name: "guestbook"}, l, below); !errors.Is(err, module.ErrNotFound) {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestWrongPins(t *testing.T) {
	some := digest([]byte("x"))
	for _, tt := range []struct{ text, want string }{
		{"[pin]\nm = \"sha256:12\"", `pins.toml:2: [pin] m: want the digest of a version`},
		{"[pin]\n\"a/b\" = \"" + some.String() + "\"", `pins.toml:2: [pin] a/b: not a module's name`},
		{"[pin]\nm = [1]", `pins.toml:2`},
		{"[pins]\nm = \"\"", `pins.toml:1: there is no setting "pins"; there are [pin] and [map]`},
		{"m = \"\"", `there is no setting "m"`},
		{"[pin]\nm = \"" + some.String() + "\"\nm = \"" + some.String() + "\"", "pins.toml"},
		{"[pin]\nm = \"sha256:" + strings.Repeat("0", 64) + "\"", "want the digest"},
		{"[map]\na = \"b\"\nb = \"c\"\nc = \"a\"", `pins.toml:2: [map] a: it leads back to where it was: a → b → c → a`},
		{"[map]\na = \"a\"", `[map] a: it leads back to where it was: a → a`},
		{"[map]\na = \"b\"\nb = \"c\"", `[map] a: b is itself mapped, to c`},
		{"[map]\na = \"" + some.String() + "\"", `[map] a: want the name`},
		{"[map]\n\"sha256:12\" = \"b\"", `want the name or the digest`},
		{fmt.Sprintf("[map]\n%q = \"b\"", strings.TrimPrefix(some.String(), "sha256:")), `want the name or the digest`},
		{fmt.Sprintf("[map]\n%q = \"b\"\n%q = \"c\"", some, "sha256:"+strings.ToUpper(strings.TrimPrefix(some.String(), "sha256:"))), `it is mapped twice`},
		{"[map\n", "pins.toml:1"},
	} {
		if p, err := module.ParsePins("pins.toml", []byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s:\n%+v, %v; want %q", tt.text, p, err, tt.want)
		}
	}
	dir := t.TempDir()
	pins(t, dir, strings.Repeat("#", 300<<10))
	if _, err := module.ReadPins(dir); err == nil || !strings.Contains(err.Error(), "bytes") {
		t.Error(err)
	}
	if err := os.Remove(filepath.Join(dir, module.PinsFile)); err != nil {
		t.Fatal(err)
	}
	fifo(t, filepath.Join(dir, module.PinsFile))
	if _, err := module.ReadPins(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Error(err)
	}
}

// TestSetPins: what the owner wrote beside a line stays.
func TestSetPins(t *testing.T) {
	dir := t.TempDir()
	one, two := digest([]byte("1")).String(), digest([]byte("2")).String()
	set := func(section, key, value, want string) {
		t.Helper()
		changed, err := module.SetPins(dir, module.PinsChange{Section: section, Key: key, Value: value})
		if err != nil || !changed {
			t.Errorf("%v, %v", changed, err)
		}
		if changed, err := module.SetPins(dir, module.PinsChange{Section: section, Key: key, Value: value}); err != nil || changed {
			t.Errorf("again: %v, %v", changed, err)
		}
		if text, _ := os.ReadFile(filepath.Join(dir, module.PinsFile)); string(text) != want {
			t.Errorf("it is\n%s\nand not\n%s", text, want)
		}
	}
	set("pin", "m", one, "[pin]\nm = \""+one+"\"\n")
	set("map", one, "m", "[pin]\nm = \""+one+"\"\n\n[map]\n\""+one+"\" = \"m\"\n")
	pins(t, dir, "# mine\n[pin]\nm = \""+one+"\" # good\n\n[map] # none\n")
	set("pin", "m", two, "# mine\n[pin]\nm = \""+two+"\"  # good\n\n[map] # none\n")
	set("pin", "n", one, "# mine\n[pin]\nm = \""+two+"\"  # good\nn = \""+one+"\"\n\n[map] # none\n")
	set("map", "a", "b", "# mine\n[pin]\nm = \""+two+"\"  # good\nn = \""+one+"\"\n\n[map] # none\na = \"b\"\n")
	set("pin", "m", "", "# mine\n[pin]\nn = \""+one+"\"\n\n[map] # none\na = \"b\"\n")
	for _, c := range []module.PinsChange{{"map", "b", "a"}, {"pin", "m", "b"}, {"pin", "..", one}, {"map", "c", "../d"}} {
		if _, err := module.SetPins(dir, c); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
	for _, odd := range []string{"pin.m = \"" + one + "\"\n", "pin = {m = \"" + one + "\"}\n"} {
		pins(t, dir, odd)
		if _, err := module.SetPins(dir, module.PinsChange{Section: "pin", Key: "m", Value: two}); err == nil {
			t.Errorf("%s was changed", odd)
		}
		if text, _ := os.ReadFile(filepath.Join(dir, module.PinsFile)); string(text) != odd {
			t.Errorf("it is\n%s", text)
		}
	}
}

// FuzzPins: whatever the file, it is read or refused, with its name; what SetPins
// makes of one says what it was to say, and nothing else has changed.
func FuzzPins(f *testing.F) {
	one := digest([]byte("1")).String()
	for _, text := range []string{"", "[pin]\nm = \"" + one + "\"\n", "[map]\n\"" + one + "\" = 'm' # x\n[pin]", "pin.m = \"x\"", "[map]\na=\"b\"\nb=\"a\"", "[ pin ]\nm=\"" + one + "\"", "[pin]\n[pin.m]"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		before, err := module.ParsePins("pins.toml", text)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "pins.toml") {
				t.Fatal(err)
			}
			return
		}
		dir := t.TempDir()
		pins(t, dir, string(text))
		if changed, err := module.SetPins(dir, module.PinsChange{Section: "pin", Key: "fuzz", Value: one}); err != nil || !changed {
			return
		}
		after, err := module.ReadPins(dir)
		if err != nil || after.Pin["fuzz"].String() != one {
			t.Fatalf("%+v, %v", after, err)
		}
		delete(after.Pin, "fuzz")
		was := before.Pin["fuzz"]
		delete(before.Pin, "fuzz")
		if fmt.Sprint(after) != fmt.Sprint(before) {
			t.Fatalf("%v was %v (%v)", after, before, was)
		}
	})
}
