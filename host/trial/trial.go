// Package trial runs a module's example cases: each in contexts that are made for
// it and thrown away, through the host that peers use, under a policy that
// permits what the case says and nothing else.
//
//	cases, err := trial.ReadCases("guestbook/cases.toml")
//	results, err := trial.Run(ctx, trial.Config{Wasm: wasm, Name: "guestbook", OpenStore: …}, cases)
//
// The cases lie beside a module's sources, in a format that is the same for
// every language: what is there before, who sends what, what comes back and what
// is there after. Case describes it.
//
// Nothing of the host is replaced: scripts are signed and sealed, policies are
// written as an owner would write them and loaded, and the receipt is checked. So
// what a case shows is what a peer will see, with one exception: whoever wants
// a script's clock or randomness to be the same each time has to match around it.
package trial

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/records"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/transport"
)

// Config says which module is tried, and where. OpenStore, Wasm and Name are
// required.
type Config struct {
	Wasm []byte
	// Language, if Wasm is a text, is its language.
	Language engine.Language
	Name     string // by which its context knows it, as module.ValidName wants it
	// OpenStore makes a new, empty context. Run closes it.
	OpenStore func() (store.Store, error)
	// CacheDir keeps compiled code from one Run to the next; "" keeps none.
	CacheDir string
	// Limits of each case that says nothing else; zero is the host's default.
	Limits engine.Limits
}

// Result is what became of a case.
type Result struct {
	Case    *Case
	Receipt script.Receipt
	Took    time.Duration // from sending the script to its receipt
	// Problems are where it did not go as the case says; none is a pass.
	Problems []string
}

// Passed reports whether all was as the case says.
func (r Result) Passed() bool { return len(r.Problems) == 0 }

// Run runs the cases, in order. An error means that a case could not be run; what
// a module does is in the results. It is one host for each case, so that
// nothing of one is left for the next.
func Run(ctx context.Context, c Config, cases []Case) ([]Result, error) {
	b, err := newBench(c, cases)
	if err != nil {
		return nil, fmt.Errorf("try module: %w", err)
	}
	defer b.close()
	results := make([]Result, 0, len(cases))
	for i := range cases {
		r, err := b.run(ctx, &cases[i])
		if err != nil {
			return results, fmt.Errorf("try module: case %q: %w", cases[i].Name, err)
		}
		results = append(results, r)
	}
	return results, nil
}

// bench is a root with all peers that the cases name, and the module.
type bench struct {
	Config
	root  *host.Root
	peers map[peer.Name]peer.Entry
	needs []engine.Need
	lends []engine.Need
}

func newBench(c Config, cases []Case) (b *bench, err error) {
	info, add := engine.Info{}, module.Add
	if c.Language.Name == "" {
		info, err = engine.Inspect(c.Wasm)
	} else {
		info, err = engine.InspectText(c.Language, c.Wasm)
		add = func(dir, name string, text []byte) (string, error) {
			return module.AddText(dir, name, c.Language, text)
		}
	}
	if err != nil {
		return nil, err
	}
	b = &bench{Config: c, peers: map[peer.Name]peer.Entry{}}
	if info.Manifest != nil {
		b.needs, b.lends = info.Manifest.Needs, info.Manifest.Lends
	}
	dir, err := os.MkdirTemp("", "circles-trial-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	if b.root, _, err = host.InitRoot(dir); err != nil {
		return nil, err
	}
	if _, err := add(filepath.Join(dir, "modules"), c.Name, c.Wasm); err != nil {
		return nil, err
	}
	for _, k := range cases {
		for _, name := range []peer.Name{k.As, k.To} {
			if _, ok := b.peers[name]; ok {
				continue
			}
			if b.peers[name], err = b.root.AddPeer(name, ""); err != nil {
				return nil, err
			}
		}
	}
	return b, nil
}

// languages are what is needed for what is tried.
func (b *bench) languages() []engine.Language {
	if b.Language.Name == "" {
		return nil
	}
	return []engine.Language{b.Language}
}

func (b *bench) close() { os.RemoveAll(b.root.Dir) }

// here is the host as a transport.Sender.
type here struct{ *host.Host }

func (h here) Send(ctx context.Context, sealed []byte, answer transport.Back) ([]byte, error) {
	return h.Deliver(ctx, sealed, answer)
}

