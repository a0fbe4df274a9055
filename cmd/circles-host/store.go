package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/storage"
)

func storeCommand() *cli.Command {
	return &cli.Command{
		Name:  "store",
		Usage: "move a peer's context to another backend, and remove what that leaves",
		Subcommands: []*cli.Command{
			{
				Name:      "migrate",
				Usage:     "move a context to another backend",
				ArgsUsage: "PEER",
				Description: `Copies files, links, times, what the host keeps, and the log with its hashes,
compares both copies to the last byte, and then switches over, at one moment: by
another peer.toml. When it is interrupted, at any time, the context is where it
was; the same command goes on.

The context must not be open: stop the worker that serves it, on every host that
reaches a bucket. The old data is kept, out of use, unless --remove-old is given.

   circles-host store migrate bob --to sqlite`,
				Flags: []cli.Flag{
					rootFlag(),
					&cli.StringFlag{Name: "to", Usage: "`BACKEND` to move to: fs, sqlite or another; see docs/storage.md"},
					&cli.BoolFlag{Name: "replace", Usage: "replace what is there, which an earlier move may have left"},
					&cli.BoolFlag{Name: "remove-old", Usage: "remove the old data when it has been moved"},
					jsonFlag(),
				},
				Action: storeMigrate,
			},
			{
				Name:      "remove",
				Usage:     "remove what a move has left of a context in another backend",
				ArgsUsage: "PEER",
				Description: `Only where the context is not any more: where it is, it is never removed.

   circles-host store remove bob --from fs`,
				Flags: []cli.Flag{
					rootFlag(),
					&cli.StringFlag{Name: "from", Usage: "`BACKEND` that the context was in"},
				},
				Action: storeRemove,
			},
		},
	}
}

// movedJSON is what store migrate did, for programs.
type movedJSON struct {
	Peer    peer.Name     `json:"peer"`
	From    string        `json:"from"`
	To      string        `json:"to"`
	Entries int64         `json:"entries"`
	Bytes   int64         `json:"bytes"`
	Log     uint64        `json:"log_entries"`
	Head    script.Digest `json:"log_head"`
	Left    string        `json:"left,omitempty"` // where the old data is
}

func storeMigrate(c *cli.Context) error {
	if err := first(args(c, 1, 1, "PEER"), needs(c, "to")); err != nil {
		return err
	}
	root, e, err := rootAndHeld(c, c.Args().First())
	if err != nil {
		return err
	}
	to := c.String("to")
	if _, err := findBackend(backends(root, nil), to); err != nil {
		return coded{exitUsage, err}
	}
	contexts := contextsOf(root)
	meter := newMeter(newPrinter(c.App.ErrWriter))
	r, err := contexts.Migrate(c.Context, e, storage.Move{To: to, Replace: c.Bool("replace"), Report: meter.show})
	meter.clear()
	switch {
	case errors.Is(err, storage.ErrInUse):
		return inUse(c, root, e, err)
	case errors.Is(err, storage.ErrTaken):
		return fmt.Errorf("%w: %s store migrate %s --to %s --replace", err, host.Command, e.Name, to)
	case err != nil:
		return err
	}
	if c.Bool("remove-old") {
		if err := contexts.Remove(c.Context, e, r.From); err != nil {
			return fmt.Errorf("%s is in %s now, but: %w", e.Name, to, err)
		}
		r.Left = ""
	}
	p := printerOf(c)
	if c.Bool("json") {
		return p.json(movedJSON{e.Name, r.From, r.To, r.Entries, r.Bytes, r.Log, r.Head, r.Left})
	}
	p.f("%s %s is in %s now: %s, %s, %s; compared with what it was\n", p.green("✓"), p.bold(string(e.Name)), to,
		count(int(r.Entries), "entry"), bytesText(uint64(r.Bytes)), count(int(r.Log), "receipt"))
	if r.Left != "" {
		p.f("  %s\n", p.dim("the old data is out of use, in "+r.Left))
		p.f("  %s\n", p.dim(fmt.Sprintf("to remove it: %s store remove %s --from %s", host.Command, e.Name, r.From)))
	}
	return nil
}

func storeRemove(c *cli.Context) error {
	if err := first(args(c, 1, 1, "PEER"), needs(c, "from")); err != nil {
		return err
	}
	root, e, err := rootAndHeld(c, c.Args().First())
	if err != nil {
		return err
	}
	from := c.String("from")
	b, err := findBackend(backends(root, nil), from)
	if err != nil {
		return coded{exitUsage, err}
	}
	if err := contextsOf(root).Remove(c.Context, e, from); err != nil {
		return inUse(c, root, e, err)
	}
	p := printerOf(c)
	p.f("%s removed %s\n", p.green("✓"), b.Where(e))
	return nil
}

// meter shows how far something has come, on a terminal, if it takes long.
type meter struct {
	p     *printer
	began time.Time
	shown time.Time
}

const (
	meterAfter = 500 * time.Millisecond
	meterEvery = 100 * time.Millisecond
)

func newMeter(p *printer) *meter { return &meter{p: p, began: time.Now()} }

func (m *meter) show(s storage.Progress) {
	if m.p.width == 0 || time.Since(m.began) < meterAfter || time.Since(m.shown) < meterEvery {
		return
	}
	m.shown = time.Now()
	of := ""
	if s.Of.Bytes > 0 {
		of = fmt.Sprintf(" of %s", bytesText(uint64(s.Of.Bytes)))
	}
	m.p.f("\r\x1b[K%s: %s%s, %s, %s", s.Doing, bytesText(uint64(s.Bytes)), of,
		count(int(s.Entries), "entry"), count(int(s.Log), "receipt"))
}

func (m *meter) clear() {
	if !m.shown.IsZero() {
		m.p.f("\r\x1b[K")
	}
}
