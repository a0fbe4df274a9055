package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/storage"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mem"
)

func policySuggestCommand() *cli.Command {
	return &cli.Command{
		Name:      "suggest",
		Usage:     "find the narrowest policy that would have allowed a script",
		ArgsUsage: "RECEIPT|last|MODULE[:ENTRY] [PARAMS]",
		Description: `RECEIPT is the beginning of the id of a script that was refused, that failed or that
was a dry run, in the log of the peer of --to; the word last stands for the last one.
With --as the arguments are a script that nobody has sent. It is run on transactions
that are dropped, under what it has asked for so far, until nothing is denied any
more that a permit could allow. A receipt has no params: give those that count, as
for send.

What is suggested is for that caller, that entry, those bytes of the module, and each
file and record by itself. A module that runs for it, as it is called or stands before
it, gets a policy of its own. --save writes it, as policy allow does.`,
		Flags: append([]cli.Flag{
			rootFlag(),
			&cli.StringFlag{Name: "to", Usage: "the `PEER` in whose context it should run"},
			&cli.StringFlag{Name: "as", Usage: "the caller, `PEER`, of a script that nobody has sent"},
			&cli.BoolFlag{Name: "save", Usage: "write the policy"},
		}, editFlags()...),
		Action: policySuggest,
	}
}

func policySuggest(c *cli.Context) error {
	if err := needs(c, "to"); err != nil {
		return err
	}
	what := "RECEIPT|last [PARAMS]"
	if c.IsSet("as") {
		what = "MODULE[:ENTRY] [PARAMS]"
	}
	if err := args(c, 1, 2, what); err != nil {
		return err
	}
	root, target, err := rootAndTarget(c)
	if err != nil {
		return err
	}
	s, err := toSuggest(c, root, target, c.Args().Get(1))
	if err != nil {
		return err
	}
	h, err := openRehearsal(c, root, target)
	if err != nil {
		return err
	}
	defer h.Close()
	g, err := h.Suggest(c.Context, s)
	if errors.Is(err, module.ErrNotFound) && s.Logic.Name == "" && !c.IsSet("as") {
		return coded{exitNotFound, fmt.Errorf("%w: if the script carried it along, say --as PEER FILE, of a text too", err)}
	}
	if errors.Is(err, module.ErrNotFound) {
		return coded{exitNotFound, err}
	}
	if err != nil {
		return coded{exitRefused, err}
	}
	p, e := printerOf(c), newPrinter(c.App.ErrWriter)
	if r := g.Last.Receipt; r.Code != script.Done {
		reason, _ := splitHint(r.Message)
		e.f("%s it is allowed all of that, and ends otherwise: %s: %s\n", e.yellow("!"), r.Code, line(reason))
	}
	for _, a := range g.Forbidden {
		e.f("%s %s %s: %s\n", e.yellow("!"), actionText(a.Action), line(a.Path), line(a.Reason))
	}
	edits := g.Edits()
	switch {
	case edits == nil && c.Bool("json"):
		return p.json(editJSON{})
	case edits == nil:
		e.f("nothing is missing that a permit could allow\n")
		return nil
	case c.Bool("save"):
		return edit(c, root, target, edits...)
	case c.Bool("json"):
		var views []editJSON
		for _, x := range edits {
			views = append(views, editJSON{File: x.File, Policy: x.After, Diff: x.Diff()})
		}
		if len(views) == 1 {
			return p.json(views[0])
		}
		return p.json(views)
	}
	for i, x := range edits {
		if i > 0 {
			p.f("\n")
		}
		p.f("%s", clean(x.After))
	}
	e.f("%s\n", e.dim("nothing was written; --save does that"))
	return nil
}

// toSuggest is the script that the command line is about.
func toSuggest(c *cli.Context, root *host.Root, target peer.Entry, paramsArg string) (s script.Script, err error) {
	s.Target = target.ID
	s.NotBefore = time.Now()
	s.Deadline = s.NotBefore.Add(time.Minute)
	if s.Params, err = params(paramsArg, c.App.Reader); err != nil {
		return s, err
	}
	if c.IsSet("as") {
		caller, err := root.Peers.Resolve(c.String("as"))
		if err != nil {
			return s, coded{exitNotFound, err}
		}
		s.Caller = caller.ID
		s.Logic, s.Entry, err = logic(c, c.Args().First())
		return s, err
	}
	r, err := receiptToSuggest(c, root, target)
	if err != nil {
		return s, err
	}
	s.Caller, s.Entry, s.Logic.Name = r.Caller, r.Entry, r.ModuleName
	if s.Logic.Name == "" {
		s.Logic.Digest = r.Module
		if r.Module.IsZero() {
			return s, coded{exitNotFound, fmt.Errorf("the receipt %s does not say which code it was: a script carried it along; say --as PEER FILE", short(r.Script))}
		}
	}
	return s, nil
}

