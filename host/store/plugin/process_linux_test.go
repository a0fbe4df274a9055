package plugin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/circles-host/circles/host/store"
)

// waitGone waits until a process is not there any more, not even as a zombie.
func waitGone(t *testing.T, what string, pid int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(fmt.Sprint("/proc/", pid)); errors.Is(err, os.ErrNotExist) {
			return
		}
	}
	t.Errorf("%s, process %d, is still there", what, pid)
}

// TestEnvironment: a plugin sees of the host's environment what is named, and has
// none of its files open.
func TestEnvironment(t *testing.T) {
	t.Setenv("CIRCLES_TEST_SECRET", "hunter2")
	t.Setenv("CIRCLES_TEST_NAMED", "named")
	secret, err := os.Open("/etc/hostname")
	if err != nil {
		t.Fatal(err)
	}
	defer secret.Close()
	out := filepath.Join(t.TempDir(), "environ")
	c := play("environ", out)
	c.Env = []string{"CIRCLES_TEST_NAMED", "CIRCLES_TEST_ABSENT", "CIRCLES_TEST_GIVEN=given", "PLUGIN_PROTOCOL_VERSIONS=99"}
	c.Log = quiet
	if _, err := Open(context.Background(), c); err == nil {
		t.Fatal("it opens")
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	variable := regexp.MustCompile(`^[A-Z][A-Z0-9_]*$`) // a certificate has lines
	for line := range strings.Lines(string(b)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || !variable.MatchString(name) {
			continue
		}
		if strings.Contains(value, "hunter2") {
			t.Error("it sees the secret")
		}
		names = append(names, name)
	}
	slices.Sort(names)
	want := []string{"CIRCLES_STORAGE_PLUGIN", "CIRCLES_TEST_GIVEN", "CIRCLES_TEST_NAMED", "PLUGIN_CLIENT_CERT", "PLUGIN_MAX_PORT", "PLUGIN_MIN_PORT", "PLUGIN_PROTOCOL_VERSIONS", "PLUGIN_UNIX_SOCKET_DIR"}
	if !slices.Equal(names, want) {
		t.Errorf("it sees %q, want %q", names, want)
	}
	if !strings.Contains(string(b), "PLUGIN_PROTOCOL_VERSIONS=1\n") || !strings.Contains(string(b), "CIRCLES_TEST_GIVEN=given") {
		t.Errorf("it sees\n%s", b)
	}
	s := mustOpen(t, exampleConfig(t))
	files, err := os.ReadDir(fmt.Sprintf("/proc/%s/fd", s.now.connection.process.ID()))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if to, _ := os.Readlink(fmt.Sprintf("/proc/%s/fd/%s", s.now.connection.process.ID(), f.Name())); to == secret.Name() {
			t.Errorf("descriptor %s is a file of the host's", f.Name())
		}
	}
}

// TestLeavesNothing: what a plugin has started ends with it; what has left its
// group and holds its pipes does not hold the host; and no zombie, socket or
// directory stays.
func TestLeavesNothing(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	pids := filepath.Join(t.TempDir(), "pids")
	for _, how := range []string{"closed", "killed"} {
		s := mustOpen(t, func() Config {
			c := play("children", pids)
			c.Log, c.Env = quiet, []string{"PATH"}
			return c
		}())
		p := s.now.connection.process
		var in, out int
		if _, err := fmt.Sscan(appears(t, pids), &in, &out); err != nil {
			t.Fatal(err)
		}
		defer syscall.Kill(out, syscall.SIGKILL)
		if g, err := syscall.Getpgid(p.cmd.Process.Pid); err != nil || g != p.cmd.Process.Pid || g == syscall.Getpgrp() {
			t.Errorf("its group is %d, it is %d: %v", g, p.cmd.Process.Pid, err)
		}
		if how == "killed" {
			p.cmd.Process.Kill()
			<-s.now.connection.client.dead
		}
		done := make(chan error, 1)
		go func() { done <- s.Close() }()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("close: %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("close is held by a process that has left the group")
		}
		waitGone(t, "the plugin", p.cmd.Process.Pid)
		waitGone(t, "its child", in)
		os.Remove(pids)
	}
	if left, _ := os.ReadDir(os.Getenv("TMPDIR")); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
	for _, c := range []Config{{Command: "false"}, play("says", "hello")} {
		c.Log = quiet
		if _, err := Open(context.Background(), c); err == nil {
			t.Error("it opens")
		}
	}
	if left, _ := os.ReadDir(os.Getenv("TMPDIR")); len(left) > 0 {
		t.Errorf("%v is left of a plugin that did not start", left)
	}
}

