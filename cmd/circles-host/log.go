package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
)

func logCommand() *cli.Command {
	return &cli.Command{
		Name:      "log",
		Usage:     "show what was done, or refused, in a peer's context, by whom and under which rule",
		ArgsUsage: "PEER [RECEIPT]",
		Description: `Lists receipts, oldest first. RECEIPT is the beginning of a script's id, and shows
one whole. The log may be read while a worker writes it.

Whatever is shown has been checked: that each entry follows from the one before
it, and that the host signed it. Nothing in the log itself can tell that its last
entries were taken away: keep the head that --verify prints, and give it to
--head later. --receipt checks one that was kept elsewhere.`,
		Flags: []cli.Flag{
			rootFlag(),
			&cli.BoolFlag{Name: "verify", Usage: "only check the log, and print its head"},
			&cli.StringFlag{Name: "head", Usage: "fail unless the entry with this `HASH` is still there"},
			&cli.StringFlag{Name: "receipt", Usage: "instead of a log, show the receipt in `FILE`, as send --receipt or an HTTP answer has it"},
			&cli.StringFlag{Name: "host", Usage: "the `DID` of a host that held the context before, and may have signed too; with --receipt: that must have signed"},
			&cli.BoolFlag{Name: "denied", Usage: "only what was not done"},
			&cli.IntFlag{Name: "last", Usage: "only the last `N`"},
			jsonFlag(),
		},
		Action: showLog,
	}
}

// logged is one entry, read.
type logged struct {
	Seq     uint64          `json:"seq"`
	Time    time.Time       `json:"time"`
	Hash    script.Digest   `json:"hash"`
	Receipt *script.Receipt `json:"receipt"`
}

func showLog(c *cli.Context) error {
	kept := c.String("receipt") != ""
	if kept {
		if err := args(c, 0, 0, ""); err != nil {
			return err
		}
	} else if err := args(c, 1, 2, "PEER [RECEIPT]"); err != nil {
		return err
	}
	root, err := openRoot(c)
	if err != nil {
		return err
	}
	if kept {
		return showKept(c, root)
	}
	e, err := held(root, c.Args().First())
	if err != nil {
		return err
	}
	key, err := root.Key()
	if err != nil {
		return err
	}
	signers := []peer.ID{key.ID()}
	if c.IsSet("host") {
		former, err := peer.ParseID(c.String("host"))
		if err != nil {
			return coded{exitUsage, err}
		}
		signers = append(signers, former)
	}
	s, err := contextsOf(root).Read(c.Context, e)
	if err != nil {
		return inUse(c, root, e, err)
	}
	defer s.Close()
	entries, err := readLog(c.Context, s, e, signers...)
	if err != nil {
		return coded{exitInvalid, err}
	}
	if hash := c.String("head"); hash != "" {
		if err := contains(entries, e, hash); err != nil {
			return err
		}
	}
	p := printerOf(c)
	if c.Bool("verify") {
		head := "empty"
		if n := len(entries); n > 0 {
			head = entries[n-1].Hash.String()
		}
		if c.Bool("json") {
			return p.json(map[string]any{"peer": e.Name, "entries": len(entries), "head": head, "verified": true})
		}
		p.f("%s %s: %s, chained and signed by %s\n  head %s\n", p.green("✓"), e.Name, count(len(entries), "receipt"), key.ID(), head)
		return nil
	}
	if id := strings.TrimPrefix(c.Args().Get(1), "sha256:"); id != "" {
		for _, l := range entries {
			if strings.HasPrefix(fmt.Sprintf("%x", l.Receipt.Script[:]), id) {
				if c.Bool("json") {
					return p.json(l)
				}
				showReceipt(p, root, l)
				return nil
			}
		}
		return coded{exitNotFound, fmt.Errorf("%s has no receipt %s; %s log %s lists them", e.Name, id, host.Command, e.Name)}
	}
	if c.Bool("denied") {
		var denied []logged
		for _, l := range entries {
			if l.Receipt.Code != script.Done {
				denied = append(denied, l)
			}
		}
		entries = denied
	}
	if n := c.Int("last"); n > 0 && n < len(entries) {
		entries = entries[len(entries)-n:]
	}
	if c.Bool("json") {
		if entries == nil {
			entries = []logged{}
		}
		return p.json(entries)
	}
	for _, l := range entries {
		r := l.Receipt
		what := r.ModuleName
		if what == "" {
			what = "carried code"
		}
		if r.Entry != "" {
			what += ":" + r.Entry
		}
		paint := p.green
		if r.Code != script.Done {
			paint = p.red
		}
		about, _ := splitHint(line(r.Message))
		if _, reason, ok := strings.Cut(about, " in the context of "+nameOf(root, r.Target)+": "); ok {
			about = reason // who and what stand before it
		}
		if r.Code == script.Done {
			about = count(len(r.Effects), "change") + ", permitted by " + strings.Join(r.Policies, ", ")
			if r.DryRun {
				about = "dry run, nothing done, permitted by " + strings.Join(r.Policies, ", ")
			}
		}
		about = p.flow(52+max(20, utf8.RuneCountInString(nameOf(root, r.Caller)+" "+what)), 6, about)
		p.f("%s  %s  %s  %s  %s  %s\n", p.dim(fmt.Sprintf("%4d", l.Seq)), p.dim(when(l.Time)),
			short(r.Script), paint(pad(r.Code.String(), 11)), pad(nameOf(root, r.Caller)+" "+what, 20), p.dim(about))
	}
	if len(entries) == 0 {
		newPrinter(c.App.ErrWriter).f("nothing is in the log of %s\n", e.Name)
	}
	return nil
}