func (b *bench) run(ctx context.Context, k *Case) (r Result, err error) {
	r.Case = k
	from, to := b.peers[k.As], b.peers[k.To]
	if err := b.permit(k, from, to); err != nil {
		return r, err
	}
	contexts := map[peer.ID]*borrowed{}
	defer func() {
		for _, s := range contexts {
			err = errors.Join(err, s.Store.Close())
		}
	}()
	for _, who := range []struct {
		id     peer.ID
		before map[string]string
	}{{from.ID, k.Caller}, {to.ID, k.Before}} {
		if contexts[who.id] == nil {
			s, err := b.OpenStore()
			if err != nil {
				return r, err
			}
			contexts[who.id] = &borrowed{s}
		}
		if err := fill(ctx, contexts[who.id], who.before); err != nil {
			return r, err
		}
	}
	h, err := host.Open(ctx, b.root, host.Config{
		OpenStore: func(_ context.Context, e peer.Entry) (store.Store, error) {
			if s := contexts[e.ID]; s != nil {
				return s, nil
			}
			return b.OpenStore()
		},
		Languages: b.languages(), Limits: b.Limits, CacheDir: b.CacheDir, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return r, err
	}
	key, err := from.Key()
	if err != nil {
		return r, errors.Join(err, h.Close())
	}
	lent := k.Lend
	if lent == nil {
		for _, n := range b.lends {
			lent = append(lent, script.Grant{Action: script.Action(n.Action), Path: n.Path})
		}
	}
	now := time.Now()
	s := script.Script{
		Caller: from.ID, Target: to.ID, Logic: script.Logic{Name: b.Name}, Entry: k.Entry, Params: k.Params, Lent: lent,
		NotBefore: now, Deadline: now.Add(time.Hour),
	}
	var asked host.Rehearsal
	if k.Want.Denied != nil { // a receipt names only what a script failed for
		if asked, err = h.Rehearse(ctx, s, nil); err != nil {
			return r, errors.Join(err, h.Close())
		}
	}
	sent, err := host.Send(ctx, here{h}, s, key, h.ID(), nil)
	if err := errors.Join(err, h.Close()); err != nil {
		return r, err
	}
	r.Receipt, r.Took = sent.Receipt, sent.Took
	if r.Problems, err = k.Want.judge(ctx, r.Receipt, contexts[to.ID]); err != nil {
		return r, err
	}
	r.Problems = append(r.Problems, k.Want.denials(asked.Accesses)...)
	return r, nil
}

// permit writes the policy of the case's target, and no other.
func (b *bench) permit(k *Case, from, to peer.Entry) error {
	dir := filepath.Join(to.Dir, "policy")
	old, err := filepath.Glob(filepath.Join(dir, "*.cedar"))
	if err != nil {
		return err
	}
	for _, file := range old {
		if err := os.Remove(file); err != nil {
			return err
		}
	}
	p := policy.Permit{Peer: from.ID, Name: from.Name, Module: b.Name, Limits: k.Limits}
	if k.Allow == nil {
		for _, n := range b.needs {
			if n.Action == string(script.Send) {
				continue // there is nobody else
			}
			p.Add(script.Action(n.Action), n.Path)
		}
	}
	for _, n := range k.Allow {
		p.Add(n.Action, n.Path)
	}
	_, err = p.Save(dir)
	return err
}

// borrowed is a store that the host does not close: what it holds is still to be
// looked at.
type borrowed struct{ store.Store }

func (borrowed) Close() error { return nil }

// fill puts files and records, by path or COLLECTION/KEY, into a context.
func fill(ctx context.Context, s store.Store, what map[string]string) error {
	if len(what) == 0 {
		return nil
	}
	return s.Update(ctx, func(tx store.Tx) error {
		files := tx.Files(nil)
		all := records.In(tx.Private(), records.Config{})
		for _, name := range slices.Sorted(maps.Keys(what)) {
			var err error
			if strings.HasPrefix(name, "/") {
				err = write(files, name, what[name])
			} else {
				collection, key, _ := script.SplitRecord(name)
				err = all.As(nil).Put(ctx, collection, key, []byte(what[name]))
			}
			if err != nil {
				return fmt.Errorf("put %s there: %w", name, err)
			}
		}
		return all.Flush(ctx)
	})
}

func write(files store.FS, name, text string) error {
	for at := 1; ; {
		next := strings.IndexByte(name[at:], '/')
		if next < 0 {
			break
		}
		at += next
		if err := files.Mkdir(name[:at]); err != nil && !errors.Is(err, store.ErrExists) {
			return err
		}
		at++
	}
	f, err := files.Open(name, store.FlagWrite|store.FlagCreate|store.FlagTruncate)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte(text), 0)
	return errors.Join(err, f.Close())
}

// read returns a file or record; found is false if there is none.
func read(ctx context.Context, tx store.Tx, name string) (text []byte, found bool, err error) {
	if !strings.HasPrefix(name, "/") {
		collection, key, _ := script.SplitRecord(name)
		text, err = records.In(tx.Private(), records.Config{ReadOnly: true}).As(nil).Get(ctx, collection, key)
	} else {
		var f store.File
		if f, err = tx.Files(nil).Open(name, store.FlagRead); err == nil {
			defer f.Close()
			var info store.Info
			if info, err = f.Stat(); err == nil && info.Kind == store.KindDir {
				return nil, true, nil
			}
			if err == nil {
				text, err = io.ReadAll(io.NewSectionReader(f, 0, info.Size))
			}
		}
	}
	if errors.Is(err, store.ErrNotExist) || errors.Is(err, store.ErrNotDir) {
		return nil, false, nil
	}
	return text, err == nil, err
}

