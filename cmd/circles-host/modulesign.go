package main

import (
	"fmt"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

func moduleSignCommand() *cli.Command {
	return &cli.Command{
		Name:      "sign",
		Usage:     "sign a module as its publisher, whom policies can then ask for",
		ArgsUsage: "FILE.wasm",
		Description: `The signature is the last section of the file, ` + module.PublisherSection + `. It takes the place
of one that was there, and the file's digest changes with it. Whoever changes the
file afterwards has to have it signed again: a module with a signature that is not
good is refused everywhere.`,
		Flags: []cli.Flag{
			rootFlag(),
			&cli.StringFlag{Name: "as", Usage: "the publisher: a `PEER` whose key is in this root"},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write `FILE` instead of FILE.wasm itself"},
			jsonFlag(),
		},
		Action: moduleSign,
	}
}

func moduleSign(c *cli.Context) error {
	if err := first(args(c, 1, 1, "FILE.wasm"), needs(c, "as")); err != nil {
		return err
	}
	file := c.Args().First()
	output := c.String("output")
	if output == "" {
		output = file
	}
	if filepath.Ext(output) != module.Suffix {
		return usage("%s: a module's file ends with %s", output, module.Suffix)
	}
	root, err := openRoot(c)
	if err != nil {
		return err
	}
	e, err := root.Peers.Resolve(c.String("as"))
	if err != nil {
		return coded{exitNotFound, err}
	}
	key, err := keyOf(root, e)
	if err != nil {
		return err
	}
	wasm, err := readModule(file)
	if err != nil {
		return err
	}
	if wasm, err = module.Sign(wasm, key); err != nil {
		return coded{exitInvalid, fmt.Errorf("%s: %w", file, err)}
	}
	info, err := engine.Inspect(wasm)
	if err != nil {
		return coded{exitInvalid, fmt.Errorf("%s: %w", file, err)}
	}
	if err := replace(output, wasm); err != nil {
		return err
	}
	p := printerOf(c)
	if c.Bool("json") {
		return p.json(map[string]any{"file": output, "publisher": key.ID(), "digest": script.Digest(info.Digest)})
	}
	p.f("%s %s  signed by %s\n  digest   %s\n", p.green("✓"), p.bold(relative(output)), publisherText(c, root, key.ID()), script.Digest(info.Digest))
	return nil
}

// publisherText is a publisher with the petname that this root has for it, if
// there is a root, and it has one.
func publisherText(c *cli.Context, root *host.Root, id peer.ID) string {
	if root == nil {
		root, _ = openRoot(c) // a file can be inspected where no root is
	}
	if root != nil {
		if e, ok := root.Peers.ByID(id); ok && e.Name != "" {
			return string(e.Name) + ", " + string(id)
		}
	}
	return string(id)
}
