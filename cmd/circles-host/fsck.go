package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host/fsck"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/store"
)

func fsckCommand() *cli.Command {
	return &cli.Command{
		Name:      "fsck",
		Usage:     "check a peer's context: what keeps it, its log, and its files against the log",
		ArgsUsage: "PEER",
		Description: `Nobody may have the context open. Without --repair nothing is written, so it works on
a disk that is full or read only. A file that you have changed yourself is told from
one that is damaged by its time: damage leaves that as it was.

With --repair what a crash left is finished or removed, and a damaged file is put
back if its contents are kept; you are told of each. Exit codes: 0 nothing is
damaged, or no longer, 7 damage is left, 6 somebody has it open.`,
		Flags: []cli.Flag{
			rootFlag(),
			&cli.BoolFlag{Name: "repair", Usage: "mend what can be mended"},
			signerFlag(),
			jsonFlag(),
		},
		Action: checkContext,
	}
}

func signerFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "signer", Usage: "the `DID` of a host that held the context before, and signed receipts too"}
}

func checkContext(c *cli.Context) error {
	if err := args(c, 1, 1, "PEER"); err != nil {
		return err
	}
	root, e, err := rootAndHeld(c, c.Args().First())
	if err != nil {
		return err
	}
	key, err := root.Key()
	if err != nil {
		return err
	}
	former, err := formerHosts(c)
	if err != nil {
		return err
	}
	signers := append([]peer.ID{key.ID()}, former...)
	contexts := contextsOf(root)
	kept, err := contexts.Of(e)
	if err != nil {
		return err
	}
	p := printerOf(c)
	found := []store.Finding{}
	result, err := fsck.Check(c.Context, fsck.Config{
		Target: e.ID, Signers: signers, Edited: kept.Backend.Edited, Repair: c.Bool("repair"),
		Backend: func(ctx context.Context, repair bool, report func(store.Finding)) error {
			return contexts.Verify(ctx, e, repair, report)
		},
		Read: func(ctx context.Context) (store.Store, error) { return contexts.Read(ctx, e) },
		Open: func(ctx context.Context) (store.Store, error) { return contexts.Open(ctx, e) },
	}, func(f store.Finding) {
		found = append(found, f)
		if !c.Bool("json") {
			showFinding(p, f)
		}
	})
	if err != nil {
		return inUse(c, root, e, err)
	}
	if c.Bool("json") {
		if err := p.json(struct {
			Peer     peer.Name       `json:"peer"`
			Findings []store.Finding `json:"findings"`
			fsck.Result
		}{e.Name, found, result}); err != nil {
			return err
		}
	} else {
		left := count(result.Files, "file")
		if result.Records > 0 {
			left += " and " + count(result.Records, "record")
		}
		about := fmt.Sprintf("%s, %s as scripts left them, %s kept to undo scripts by",
			count(result.Receipts, "receipt"), left, count(result.Kept, "file"))
		if result.Unknown != "" {
			p.f("%s files were not compared with the log: %s\n", p.yellow("!"), line(result.Unknown))
		}
		if result.Damaged == 0 {
			p.f("%s %s: %s\n", p.green("✓"), e.Name, about)
		} else {
			p.f("%s %s: %s\n", p.red("✗"), e.Name, about)
		}
	}
	if result.Damaged > 0 {
		return silently(exitInvalid)
	}
	return nil
}

func showFinding(p *printer, f store.Finding) {
	mark := p.yellow("!")
	switch {
	case f.Fixed:
		mark = p.green("✓")
	case f.Damage:
		mark = p.red("✗")
	}
	p.f("%s %s: %s\n", mark, clean(f.Where), line(f.What))
	switch {
	case f.Fixed:
		p.f("  %s\n", p.dim("mended: "+line(f.Fix)))
	case f.Fix != "":
		p.f("  %s\n", p.dim("--repair: "+line(f.Fix)))
	}
}