// receiptToSuggest is the receipt that is meant.
func receiptToSuggest(c *cli.Context, root *host.Root, target peer.Entry) (found script.Receipt, err error) {
	s, err := contextsOf(root).Read(c.Context, target)
	if err != nil {
		return found, inUse(c, root, target, err)
	}
	defer s.Close()
	id := strings.ToLower(strings.TrimPrefix(c.Args().First(), "sha256:"))
	none, last := true, id == "last"
	for entry, err := range s.Log(c.Context, 1) {
		if err != nil {
			return found, coded{exitInvalid, fmt.Errorf("read the log of %s: %w", target.Name, err)}
		}
		r, _, err := envelope.OpenReceipt(entry.Data, "")
		if err != nil || !r.Undid.IsZero() {
			continue
		}
		if last {
			if r.Code != script.Done || r.DryRun {
				found, none = r, false
			}
			continue
		}
		if l := (logged{Receipt: &r}); id != "" && l.is(id) {
			if !none && found.Script != r.Script {
				return found, usage("%s is the beginning of %x and of %x: say more of it", id, found.Script[:], r.Script[:])
			}
			found, none = r, false
		}
	}
	switch {
	case none && last:
		return found, coded{exitNotFound, fmt.Errorf("the log of %s has no script that was refused or failed, or was a dry run", target.Name)}
	case none:
		return found, noReceipt(target, id)
	}
	return found, nil
}

// rehearse runs a script that nobody has sent, and keeps nothing.
func rehearse(c *cli.Context, root *host.Root, caller, target peer.Entry, l script.Logic, entry string, params []byte) (*host.Rehearsal, error) {
	s := script.Script{Caller: caller.ID, Target: target.ID, Logic: l, Entry: entry, Params: params, NotBefore: time.Now()}
	s.Deadline = s.NotBefore.Add(time.Minute)
	h, err := openRehearsal(c, root, target)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	r, err := h.Rehearse(c.Context, s, nil)
	return &r, err
}

// maxCopied bounds a context that is copied into memory because a worker has it.
const maxCopied = 256 << 20

// openRehearsal is a worker in this process that may be asked to rehearse. What a
// worker holds is copied into memory: the files as they were last committed.
func openRehearsal(c *cli.Context, root *host.Root, target peer.Entry) (*host.Host, error) {
	open := func(ctx context.Context, e peer.Entry) (store.Store, error) {
		contexts := contextsOf(root)
		if root.Worker(ctx, e) == "" {
			s, err := contexts.TryOpen(ctx, e)
			if !errors.Is(err, storage.ErrInUse) {
				return s, err
			}
		}
		volume, err := contexts.Volume(ctx, e)
		if err != nil {
			return nil, inUse(c, root, e, err)
		}
		if volume.Bytes+volume.Log > maxCopied {
			return nil, coded{exitUnavailable, fmt.Errorf("a worker holds the context of %s, which is larger than the %s that are copied to try a script: stop the worker first", e.Name, bytesText(maxCopied))}
		}
		from, err := contexts.Read(ctx, e)
		if err != nil {
			return nil, inUse(c, root, e, err)
		}
		defer from.Close()
		to := mem.New(mem.Config{})
		if err := storage.Copy(ctx, to, from, nil); err != nil {
			return nil, errors.Join(err, to.Close())
		}
		return to, nil
	}
	// What is wrong with the target's context is for whoever asks, and not for the
	// log of a worker.
	first, err := open(c.Context, target)
	if err != nil {
		return nil, err
	}
	opened := make(chan store.Store, 1)
	opened <- first
	config := configOf(root)
	config.OpenStore = func(ctx context.Context, e peer.Entry) (store.Store, error) {
		if e.ID == target.ID {
			select {
			case s := <-opened:
				return s, nil
			default:
			}
		}
		return open(ctx, e)
	}
	h, err := host.Open(c.Context, root, config)
	if err != nil {
		return nil, errors.Join(err, first.Close())
	}
	return h, nil
}

// mayJSON is something that a script would be allowed, or not.
type mayJSON struct {
	Action  script.Action `json:"action"`
	Path    string        `json:"path,omitempty"`
	Below   bool          `json:"below"`
	Depends bool          `json:"depends"`
	Allowed bool          `json:"allowed"`
	By      []string      `json:"policies"`
}

func mayView(reach []policy.Reached) []mayJSON {
	list := []mayJSON{}
	for _, r := range reach {
		list = append(list, mayJSON{r.Action, r.Path, r.Below, r.Depends, r.Allowed, append([]string{}, r.By...)})
	}
	return list
}