// contains checks that the entry with that hash is in the log.
func contains(entries []logged, e peer.Entry, hash string) error {
	want, err := script.ParseDigest(hash)
	if err != nil {
		return usage("--head: %w", err)
	}
	for _, l := range entries {
		if l.Hash == want {
			return nil
		}
	}
	return coded{exitInvalid, fmt.Errorf("the log of %s is not whole: the entry %s is gone, and perhaps others after it; %d are left", e.Name, hash, len(entries))}
}

// showKept shows a receipt that was kept by whoever sent the script.
func showKept(c *cli.Context, root *host.Root) error {
	file := c.String("receipt")
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("read receipt: %w", err)
	}
	defer f.Close()
	sealed, err := io.ReadAll(io.LimitReader(f, 2*script.MaxSealed))
	if err != nil {
		return fmt.Errorf("read receipt: %w", err)
	}
	var answer struct {
		Receipt []byte
		Message string
	}
	if json.Unmarshal(sealed, &answer) == nil {
		if sealed = answer.Receipt; sealed == nil {
			return coded{exitInvalid, fmt.Errorf("%s has no receipt in it; the host answered: %q", file, answer.Message)}
		}
	}
	var signer peer.ID
	if c.IsSet("host") {
		if signer, err = peer.ParseID(c.String("host")); err != nil {
			return coded{exitUsage, err}
		}
	}
	r, by, err := envelope.OpenReceipt(sealed, signer)
	if err != nil {
		return coded{exitInvalid, fmt.Errorf("%s: %w", file, err)}
	}
	p := printerOf(c)
	if c.Bool("json") {
		return p.json(&r)
	}
	showReceipt(p, root, logged{Receipt: &r})
	whose := "of which nothing is known here; --host DID says which one it must be"
	key, err := root.Key()
	if err != nil {
		return err
	}
	if target, ok := root.Peers.ByID(r.Target); by == signer {
		whose = "as it must be"
	} else if ok && target.Host == by || ok && target.Held() && key.ID() == by {
		whose = "which is the host of " + who(target)
	} else if by == key.ID() {
		whose = "which is the host of this root"
	}
	p.f("%s signed by %s, %s\n", p.green("✓"), by, whose)
	return nil
}

