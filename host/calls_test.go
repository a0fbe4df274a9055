package host_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/modules"
	"github.com/circles-host/circles/testdata/build"
)

// step is one of testdata/guests/steps.
type step []any

func text(steps ...step) []byte {
	b, err := json.Marshal(steps)
	if err != nil {
		panic(err)
	}
	return b
}

// run is a script that asks the module of that name for steps.
func run(name string, steps ...step) script.Script {
	return script.Script{Logic: script.Logic{Name: name}, Params: text(steps...)}
}

// modules gives a peer, or with "" the host, the module steps under these names: bytes
// that are compiled once for each layer, which takes a while.
func (w *world) modules(of peer.Name, names ...string) {
	w.Helper()
	for _, name := range names {
		mark := "of " + string(of)
		if name == "book" { // which scripts ask for by its digest
			mark += name
		}
		wasm := append(build.Go(w.TB, "testdata/guests/steps", true), 0, byte(len(mark)+2), 1, 'n')
		w.module(of, name, append(wasm, mark...))
	}
}

func (w *world) modulesDir(of peer.Name) string {
	if of == "" {
		return filepath.Join(w.root.Dir, "modules")
	}
	return filepath.Join(w.entry(of).Dir, "modules")
}

func (w *world) module(of peer.Name, name string, wasm []byte) {
	w.Helper()
	if _, err := module.Add(w.modulesDir(of), name, wasm); err != nil {
		w.Fatal(err)
	}
}

func (w *world) compose(of peer.Name, text string) {
	w.Helper()
	if err := os.MkdirAll(w.modulesDir(of), 0o700); err != nil {
		w.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.modulesDir(of), module.ComposeFile), []byte(text), 0o600); err != nil {
		w.Fatal(err)
	}
	w.reopen()
}

// ok is what a script that went well has to say.
func (w *world) ok(r script.Receipt) string {
	w.Helper()
	if r.Code != script.Done {
		w.Fatalf("%v: %s; log: %s", r.Code, r.Message, r.Log)
	}
	return string(r.Result)
}

// shares checks that the parts are these, "name×calls", and that their fuel is all.
func shares(t testing.TB, r script.Receipt, want ...string) {
	t.Helper()
	var got []string
	fuel := uint64(0)
	for _, p := range r.Parts {
		got = append(got, fmt.Sprintf("%s×%d", p.Name, p.Calls))
		fuel += p.Fuel
		if p.Fuel == 0 || p.Module.IsZero() || p.Layer == "" {
			t.Errorf("part %+v", p)
		}
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("parts are %s, want %s", got, want)
	}
	if len(want) > 0 && fuel != r.Usage.Fuel {
		t.Errorf("the parts used %d of fuel, all of it %d", fuel, r.Usage.Fuel)
	}
}

// A module has another one run in the same transaction: what one writes the other sees,
// and the receipt names both.
func TestCall(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.modules("bob", "a", "b")
	w.modules("", "c")
	w.policy("bob", "all", `@id("all") permit(principal, action, resource);`)
	r := w.send("alice", "bob", run("a",
		step{"write", "/a", "by a"}, step{"log", "in a"},
		step{"call", "b", "sign", []step{
			{"entry"}, {"read", "/a"}, {"write", "/b", "by b"}, {"log", "in b"}, {"put", "notes", "k", "v"},
			{"call", "c", "", []step{{"entry"}, {"read", "/b"}, {"get", "notes", "k"}}},
		}},
		step{"read", "/b"}, step{"call", "b", "run"}))
	if got, want := w.ok(r), "sign\nby a\nrun\nby b\nv\nby b"; got != want {
		t.Errorf("it said %q, want %q", got, want)
	}
	if want := "level=INFO msg=\"in a\""; strings.Count(string(r.Log), "in ") != 2 || strings.Index(string(r.Log), "in a") > strings.Index(string(r.Log), "in b") {
		t.Errorf("log %q, want %s first", r.Log, want)
	}
	shares(t, r, "c×1", "b×2", "a×1")
	if len(r.Effects) != 3 || w.read("bob", "/b") != "by b" {
		t.Errorf("effects %+v", r.Effects)
	}
	for _, p := range r.Parts {
		if want := map[string]string{"a": "peer", "b": "peer", "c": "host"}[p.Name]; p.Layer != want {
			t.Errorf("%s is of the layer %s", p.Name, p.Layer)
		}
	}
	if logged := w.logged("bob"); len(logged[0].Parts) != 3 {
		t.Errorf("the log has %+v", logged[0].Parts)
	}
	// Of one module alone nothing is said.
	shares(t, w.send("alice", "bob", run("a", step{"say", "x"})))

	// A command is called too: params on stdin, what it prints is the result.
	if got := w.ok(w.send("alice", "bob", run("a", step{"call", "wordcount", "", "one two"}))); !strings.Contains(got, "2") {
		t.Errorf("wordcount says %q", got)
	}
	for _, tc := range []struct {
		what step
		want string
	}{
		{step{"call", "nobody", ""}, `cannot call "nobody": module not found: no module named "nobody" here`},
		{step{"call", "../a", ""}, "not a module's name"},
		{step{"call", "", ""}, "not a module's name"},
		{step{"call", "b", "dance"}, `the module has no entry "dance"; it has run, sign`},
		{step{"base", ""}, "stands before no other"},
		{step{"again", "b"}, "16 modules run one within the other, which is as many as may: a runs b runs b"},
	} {
		if got := w.ok(w.send("alice", "bob", run("a", step{"try", tc.what}))); !strings.HasPrefix(got, "error: ") || !strings.Contains(got, tc.want) {
			t.Errorf("%v: %q, want %q", tc.what, got, tc.want)
		}
	}
}

