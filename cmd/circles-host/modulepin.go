package main

import (
	"fmt"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/script"
)

func modulePinCommand() *cli.Command {
	return &cli.Command{
		Name:      "pin",
		Usage:     "hold a module's name to one version, whatever is saved over its file",
		ArgsUsage: "NAME DIGEST",
		Description: `The version is one that is kept, of which the first 8 digits of DIGEST do, or any
module of the layer or of the host's, by its whole digest; it is kept from then on.
It is a line of ` + module.PinsFile + ` beside the modules, and can be written there by hand.`,
		Flags: []cli.Flag{rootFlag(), peerFlag()},
		Action: func(c *cli.Context) error {
			if err := first(args(c, 2, 2, "NAME DIGEST"), wantName(c.Args().First())); err != nil {
				return err
			}
			return modulePin(c, c.Args().First(), c.Args().Get(1))
		},
	}
}

func moduleUnpinCommand() *cli.Command {
	return &cli.Command{
		Name:      "unpin",
		Usage:     "let a module's name stand for its file again",
		ArgsUsage: "NAME",
		Flags:     []cli.Flag{rootFlag(), peerFlag()},
		Action: func(c *cli.Context) error {
			if err := first(args(c, 1, 1, "NAME"), wantName(c.Args().First())); err != nil {
				return err
			}
			return setPins(c, module.PinsChange{Section: "pin", Key: c.Args().First()}, c.Args().First()+" is what its file is again")
		},
	}
}

func moduleMapCommand() *cli.Command {
	return &cli.Command{
		Name:      "map",
		Usage:     "say which module runs for who asks for another, or brings it",
		ArgsUsage: "NAME|DIGEST MODULE",
		Description: `Scripts name the code that they want, or bring it. What runs is the choice of whose
context it is: with this, MODULE, of the layer or of the host's. Policies are asked
about MODULE, and the receipt says both. It is a line of ` + module.PinsFile + ` beside the modules.`,
		Flags: []cli.Flag{rootFlag(), peerFlag()},
		Action: func(c *cli.Context) error {
			if err := first(args(c, 2, 2, "NAME|DIGEST MODULE"), wantName(c.Args().Get(1))); err != nil {
				return err
			}
			return moduleMap(c, c.Args().First(), c.Args().Get(1))
		},
	}
}

func moduleUnmapCommand() *cli.Command {
	return &cli.Command{
		Name:      "unmap",
		Usage:     "let a name or a digest stand for itself again",
		ArgsUsage: "NAME|DIGEST",
		Flags:     []cli.Flag{rootFlag(), peerFlag()},
		Action: func(c *cli.Context) error {
			if err := args(c, 1, 1, "NAME|DIGEST"); err != nil {
				return err
			}
			from, err := mapKey(c.Args().First())
			if err != nil {
				return err
			}
			return setPins(c, module.PinsChange{Section: "map", Key: from}, from+" is itself again")
		},
	}
}

func modulePin(c *cli.Context, name, typed string) error {
	root, err := openRoot(c)
	if err != nil {
		return err
	}
	list, surveys, _, err := surveyed(c, root)
	if err != nil {
		return err
	}
	digest, err := digestOf(list[0].dir, name, typed)
	if err != nil {
		return err
	}
	var dirs []string
	for _, s := range surveys {
		dirs = append(dirs, s.Dir)
	}
	if _, err := module.Obtain(name, digest, dirs...); err != nil {
		return notFound(fmt.Errorf("pin %s: %w", name, err))
	}
	return setPins(c, module.PinsChange{Section: "pin", Key: name, Value: digest.String()}, fmt.Sprintf("%s is pinned to %s", name, digest))
}

func moduleMap(c *cli.Context, typed, to string) error {
	from, err := mapKey(typed)
	if err != nil {
		return err
	}
	if from == to {
		return usage("%s stands for itself already", to)
	}
	root, err := openRoot(c)
	if err != nil {
		return err
	}
	list, surveys, _, err := surveyed(c, root)
	if err != nil {
		return err
	}
	there := false
	for _, s := range surveys {
		_, ok := s.Get(to)
		there = there || ok
	}
	if !there {
		return coded{exitNotFound, fmt.Errorf("there is no module %s in %s; add it first", to, relative(list[0].dir))}
	}
	return setPins(c, module.PinsChange{Section: "map", Key: from, Value: to}, fmt.Sprintf("%s runs for who asks for %s", to, from))
}

// mapKey is what a map is found by.
func mapKey(typed string) (string, error) {
	if module.ValidName(typed) {
		return typed, nil
	}
	digest, err := script.ParseDigest(typed)
	if err != nil {
		return "", usage("%q is neither a module's name nor a digest, sha256: and 64 digits", typed)
	}
	return digest.String(), nil
}

func setPins(c *cli.Context, change module.PinsChange, said string) error {
	_, dir, err := openLayer(c)
	if err != nil {
		return err
	}
	changed, err := module.SetPins(dir, change)
	if err != nil {
		return coded{exitInvalid, err}
	}
	p := printerOf(c)
	switch {
	case changed:
		p.f("%s %s\n  %s\n", p.green("✓"), said, p.dim(relative(filepath.Join(dir, module.PinsFile))))
	case change.Value == "":
		return coded{exitNotFound, fmt.Errorf("%s has no [%s] %s; %s module list shows what it has", relative(filepath.Join(dir, module.PinsFile)), change.Section, change.Key, host.Command)}
	default:
		p.f("%s %s already\n", p.green("✓"), said)
	}
	return nil
}