// readLog reads and checks the log of a context: each entry follows the one
// before it, and is a receipt that one of signers signed.
func readLog(ctx context.Context, s store.Store, e peer.Entry, signers ...peer.ID) (entries []logged, err error) {
	var prev [32]byte
	seq := uint64(0)
	for entry, err := range s.Log(ctx, 1) {
		if err != nil {
			return nil, err
		}
		seq++
		if entry.Seq != seq {
			return nil, fmt.Errorf("the log of %s is not whole: entry %d is missing, where %d is", e.Name, seq, entry.Seq)
		}
		if entry.Prev != prev {
			return nil, fmt.Errorf("the log of %s was altered: entry %d does not follow from the one before it", e.Name, seq)
		}
		prev = entry.Hash()
		r, signer, err := envelope.OpenReceipt(entry.Data, "")
		if err != nil {
			return nil, fmt.Errorf("the log of %s was altered: entry %d: %w", e.Name, seq, err)
		}
		if !slices.Contains(signers, signer) {
			return nil, fmt.Errorf("the log of %s was altered, or comes from another host: %s signed entry %d; if the context was held there before, say --host %s",
				e.Name, signer, seq, signer)
		}
		if r.Target != e.ID {
			return nil, fmt.Errorf("the log of %s was altered: entry %d is a receipt for %s", e.Name, seq, r.Target)
		}
		entries = append(entries, logged{entry.Seq, entry.Time, entry.Hash(), &r})
	}
	return entries, nil
}

// when leaves out the year where that is this one.
func when(t time.Time) string {
	t = t.Local()
	if t.Year() == time.Now().Year() {
		return t.Format("Jan _2 15:04:05")
	}
	return t.Format("2006-01-02 15:04")
}

func nameOf(root *host.Root, id peer.ID) string {
	if e, ok := root.Peers.ByID(id); ok && e.Name != "" {
		return string(e.Name)
	}
	return id.Short()
}

// showReceipt prints all of a receipt for a person.
func showReceipt(p *printer, root *host.Root, l logged) {
	r := l.Receipt
	row := func(label, value string) {
		if value != "" {
			p.f("%s %s\n", p.dim(pad(label, 9)), value)
		}
	}
	paint := p.green
	if r.Code != script.Done {
		paint = p.red
	}
	if l.Seq > 0 {
		row("receipt", fmt.Sprintf("%d of the log, %s", l.Seq, l.Time.Local().Format("2006-01-02 15:04:05 MST")))
	} else {
		row("receipt", r.Finished.Local().Format("2006-01-02 15:04:05 MST"))
	}
	row("script", r.Script.String())
	row("outcome", paint(r.Code.String()))
	reason, hint := splitHint(r.Message)
	row("why", clean(reason))
	row("allow it", clean(hint))
	row("caller", nameOf(root, r.Caller)+p.dim("  "+string(r.Caller)))
	row("target", nameOf(root, r.Target)+p.dim("  "+string(r.Target)))
	row("host", string(r.Host))
	what := r.ModuleName
	if what == "" {
		what = "carried code"
	}
	if r.Entry != "" {
		what += ":" + r.Entry
	}
	row("module", what)
	if !r.Module.IsZero() {
		row(" ", p.dim(r.Module.String()))
	}
	row("policies", orNone(r.Policies))
	if len(r.Result) > 0 {
		row("result", line(cut(string(r.Result), 500)))
	}
	if r.ExitCode != 0 {
		row("exit code", fmt.Sprint(r.ExitCode))
	}
	for i, e := range r.Effects {
		label := "changes"
		if r.DryRun {
			label = "would do"
		}
		if i > 0 {
			label = " "
		}
		row(label, effectText(e))
	}
	if r.Usage != (script.Usage{}) {
		row("used", usageText(r.Usage))
	}
	if len(r.Log) > 0 {
		row("log", strings.TrimPrefix(indent(strings.Repeat(" ", 10), clean(string(r.Log))), strings.Repeat(" ", 10)))
	}
}

func effectText(e script.Effect) string {
	s := pad(e.Kind.String(), 9) + clean(e.Path)
	switch e.Kind {
	case script.Created:
		s += fmt.Sprintf("  (%s)", bytesText(uint64(e.After.Size)))
	case script.Modified:
		s += fmt.Sprintf("  (%s → %s)", bytesText(uint64(e.Before.Size)), bytesText(uint64(e.After.Size)))
	case script.Linked:
		s += " → " + clean(e.To)
	}
	return s
}

func usageText(u script.Usage) string {
	parts := []string{took(u.Wall)}
	if u.Fuel > 0 {
		parts = append(parts, number(u.Fuel)+" fuel")
	}
	if u.MemoryBytes > 0 {
		parts = append(parts, bytesText(u.MemoryBytes)+" memory")
	}
	if u.HostCalls > 0 {
		parts = append(parts, number(u.HostCalls)+" host calls")
	}
	return strings.Join(parts, ", ")
}

func cut(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}