// What a module may not do it does not do by having another one do it, and what is
// called may not do more than who calls it; but what the owner puts before a module
// does what it may, and the module goes on with what it may.
func TestGrantsOfThoseThatRunForAScript(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.modules("bob", "app", "helper", "guard")
	w.put("bob", "/app/a", "of app")
	w.put("bob", "/shared/s", "shared")
	w.put("bob", "/helper/h", "of helper")
	w.put("bob", "/guard/g", "of guard")
	w.policy("bob", "all", `
@id("run") permit(principal, action == Action::"submit", resource) when { ["app", "helper"].contains(context.module.name) };
@id("helps") permit(principal, action == Action::"call", resource == Module::"helper") when { context.module.name == "app" };
@id("app") permit(principal, action in Action::"files", resource) when { context.module.name == "app" && (resource in Path::"/app" || resource in Path::"/shared") };
@id("helper") permit(principal, action in Action::"files", resource) when { context.module.name == "helper" && (resource in Path::"/helper" || resource in Path::"/shared") };
@id("guard") permit(principal, action in Action::"files", resource in Path::"/guard") when { context.module.name == "guard" };
@id("silent") forbid(principal, action == Action::"log", resource) when { context.module.name == "helper" };
`)
	can := func(of, path string, via ...step) bool {
		t.Helper()
		s := step{"try", step{"read", path}}
		for _, v := range via {
			s = append(v[:len(v):len(v)], []step{s})
		}
		got := w.ok(w.send("alice", "bob", run(of, s)))
		denied := strings.Contains(got, "may not read")
		if !denied && !strings.Contains("of app, shared, of helper, of guard", got) {
			t.Errorf("read %s: %q", path, got)
		}
		return !denied
	}
	call := step{"call", "helper", ""}
	for _, tc := range []struct {
		path             string
		app, helper, dep bool
	}{
		{"/app/a", true, false, false}, {"/shared/s", true, true, true}, {"/helper/h", false, true, false}, {"/guard/g", false, false, false},
	} {
		if a, h, d := can("app", tc.path), can("helper", tc.path), can("app", tc.path, call); a != tc.app || h != tc.helper || d != tc.dep {
			t.Errorf("%s: app %v, helper %v, helper called by app %v", tc.path, a, h, d)
		}
	}
	// Why says whose fault it is.
	got := w.ok(w.send("alice", "bob", run("app", step{"call", "helper", "", []step{{"try", step{"read", "/helper/h"}}}})))
	if !strings.Contains(got, "app called this, and may not: no policy of bob permits it") {
		t.Errorf("%q", got)
	}
	// The other way round nobody said that it may call.
	r := w.send("alice", "bob", run("helper", step{"call", "app", ""}))
	if r.Code != script.Failed || !strings.Contains(r.Message, `may not call module "app" in the context of bob: no policy of bob permits it; it was denied: call app`) ||
		!strings.Contains(r.Message, "policy allow --to bob alice helper --call app") {
		t.Errorf("%v %s", r.Code, r.Message)
	}
	// The receipt says which module was denied what, and how to allow it, that alone.
	r = w.send("alice", "bob", run("app", step{"call", "helper", "", []step{{"write", "/app/new", ""}}}))
	if r.Code != script.Failed || !strings.Contains(r.Message, "it was denied: write /app/new to helper; to allow it: circles-host policy allow --to bob alice helper --called --write /app/new") {
		t.Errorf("%v %s", r.Code, r.Message)
	}
	// What helper logs is not kept, what app logs is.
	r = w.send("alice", "bob", run("app", step{"log", "by app"}, step{"call", "helper", "", []step{{"log", "by helper"}}}, step{"log", "app again"}))
	if log := string(r.Log); !strings.Contains(log, "by app") || strings.Contains(log, "by helper") || !strings.Contains(log, "app again") {
		t.Errorf("log is %q", log)
	}

	// Put before app by its owner, guard reads what is its own, and reaches app's through
	// base alone; it has no permit for app's files, for calling, or to be sent.
	w.compose("bob", "app = [\"guard\", \"app\"]\n")
	base := step{"base", ""}
	for _, tc := range []struct {
		path        string
		guard, base bool
	}{{"/app/a", false, true}, {"/guard/g", true, false}, {"/shared/s", false, true}} {
		if g, b := can("app", tc.path), can("app", tc.path, base); g != tc.guard || b != tc.base {
			t.Errorf("%s: guard %v, app below it %v", tc.path, g, b)
		}
	}
	if r := w.send("alice", "bob", run("guard")); r.Code != script.Refused {
		t.Errorf("guard itself: %v", r.Code)
	}
	if got := w.ok(w.send("alice", "bob", run("app", step{"try", step{"call", "helper", ""}}))); !strings.Contains(got, "may not call") {
		t.Errorf("guard calls: %q", got)
	}
	// Who calls a module that has something put before it gets that too: under its own
	// grants, and the module with no more than who called.
	w.policy("bob", "more", `@id("more") permit(principal, action == Action::"call", resource == Module::"app") when { context.module.name == "helper" };`)
	up := step{"call", "app", ""}
	if !can("helper", "/guard/g", up) || can("helper", "/app/a", base, up) || !can("helper", "/shared/s", base, up) {
		t.Error("helper calls app: guard has less than it may, or app more than helper")
	}
}