// judge says where a receipt, and what the script left, is not as wanted.
func (w *Want) judge(ctx context.Context, r script.Receipt, target store.Store) (problems []string, err error) {
	say := func(format string, a ...any) { problems = append(problems, fmt.Sprintf(format, a...)) }
	if r.Code != w.Code {
		text := r.Message
		if r.Code == script.Done {
			text = "result " + shorten(string(r.Result))
		}
		say("it is %s, want %s: %s", r.Code, w.Code, text)
	}
	if w.Message != "" && !strings.Contains(r.Message, w.Message) {
		say("message is %s, want one with %s", shorten(r.Message), shorten(w.Message))
	}
	if r.Code == w.Code && w.Result != nil {
		if problem := w.Result.compare(r.Result, true); problem != "" {
			say("result %s", problem)
		}
	}
	if w.Log != nil {
		if problem := w.Log.compare(r.Log, true); problem != "" {
			say("log %s", problem)
		}
	}
	if w.After == nil {
		return problems, nil
	}
	err = target.View(ctx, func(tx store.Tx) error {
		for _, name := range slices.Sorted(maps.Keys(w.After)) {
			text, found, err := read(ctx, tx, name)
			if err != nil {
				say("%s: %v", name, err)
				continue
			}
			if problem := w.After[name].compare(text, found); problem != "" {
				say("%s %s", name, problem)
			}
		}
		return nil
	})
	for _, e := range r.Effects {
		for _, name := range []string{e.Path, e.To} {
			if collection, key, ok := e.Record(); ok {
				name = script.JoinRecord(collection, key)
			} else if e.Kind == script.MadeDir || e.Kind == script.Linked {
				name = e.Path
			}
			if name == "" || named(w.After, name) {
				continue
			}
			say("%s was %s, and after does not name it", name, e.Kind)
			break
		}
	}
	return problems, err
}

// denials says where what was denied is not what was to be.
func (w *Want) denials(asked []host.Access) (problems []string) {
	if w.Denied == nil {
		return nil
	}
	for _, a := range asked {
		n := policy.Need{Action: a.Action, Path: a.Path}
		switch wanted := slices.Contains(w.Denied, n); {
		case a.Action == "" || a.Allowed == !wanted:
		case a.Allowed:
			problems = append(problems, fmt.Sprintf("%s %s was allowed, and should be denied", a.Action, a.Path))
		default:
			problems = append(problems, fmt.Sprintf("%s %s was denied, and denied does not name it: %s", a.Action, a.Path, a.Reason))
		}
	}
	for _, n := range w.Denied {
		if !slices.ContainsFunc(asked, func(a host.Access) bool { return a.Action == n.Action && a.Path == n.Path }) {
			problems = append(problems, fmt.Sprintf("%s %s was not even asked for", n.Action, n.Path))
		}
	}
	return problems
}

// named reports whether name is among those that are expected after, or a
// directory above one.
func named(after map[string]Text, name string) bool {
	for other := range after {
		if other == name {
			return true
		}
		for up := other; up != "/" && strings.HasPrefix(up, "/"); {
			if up = path.Dir(up); up == name {
				return true
			}
		}
	}
	return false
}

// compare says how text is not as t has it; "" if it is.
func (t Text) compare(text []byte, found bool) string {
	switch {
	case t.Absent && found:
		return "is there, and should not be"
	case t.Absent:
		return ""
	case !found:
		return "is not there"
	case t.Any:
		return ""
	case t.Match != nil:
		if !t.Match.Match(text) {
			return fmt.Sprintf("is %s, want what matches %s", shorten(string(text)), strconv.Quote(t.Match.String()))
		}
	case t.JSON != nil:
		var want, got any
		if err := decode(text, &got); err != nil {
			return fmt.Sprintf("is %s, which is not JSON: %v", shorten(string(text)), err)
		}
		if err := decode(t.JSON, &want); err != nil || !reflect.DeepEqual(want, got) {
			return fmt.Sprintf("is %s, want %s", shorten(string(text)), shorten(string(t.JSON)))
		}
	case t.Exact != string(text):
		return difference(string(text), t.Exact)
	}
	return ""
}

// decode reads one JSON value. Numbers stay as they are written: two that differ
// beyond a float's precision are not the same.
func decode(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the value")
	}
	return nil
}

// difference shows two texts: whole when they are short, else the lines that
// differ.
func difference(got, want string) string {
	if len(got)+len(want) < 200 {
		return fmt.Sprintf("is %s, want %s", shorten(got), shorten(want))
	}
	a, b := strings.SplitAfter(got, "\n"), strings.SplitAfter(want, "\n")
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	at := func(lines []string) string {
		if n < len(lines) {
			return shorten(lines[n])
		}
		return "nothing"
	}
	return fmt.Sprintf("is not as wanted from line %d: is %s, want %s", n+1, at(a), at(b))
}

// shorten quotes text that may be anything, and cuts it.
func shorten(text string) string {
	const most = 300
	if len(text) > most {
		return fmt.Sprintf("%q… (%d bytes)", text[:most], len(text))
	}
	return strconv.Quote(text)
}
