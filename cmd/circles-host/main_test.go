package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/engine/abi/abitest"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/modules"
	testbuild "github.com/circles-host/circles/testdata/build"
)

// TestMain makes this test binary the command too: in scripts, and in what they
// start, circles-host is a process of its own.
func TestMain(m *testing.M) {
	commands := map[string]func(){host.Command: main}
	// The process that stands in for curl finds itself in the path.
	if _, err := exec.LookPath("curl"); err != nil || filepath.Base(os.Args[0]) == "curl" {
		commands["curl"] = curl
	}
	testscript.Main(m, commands)
}

// race keeps the race detector from sleeping for a second at the end of each of
// the hundreds of processes that the tests start.
func race() string { return strings.TrimSpace(os.Getenv("GORACE") + " atexit_sleep_ms=0") }

// patience is how long a test waits for what should take a moment.
const patience = 3 * time.Minute

// TestScripts runs testdata/script/*.txtar; the head of each says what it proves.
func TestScripts(t *testing.T) {
	if found, err := filepath.Glob("testdata/script/*.txtar"); err != nil || len(found) == 0 {
		t.Fatalf("no scripts to run: %v, %v", found, err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir) // exec keeps compiled code there
			env.Setenv("CIRCLES_ROOT", "")
			cache, err := testbuild.Cache()
			if err != nil {
				return err
			}
			env.Setenv("CIRCLES_CACHE", cache)
			env.Setenv("GORACE", race())
			if env.Getenv("GOCACHE") == "" { // module build need not compile the standard library anew
				cache, err := os.UserCacheDir()
				if err != nil {
					return err
				}
				env.Setenv("GOCACHE", filepath.Join(cache, "go-build"))
			}
			// A guest of the SDKs' tests: it uses records, which no module that ships does.
			notes, err := os.ReadFile("../../guest-sdk/sdktest/testdata/notes.wasm")
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(env.WorkDir, "notes.wasm"), notes, 0o600); err != nil {
				return err
			}
			return writeModules(filepath.Join(env.WorkDir, "modules"))
		},
		Cmds:                scriptCommands,
		RequireExplicitExec: true,
	})
}

// scriptCommands are the words that scripts have beside those of testscript.
var scriptCommands = map[string]func(*testscript.TestScript, bool, []string){
	"cert":    cmdCert,
	"code":    cmdCode,
	"flip":    cmdFlip,
	"guest":   cmdGuest,
	"healthy": cmdHealthy,
	"json":    cmdJSON,
	"until":   cmdUntil,
}

// writeModules puts the modules that ship with circles into dir.
func writeModules(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for _, m := range modules.List() {
		if err := os.WriteFile(filepath.Join(dir, m.Name+".wasm"), m.Wasm, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// code N PROGRAM [ARG…] runs a program, which must end with exit code N.
func cmdCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N PROGRAM [ARG…]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if got := codeOf(ts, ts.Exec(args[1], args[2:]...)); got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func codeOf(ts *testscript.TestScript, err error) int {
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		ts.Fatalf("%v", err)
	}
	if exit == nil {
		return 0
	}
	return exit.ExitCode()
}

// until REGEXP PROGRAM [ARG…] runs a program again and again, until what it
// prints matches.
func cmdUntil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until REGEXP PROGRAM [ARG…]")
	}
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		codeOf(ts, ts.Exec(args[1], args[2:]...))
		if re.MatchString(ts.ReadFile("stdout")) || re.MatchString(ts.ReadFile("stderr")) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("it never printed %s", args[0])
		}
	}
}

// healthy ROOT [NAME] waits until a worker serves ROOT and answers, and puts its
// URL into the variable NAME, URL if none is given.
func cmdHealthy(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: healthy ROOT [NAME]")
	}
	url, err := awaitWorker(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Setenv(append(args, "URL")[1], url)
}