// What fails may be gone on from, as long as nothing was changed; and else nothing
// remains of the script.
func TestFailedCalls(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.modules("bob", "a", "b", "c")
	w.policy("bob", "all", `@id("all") permit(principal, action, resource);`)
	for _, tc := range []struct {
		what []step
		want string
	}{
		{[]step{{"fail", "no seats left"}}, "error: call b: no seats left"},
		{[]step{{"exit"}}, "error: b exited with code 3 before it returned a result"},
		{[]step{{"call", "c", "", []step{{"fail", "deeper"}}}}, "error: call b: call c: deeper"},
		{[]step{{"eat"}}, "error: b out of memory"},
	} {
		r := w.send("alice", "bob", run("a", step{"write", "/a", "1"}, step{"try", step{"call", "b", "", tc.what}}, step{"read", "/a"}))
		if got := w.ok(r); !strings.HasPrefix(got, tc.want) || !strings.HasSuffix(got, "\n1") {
			t.Errorf("%v: %q, want %q", tc.what, got, tc.want)
		}
	}
	for _, wrote := range []step{{"write", "/b", "x"}, {"append", "/a", "x"}, {"put", "notes", "k", "v"}, {"call", "c", "", []step{{"write", "/c", ""}}}} {
		r := w.send("alice", "bob", run("a", step{"write", "/a2", "1"}, step{"try", step{"call", "b", "", []step{wrote, {"fail", "too late"}}}}, step{"say", "and on"}))
		if r.Code != script.Failed || r.Message != "module b failed when it had changed something, so nothing of this script is kept: too late" || r.Effects != nil || r.Result != nil {
			t.Errorf("%v: %v %s, %q", wrote, r.Code, r.Message, r.Result)
		}
		if w.read("bob", "/a2") != "" || w.read("bob", "/b") != "" || w.read("bob", "/a") != "1" {
			t.Error("something remains")
		}
		if len(r.Parts) < 2 || r.Usage.Fuel == 0 {
			t.Errorf("parts %+v", r.Parts)
		}
	}
	// How deep it is does not matter.
	r := w.send("alice", "bob", run("a", step{"try", step{"call", "b", "", []step{
		{"try", step{"call", "c", "", []step{{"write", "/c", ""}, {"fail", "in c"}}}},
	}}}))
	if r.Code != script.Failed || !strings.Contains(r.Message, "module c failed when it had changed something") {
		t.Errorf("%v %s", r.Code, r.Message)
	}
	shares(t, r, "c×1", "b×1", "a×1")
}