// showMay prints what a script may do, but for what stands among its needs, and for
// what everything has.
func showMay(p *printer, root *host.Root, reach []policy.Reached, whole bool, needs []policy.Explained) {
	var lines []*mayLine // those that say the same of several actions are one
	for _, r := range reach {
		said := slices.ContainsFunc(needs, func(n policy.Explained) bool {
			return n.Action == r.Action && n.Path == r.Path && (n.Denied == nil) == r.Allowed && r.Below && !r.Depends
		})
		if said || slices.Equal(r.By, []string{policy.Given}) {
			continue
		}
		l := mayLine{where: line(r.Path), why: strings.Join(r.By, ", "), allowed: r.Allowed}
		switch {
		case r.Action == script.Send && r.Path == policy.OtherPeers:
			l.where = "to anybody else"
		case r.Action == script.Send:
			l.where = "to " + nameOf(root, peer.ID(r.Path))
		case r.Action == policy.Call && r.Path == policy.OtherModules:
			l.where = "any other module"
		case r.Action == policy.Call:
		case r.Path == policy.OtherCollections:
			l.where = "of any other collection"
		case r.Below && !r.Action.OfRecords() && r.Path == "/":
			l.where = "/ and all below"
		case r.Below && !r.Action.OfRecords():
			l.where += " and below"
		}
		if r.Depends {
			l.why = strings.TrimSpace(l.why + " (depends on which, or on the time)")
		}
		i := slices.IndexFunc(lines, func(o *mayLine) bool { return o.where == l.where && o.why == l.why && o.allowed == l.allowed })
		if i < 0 {
			i = len(lines)
			lines = append(lines, &l)
		}
		lines[i].actions = append(lines[i].actions, string(r.Action))
	}
	if len(lines) > 0 {
		p.f("  %s\n", p.dim("besides it may, and may not:"))
	}
	for _, l := range lines {
		mark := p.green("✓")
		if !l.allowed {
			mark = p.red("✗")
		}
		p.f("  %s %s %s  %s\n", mark, pad(strings.Join(l.actions, ", "), 6), l.where, p.dim(l.why))
	}
	if !whole {
		p.f("  %s\n", p.dim("the policies name more places than are looked at here"))
	}
}

// mayLine is what may be done to one place.
type mayLine struct {
	actions    []string
	where, why string
	allowed    bool
}

// traceJSON is a dry run, for programs.
type traceJSON struct {
	Receipt  *script.Receipt `json:"receipt"` // nobody has signed it
	Accesses []accessJSON    `json:"accesses"`
	More     int             `json:"more,omitempty"`
}

type accessJSON struct {
	Action  string   `json:"action"`
	Path    string   `json:"path,omitempty"`
	Module  string   `json:"module,omitempty"` // that asked
	Count   int      `json:"count"`
	Allowed bool     `json:"allowed"`
	By      []string `json:"policies"`
	Reason  string   `json:"reason,omitempty"`
}

func traceView(r *host.Rehearsal) *traceJSON {
	if r == nil {
		return nil
	}
	v := &traceJSON{Receipt: &r.Receipt, Accesses: []accessJSON{}, More: r.More}
	for _, a := range r.Accesses {
		v.Accesses = append(v.Accesses, accessJSON{actionText(a.Action), a.Path, a.Module, a.Count, a.Allowed, append([]string{}, a.By...), a.Reason})
	}
	return v
}

// actionText is the action of an access as people read it.
func actionText(a script.Action) string {
	if a == "" {
		return host.Look
	}
	return string(a)
}

func showTrace(p *printer, root *host.Root, r *host.Rehearsal) {
	if r.Receipt.Code == script.Done {
		p.f("%s\n", p.dim(fmt.Sprintf("a dry run asked for this in %s, and nothing of it is kept:", took(r.Receipt.Usage.Wall))))
	} else {
		reason, _ := splitHint(r.Receipt.Message)
		p.f("%s %s\n%s\n", p.red(r.Receipt.Code.String()+":"), clean(reason), p.dim("until then a dry run asked for this:"))
	}
	for _, a := range r.Accesses {
		mark, why := p.green("✓"), strings.Join(a.By, ", ")
		if !a.Allowed {
			mark, why = p.red("✗"), a.Reason
		}
		times := ""
		if a.Count > 1 {
			times = fmt.Sprintf(" ×%d", a.Count)
		}
		if len(r.Receipt.Parts) > 0 && a.Module != "" {
			times += " by " + line(a.Module)
		}
		p.f("  %s %s %s%s  %s\n", mark, pad(actionText(a.Action), 6), line(a.Path), times, p.dim(line(why)))
	}
	if r.More > 0 {
		p.f("  and %d more\n", r.More)
	}
	if parts := partsText(r.Receipt.Parts); parts != "" {
		p.f("  %s\n", p.dim("what ran: "+parts))
	}
	wouldSend(p, root, r.Receipt.Sent)
	wouldChange(p, r.Receipt.Effects)
}
