package host_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/circles-host/circles/guest-sdk/sdktest"
	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/records"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/testdata/build"
)

// TestSDKs runs the suite's guest of each SDK on this host, as scripts: what the
// SDKs' own tests say that a host does, this one does, under policies and limits.
func TestSDKs(t *testing.T) {
	for name, wasm := range map[string]func() []byte{
		"go":             func() []byte { return build.Go(t, "testdata/guests/suite", true) },
		"rust":           suiteGuest(t, "rust"),
		"assemblyscript": suiteGuest(t, "assemblyscript"),
		"zig":            suiteGuest(t, "zig"),
		"cpp":            suiteGuest(t, "cpp"),
	} {
		t.Run(name, func(t *testing.T) { runSuite(t, wasm()) })
	}
}

func suiteGuest(t *testing.T, language string) func() []byte {
	return func() []byte {
		b, err := os.ReadFile("../guest-sdk/sdktest/testdata/" + language + "/suite/suite.wasm")
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}

func runSuite(t *testing.T, wasm []byte) {
	w := newWorld(t, "alice", "bob", "carol")
	if err := w.host.Close(); err != nil {
		t.Fatal(err)
	}
	w.start(host.Config{Limits: engine.Limits{Wall: time.Minute}}) // 64 MiB take their time on a busy machine
	e, err := engine.New(t.Context(), engine.Config{CacheDir: cacheDir}, host.HostModules()...)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close(t.Context())
	p, err := e.Compile(t.Context(), wasm)
	if err != nil {
		t.Fatal(err)
	}
	if i := p.Info(); i.Image == 0 {
		t.Errorf("each call initialises it anew: %s", i.Plain)
	}
	p.Close()
	if _, err := module.Add(filepath.Join(w.root.Dir, "modules"), "suite", wasm); err != nil {
		t.Fatal(err)
	}
	w.allow("bob", policy.Permit{Peer: w.entry("alice").ID, Name: "alice", Module: "suite",
		Limits: policy.Limits{Memory: 512 << 20, Output: 65 << 20, Bytes: 100 << 20, File: 100 << 20},
		Read:   []string{"/"}, List: []string{"/"}, Write: []string{"/"}, Remove: []string{"/"},
		Get: []string{"notes/a", "notes/c", "notes/d/é", "notes/z", "many", "found", "trees/a", "trees/c", "trees/d", "trees/e"}, Put: []string{"notes", "many", "found", "checked"},
		Query: []string{"notes", "none", "many", "found", "trees"}, Delete: []string{"notes"}, Call: []string{"suite", "none"}, Send: []string{string(w.entry("carol").ID)}})
	w.allow("carol", policy.Permit{Peer: w.entry("bob").ID, Name: "bob", Module: "suite"})
	w.put("alice", "/lent.txt", "lent by alice")
	w.put("bob", "/dir/file", "abcdefgh")
	w.put("bob", "/dir/sub/x", "")
	w.records("alice", func(c *records.Collections) error {
		return c.Put(w.Context(), "cards", "home", []byte("lent by alice"))
	})

	w.schema("bob", "checked", `{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": false}`)

	call := func(entry, params string) script.Receipt {
		t.Helper()
		return w.send("alice", "bob", script.Script{Logic: script.Logic{Name: "suite"}, Entry: entry, Params: []byte(params),
			Lent: []script.Grant{{Action: script.Read, Path: "/lent.txt"}, {Action: script.Get, Path: "cards"}, {Action: script.Query, Path: "cards"}}})
	}
	want := func(entry, params, want string) {
		t.Helper()
		if r := call(entry, params); r.Code != script.Done || string(r.Result) != want {
			t.Errorf("%s %q: %v %q %s, want %q", entry, params, r.Code, r.Result, r.Message, want)
		}
	}
	want("op", "who x", string(w.entry("bob").ID)+" bob")
	want("op", "Who x", string(w.entry("alice").ID)+" alice")
	for _, c := range sdktest.Cases {
		want(c.Entry, c.Params, c.Want)
	}
	want("habits", "", "ok")
	want("queries", "", "ok")
	w.records("bob", func(c *records.Collections) error {
		for key, value := range sdktest.Trees {
			if err := c.Put(w.Context(), "trees", key, []byte(value)); err != nil {
				return err
			}
		}
		return nil
	})
	for _, c := range sdktest.Queries {
		want(c.Entry, c.Params, c.Want)
	}
	eventually(t, "that the schema is in force", func() bool {
		return call("record", "put checked a {}").Code == script.Done && string(call("record", "put checked a {}").Result) != ""
	})
	for params, says := range map[string]string{
		`put checked a {"n":1}`:              "",
		`put checked a []`:                   "; : is an array, and must be an object",
		`put checked a {"n":"two"}`:          "; /n: is a string, and must be an integer",
		`put checked a {"n":1,"x\n/y: z":1}`: "; /x\uFFFD~1y: z: is no property that the schema has", // no name makes a line of its own
	} {
		if says != "" {
			says = "code 12, with a message" + says
		}
		want("record", params, says)
	}
	want("large", "4", "67108864")
	for params, says := range map[string]string{
		"entry":                          "others",
		"call none - - x":                "code 0, with a message",
		"call notes - - x":               "code 1, with a message",
		"call suite - run né it is":      "9 né it is",
		"call suite - - ":                "0 ",
		"call suite - others entry":      "6 others",
		"call suite - fail no":           "code 13, with a message",
		"call suite - others base - - -": "22 code 0, with a message",
		"base - - - x":                   "code 0, with a message",
		"send carol suite - né it is":    "9 né it is",
		"send carol suite others entry":  "6 others",
		"send carol suite fail no":       "code 13, with a message",
		"send alice suite - x":           "code 1, with a message",
		"Send carol suite - x":           "code 8, with a message",
	} {
		want("others", params, says)
	}
	if r := call("fail", "no pén"); r.Code != script.Failed || r.Message != "no pén" {
		t.Errorf("fail: %v %q", r.Code, r.Message)
	}
	if r := call("fail", "trap"); r.Code == script.Done {
		t.Errorf("a trap: %v %q", r.Code, r.Message)
	}
	if r := call("log-lines", "né"); r.Code != script.Done || strings.Count(string(r.Log), "né") != 4 {
		t.Errorf("log-lines: %v, %q", r.Code, r.Log)
	}
	for _, params := range sdktest.Hostile {
		if r := call("raw", params); r.Code == script.Done {
			t.Errorf("raw %q: %v %q", params, r.Code, r.Result)
		}
		want("run", "x", "x")
	}
}
