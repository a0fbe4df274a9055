package host_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/engine/abi/abitest"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/testdata/build"
)

// What a script has of its host it has without a permit, and a forbid takes it
// away: the time (that of files too), chance, and a way into the receipt.
func TestSensesAreForbidden(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	const all = `@id("all") @limits("time=1s") permit(principal, action in [Action::"submit", Action::"files"], resource);`
	s := carried(build.Go(t, "testdata/guests/senses", false))

	w.policy("bob", "all", all)
	if r := w.send("alice", "bob", s); r.Code != script.Deadline { // it sleeps for half an hour
		t.Errorf("with a clock: %v %s, %s", r.Code, r.Message, r.Result)
	}

	for _, tc := range []struct{ forbidden, want, log string }{
		{`action == Action::"clock"`, "year 2000, slept 30m0s, file of 2000, random 0 false\n", "logged\n"},
		{`action in [Action::"clock", Action::"log"]`, "year 2000, slept 30m0s, file of 2000, random 0 false\n", ""},
		{`action in Action::"host"`, "year 2000, slept 30m0s, file of 2000, random 2 true\n", ""},
	} {
		w.policy("bob", "all", all+`@id("no") forbid(principal, `+tc.forbidden+`, resource) when { context.module.layer == "carried" };`)
		r := w.send("alice", "bob", s)
		if r.Code != script.Done || string(r.Result) != tc.want || string(r.Log) != tc.log {
			t.Errorf("without %s: %v %s, %q, log %q", tc.forbidden, r.Code, r.Message, r.Result, r.Log)
		}
	}

	// Nothing of a log stays of a script that fails, either, and what it lacked is told.
	w.policy("bob", "all", all+`@id("no") forbid(principal, action in Action::"host", resource);`)
	trap := guest(func(m *abitest.Module) { m.Import("wasi_snapshot_preview1", "random_get", "ii", "i") },
		abitest.I32(64), abitest.I32(8), abitest.Call(0), abitest.If, abitest.Unreachable, abitest.End, abitest.I32(16))
	r := w.send("alice", "bob", carried(trap))
	if r.Code != script.Trapped || len(r.Log) != 0 || !strings.Contains(r.Message, "it was denied: random") || strings.Contains(r.Message, "to allow it") {
		t.Errorf("without anything: %v %s, log %q", r.Code, r.Message, r.Log)
	}
}