// The limits are the script's, whoever comes to them.
func TestCallsShareTheScriptsLimits(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.modules("bob", "a", "b")
	w.policy("bob", "all", `@id("all") @limits("time=2s, fuel=100M") permit(principal, action, resource);`)
	r := w.send("alice", "bob", run("a", step{"try", step{"call", "b", "", []step{{"loop"}}}}, step{"say", "and on"}))
	if r.Code != script.OverLimit && r.Code != script.Deadline || !strings.Contains(r.Message, "100000000 units of fuel") {
		t.Errorf("%v %s", r.Code, r.Message)
	}
	shares(t, r, "b×1", "a×1")
	if b := r.Parts[0]; b.Fuel < 50e6 {
		t.Errorf("its share is %d", b.Fuel)
	}
	w.policy("bob", "all", `@id("all") @limits("time=100ms") permit(principal, action, resource);`)
	if r := w.send("alice", "bob", run("a", step{"try", step{"call", "b", "", []step{{"loop"}}}}, step{"say", "and on"})); r.Code != script.Deadline {
		t.Errorf("%v %s", r.Code, r.Message)
	}
	// A script that has others run without end comes to its end, too.
	w.policy("bob", "all", `@id("all") @limits("host_calls=200") permit(principal, action, resource);`)
	var many []step
	for range 300 {
		many = append(many, step{"try", step{"call", "b", ""}})
	}
	if r := w.send("alice", "bob", run("a", many...)); r.Code != script.OverLimit || !strings.Contains(r.Message, "200 calls of host functions") {
		t.Errorf("%v %s", r.Code, r.Message)
	}
	w.policy("bob", "all", `@id("all") @limits("memory=24MiB") permit(principal, action, resource);`)
	if r := w.send("alice", "bob", run("a", step{"again", "b"})); r.Code != script.Failed || !strings.Contains(r.Message, "memory") {
		t.Errorf("%v %s", r.Code, r.Message)
	}
}

// The peer's module of a name hides the host's, for that peer, and may go on to it.
func TestOverride(t *testing.T) {
	w := newWorld(t, "alice", "bob", "eve")
	w.modules("", "book")
	const all = `@id("all") permit(principal, action, resource);`
	w.policy("bob", "all", all)
	w.policy("eve", "all", all)
	before := w.send("alice", "bob", run("book", step{"try", step{"base", ""}}))
	if got := w.ok(before); !strings.Contains(got, "stands before no other") {
		t.Errorf("%q", got)
	}
	w.module("bob", "book", append(build.Go(t, "testdata/guests/steps", true), 0, 3, 1, 'o', 'x'))
	w.reopen()
	r := w.send("alice", "bob", script.Script{Logic: script.Logic{Name: "book"}, Entry: "sign", Params: text(
		step{"say", "before"}, step{"base", "", []step{{"entry"}, {"write", "/b", "host's"}}}, step{"read", "/b"}, step{"base", "run", []step{{"entry"}}},
		step{"try", step{"base", "", []step{{"base", ""}}}})})
	if got, want := w.ok(r), "before\nsign\nhost's\nrun\nerror: cannot call the base: this module stands before no other"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	shares(t, r, "book×3", "book×1")
	if r.Parts[0].Layer != "host" || r.Parts[1].Layer != "peer" || r.Module != r.Parts[1].Module || r.Parts[0].Module != before.Module {
		t.Errorf("parts %+v of %v", r.Parts, r.Module)
	}
	if r := w.send("alice", "eve", run("book", step{"say", "x"})); r.Module != before.Module {
		t.Error("eve got bob's")
	}
	// Who asks for the host's by its digest gets that.
	s := run("book", step{"try", step{"base", ""}})
	s.Logic = script.Logic{Digest: before.Module}
	if r := w.send("alice", "bob", s); r.Module != before.Module || !strings.Contains(w.ok(r), "stands before no other") {
		t.Errorf("%s", r.Result)
	}
}

