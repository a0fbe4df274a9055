package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

func undoCommand() *cli.Command {
	return &cli.Command{
		Name:      "undo",
		Usage:     "undo what a script changed in a peer's context",
		ArgsUsage: "RECEIPT",
		Description: `RECEIPT is a file, as send --receipt keeps it, or with --as PEER the beginning of a
script's id, as log PEER shows it. What the script changed becomes as it was before,
if it still is as the script left it; else you are told what changed it since, and
what to undo first.

An undo is a script of its own, from the context's owner to itself: it is signed and
logged, and can be undone in its turn. It can be undone for as long as [undo] in
circles.toml says. Exit codes: 0 done, 4 something changed since, 5 there is nothing
kept to undo it by.

   circles-host undo --as bob 1f2e3d --dry-run`,
		Flags: []cli.Flag{
			rootFlag(),
			&cli.StringFlag{Name: "as", Usage: "the `PEER` whose context it is, and whose key is in this root"},
			&cli.StringFlag{Name: "host", Usage: "the worker's `URL`, instead of the one that the peer's route names"},
			&cli.DurationFlag{Name: "deadline", Usage: "give up after `TIME`", Value: time.Minute},
			&cli.BoolFlag{Name: "dry-run", Usage: "change nothing, and show what would change"},
			&cli.StringFlag{Name: "receipt", Usage: "keep the signed receipt of the undo in `FILE`"},
			jsonFlag(),
		},
		Action: undoReceipt,
	}
}

func undoReceipt(c *cli.Context) error {
	if err := args(c, 1, 1, "RECEIPT"); err != nil {
		return err
	}
	root, err := openRoot(c)
	if err != nil {
		return err
	}
	e, id, err := toUndo(c.Context, c, root)
	if err != nil {
		return err
	}
	key, err := keyOf(root, e)
	if err != nil {
		return err
	}
	s := script.Script{Logic: script.Logic{Undo: id}, DryRun: c.Bool("dry-run")}
	if s.NotBefore, s.Deadline, err = times(c); err != nil {
		return err
	}
	sent, err := deliverTo(c.Context, c, root, s, e, e, key)
	if err != nil {
		return err
	}
	if err := keepReceipt(c, sent); err != nil {
		return err
	}
	if r := sent.Receipt; r.Code == script.Done && !r.DryRun && !c.Bool("json") {
		p := newPrinter(c.App.ErrWriter)
		for _, x := range r.Effects {
			p.f("%s\n", effectText(x))
		}
		if r.MoreEffects > 0 {
			p.f("and %d more\n", r.MoreEffects)
		}
	}
	return report(c, sent)
}

// toUndo finds the script that is to be undone, and whose context it changed.
func toUndo(ctx context.Context, c *cli.Context, root *host.Root) (e peer.Entry, id script.ID, err error) {
	arg, as := c.Args().First(), c.String("as")
	if as != "" {
		if e, err = root.Peers.Resolve(as); err != nil {
			return e, id, coded{exitNotFound, err}
		}
	}
	prefix := strings.ToLower(strings.TrimPrefix(arg, "sha256:"))
	_, missing := os.Stat(arg)
	if isHex := prefix != "" && strings.Trim(prefix, "0123456789abcdef") == ""; missing != nil && isHex {
		if as == "" {
			return e, id, usage("undo %.20s: whose log is that in? Say --as PEER", arg)
		}
		if id, err = script.ParseDigest(prefix); err == nil {
			return e, id, nil
		}
		id, err = findScript(ctx, c, root, e, prefix)
		return e, id, err
	}
	r, _, err := readReceipt(arg, "")
	if err != nil {
		return e, id, err
	}
	if as != "" && e.ID != r.Target {
		return e, id, usage("--as %s: that receipt is of a script for %s", as, nameOf(root, r.Target))
	}
	e, ok := root.Peers.ByID(r.Target)
	if !ok {
		return e, id, coded{exitNotFound, fmt.Errorf("%s is of a script for %s, of whom nothing is known in %s", arg, r.Target, relative(root.Dir))}
	}
	return e, r.Script, nil
}

// findScript finds the one script in the log of a context whose id begins so.
func findScript(ctx context.Context, c *cli.Context, root *host.Root, e peer.Entry, prefix string) (id script.ID, err error) {
	if !e.Held() {
		return id, usage("the log of %s is not here: say the whole id of the script, sha256: and 64 digits", who(e))
	}
	s, err := contextsOf(root).Read(ctx, e)
	if err != nil {
		return id, fmt.Errorf("%w; or say the whole id of the script, sha256: and 64 digits", inUse(c, root, e, err))
	}
	defer s.Close()
	// Whose log it is, and whether it is whole, is for the host to check that undoes.
	for entry, err := range s.Log(ctx, 1) {
		var r script.Receipt
		if err == nil {
			r, _, err = envelope.OpenReceipt(entry.Data, "")
		}
		switch l := (logged{Receipt: &r}); {
		case err != nil:
			return id, coded{exitInvalid, fmt.Errorf("read the log of %s: %w", e.Name, err)}
		case !l.is(prefix) || r.Script == id:
		case !id.IsZero():
			return id, usage("%s is the beginning of %x and of %x: say more of it", prefix, id[:], r.Script[:])
		default:
			id = r.Script
		}
	}
	if id.IsZero() {
		return id, noReceipt(e, prefix)
	}
	return id, nil
}