// TestEndsWithTheHost: the host is killed, and the plugin ends: because the kernel
// ends it, also if it listens to nobody; and because its input ends, also if the
// kernel does not.
func TestEndsWithTheHost(t *testing.T) {
	dir := t.TempDir()
	for name, plugin := range map[string][]string{
		"kernel": {os.Args[0], "play", "silent", filepath.Join(dir, "kernel")},
		// The shell is ended by the kernel, its child is not.
		"input": {"/bin/sh", "-c", `echo $$ >"$1-"; mv "$1-" "$1"; "$0" play honest; true`, os.Args[0], filepath.Join(dir, "input")},
	} {
		t.Run(name, func(t *testing.T) {
			host := exec.Command(os.Args[0], append([]string{"play", "host"}, plugin...)...)
			host.Env = append(os.Environ(), "TMPDIR="+dir) // it leaves its directory of sockets
			said, err := host.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := host.Start(); err != nil {
				t.Fatal(err)
			}
			defer host.Process.Kill()
			var pid int
			if _, err := fmt.Sscan(appears(t, filepath.Join(dir, name)), &pid); err != nil {
				t.Fatal(err)
			}
			pids := []int{pid}
			if name == "input" {
				line, err := bufio.NewReader(said).ReadString('\n')
				if err != nil || line != "open\n" {
					t.Fatalf("the host says %q, %v", line, err)
				}
				b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
				if err != nil {
					t.Fatal(err)
				}
				var child int
				if _, err := fmt.Sscan(string(b), &child); err != nil {
					t.Fatal(err)
				}
				pids = append(pids, child)
			}
			host.Process.Kill()
			host.Wait()
			for _, pid := range pids {
				waitGone(t, name, pid)
			}
		})
	}
}

// TestStopped: one that is stopped, and answers nothing, is ended like one that
// hangs.
func TestStopped(t *testing.T) {
	c := exampleConfig(t)
	c.Log, c.CallTimeout = quiet, time.Second
	s := mustOpen(t, c)
	if err := put(s, "f", "content", store.Key{1}); err != nil {
		t.Fatal(err)
	}
	p := s.now.connection.process
	syscall.Kill(p.cmd.Process.Pid, syscall.SIGSTOP)
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
		if err != nil || strings.Contains(string(b), ") T ") {
			break
		}
	}
	if err := stat(s); !errors.Is(err, errDead) {
		t.Errorf("stat: %v", err)
	}
	waitGone(t, "the plugin", p.cmd.Process.Pid)
	if got := get(t, s, "f"); got != "content" {
		t.Errorf("the next one gives %q", got)
	}
}

// TestKeepsNothing: processes that come and go, well or badly, leave no descriptor
// and no goroutine behind.
func TestKeepsNothing(t *testing.T) {
	count := func() (files, goroutines int) {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list), runtime.NumGoroutine()
	}
	use := func(n int) {
		for range n {
			s := mustOpen(t, play("honest"))
			if err := put(s, "f", "content", store.Key{1}); err != nil {
				t.Fatal(err)
			}
			s.Close()
			for _, c := range []Config{play("plain"), play("says", "hello"), {Command: "false"}, {Command: example}} {
				c.Log = quiet
				if _, err := Open(context.Background(), c); err == nil {
					t.Fatal("it opens")
				}
			}
		}
	}
	use(1)
	files, goroutines := count()
	use(4)
	var f, g int
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if f, g = count(); f <= files && g <= goroutines {
			return
		}
	}
	stacks := make([]byte, 1<<20)
	t.Errorf("%d files, were %d; %d goroutines, were %d\n%s", f, files, g, goroutines, stacks[:runtime.Stack(stacks, true)])
}
