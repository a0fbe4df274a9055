package module_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/script"
)

// kept are the texts of the versions that are kept of m, of those that are named.
func kept(t *testing.T, dir, name string, texts ...string) (list []string) {
	t.Helper()
	all, err := module.Versions(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range all {
		for _, text := range texts {
			if v.Digest == digest(says(text)) {
				list = append(list, text)
			}
		}
	}
	return list
}

// TestVersionsAreKept: as many as the layer keeps, and what is in force or pinned
// always.
func TestVersionsAreKept(t *testing.T) {
	e, dir := newEngine(t), t.TempDir()
	l := module.Config{Label: "peer", Dir: dir, Engine: e, Keep: module.Keep{Versions: 3}}.Open(t.Context())
	defer l.Close()
	texts := []string{"1", "2", "3", "4", "5", "6"}
	save := func(name, text string) {
		t.Helper()
		add(t, dir, name, says(text))
		if err := l.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range texts[:5] {
		save("m", text)
	}
	if got := kept(t, dir, "m", texts...); !slices.Equal(got, []string{"5", "4", "3"}) {
		t.Errorf("kept: %v", got)
	}
	save("m", "4") // is in force again
	if got := kept(t, dir, "m", texts...); !slices.Equal(got, []string{"4", "5", "3"}) {
		t.Errorf("kept: %v", got)
	}
	pins(t, dir, fmt.Sprintf("[pin]\nm = %q\n", digest(says("3"))))
	save("m", "6")
	if got := kept(t, dir, "m", texts...); !slices.Equal(got, []string{"3", "4", "5"}) {
		t.Errorf("kept: %v", got)
	}
	if err := os.Chtimes(filepath.Join(dir, ".versions", "m", fmt.Sprintf("%x.wasm", digest(says("3")))), time.Unix(0, 0), time.Unix(0, 0)); err != nil {
		t.Fatal(err)
	}
	// All together they are bounded too.
	tight := module.Config{Label: "peer", Dir: dir, Engine: e, Keep: module.Keep{Bytes: int64(3 * len(says("1")))}}.Open(t.Context())
	defer tight.Close()
	add(t, dir, "n", says("1"))
	if err := tight.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if m, n := kept(t, dir, "m", texts...), kept(t, dir, "n", texts...); !slices.Contains(m, "3") || len(m) != 2 || len(n) != 1 {
		t.Errorf("kept: %v, %v", m, n)
	}
	// What is no version is not one.
	for _, name := range []string{"x.wasm", ".adding-1", strings.Repeat("A", 64) + ".wasm"} {
		if err := os.WriteFile(filepath.Join(dir, ".versions", "n", name), says("1"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := module.Versions(dir, "n"); err != nil || len(all) != 1 {
		t.Errorf("%+v, %v", all, err)
	}
	if _, err := module.Versions(dir, ".."); err == nil {
		t.Error("versions of ..")
	}
}

// TestAVersionIsACopy: a file that is written in place does not take what is kept
// of it along.
func TestAVersionIsACopy(t *testing.T) {
	e, dir := newEngine(t), t.TempDir()
	add(t, dir, "m", says("good"))
	l := module.Open(t.Context(), "peer", dir, e, nil, nil)
	defer l.Close()
	if err := os.WriteFile(filepath.Join(dir, "m.wasm"), says("evil"), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := module.Versions(dir, "m")
	if err != nil || len(all) != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	if wasm, err := all[0].Read(dir); err != nil || digest(wasm) != digest(says("good")) {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".versions", "m", fmt.Sprintf("%x.wasm", all[0].Digest)), says("evil"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := all[0].Read(dir); !errors.Is(err, module.ErrNotFound) {
		t.Errorf("damaged: %v", err)
	}
}

// TestRollback: back to what was in force before, and back again; to one that is
// named; to one whose file is gone; and not when it would change nothing that runs.
func TestRollback(t *testing.T) {
	e, dir := newEngine(t), t.TempDir()
	l := module.Open(t.Context(), "peer", dir, e, nil, nil)
	defer l.Close()
	for _, text := range []string{"one", "two", "three"} {
		add(t, dir, "m", says(text))
		if err := l.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	back := func(to script.Digest, from, now string) {
		t.Helper()
		f, n, err := module.Rollback(dir, "m", to)
		if err != nil || n.Digest != digest(says(now)) || from != "" && f.Digest != digest(says(from)) || from == "" && f != (module.Version{}) {
			t.Errorf("%+v, %+v, %v", f, n, err)
		}
		if err := l.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, err := answer(t, e, script.Logic{Name: "m"}, l); got != now || err != nil {
			t.Errorf("%q, %v; want %q", got, err, now)
		}
	}
	back(script.Digest{}, "three", "two")
	back(script.Digest{}, "two", "three")
	back(digest(says("one")), "three", "one")
	back(script.Digest{}, "one", "three")
	back(digest(says("three")), "three", "three")
	if err := os.Remove(filepath.Join(dir, "m.wasm")); err != nil {
		t.Fatal(err)
	}
	if err := l.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	back(script.Digest{}, "", "three")
	// What nobody has run yet is kept before it is replaced.
	add(t, dir, "m", says("four"))
	back(script.Digest{}, "four", "three")
	back(script.Digest{}, "three", "four")

	wants := func(name string, to script.Digest, want string) {
		t.Helper()
		if _, _, err := module.Rollback(dir, name, to); !errors.Is(err, module.ErrNoVersion) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
	wants("other", script.Digest{}, "no version before this one is kept; there are none")
	wants("m", digest(says("nobody's")), "is not kept; there are sha256:")
	pins(t, dir, fmt.Sprintf("[pin]\nm = %q\n", digest(says("one"))))
	wants("m", script.Digest{}, "module m is pinned to sha256:")
}

// Hammer: names are pinned, unpinned and rolled back under load, while their files
// are replaced. Nobody gets anything but whole versions, of that name; and while a
// name is pinned nobody gets any other.
func TestPinsAndRollbacksUnderLoad(t *testing.T) {
	const rounds, callers = 21, 4
	e, dir := newEngine(t), t.TempDir()
	text := func(name string, n int) string { return fmt.Sprintf("%s %03d", name, n) }
	for _, name := range []string{"pinned", "moved", "rolled"} {
		add(t, dir, name, says(text(name, 0)))
	}
	pins(t, dir, fmt.Sprintf("[pin]\npinned = %q\n", digest(says(text("pinned", 0)))))
	events := new(log)
	l := module.Config{Label: "peer", Dir: dir, Engine: e, Watcher: watcher(t), Report: func(ev module.Event) {
		if ev.Kind == module.Broken || ev.Kind == module.Removed {
			t.Errorf("%s %s: %v", ev.Kind, ev.Name, ev.Err)
		}
		events.add(ev)
	}}.Open(t.Context())
	defer l.Close()
	done := make(chan struct{})
	var calls atomic.Int64
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			for n := i; ; n++ {
				name := []string{"pinned", "moved", "rolled"}[n%3]
				got, err := answer(t, e, script.Logic{Name: name}, l)
				if err != nil || !strings.HasPrefix(got, name+" ") || len(got) != len(text(name, 0)) || name == "pinned" && got != text(name, 0) {
					t.Errorf("%s: got %q, %v", name, got, err)
					return
				}
				calls.Add(1)
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	settled := func(name, want string) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
			if got, err := answer(t, e, script.Logic{Name: name}, l); err == nil && got == want {
				return
			} else if time.Now().After(end) {
				t.Errorf("%s is %q, %v; want %q", name, got, err, want)
				return
			}
		}
	}
	set := func(name, value string) {
		t.Helper()
		if _, err := module.SetPins(dir, module.PinsChange{Section: "pin", Key: name, Value: value}); err != nil {
			t.Error(err)
		}
	}
	for n := 1; n <= rounds; n++ {
		for _, name := range []string{"pinned", "moved", "rolled"} {
			add(t, dir, name, says(text(name, n)))
		}
		switch n % 3 {
		case 0: // what came is taken back, and that is taken back too
			settled("rolled", text("rolled", n))
			for _, want := range []int{n - 1, n} {
				if _, now, err := module.Rollback(dir, "rolled", script.Digest{}); err != nil || now.Digest != digest(says(text("rolled", want))) {
					t.Errorf("round %d: %+v, %v", n, now, err)
				}
				settled("rolled", text("rolled", want))
			}
		case 1:
			settled("rolled", text("rolled", n))
			settled("moved", text("moved", n))
			set("moved", digest(says(text("moved", n))).String())
		case 2:
			settled("rolled", text("rolled", n))
			settled("moved", text("moved", n-1))
			set("moved", "")
			settled("moved", text("moved", n))
		}
	}
	close(done)
	all.Wait()
	if got := kept(t, dir, "rolled", text("rolled", rounds), text("rolled", rounds-1)); len(got) != 2 {
		t.Errorf("kept of the last two: %v", got)
	}
	t.Logf("%d calls over %d rounds", calls.Load(), rounds)
}

// TestRollbackOfATextToAModule: a name has one file, whichever it goes back to.
func TestRollbackOfATextToAModule(t *testing.T) {
	dir := t.TempDir()
	add(t, dir, "m", says("compiled"))
	if err := module.KeepSaved(dir, "m"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "m.wasm"), filepath.Join(dir, "m.js")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "m.js"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"m.wasm", "m.js", "m.wasm"} {
		if _, now, err := module.Rollback(dir, "m", script.Digest{}, ".wasm", ".js"); err != nil || "m"+now.Suffix != want {
			t.Errorf("%+v, %v; want %s", now, err, want)
		}
		files, _ := filepath.Glob(filepath.Join(dir, "m.*"))
		if len(files) != 1 || filepath.Base(files[0]) != want {
			t.Errorf("there are %v, want %s", files, want)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "m.js"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := module.Rollback(dir, "m", script.Digest{}, ".wasm", ".js"); err == nil || !strings.Contains(err.Error(), "both m.wasm and m.js") {
		t.Errorf("of two files: %v", err)
	}
}