// awaitWorker returns the URL of the worker that serves a root.
func awaitWorker(dir string) (url string, err error) {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var worker struct{ URL string }
		b, readErr := os.ReadFile(filepath.Join(dir, "worker.lock"))
		if readErr != nil || json.Unmarshal(b, &worker) != nil || worker.URL == "" {
			err = fmt.Errorf("no worker has announced itself: %w", readErr)
			continue
		}
		var answer *http.Response
		// Whether the certificate is one to trust is for what is tested to say.
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
		if answer, err = client.Get(worker.URL + "/healthz"); err == nil {
			answer.Body.Close()
			return worker.URL, nil // serving, or degraded, which is for the script to look at
		}
	}
	return "", fmt.Errorf("worker of %s: %w", dir, err)
}

// json [!] FILE PATH [=NAME | REGEXP] looks PATH up, such as peers.0.name, in the
// JSON of FILE, which may be stdout, puts the value into a variable or matches it.
func cmdJSON(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: [!] json FILE PATH =NAME|REGEXP")
	}
	var v any
	d := json.NewDecoder(strings.NewReader(ts.ReadFile(args[0])))
	d.UseNumber()
	ts.Check(d.Decode(&v))
	if d.More() {
		ts.Fatalf("%s has more than one JSON value", args[0])
	}
	for _, step := range strings.Split(args[1], ".") {
		switch at := v.(type) {
		case map[string]any:
			v = at[step]
		case []any:
			i, err := strconv.Atoi(step)
			if step == "len" {
				v = json.Number(strconv.Itoa(len(at)))
				continue
			}
			ts.Check(err)
			if i >= len(at) {
				ts.Fatalf("%s: there are %d", args[1], len(at))
			}
			v = at[i]
		default:
			v = nil
		}
	}
	text := ""
	switch v := v.(type) {
	case nil:
	case string:
		text = v
	default:
		b, err := json.Marshal(v)
		ts.Check(err)
		text = string(b)
	}
	if name, ok := strings.CutPrefix(args[2], "="); ok {
		ts.Setenv(name, text)
		return
	}
	re, err := regexp.Compile(args[2])
	ts.Check(err)
	if re.MatchString(text) == neg {
		ts.Fatalf("%s is %q; match %s: %v", args[1], text, args[2], !neg)
	}
}

// cert CERT KEY makes a certificate for 127.0.0.1 and its key.
func cmdCert(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: cert CERT KEY")
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	ts.Check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	ts.Check(err)
	key, err := x509.MarshalPKCS8PrivateKey(private)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
}

// flip FILE OFFSET changes one byte; an offset below 0 counts from the end.
func cmdFlip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flip FILE OFFSET")
	}
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	file := ts.MkAbs(args[0])
	b, err := os.ReadFile(file)
	ts.Check(err)
	if at < 0 {
		at += len(b)
	}
	b[at] ^= 1
	ts.Check(os.WriteFile(file, b, 0o600))
}

// guest WHAT FILE writes a module; see guests.
func cmdGuest(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: guest WHAT FILE")
	}
	what, arg, _ := strings.Cut(args[0], "=")
	build, ok := guests[what]
	if !ok {
		ts.Fatalf("there is no guest %q", what)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), build(ts, arg), 0o600))
}

