package module_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/script"
)

// compose saves a compose file, at once, as an editor does.
func compose(t testing.TB, dir, text string) {
	t.Helper()
	file := filepath.Join(dir, ".new")
	err := os.WriteFile(file, []byte(text), 0o600)
	if err == nil {
		before := time.Now().Add(-time.Minute)
		err = os.Chtimes(file, before, before)
	}
	if err == nil {
		err = os.Rename(file, filepath.Join(dir, module.ComposeFile))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// lineOf is what runs for a name, "guard audit | book", the modules after the stages.
func lineOf(logic script.Logic, layers ...*module.Layer) (string, error) {
	f, err := module.Find(logic, layers...)
	if err != nil {
		return "", err
	}
	defer f.Release()
	line, err := f.Line(layers...)
	if err != nil {
		return "", err
	}
	if composed := len(line) > 0 && line[0].Stage; composed && !f.Composed(layers...) {
		return "", errors.New("it has stages, and is not composed")
	}
	var words []string
	for i, p := range line {
		if !p.Stage && (i == 0 || line[i-1].Stage) {
			words = append(words, "|")
		}
		words = append(words, p.Layer[:1]+":"+p.Name)
	}
	return strings.Join(words, " "), nil
}

func TestLine(t *testing.T) {
	e, peers, hosts := newEngine(t), t.TempDir(), t.TempDir()
	for _, name := range []string{"book", "guard", "audit"} {
		add(t, peers, name, says("peer's "+name))
	}
	for _, name := range []string{"book", "guard", "list", "mail"} {
		add(t, hosts, name, says("host's "+name))
	}
	compose(t, peers, "book = ['audit', 'guard', 'book']\nmail = ['audit', 'mail']\nguard = ['list', 'guard']\n")
	compose(t, hosts, "book = ['mail', 'book']\nlist = ['guard', 'list']\n")
	host := module.Open(t.Context(), "host", hosts, e, nil, nil)
	defer host.Close()
	peer := module.Config{Label: "peer", Dir: peers, Engine: e, Below: host}.Open(t.Context())
	defer peer.Close()
	if err := errors.Join(peer.Problem(), host.Problem()); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		logic script.Logic
		want  string
	}{
		{script.Logic{Name: "audit"}, "| p:audit"},
		{script.Logic{Name: "mail"}, "p:audit | h:mail"},
		{script.Logic{Name: "list"}, "h:guard | h:list"},
		{script.Logic{Name: "guard"}, "h:guard h:list | p:guard h:guard"},
		{script.Logic{Name: "book"}, "p:audit h:guard h:list p:guard | p:book h:mail | h:book"},
		{script.Logic{Digest: digest(says("host's book"))}, "p:audit h:guard h:list p:guard h:mail | h:book"},
		{script.Logic{Digest: digest(says("host's guard"))}, "h:guard h:list | h:guard"},
		{script.Logic{Wasm: says("carried")}, "| c:"},
	} {
		if got, err := lineOf(tt.logic, peer, host); got != tt.want || err != nil {
			t.Errorf("%.40v: %s, %v; want %s", tt.logic, got, err, tt.want)
		}
	}
}

// What is wrong in a compose file is said with its line, and changes nothing.
func TestComposeSaysWhatIsWrong(t *testing.T) {
	e, dir := newEngine(t), t.TempDir()
	for _, name := range []string{"book", "guard", "audit", "a", "b", "c"} {
		add(t, dir, name, says(name))
	}
	var many, chain strings.Builder
	many.WriteString("book = [")
	for i := range 12 {
		name := fmt.Sprintf("stage-%d", i)
		add(t, dir, name, says(name))
		fmt.Fprintf(&many, "%q, ", name)
		if i > 0 {
			fmt.Fprintf(&chain, "stage-%d = [\"stage-%d\", \"stage-%d\"]\n", i, i-1, i)
		}
	}
	many.WriteString("'book']")
	compose(t, dir, "book = ['guard', 'book']")
	l := module.Open(t.Context(), "peer", dir, e, nil, nil)
	defer l.Close()
	for name, tt := range map[string]struct{ text, want string }{
		"not there":        {"# x\n\nbook = ['gaurd', 'book']", `3: book names "gaurd", and there is no such module here; did you mean guard?`},
		"nothing like it":  {"book = ['xyzxyzxyz', 'book']", `1: book names "xyzxyzxyz", and there is no such module here;`},
		"no key":           {"nobody = ['audit', 'nobody']", `1: nobody names "nobody", and there is no such module here`},
		"itself twice":     {"book = ['book', 'book']", `1: book names "book" twice`},
		"a stage twice":    {"book = ['audit', 'audit', 'book']", `1: book names "audit" twice`},
		"itself not last":  {"book = ['book', 'audit']", `1: the last for book is "audit", and must be book itself`},
		"round":            {"a = ['b', 'a']\nb = ['c', 'b']\nc = ['a', 'c']", `1: a goes round: a, which names b, which names c, which names a`},
		"too many":         {many.String(), `1: 12 modules stand before book, with those that stand before them; at most 8 may`},
		"too deep":         {chain.String(), `at most 8 may`},
		"no list":          {"book = 'guard'", `1: what runs for book is a list of names`},
		"an empty list":    {"book = []", `1: what runs for book is a list of names`},
		"a list of others": {"book = ['guard', 3]", `1: what runs for book is a list of names`},
		"a section":        {"\n[chains]\nbook = ['guard', 'book']", `there is no key "chains" here`},
		"a dotted key":     {"book.x = ['guard', 'book']", `1: there is no key "book.x" here`},
		"no name":          {"Book = ['guard', 'book']", `1: there is no key "Book" here`},
		"twice":            {"book = ['guard', 'book']\nbook = ['audit', 'book']", `2: `},
		"not TOML":         {"book = [", `1: `},
		"not text":         {"\x00\xff", `1: `},
		"huge":             {strings.Repeat("#", 70<<10), `it has more than 64 KiB`},
	} {
		compose(t, dir, tt.text)
		err := l.Reload(t.Context())
		var wrong *module.ComposeError
		if !errors.As(err, &wrong) || !strings.Contains(err.Error(), filepath.Join(dir, module.ComposeFile)+":") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
		if err == nil || !strings.Contains(err.Error(), "what it said before stays in force") {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := lineOf(script.Logic{Name: "book"}, l); got != "p:guard | p:book" {
			t.Errorf("%s: in force is %s, %v", name, got, err)
		}
	}
	compose(t, dir, "book = ['audit', 'book']")
	if err := l.Reload(t.Context()); err != nil {
		t.Error(err)
	}
	if got, _ := lineOf(script.Logic{Name: "book"}, l); got != "p:audit | p:book" {
		t.Errorf("mended it is %s", got)
	}
	fifo(t, filepath.Join(dir, "x"))
	if err := os.Rename(filepath.Join(dir, "x"), filepath.Join(dir, module.ComposeFile)); err != nil {
		// On a system where a directory stands in for a FIFO.
		if err = os.Remove(filepath.Join(dir, module.ComposeFile)); err == nil {
			err = os.Rename(filepath.Join(dir, "x"), filepath.Join(dir, module.ComposeFile))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "it is not a regular file") {
		t.Errorf("a FIFO: %v", err)
	}
}

// What stands before a module stays there, whichever file is changed for the worse.
func TestLastGoodComposition(t *testing.T) {
	e, peers, hosts := newEngine(t), t.TempDir(), t.TempDir()
	add(t, peers, "book", says("book"))
	add(t, peers, "guard", says("guard"))
	add(t, hosts, "audit", says("audit"))
	host := module.Open(t.Context(), "host", hosts, e, nil, nil)
	defer host.Close()
	var events []module.Event
	peer := module.Config{Label: "peer", Dir: peers, Engine: e, Below: host, Report: func(e module.Event) { events = append(events, e) }}.Open(t.Context())
	defer peer.Close()
	want := func(problem, want string) {
		t.Helper()
		if err := peer.Reload(t.Context()); (err == nil) != (problem == "") || err != nil && !strings.Contains(err.Error(), problem) {
			t.Errorf("%v, want %q", err, problem)
		}
		if got, err := lineOf(script.Logic{Name: "book"}, peer, host); got != want && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s, %v; want %s", got, err, want)
		}
	}
	want("", "| p:book")
	compose(t, peers, "book = ['guard', 'audit', 'book']")
	want("", "p:guard h:audit | p:book")
	events = nil
	if err := os.Remove(filepath.Join(peers, "guard.wasm")); err != nil {
		t.Fatal(err)
	}
	want(`names "guard", and there is no such module here; what it said before stays in force`, "p:guard h:audit | p:book")
	want(`module guard: its file is gone, and it stays in force, since `, "p:guard h:audit | p:book")
	if len(events) != 1 || events[0].Kind != module.Broken || events[0].Name != module.ComposeFile {
		t.Errorf("it is said once: %+v", events)
	}
	add(t, peers, "guard", []byte("no module"))
	want("the version before stays in force", "p:guard h:audit | p:book")
	add(t, peers, "guard", says("another guard"))
	want("", "p:guard h:audit | p:book")

	// A module of the layer below is not this one's to keep: without it nothing runs.
	if err := os.Remove(filepath.Join(hosts, "audit.wasm")); err != nil {
		t.Fatal(err)
	}
	if err := host.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(`names "audit"`, `no module named "audit" here, which is to run before it`)
	add(t, hosts, "audit", says("audit"))
	if err := host.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	peer.Retry(t.Context())
	if peer.Problem() != nil {
		t.Error(peer.Problem())
	}
	want("", "p:guard h:audit | p:book")

	// A module that comes with something wrong to stand before it waits for that.
	add(t, peers, "files", says("files"))
	compose(t, peers, "book = ['guard', 'audit', 'book']\nfiles = ['gurad', 'files']")
	want("module files: it is not in force before", "p:guard h:audit | p:book")
	if _, err := module.Find(script.Logic{Name: "files"}, peer, host); !errors.Is(err, module.ErrNotFound) {
		t.Errorf("it runs without: %v", err)
	}
	compose(t, peers, "book = ['guard', 'audit', 'book']\nfiles = ['guard', 'files']")
	want("", "p:guard h:audit | p:book")
	if got, _ := lineOf(script.Logic{Name: "files"}, peer, host); got != "p:guard | p:files" {
		t.Errorf("files is %s", got)
	}
	// Its owner takes it away.
	if err := os.Remove(filepath.Join(peers, module.ComposeFile)); err != nil {
		t.Fatal(err)
	}
	want("", "| p:book")
	add(t, peers, "book", says("book 2"))
	compose(t, peers, "broken")
	want("what it said before stays in force", "| p:book")

	// After a start there is nothing that could stay.
	again := module.Config{Label: "peer", Dir: peers, Engine: e, Below: host}.Open(t.Context())
	defer again.Close()
	if _, err := lineOf(script.Logic{Name: "book"}, again, host); !errors.Is(err, module.ErrComposed) {
		t.Errorf("%v", err)
	}
	f, err := module.Find(script.Logic{Name: "audit"}, again, host)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Release()
	if !f.Composed(again, host) {
		t.Error("nobody asks for the line of a module that the file may be about")
	}
}

// TestComposedIsReplacedUnderLoad is TestReplace200TimesUnderLoad for modules that stand one
// before the other, in two layers: each is replaced, and what stands before changes, and
// an override comes and goes. No call is lost, and none gets to the module but through
// the guard, in a version of each that was whole.
func TestComposedIsReplacedUnderLoad(t *testing.T) {
	const replacements, callers = 200, 2
	e, peers, hosts := newEngine(t), t.TempDir(), t.TempDir()
	text := func(name string, n int) string { return fmt.Sprintf("%s %03d", name, n) }
	for _, name := range []string{"guard", "book"} {
		add(t, hosts, name, says(text(name, 0)))
	}
	add(t, peers, "audit", says(text("audit", 0)))
	compose(t, peers, "book = ['guard', 'book']")
	host := module.Open(t.Context(), "host", hosts, e, watcher(t), func(ev module.Event) {
		if ev.Kind == module.Broken || ev.Kind == module.Removed {
			t.Errorf("%s: %v", ev.Kind, ev.Err)
		}
	})
	defer host.Close()
	var replaced atomic.Int32
	peer := module.Config{Label: "peer", Dir: peers, Engine: e, Watcher: watcher(t), Below: host, Report: func(ev module.Event) {
		if ev.Kind == module.Broken {
			t.Errorf("%v", ev.Err)
		}
		replaced.Add(1)
	}}.Open(t.Context())
	defer peer.Close()

	call := func() (string, error) {
		f, err := module.Find(script.Logic{Name: "book"}, peer, host)
		if err != nil {
			return "", err
		}
		defer f.Release()
		line, err := f.Line(peer, host)
		if err != nil {
			return "", err
		}
		var said []string
		for _, place := range line {
			p, err := place.Program(t.Context(), e)
			if err != nil {
				return "", err
			}
			out, err := e.Run(t.Context(), p, engine.Call{})
			if err != nil {
				return "", err
			}
			name, _, ok := strings.Cut(string(out.Result), " ")
			if !ok || len(out.Result) != len(name)+4 {
				return "", fmt.Errorf("%s says %q", place.Name, out.Result)
			}
			said = append(said, place.Layer[:1]+":"+name)
		}
		return strings.Join(said, " "), nil
	}
	whole := map[string]bool{
		"h:guard h:book": true, "h:guard p:book h:book": true,
		"p:audit h:guard h:book": true, "p:audit h:guard p:book h:book": true,
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var mu sync.Mutex
	seen := map[string]int{}
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for ctx.Err() == nil {
				got, err := call()
				if err != nil || !whole[got] {
					t.Errorf("%s, %v", got, err)
					return
				}
				mu.Lock()
				seen[got]++
				mu.Unlock()
			}
		})
	}
	for n := 1; n <= replacements; n++ {
		switch n % 5 {
		case 0:
			compose(t, peers, "book = ['guard', 'book'] # "+text("", n))
		case 1:
			compose(t, peers, "book = ['audit', 'guard', 'book'] # "+text("", n))
		case 2:
			add(t, hosts, "guard", says(text("guard", n)))
		case 3:
			add(t, hosts, "book", says(text("book", n)))
			add(t, peers, "audit", says(text("audit", n)))
		case 4:
			if n%10 == 4 {
				add(t, peers, "book", says(text("book", n)))
			} else if err := os.Remove(filepath.Join(peers, "book.wasm")); err != nil {
				t.Error(err)
			}
		}
		if n%10 == 1 {
			// The time to come into force.
			for end, before := time.Now().Add(10*time.Second), replaced.Load(); time.Now().Before(end) && replaced.Load() == before && ctx.Err() == nil; {
				time.Sleep(time.Millisecond)
			}
		}
	}
	stop()
	all.Wait()
	if len(seen) < 3 || replaced.Load() < replacements/10 {
		t.Errorf("seen %v, %d changes", seen, replaced.Load())
	}
	t.Logf("%v", seen)
}