// accesses says which action of the schema each function is asked about that a
// guest can call, or, after a dash, why it needs none.
var accesses = map[string]string{
	"circles:host/contexts.caller":                         "- a handle; its methods are asked about",
	"circles:host/contexts.target":                         "- a handle; its methods are asked about",
	"circles:host/contexts.[resource-drop]context":         "- ends a handle",
	"circles:host/contexts.[method]context.id":             "- who the parties are, every script is told",
	"circles:host/contexts.[method]context.name":           "- who the parties are, every script is told",
	"circles:host/contexts.[method]context.read":           "read",
	"circles:host/contexts.[method]context.read-at":        "read",
	"circles:host/contexts.[method]context.write":          "write",
	"circles:host/contexts.[method]context.append":         "write",
	"circles:host/contexts.[method]context.list":           "list",
	"circles:host/contexts.[method]context.stat":           "read list write remove",
	"circles:host/contexts.[method]context.make-directory": "write",
	"circles:host/contexts.[method]context.remove":         "remove",
	"circles:host/contexts.[method]context.get-record":     "get",
	"circles:host/contexts.[method]context.put-record":     "put",
	"circles:host/contexts.[method]context.delete-record":  "delete",
	"circles:host/contexts.[method]context.list-records":   "query get",
	"circles:host/contexts.[method]context.replace-record": "put get",
	"circles:host/contexts.[method]context.query-records":  "query get",
	"circles:host/contexts.[method]context.send":           "send",
	"circles:host/modules.call":                            "call",
	"circles:host/modules.base":                            "- runs what the owner of the context has put there, as it would run without the caller",
	"circles:host/modules.entry":                           "- what the script asked for",
	"circles:host/log.write":                               "log",

	"wasi_snapshot_preview1.args_get":                "- the module's name",
	"wasi_snapshot_preview1.args_sizes_get":          "- the module's name",
	"wasi_snapshot_preview1.environ_get":             "- a script has no environment",
	"wasi_snapshot_preview1.environ_sizes_get":       "- a script has no environment",
	"wasi_snapshot_preview1.clock_res_get":           "- how fine the clock is, and not what it shows",
	"wasi_snapshot_preview1.clock_time_get":          "clock",
	"wasi_snapshot_preview1.poll_oneoff":             "clock",
	"wasi_snapshot_preview1.random_get":              "random",
	"wasi_snapshot_preview1.sched_yield":             "- does nothing",
	"wasi_snapshot_preview1.proc_exit":               "- ends itself",
	"wasi_snapshot_preview1.proc_raise":              "- is refused to all",
	"wasi_snapshot_preview1.fd_advise":               "- does nothing",
	"wasi_snapshot_preview1.fd_allocate":             "- of a file that it has open for writing",
	"wasi_snapshot_preview1.fd_close":                "- ends a descriptor",
	"wasi_snapshot_preview1.fd_datasync":             "- does nothing",
	"wasi_snapshot_preview1.fd_sync":                 "- does nothing",
	"wasi_snapshot_preview1.fd_fdstat_get":           "- tells of a descriptor what the guest made it with",
	"wasi_snapshot_preview1.fd_fdstat_set_flags":     "- of a descriptor alone",
	"wasi_snapshot_preview1.fd_fdstat_set_rights":    "- of a descriptor, and drops only",
	"wasi_snapshot_preview1.fd_filestat_get":         "clock",
	"wasi_snapshot_preview1.fd_filestat_set_size":    "- of a file that it has open for writing",
	"wasi_snapshot_preview1.fd_filestat_set_times":   "write",
	"wasi_snapshot_preview1.fd_pread":                "- of a file that it has open for reading",
	"wasi_snapshot_preview1.fd_read":                 "- of a file that it has open for reading, or of its params",
	"wasi_snapshot_preview1.fd_pwrite":               "- to a file that it has open for writing",
	"wasi_snapshot_preview1.fd_write":                "log",
	"wasi_snapshot_preview1.fd_prestat_get":          "- tells the name of the root",
	"wasi_snapshot_preview1.fd_prestat_dir_name":     "- tells the name of the root",
	"wasi_snapshot_preview1.fd_readdir":              "list",
	"wasi_snapshot_preview1.fd_renumber":             "- of a descriptor alone",
	"wasi_snapshot_preview1.fd_seek":                 "- of a descriptor alone",
	"wasi_snapshot_preview1.fd_tell":                 "- of a descriptor alone",
	"wasi_snapshot_preview1.path_create_directory":   "write",
	"wasi_snapshot_preview1.path_filestat_get":       "read list write remove clock",
	"wasi_snapshot_preview1.path_filestat_set_times": "write",
	"wasi_snapshot_preview1.path_link":               "- is refused to all",
	"wasi_snapshot_preview1.path_open":               "read write",
	"wasi_snapshot_preview1.path_readlink":           "read",
	"wasi_snapshot_preview1.path_remove_directory":   "remove",
	"wasi_snapshot_preview1.path_rename":             "write remove",
	"wasi_snapshot_preview1.path_symlink":            "write",
	"wasi_snapshot_preview1.path_unlink_file":        "remove",
	"wasi_snapshot_preview1.sock_accept":             "- there are no sockets",
	"wasi_snapshot_preview1.sock_recv":               "- there are no sockets",
	"wasi_snapshot_preview1.sock_send":               "- there are no sockets",
	"wasi_snapshot_preview1.sock_shutdown":           "- there are no sockets",
}

// Whatever a guest can call, an owner can forbid, or it is written down why not:
// a function that is added to wit/ or to a host module must say which it is.
func TestEverythingHasAnAction(t *testing.T) {
	reachable := map[string]bool{}
	// What guests are built against.
	texts, err := filepath.Glob("../wit/deps/*/*.wit")
	if err != nil || len(texts) == 0 {
		t.Fatalf("no interfaces in wit/deps: %v", err)
	}
	for _, file := range texts {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		wit, err := abitest.ParseWIT(string(text))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for name, functions := range wit.Interfaces {
			name, _, _ = strings.Cut(name, "@")
			for _, f := range functions {
				reachable[name+"."+f.Name] = true
			}
		}
	}
	// What the host links, whatever it was declared in.
	for _, m := range host.HostModules() {
		for _, f := range abitest.Exported(t, m.Export) {
			reachable[m.Name+"."+f] = true
		}
	}
	for f := range reachable {
		if accesses[f] == "" {
			t.Errorf("%s: say in accesses which action it is, which must be in host/policy/schema.cedarschema and be asked about, or why none", f)
		}
	}
	known := policy.Actions()
	used := map[script.Action]bool{"submit": true}
	for f, actions := range accesses {
		if !reachable[f] {
			t.Errorf("%s is in accesses, and no guest can call it", f)
		}
		if strings.HasPrefix(actions, "-") {
			continue
		}
		for a := range strings.FieldsSeq(actions) {
			if used[script.Action(a)] = true; !slices.Contains(known, script.Action(a)) {
				t.Errorf("%s: the schema has no action %s", f, a)
			}
		}
	}
	for _, a := range known {
		if !used[a] {
			t.Errorf("the schema has the action %s, which nothing a guest can call is asked about", a)
		}
	}
}
