package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aymanbagabas/go-udiff"
	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/trial"
	"github.com/circles-host/circles/host/watch"
	"github.com/circles-host/circles/modules/build"
)

func devCommand() *cli.Command {
	return &cli.Command{
		Name:      "dev",
		Usage:     "build a module on each save, and show what it does",
		ArgsUsage: "DIR",
		Description: `A temporary root has two peers, alice and bob, and a worker. On each save the module
is built, takes the place of the one before, and is sent as a script from alice to
bob, whose context keeps what the scripts leave there. Its cases are run, too, each
in contexts of its own. What a line on standard input says is sent from then on:

   PARAMS          to the default entry, or to the last one
   ENTRY PARAMS    to another
   (nothing)       the same again
   q               ends it

bob's policy permits what manifest.json says that the module needs.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "send", Usage: "begin with the line `TEXT`, as on standard input"},
			&cli.StringFlag{Name: "root", EnvVars: []string{"CIRCLES_DEV_ROOT"}, Usage: "keep the root in `DIR`, which is empty, not there yet or of an earlier time, and leave it there"},
			&cli.BoolFlag{Name: "once", Usage: "end after the first build, with 4 if something failed"},
			&cli.StringFlag{Name: "sdk", EnvVars: []string{"CIRCLES_C_SDK"}, Usage: "take circles.h and circles.c from `DIR` instead of those that are built in"},
		},
		Action: dev,
	}
}

func dev(c *cli.Context) error {
	if err := args(c, 1, 1, "DIR"); err != nil {
		return err
	}
	dir, err := filepath.Abs(c.Args().First())
	if err != nil {
		return err
	}
	if info, err := os.Stat(dir); err != nil {
		return err
	} else if !info.IsDir() {
		return usage("%s is a file; %s dev wants the folder of a project", c.Args().First(), host.Command)
	}
	d := &development{c: c, p: printerOf(c), dir: dir, name: moduleName(dir), line: c.String("send"), swapped: make(chan module.Event, 16)}
	at := c.String("root")
	if at == "" {
		if at, err = os.MkdirTemp("", "circles-dev-"); err != nil {
			return err
		}
		defer os.RemoveAll(at)
	}
	if err := d.setUp(at); err != nil {
		return fmt.Errorf("dev: %w", err)
	}
	w, err := startWorker(c, d.root, "127.0.0.1:0", func(config *host.Config) {
		config.CacheDir = codeCache() // what is compiled once is there for the cases
		config.Notify = func(n host.Notice) {
			if n.Module == nil || n.Module.Name != d.name {
				return
			}
			select {
			case d.swapped <- *n.Module:
			default: // nobody waits for these
			}
		}
	})
	if err != nil {
		return fmt.Errorf("dev: %w", err)
	}
	d.w = w
	ctx, stop := context.WithCancel(c.Context)
	defer stop()
	var failed error
	ended := make(chan struct{})
	err = w.serveUntil(ctx, c, func() {
		go func() {
			defer close(ended)
			defer stop()
			failed = d.follow(ctx)
		}()
	})
	<-ended
	return errors.Join(failed, err)
}

// moduleName is what the module of a folder is called.
func moduleName(dir string) string {
	if name := filepath.Base(dir); module.ValidName(name) {
		return name
	}
	return "module"
}

// development is one run of dev. But for swapped it belongs to one goroutine.
type development struct {
	c          *cli.Context
	p          *printer
	dir, name  string
	root       *host.Root
	alice, bob peer.Entry
	w          *worker
	swapped    chan module.Event // what the worker made of the module's file

	line   string // that is sent
	built  *build.Built
	info   engine.Info
	seen   [sha256.Size]byte // of the project's files, when they were last built
	failed bool              // something of the last build, case or script
}

func (d *development) setUp(at string) (err error) {
	if d.root, _, err = host.InitRoot(at); err != nil {
		return err
	}
	for _, p := range []struct {
		name peer.Name
		to   *peer.Entry
	}{{"alice", &d.alice}, {"bob", &d.bob}} {
		e, ok := d.root.Peers.ByName(p.name)
		if !ok {
			e, err = d.root.AddPeer(p.name, "")
		}
		if err != nil {
			return err
		}
		*p.to = e
	}
	return nil
}

// follow builds when files change, and sends when a line says so.
func (d *development) follow(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	watcher := watch.New(watch.Options{Debounce: 30 * time.Millisecond})
	defer watcher.Close()
	watched := map[string]func(){}
	lines := make(chan string)
	if !d.c.Bool("once") {
		go scan(ctx, d.c, lines)
	}
	for {
		for _, dir := range sources(d.dir) {
			if watched[dir] == nil {
				watched[dir] = watcher.Dir(dir, func() {
					select {
					case changed <- struct{}{}:
					default: // one is waiting
					}
				})
			}
		}
		if now, saved := fingerprint(d.dir); now != d.seen {
			d.seen = now
			d.rebuild(ctx, saved)
			if d.c.Bool("once") {
				if d.failed {
					return coded{code: exitFailed}
				}
				return nil
			}
			continue // it may have changed while it was built
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case text, ok := <-lines:
			switch {
			case !ok:
				lines = nil // there is nobody; saves go on to count
			case text == "q":
				return nil
			default:
				if text != "" {
					d.line = text
				}
				d.send(ctx)
				d.prompt()
			}
		}
	}
}

// scan passes on the lines of standard input.
func scan(ctx context.Context, c *cli.Context, lines chan<- string) {
	defer close(lines)
	s := bufio.NewScanner(c.App.Reader)
	s.Buffer(nil, script.MaxParams)
	for s.Scan() {
		select {
		case lines <- strings.TrimSpace(s.Text()):
		case <-ctx.Done():
			return
		}
	}
}

// left are folders that hold no sources of the module's author, and may be large.
var left = []string{"vendor", "node_modules", "target", "zig-out", "build"}

const maxSources = 1000 // folders of one project

// sources are the folders of a project.
func sources(dir string) (dirs []string) {
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return nil // what cannot be read the compiler will say
		}
		name := e.Name()
		if path != dir && (strings.HasPrefix(name, ".") || slices.Contains(left, name)) || len(dirs) == maxSources {
			return fs.SkipDir
		}
		dirs = append(dirs, path)
		return nil
	})
	return dirs
}

// fingerprint tells whether a file of the project has changed, and when the latest
// of them was written. Modules are left out: this is where they are built.
func fingerprint(dir string) (sum [sha256.Size]byte, latest time.Time) {
	h := sha256.New()
	for _, folder := range sources(dir) {
		entries, err := os.ReadDir(folder)
		if err != nil {
			continue
		}
		for _, e := range entries {
			info, err := e.Info()
			if err != nil || e.IsDir() || strings.HasPrefix(e.Name(), ".") || strings.HasSuffix(e.Name(), "~") || strings.HasSuffix(e.Name(), module.Suffix) {
				continue
			}
			fmt.Fprintf(h, "%q %d %d\n", filepath.Join(folder, e.Name()), info.Size(), info.ModTime().UnixNano())
			if info.ModTime().After(latest) {
				latest = info.ModTime()
			}
		}
	}
	return [sha256.Size]byte(h.Sum(nil)), latest
}

// rebuild builds the module, has the worker take it over, and shows what it does.
// saved is when the sources were written.
func (d *development) rebuild(ctx context.Context, saved time.Time) {
	started := time.Now()
	if d.built == nil { // nobody has just saved
		saved = started
	}
	d.failed = false
	d.clear()
	done := progress(ctx, d.c.App.ErrWriter, "building "+d.name)
	built, err := build.Build(ctx, build.Config{Dir: d.dir, SDK: d.c.String("sdk")})
	done()
	compiled := time.Since(started)
	if err == nil {
		d.built = built
		if d.info, err = engine.Inspect(built.Wasm); err == nil {
			err = checkManifest(built.Manifest, d.info)
		}
	}
	if err == nil {
		err = d.swap(ctx)
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		d.wrong(err)
		d.prompt()
		return
	}
	p := d.p
	p.f("%s  %s\n", p.bold(d.name), p.dim(fmt.Sprintf("%s · %s · %s · %s", d.built.Language, d.info.Shape, bytesText(uint64(d.info.Size)), script.Digest(d.info.Digest).Short())))
	if text := strings.TrimRight(d.built.Warnings, "\n"); text != "" {
		p.f("%s\n", indent(p.yellow("! "), clean(text)))
	}
	d.cases(ctx)
	d.send(ctx)
	if ctx.Err() == nil {
		p.f("%s\n", p.dim(fmt.Sprintf("compiled in %s, %s more from save to result", took(compiled), took(time.Since(saved)-compiled))))
		d.prompt()
	}
}

// clear makes room for what comes, on a terminal.
func (d *development) clear() {
	if d.p.width > 0 && !d.c.Bool("once") {
		d.p.f("\x1b[H\x1b[2J")
	}
}

// wrong shows what keeps the module from being built.
func (d *development) wrong(err error) {
	d.failed = true
	p := d.p
	text := err.Error()
	var compiler *build.CompileError
	if errors.As(err, &compiler) {
		p.f("%s\n", clean(strings.TrimRight(compiler.Output, "\n")))
	}
	p.f("%s %s\n", p.red("✗"), line(text))
	if d.built != nil && d.info.Digest != ([32]byte{}) {
		p.f("  %s\n", p.dim("the version before stays in force"))
	}
}

// swap puts the module where the worker finds it, and waits until it is in force.
func (d *development) swap(ctx context.Context) error {
	if err := d.permit(); err != nil {
		return err
	}
	for len(d.swapped) > 0 {
		<-d.swapped
	}
	dir := filepath.Join(d.root.Dir, "modules")
	if old, err := os.ReadFile(filepath.Join(dir, d.name+module.Suffix)); err == nil && sha256.Sum256(old) == d.info.Digest {
		return nil
	}
	if _, err := module.Add(dir, d.name, d.built.Wasm); err != nil {
		return err
	}
	defer progress(ctx, d.c.App.ErrWriter, "compiling "+d.name)()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e := <-d.swapped:
			if e.Err != nil {
				return e.Err
			}
			if e.Digest == d.info.Digest {
				return nil
			}
		}
	}
}

// permit lets alice run the module in bob's context, and the module do what it says
// it needs.
func (d *development) permit() error {
	dir := filepath.Join(d.bob.Dir, "policy")
	p := policy.Permit{ID: "dev", Peer: d.alice.ID, Name: d.alice.Name, Module: d.name}
	if d.info.Manifest != nil {
		for _, n := range d.info.Manifest.Needs {
			p.Add(script.Action(n.Action), n.Path)
		}
	}
	text, err := p.Format()
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "dev.cedar")
	if old, err := os.ReadFile(file); err == nil && string(old) == text {
		return nil
	}
	return replace(file, []byte(text))
}

// cases runs the module's cases, and shows those that do not go as they say.
func (d *development) cases(ctx context.Context) {
	p, file := d.p, filepath.Join(d.dir, trial.CasesFile)
	cases, err := trial.ReadCases(file)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var results []trial.Result
	if err == nil {
		results, err = runCases(ctx, d.c, caseConfig(d.name, d.built.Wasm), cases)
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		d.failed = true
		p.f("%s %s\n", p.red("✗"), line(err.Error()))
		return
	}
	passed := 0
	for _, r := range results {
		if r.Passed() {
			passed++
			continue
		}
		d.failed = true
		showCase(p, file, r)
	}
	p.f("%s %d of %d cases pass\n", map[bool]string{true: p.green("✓"), false: p.red("✗")}[passed == len(results)], passed, len(results))
}

// send sends the line's script. Before that it is rehearsed, which tells what it asks
// for and what would change.
func (d *development) send(ctx context.Context) {
	if d.built == nil || ctx.Err() != nil {
		return
	}
	p := d.p
	s := d.script()
	dry, err := d.w.host.Rehearse(ctx, s, nil)
	r := dry.Receipt
	before := map[string]string{}
	if err == nil && r.Code == script.Done {
		for _, e := range r.Effects {
			before[e.Path] = d.read(e.Path)
		}
		var sent host.Sent
		sent, err = deliverTo(ctx, d.c, d.root, s, d.alice, d.bob, d.key())
		r = sent.Receipt
	}
	if ctx.Err() != nil {
		return
	}
	p.f("\n%s %s\n", p.cyan("›"), p.bold(line(strings.TrimSpace(cmp.Or(s.Entry, "run")+" "+string(s.Params)))))
	if err != nil {
		d.failed = true
		p.f("%s %s\n", p.red("✗"), line(err.Error()))
		return
	}
	if len(r.Log) > 0 {
		p.f("%s\n", indent("  "+p.dim("log │ "), clean(string(r.Log))))
	}
	for _, a := range dry.Accesses {
		if !a.Allowed && a.Action != "" {
			p.f("  %s %s %s  %s\n", p.yellow("denied"), a.Action, line(a.Path), p.dim(line(a.Reason)))
		}
	}
	if r.Code != script.Done {
		d.failed = true
		reason, hint := splitHint(r.Message)
		p.f("%s %s\n", p.red("✗ "+r.Code.String()+":"), clean(reason))
		if hint != "" {
			p.f("  %s %s\n", p.dim("manifest.json says what it needs; for once:"), clean(hint))
		}
		return
	}
	for _, e := range dry.Receipt.Effects {
		d.effect(e, before[e.Path])
	}
	p.f("%s %s\n", p.green("✓"), clean(string(r.Result)))
	p.f("  %s\n", p.dim(usageText(r.Usage)))
}

// effect shows what changed. The receipt tells the caller no more than the script
// may read; here the developer is bob, too, and looks at the file.
func (d *development) effect(e script.Effect, before string) {
	p := d.p
	if _, _, ok := e.Record(); ok || e.Kind != script.Created && e.Kind != script.Modified && e.Kind != script.Removed {
		p.f("  %s\n", effectText(e))
		if e.Diff != "" {
			printDiff(p, "    ", e.Diff)
		}
		return
	}
	after := d.read(e.Path)
	p.f("  %s  %s %s\n", e.Kind, line(e.Path), p.dim("("+bytesText(uint64(len(after)))+")"))
	if diff := udiff.Unified("before", "after", before, after); diff != "" && utf8.ValidString(before+after) {
		for l := range strings.Lines(diff) {
			if !strings.HasPrefix(l, "--- ") && !strings.HasPrefix(l, "+++ ") && !strings.HasPrefix(l, "@@") {
				printDiff(p, "    ", l)
			}
		}
	}
}

// read returns a file of bob's, as much of it as is worth showing.
func (d *development) read(path string) string {
	root, err := os.OpenRoot(filepath.Join(d.bob.Dir, "data"))
	if err != nil {
		return ""
	}
	defer root.Close()
	f, err := root.Open(strings.TrimPrefix(path, "/"))
	if err != nil {
		return ""
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, script.MaxDiff))
	return string(b)
}

func (d *development) key() *peer.Key {
	key, err := d.alice.Key()
	if err != nil { // it was made a moment ago
		panic(err)
	}
	return key
}

// script is what the line asks for.
func (d *development) script() script.Script {
	s := script.Script{Caller: d.alice.ID, Target: d.bob.ID, Logic: script.Logic{Name: d.name}}
	word, rest, _ := strings.Cut(d.line, " ")
	if slices.Contains(d.info.Entries, word) {
		s.Entry, s.Params = word, []byte(strings.TrimSpace(rest))
	} else {
		s.Params = []byte(d.line)
	}
	if m := d.info.Manifest; m != nil {
		for _, n := range m.Lends {
			s.Lent = append(s.Lent, script.Grant{Action: script.Action(n.Action), Path: n.Path})
		}
	}
	s.NotBefore = time.Now()
	s.Deadline = s.NotBefore.Add(time.Minute)
	return s
}

// prompt says what can be done now.
func (d *development) prompt() {
	if d.c.Bool("once") {
		return
	}
	p := d.p
	if p.width == 0 {
		return
	}
	p.f("\n%s\n", p.dim("bob's files: "+filepath.Join(d.bob.Dir, "data")))
	entries := ""
	if len(d.info.Entries) > 1 {
		entries = ", " + strings.Join(d.info.Entries, " ") + " before them for an entry"
	}
	p.f("%s ", p.dim("Enter sends it again, or type params"+entries+"; q ends"))
}
