package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/aymanbagabas/go-udiff"
	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/transport/http2"
	"github.com/circles-host/circles/modules"
)

// The demo's scene.
const (
	demoCard    = "Alice Liddell, Oxford\n"
	demoParams  = `{"message":"Lovely!"}`
	demoBook    = "/guestbook/entries.txt"
	demoCommand = "send guestbook:sign '" + demoParams + "' --as alice --to bob --lend read:/card.txt"
)

// demo makes two peers and has them exchange scripts, over the network, through
// the code that any peer uses.
func demo(c *cli.Context) error {
	dir := rootDir(c)
	if c.String("root") == "" || !c.IsSet("root") {
		var err error
		if dir, err = os.MkdirTemp("", "circles-demo-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	} else if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return usage("--demo wants a folder of its own; %s is not empty", relative(dir))
	}
	d := &demonstration{c: c, p: printerOf(c)}
	if c.Bool("json") {
		d.p = &printer{w: discard{}}
	}
	if err := d.setUp(dir); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	listen := c.String("listen")
	if listen == "" {
		listen = "127.0.0.1:0"
	}
	w, err := startWorker(c, d.root, listen, nil)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	ctx, stop := context.WithCancel(c.Context)
	defer stop()
	var failed error
	played := make(chan struct{})
	err = w.serveUntil(ctx, c, func() {
		go func() {
			defer close(played)
			failed = d.play(ctx, w)
			if failed == nil && c.Bool("json") {
				failed = printerOf(c).json(d.record)
			}
			if failed == nil && !c.Bool("once") {
				d.stay(w)
				return
			}
			stop()
		}()
	})
	<-played
	if failed != nil && c.Context.Err() == nil { // what Ctrl-C cut short did not fail
		return errors.Join(fmt.Errorf("demo: %w", failed), err)
	}
	return err
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// demonstration is one showing.
type demonstration struct {
	c          *cli.Context
	p          *printer
	root       *host.Root
	alice, bob peer.Entry
	record     demoRecord
}

// demoRecord is the demo for programs.
type demoRecord struct {
	Root    string            `json:"root"`
	URL     string            `json:"url"`
	Host    peer.ID           `json:"host"`
	Peers   map[string]string `json:"peers"`
	Refused script.Receipt    `json:"refused"`
	Allow   string            `json:"allow"`
	Policy  string            `json:"policy"`
	Done    script.Receipt    `json:"done"`
	Log     []logged          `json:"log"`
	Diff    string            `json:"diff"`
}

func (d *demonstration) setUp(dir string) (err error) {
	if d.root, _, err = host.InitRoot(dir); err != nil {
		return err
	}
	if d.alice, err = d.root.AddPeer("alice", ""); err != nil {
		return err
	}
	if d.bob, err = d.root.AddPeer("bob", ""); err != nil {
		return err
	}
	for _, m := range modules.List() {
		if _, err := module.Add(filepath.Join(dir, "modules"), m.Name, m.Wasm); err != nil {
			return err
		}
	}
	for file, text := range map[string]string{"card.txt": demoCard, "diary.txt": "nobody's business\n"} {
		if err := os.WriteFile(filepath.Join(d.alice.Dir, "data", file), []byte(text), 0o600); err != nil {
			return err
		}
	}
	book := filepath.Join(d.bob.Dir, "data", filepath.Dir(demoBook))
	if err := os.MkdirAll(book, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(book, "entries.txt"), []byte("1. bob: Welcome! Sign below.\n"), 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(book, "count"), []byte("1\n"), 0o600)
}

// step prints a heading.
func (d *demonstration) step(n int, format string, a ...any) {
	d.p.f("\n%s %s\n", d.p.cyan(fmt.Sprint(n)), d.p.bold(fmt.Sprintf(format, a...)))
}

func (d *demonstration) command(text string) {
	d.p.f("  %s %s\n", d.p.dim("$"), fitCommand(host.Command+" "+text, 4))
}

func (d *demonstration) play(ctx context.Context, w *worker) error {
	p, started := d.p, time.Now()
	d.record = demoRecord{Root: d.root.Dir, URL: w.url, Host: w.host.ID(),
		Peers: map[string]string{"alice": string(d.alice.ID), "bob": string(d.bob.ID)}}
	p.f("%s\n", p.bold("circles: a script, its target's policy, and a signed receipt"))
	p.f("\n  root    %s\n", d.root.Dir)
	p.f("  worker  %s  %s\n", w.host.ID().Short(), p.dim(w.url))
	p.f("  alice   %s  %s\n", d.alice.ID.Short(), p.dim("has card.txt and diary.txt"))
	p.f("  bob     %s  %s\n", d.bob.ID.Short(), p.dim("has guestbook/entries.txt"))

	d.step(1, "alice sends bob a script: sign his guestbook")
	d.command(demoCommand)
	refused, err := d.send(ctx, w)
	if err != nil {
		return err
	}
	d.record.Refused = refused.Receipt
	if refused.Receipt.Code != script.Refused {
		return fmt.Errorf("bob's context has no permit, and the script was %v: %s", refused.Receipt.Code, refused.Receipt.Message)
	}
	reason, hint, _ := strings.Cut(refused.Receipt.Message, "; to allow it: ")
	p.f("  %s %s\n", p.red("✗ refused"), p.dim("in "+took(refused.Took)))
	p.f("    %s\n", strings.Replace(reason, ": ", ":\n    ", 1))
	p.f("    to allow it:\n    %s\n", p.yellow(fitCommand(hint, 4)))

	d.step(2, "bob allows it")
	d.record.Allow = hint
	d.command(strings.TrimPrefix(hint, host.Command+" "))
	file, text, err := d.allow(ctx)
	if err != nil {
		return err
	}
	d.record.Policy = text
	p.f("  %s %s\n", p.green("+"), p.dim(strings.TrimPrefix(file, d.root.Dir+"/")))
	p.f("%s\n", indent("  "+p.green("+ "), fold(text)))

	d.step(3, "alice sends the same script again")
	d.command(demoCommand)
	before, err := d.read(demoBook)
	if err != nil {
		return err
	}
	done, err := d.send(ctx, w)
	if err != nil {
		return err
	}
	r := done.Receipt
	d.record.Done = r
	if r.Code != script.Done {
		return fmt.Errorf("bob allowed the script, and it was %v: %s", r.Code, r.Message)
	}
	p.f("  %s %s\n", p.green("✓ done"), p.dim("in "+took(done.Took)))
	p.f("    result     %s\n", line(string(r.Result)))
	p.f("    permitted  %s\n", strings.Join(r.Policies, ", "))
	p.f("    ran        in a fresh sandbox: %s\n", usageText(script.Usage{Wall: r.Usage.Wall, Fuel: r.Usage.Fuel, HostCalls: r.Usage.HostCalls}))
	p.f("    read       alice's /card.txt, which she lent with this script; not her diary\n")
	for i, e := range r.Effects {
		label := "changed"
		if i > 0 {
			label = ""
		}
		p.f("    %s %s\n", pad(label, 10), effectText(e))
	}

	d.step(4, "both sides hold signed receipts")
	if err := d.receipts(refused, done); err != nil {
		return err
	}

	d.step(5, "what changed in bob's context")
	after, err := d.read(demoBook)
	if err != nil {
		return err
	}
	d.record.Diff = udiff.Unified("before"+demoBook, "after"+demoBook, before, after)
	printDiff(p, "  ", d.record.Diff)
	p.f("\n%s\n", p.dim("all of it took "+took(time.Since(started))+", over "+w.url))
	return nil
}

// send is alice's side: it signs, sends over the network, answers what her card
// says if she is asked, and checks the receipt.
func (d *demonstration) send(ctx context.Context, w *worker) (host.Sent, error) {
	key, err := d.alice.Key()
	if err != nil {
		return host.Sent{}, err
	}
	client, err := http2.Dial(w.url, nil)
	if err != nil {
		return host.Sent{}, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	s := script.Script{
		Target: d.bob.ID,
		Logic:  script.Logic{Name: "guestbook"}, Entry: "sign", Params: []byte(demoParams),
		Lent: []script.Grant{{Action: script.Read, Path: "/card.txt"}},
	}
	return host.Send(ctx, client, s, key, w.host.ID(), func(l *host.Lender) {
		l.Parties = d.root.Peers.Meet(d.alice.ID, d.bob.ID, nil)
		l.Policies = policy.Broken(errors.New("the worker holds the context itself"))
		l.OpenStore = func(ctx context.Context) (store.Store, error) { return contextsOf(d.root).Open(ctx, d.alice) }
	})
}

// allow does what the suggested command does.
func (d *demonstration) allow(ctx context.Context) (file, text string, err error) {
	guestbook, _ := modules.Get("guestbook")
	info, err := engine.Inspect(guestbook.Wasm)
	if err != nil {
		return "", "", err
	}
	permit := policy.Permit{Peer: d.alice.ID, Name: d.alice.Name, Module: "guestbook"}
	for _, n := range info.Manifest.Needs {
		permit.Add(script.Action(n.Action), n.Path)
	}
	name, err := permit.Save(filepath.Join(d.bob.Dir, "policy"))
	if err != nil {
		return "", "", err
	}
	file = filepath.Join(d.bob.Dir, "policy", name)
	b, err := os.ReadFile(file)
	return file, string(b), err
}

// fold is a policy file without what a first reader can do without: comments,
// ids, line breaks, and the middle of keys.
func fold(policies string) string {
	var words []string
	for l := range strings.Lines(policies) {
		if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "//") && !strings.HasPrefix(l, "@id(") {
			words = append(words, l)
		}
	}
	text := strings.NewReplacer(
		"permit ( ", "permit (",
		", action ", ",\n        action ", ", resource", ",\n        resource",
		" ) when", ")\n  when", "; ", ";\n",
	).Replace(strings.Join(words, " "))
	return longID.ReplaceAllStringFunc(text, func(s string) string { return "did:key:" + peer.ID(s).Short() })
}

var longID = regexp.MustCompile(`did:key:z[1-9A-HJ-NP-Za-km-z]+`)

func (d *demonstration) read(path string) (string, error) {
	b, err := os.ReadFile(filepath.Join(d.bob.Dir, "data", path))
	return string(b), err
}

// receipts compares alice's copies with what is in bob's log, and checks both.
func (d *demonstration) receipts(sent ...host.Sent) error {
	key, err := d.root.Key()
	if err != nil {
		return err
	}
	s, err := contextsOf(d.root).Read(d.c.Context, d.bob)
	if err != nil {
		return err
	}
	defer s.Close()
	log := newLogReader(s, d.bob, key.ID())
	entries, err := log.all(d.c.Context)
	if err != nil {
		return err
	}
	d.record.Log = entries
	p := d.p
	for i, s := range sent {
		if _, _, err := envelope.OpenReceiptOf(s.ID, s.Bytes, key.ID()); err != nil {
			return err
		}
		if i >= len(entries) || entries[i].Receipt.Script != s.ID {
			return fmt.Errorf("receipt %v is not entry %d of bob's log", s.ID, i+1)
		}
		p.f("  %s %s  %s  %s\n", p.green("✓"), pad(s.Receipt.Code.String(), 8), short(s.ID),
			p.dim(fmt.Sprintf("alice's copy is entry %d of bob's log", i+1)))
	}
	p.f("  %s each signed by the host, and chained to the one before\n", p.green("✓"))
	return nil
}

// stay tells what to try while the demo goes on serving.
func (d *demonstration) stay(w *worker) {
	p := d.p
	p.f("\n%s\n", p.bold("Still serving. In another terminal:"))
	if dir := pathHint(); dir != "" {
		p.f("  export PATH=%s:$PATH\n", quote(dir))
	}
	p.f("  export CIRCLES_ROOT=%s\n", quote(d.root.Dir))
	for _, text := range []string{
		`send --as alice --to bob guestbook:read`,
		`log bob`,
		`log bob --verify`,
		`policy explain --as alice --to bob guestbook:sign`,
		`module inspect guestbook`,
	} {
		p.f("  %s %s\n", host.Command, text)
	}
	p.f("%s\n", p.dim("Ctrl-C ends it and removes the root."))
}

// pathHint is the folder to add to PATH so that the commands which the demo
// prints are this very program; "" if they are already.
func pathHint() string {
	self, err := os.Executable()
	if err != nil {
		return ""
	}
	if found, err := exec.LookPath(host.Command); err == nil {
		a, errA := os.Stat(self)
		b, errB := os.Stat(found)
		if errA == nil && errB == nil && os.SameFile(a, b) {
			return ""
		}
	}
	if filepath.Base(self) != host.Command {
		return ""
	}
	return filepath.Dir(self)
}

// quote makes a path one word of a POSIX shell.
func quote(path string) string {
	if strings.Trim(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./+") == "" {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
