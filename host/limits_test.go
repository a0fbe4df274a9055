package host_test

import (
	"testing"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/engine/abi/abitest"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
)

// grows is a program that makes "out" of some size. Its exit code is the errno.
func grows(size int64) []byte {
	return command(func(m *abitest.Module) []abitest.Code {
		open := m.Import("wasi_snapshot_preview1", "path_open", "iiiiiIIii", "i")
		setSize := m.Import("wasi_snapshot_preview1", "fd_filestat_set_size", "iI", "i")
		exit := m.Import("wasi_snapshot_preview1", "proc_exit", "i", "")
		m.Data(64, "out")
		return []abitest.Code{
			abitest.I32(3), abitest.I32(0), abitest.I32(64), abitest.I32(3), abitest.I32(1),
			abitest.I64(1<<6 | 1<<22), abitest.I64(0), abitest.I32(0), abitest.I32(128), abitest.Call(open), abitest.Drop,
			abitest.I32(128), abitest.Load, abitest.I64(size), abitest.Call(setSize), abitest.Call(exit),
		}
	})
}

// What the host sets as limits on files holds for each script, reaches it as an
// errno, and what it used is in its receipt, also when it fails.
func TestFilesAreLimitedForEachScript(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.policy("bob", "all", `@id("all") permit(principal, action, resource);`)
	w.host.Close()
	w.start(host.Config{Files: store.Limits{FileSize: 100, Bytes: 1 << 20}})
	for _, tc := range []struct {
		size  int64
		errno uint32
		code  script.Code
		used  uint64
	}{
		{90, 0, script.Done, 90},
		{101, 22, script.Failed, 0}, // EFBIG, and it was not written
		{100, 0, script.Done, 100},
	} {
		r := w.send("alice", "bob", script.Script{Logic: script.Logic{Wasm: grows(tc.size)}})
		if r.Code != tc.code || r.ExitCode != tc.errno {
			t.Errorf("%d bytes: %v, exit code %d: %s", tc.size, r.Code, r.ExitCode, r.Message)
		}
		if u := r.Usage; u.FileBytes != tc.used || u.Entries != min(tc.used, 1) || u.Handles != 1 {
			t.Errorf("%d bytes: used %+v", tc.size, u)
		}
	}

	// A policy narrows that for those whom it permits, and never widens it.
	for _, tc := range []struct {
		limits string
		size   int64
		errno  uint32
	}{
		{"file=50B", 51, 22}, {"file=50B", 50, 0}, {"bytes=40B", 41, 19}, {"file=1GiB, bytes=1GiB", 101, 22},
		{"entries=1", 100, 0}, {"handles=1", 100, 0},
	} {
		w.policy("bob", "all", `@id("all") @limits("`+tc.limits+`") permit(principal, action, resource);`)
		w.host.Close()
		w.start(host.Config{Files: store.Limits{FileSize: 100, Bytes: 1 << 20}})
		if r := w.send("alice", "bob", script.Script{Logic: script.Logic{Wasm: grows(tc.size)}}); r.ExitCode != tc.errno {
			t.Errorf("%s: %d bytes: %v, exit code %d: %s", tc.limits, tc.size, r.Code, r.ExitCode, r.Message)
		}
	}
}