// guests are programs that do one thing.
var guests = map[string]func(ts *testscript.TestScript, arg string) []byte{
	"say": func(_ *testscript.TestScript, text string) []byte {
		var m abitest.Module
		prints := say(&m, text)
		m.Func("_start", "", "", prints...)
		return m.Bytes()
	},
	// A nap of some time, as in nap=200ms, before it says so.
	"nap": func(ts *testscript.TestScript, d string) []byte {
		var m abitest.Module
		poll := m.Import("wasi_snapshot_preview1", "poll_oneoff", "iiii", "i")
		prints := say(&m, "slept\n")
		nap, err := time.ParseDuration(d)
		ts.Check(err)
		// https://github.com/WebAssembly/WASI/blob/main/legacy/preview1/docs.md#subscription
		subscription := make([]byte, 48)
		binary.LittleEndian.PutUint32(subscription[16:], 1) // the monotonic clock
		binary.LittleEndian.PutUint64(subscription[24:], uint64(nap))
		m.Data(256, string(subscription))
		m.Func("_start", "", "", append([]abitest.Code{
			abitest.I32(256), abitest.I32(512), abitest.I32(1), abitest.I32(640), abitest.Call(poll), abitest.Drop,
		}, prints...)...)
		return m.Bytes()
	},
	"exit": func(ts *testscript.TestScript, n string) []byte {
		var m abitest.Module
		exit := m.Import("wasi_snapshot_preview1", "proc_exit", "i", "")
		code, err := strconv.Atoi(n)
		ts.Check(err)
		m.Memory(1)
		m.Func("_start", "", "", abitest.I32(int32(code)), abitest.Call(exit))
		return m.Bytes()
	},
	"trap": func(*testscript.TestScript, string) []byte {
		var m abitest.Module
		m.Memory(1)
		m.Func("_start", "", "", abitest.Unreachable)
		return m.Bytes()
	},
	"loop": func(*testscript.TestScript, string) []byte {
		var m abitest.Module
		m.Memory(1)
		m.Func("_start", "", "", abitest.Loop, abitest.Br(0), abitest.End)
		return m.Bytes()
	},
	// One that wants a function which no host offers.
	"wants": func(_ *testscript.TestScript, name string) []byte {
		var m abitest.Module
		f := m.Import("acme:printer/print@1.0.0", name, "", "")
		m.Memory(1)
		m.Func("_start", "", "", abitest.Call(f))
		return m.Bytes()
	},
	"source": sourced,
	"splice": spliced,
	// The guest of the tests of package wasi, which makes the calls that its
	// standard input says.
	"wasi": func(ts *testscript.TestScript, _ string) []byte {
		file := ts.MkAbs("guest.tmp")
		build := exec.Command("go", "build", "-ldflags=-s -w", "-o", file, "../../host/imports/wasi/testdata/guest")
		build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=")
		if out, err := build.CombinedOutput(); err != nil {
			ts.Fatalf("build the guest: %v\n%s", err, out)
		}
		wasm, err := os.ReadFile(file)
		ts.Check(err)
		return wasm
	},
	// The header of a component; no host runs one as it is.
	"component": func(*testscript.TestScript, string) []byte {
		return []byte("\x00asm\x0d\x00\x01\x00")
	},
}

// say gives m a memory that holds text, and returns what prints it.
func say(m *abitest.Module, text string) []abitest.Code {
	write := m.Import("wasi_snapshot_preview1", "fd_write", "iiii", "i")
	m.Memory(1)
	m.Data(1024, text)
	iovec := make([]byte, 8)
	binary.LittleEndian.PutUint32(iovec, 1024)
	binary.LittleEndian.PutUint32(iovec[4:], uint32(len(text)))
	m.Data(16, string(iovec))
	return []abitest.Code{abitest.I32(1), abitest.I32(16), abitest.I32(1), abitest.I32(8), abitest.Call(write), abitest.Drop}
}

// curl does as much of curl as the documentation uses, where there is none.
func curl() {
	flags := map[string]string{}
	url := ""
	for args := os.Args[1:]; len(args) > 0; args = args[1:] {
		switch args[0] {
		case "-sS", "-sSf":
		case "--json", "-o":
			flags[args[0]] = args[1]
			args = args[1:]
		default:
			url = args[0]
		}
	}
	err := func() error {
		request, err := http.NewRequest(http.MethodGet, url, nil)
		if body, ok := flags["--json"]; ok {
			text := []byte(body)
			if file, ok := strings.CutPrefix(body, "@"); ok {
				if text, err = os.ReadFile(file); err != nil {
					return err
				}
			}
			request, err = http.NewRequest(http.MethodPost, url, bytes.NewReader(text))
			if err == nil {
				request.Header.Set("Content-Type", "application/json")
			}
		}
		if err != nil {
			return err
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		out := os.Stdout
		if file := flags["-o"]; file != "" {
			if out, err = os.Create(file); err != nil {
				return err
			}
		}
		_, err = out.ReadFrom(answer.Body)
		return err
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "curl:", err)
		os.Exit(1)
	}
}