// A module that runs already when something is put before it stands where it stood: its
// base is what is below it, and not itself.
func TestComposedWhileItRuns(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.modules("bob", "first", "book")
	w.modules("", "book")
	w.policy("bob", "all", `@id("all") permit(principal, action, resource);`)
	var before func()
	w.wrap = func(_ peer.ID, s store.Store) store.Store {
		return updated{s, func() {
			if f := before; f != nil {
				before = nil
				f()
			}
		}}
	}
	w.reopen()
	s := run("book", step{"say", "peer"}, step{"base", "", []step{{"say", "host"}, {"try", step{"base", ""}}}})
	before = func() { // it has been found out what is to run
		if err := os.WriteFile(filepath.Join(w.modulesDir("bob"), module.ComposeFile), []byte(`book = ["first", "book"]`), 0o600); err != nil {
			t.Fatal(err)
		}
		eventually(t, "that a stage is put before it", func() bool {
			return len(w.send("alice", "bob", run("book", step{"say", "x"})).Parts) > 0
		})
	}
	r := w.send("alice", "bob", s)
	if got, want := w.ok(r), "peer\nhost\nerror: cannot call the base: this module stands before no other"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	shares(t, r, "book×1", "book×1")
}

// updated is a store that calls a function before each transaction that may write.
type updated struct {
	store.Store
	before func()
}

func (u updated) Update(ctx context.Context, f func(store.Tx) error) error {
	u.before()
	return u.Store.Update(ctx, f)
}

// What a compose file puts before a module runs first, and decides.
func TestCompose(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.modules("bob", "first", "second", "book", "other")
	w.modules("", "book", "third")
	w.policy("bob", "all", `@id("all") permit(principal, action, resource);`)
	w.compose("bob", `
# who signs
book = ["first", "second", "book"]
other = ["third", "other"]
`)
	base := func(entry string, steps ...step) step { return step{"base", entry, steps} }
	r := w.send("alice", "bob", script.Script{Logic: script.Logic{Name: "book"}, Entry: "sign", Params: text(
		step{"say", "1"}, base("", step{"say", "2"}, base("", step{"entry"}, step{"say", "peer"}, base("", step{"say", "host"}))), step{"say", "1 after"})})
	if got, want := w.ok(r), "1\n2\nsign\npeer\nhost\n1 after"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	shares(t, r, "book×1", "book×1", "second×1", "first×1")
	if peers := sha256.Sum256(mustRead(t, filepath.Join(w.modulesDir("bob"), "book.wasm"))); r.ModuleName != "book" || r.Module != peers {
		t.Errorf("the receipt is about %s %v", r.ModuleName, r.Module)
	}
	// One refuses; one answers instead.
	if r := w.send("alice", "bob", run("book", step{"fail", "not today"})); r.Code != script.Failed || r.Message != "not today" {
		t.Errorf("%v %s", r.Code, r.Message)
	}
	if got := w.ok(w.send("alice", "bob", run("book", step{"say", "instead"}))); got != "instead" {
		t.Errorf("%q", got)
	}
	// Who asks by digest does not get round it, nor who calls.
	s := script.Script{Logic: script.Logic{Digest: r.Module}, Params: text(base("", base("", step{"say", "third"})))}
	shares(t, w.send("alice", "bob", s), "book×1", "second×1", "first×1")
	hosts := sha256.Sum256(mustRead(t, filepath.Join(w.modulesDir(""), "book.wasm")))
	s = script.Script{Logic: script.Logic{Digest: hosts}, Params: text(base("", base("", step{"try", step{"base", ""}})))}
	if r := w.send("alice", "bob", s); r.Module != hosts || !strings.Contains(w.ok(r), "stands before no other") {
		t.Errorf("%s", r.Result)
	}
	shares(t, w.send("alice", "bob", run("other", base("", step{"call", "book", "", []step{base("", base("", step{"say", "x"}))}}))),
		"book×1", "second×1", "first×1", "other×1", "third×1")

	// The host's chain is below the peer's.
	w.compose("", `book = ["third", "book"]`)
	r = w.send("alice", "bob", run("book", base("", base("", base("", base("", step{"say", "down"}), step{"say", "third"}), step{"say", "book"}))))
	if got := w.ok(r); got != "down\nthird\nbook" {
		t.Errorf("%q", got)
	}
	shares(t, r, "book×1", "third×1", "book×1", "second×1", "first×1")

	// A stage that lacks the entry is entered by run, and what it goes on with is what was
	// asked for.
	w.module("bob", "first", mustRead(t, filepath.Join(w.modulesDir(""), "wordcount.wasm")))
	w.compose("bob", `book = ["first", "book"]`)
	if r := w.send("alice", "bob", script.Script{Logic: script.Logic{Name: "book"}, Entry: "sign", Params: []byte("a b c")}); !strings.Contains(w.ok(r), "3") {
		t.Errorf("%q", r.Result)
	}
}

