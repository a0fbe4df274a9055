package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store/fs"
)

func logCommand() *cli.Command {
	return &cli.Command{
		Name:      "log",
		Usage:     "show what was done, or refused, in a peer's context, by whom and under which rule",
		ArgsUsage: "PEER [RECEIPT]",
		Description: `Without RECEIPT lists receipts, oldest first; with one, or the beginning of its
script's id, shows it whole. --verify checks the hash chain from the first receipt
to the last and every signature. It may be used while a worker runs.`,
		Flags: []cli.Flag{
			rootFlag(),
			&cli.BoolFlag{Name: "verify", Usage: "check the chain and the signatures"},
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
	if err := args(c, 1, 2, "PEER [RECEIPT]"); err != nil {
		return err
	}
	root, err := openRoot(c)
	if err != nil {
		return err
	}
	e, err := held(root, c.Args().First())
	if err != nil {
		return err
	}
	key, err := root.Key()
	if err != nil {
		return err
	}
	entries, err := readLog(c, e, key.ID())
	if err != nil {
		return coded{exitInvalid, err}
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
		about := line(r.Message)
		if r.Code == script.Done {
			about = count(len(r.Effects), "change") + ", permitted by " + strings.Join(r.Policies, ", ")
		}
		p.f("%s  %s  %s  %s  %s  %s\n", p.dim(fmt.Sprintf("%4d", l.Seq)), p.dim(l.Time.Local().Format("2006-01-02 15:04:05")),
			short(r.Script), paint(pad(r.Code.String(), 8)), pad(nameOf(root, r.Caller)+" "+what, 26), p.dim(about))
	}
	if len(entries) == 0 {
		newPrinter(c.App.ErrWriter).f("nothing is in the log of %s\n", e.Name)
	}
	return nil
}

// readLog reads and checks the log of a context: each entry follows the one
// before it, and is a receipt that the host signed.
func readLog(c *cli.Context, e peer.Entry, signer peer.ID) (entries []logged, err error) {
	var prev [32]byte
	seq := uint64(0)
	for entry, err := range fs.ReadLog(c.Context, filepath.Join(e.Dir, "log")) {
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
		r, _, err := envelope.OpenReceipt(entry.Data, signer)
		if err != nil {
			return nil, fmt.Errorf("the log of %s was altered: entry %d: %w", e.Name, seq, err)
		}
		if r.Target != e.ID {
			return nil, fmt.Errorf("the log of %s was altered: entry %d is a receipt for %s", e.Name, seq, r.Target)
		}
		entries = append(entries, logged{entry.Seq, entry.Time, entry.Hash(), &r})
	}
	return entries, nil
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
	row("receipt", fmt.Sprintf("%d of the log, %s", l.Seq, l.Time.Local().Format("2006-01-02 15:04:05 MST")))
	row("script", r.Script.String())
	row("outcome", paint(r.Code.String()))
	row("why", clean(r.Message))
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
		if i > 0 {
			label = " "
		}
		row(label, effectText(e))
	}
	row("used", usageText(r.Usage))
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