// TestFlags: a flag's name takes a value everywhere or nowhere, which is what
// lets it stand before its command; and every command says what it does.
func TestFlags(t *testing.T) {
	app := newApp()
	seen := map[string]bool{}
	for _, c := range all(app.Commands) {
		path := nameOfCommand(c)
		if c.Usage == "" || strings.HasSuffix(c.Usage, ".") {
			t.Errorf("%s: its usage is %q", path, c.Usage)
		}
		for _, f := range c.Flags {
			if path == "new" && f.Names()[0] == "list" {
				continue // its languages; elsewhere --list is what a script may list
			}
			for name, takes := range valued(&cli.Command{Flags: []cli.Flag{f}}) {
				if before, ok := seen[name]; ok && before != takes {
					t.Errorf("%s: --%s takes a value here and not elsewhere, or the other way round", path, name)
				}
				seen[name] = takes
			}
			word, about := describe(f)
			if about == "" || strings.HasSuffix(about, ".") || strings.Contains(about, "`") {
				t.Errorf("%s: --%s is said to be %q", path, f.Names()[0], about)
			}
			if seen[f.Names()[0]] && (word == "" || word == "VALUE") {
				t.Errorf("%s: --%s has no word for its value", path, f.Names()[0])
			}
		}
		var b bytes.Buffer
		help(&printer{w: &b}, c)
		for l := range strings.Lines(b.String()) {
			if n := len([]rune(strings.TrimRight(l, "\n"))); n > 100 {
				t.Errorf("%s --help has a line of %d columns: %s", path, n, l)
			}
		}
	}
}

// all returns commands and what is below them.
func all(commands []*cli.Command) (list []*cli.Command) {
	for _, c := range commands {
		list = append(append(list, c), all(c.Subcommands)...)
	}
	return list
}

// TestArrange: flags may stand anywhere before "--", and what is another
// program's is left alone.
func TestArrange(t *testing.T) {
	for _, c := range []struct{ typed, want string }{
		{"peer list --root r", "peer list --root r"},
		{"--root r peer list", "peer list --root r"},
		{"peer --root r add alice", "peer add --root r -- alice"},
		{"peer add alice --root r", "peer add --root r -- alice"},
		{"peer add alice --root=r --json", "peer add --root=r --json -- alice"},
		{"send m --as a --to b {} --json", "send --as a --to b --json -- m {}"},
		{"send --as a -- m --json", "send --as a -- m --json"},
		{"send m -", "send -- m -"},
		{"exec --dir x f.wasm --dir y", "exec --dir x -- f.wasm --dir y"},
		{"exec -- f.wasm -x", "exec -- f.wasm -x"},
		{"frob --root r", "--root r -- frob"},
		{"peer add peer", "peer add -- peer"},
		{"", ""},
	} {
		line, _ := arrange(newApp(), append([]string{host.Command}, strings.Fields(c.typed)...))
		if got := strings.Join(line.words[1:], " "); got != c.want {
			t.Errorf("%s: arranged as %s, want %s", c.typed, got, c.want)
		}
	}
	for typed, want := range map[string]string{"--help": "", "send m -h": "send", "help peer add": "peer add", "peer --help": "peer"} {
		line, leaf := arrange(newApp(), append([]string{host.Command}, strings.Fields(typed)...))
		if !line.help || nameOfCommand(leaf) != want {
			t.Errorf("%s: help %v of %q, want of %q", typed, line.help, nameOfCommand(leaf), want)
		}
	}
	if line, _ := arrange(newApp(), strings.Fields("circles-host exec f.wasm --help")); line.help {
		t.Error("the --help of a program that exec runs was taken for ours")
	}
}

// TestClean: what peers and modules call themselves cannot drive a terminal.
func TestClean(t *testing.T) {
	got := line("a\x1b]0;x\x07b\u202ec\nd\u200be")
	if want := "a\uFFFD]0;x\uFFFDb\uFFFDc d\uFFFDe"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := peer.ID("did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK").Short(); len([]rune(got)) > 16 {
		t.Errorf("a short id is %q", got)
	}
}