func mustRead(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Until a compose file was ever good, nothing runs that it could be about: its owner
// wants something before it.
func TestComposeThatWasNeverGood(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.modules("bob", "a", "b")
	w.policy("bob", "all", `@id("all") permit(principal, action, resource);`)
	w.compose("bob", `a = ["gurad", "a"]`)
	if r := w.send("alice", "bob", run("b", step{"say", "x"})); r.Code != script.Unavailable || !strings.Contains(r.Message, "compose.toml of the layer peer has a mistake") {
		t.Errorf("%v %s", r.Code, r.Message)
	}
	if err := w.host.Problem(); err == nil || !strings.Contains(err.Error(), `compose.toml:1: a names "gurad", and there is no such module here`) {
		t.Errorf("%v", err)
	}
	w.compose("bob", `a = ["b", "a"]`)
	if got := w.ok(w.send("alice", "bob", run("b", step{"say", "x"}))); got != "x" {
		t.Errorf("%q", got)
	}
}

// What a module says of itself, that it only reads, binds all that it has run; and what
// is put before it may be another matter.
func TestReadersAndWhatTheyCall(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.modules("bob", "writes")
	wasm, err := modules.WithManifest(build.Go(t, "testdata/guests/steps", true), []byte(`{"needs": [{"action": "read", "path": "/"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	w.module("bob", "reads", wasm)
	w.policy("bob", "all", `@id("all") permit(principal, action, resource);`)
	r := w.send("alice", "bob", run("reads", step{"try", step{"call", "writes", "", []step{{"write", "/x", ""}}}}))
	if r.Code == script.Done && !strings.Contains(string(r.Result), "may not change the context of bob") || len(r.Effects) != 0 {
		t.Errorf("%v %s %s", r.Code, r.Message, r.Result)
	}
	w.compose("bob", `reads = ["writes", "reads"]`)
	r = w.send("alice", "bob", run("reads", step{"write", "/x", "stage"}, step{"base", "", []step{{"read", "/x"}}}))
	if got := w.ok(r); got != "stage" {
		t.Errorf("%q", got)
	}
}

// A rehearsal tells which module asked for what.
func TestRehearseCalls(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.modules("bob", "a", "b")
	w.policy("bob", "all", `@id("all") permit(principal, action in [Action::"submit", Action::"call"], resource);
@id("b") permit(principal, action, resource in Path::"/b") when { context.module.name == "b" };`)
	s := run("a", step{"try", step{"call", "b", "", []step{{"try", step{"write", "/b", ""}}}}})
	s.Caller, s.Target = w.entry("alice").ID, w.entry("bob").ID
	s.NotBefore = time.Now()
	s.Deadline = s.NotBefore.Add(time.Minute)
	r, err := w.host.Rehearse(t.Context(), s, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range r.Accesses {
		got = append(got, fmt.Sprintf("%s: %s %s %v %s", a.Module, a.Action, a.Path, a.Allowed, strings.Join(a.By, ",")))
	}
	want := "a: call b true all\nb: write /b false "
	if !strings.Contains(strings.Join(got, "\n")+"\n", want) {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
}
