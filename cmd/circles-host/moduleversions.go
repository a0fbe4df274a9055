package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/script"
)

func moduleVersionsCommand() *cli.Command {
	return &cli.Command{
		Name:      "versions",
		Usage:     "list the versions of a module that are kept",
		ArgsUsage: "NAME",
		Description: `A layer keeps what was in force of each module, as many versions as versions under
[modules] in circles.toml says, 5 unless it does. module rollback puts one back,
module pin holds to one, module diff compares two.`,
		Flags: []cli.Flag{rootFlag(), peerFlag(), jsonFlag()},
		Action: func(c *cli.Context) error {
			if err := first(args(c, 1, 1, "NAME"), wantName(c.Args().First())); err != nil {
				return err
			}
			return moduleVersions(c, c.Args().First())
		},
	}
}

// versionJSON is a version, for programs.
type versionJSON struct {
	Digest script.Digest `json:"digest"`
	Size   int64         `json:"size"`
	Since  time.Time     `json:"since"` // when it last came into force
	Saved  bool          `json:"saved,omitempty"`
	Pinned bool          `json:"pinned,omitempty"`
}

func moduleVersions(c *cli.Context, name string) error {
	_, dir, err := openLayer(c)
	if err != nil {
		return err
	}
	survey, problem := module.Look(dir, moduleSuffixes()...)
	if problem != nil {
		return coded{exitInvalid, problem}
	}
	all, err := module.Versions(dir, name)
	if err != nil {
		return err
	}
	now, ok := survey.Get(name)
	var digest script.Digest
	if ok {
		_, digest, _ = now.Code() // what cannot be read is in force nowhere
	}
	if len(all) == 0 && !ok {
		return coded{exitNotFound, fmt.Errorf("there is no module %s in %s, and no version of it is kept", name, relative(dir))}
	}
	list := []versionJSON{}
	for _, v := range all {
		list = append(list, versionJSON{v.Digest, v.Size, v.Since.UTC(), v.Digest == digest && now.Pin.IsZero(), v.Digest == now.Pin})
	}
	p := printerOf(c)
	if c.Bool("json") {
		return p.json(list)
	}
	for _, v := range list {
		mark := ""
		switch {
		case v.Pinned:
			mark = "  pinned"
		case v.Saved:
			mark = "  in its file"
		}
		p.f("%s  %s  %s%s\n", v.Since.Local().Format(time.DateTime), v.Digest, pad(bytesText(uint64(v.Size)), 8), p.green(mark))
	}
	if len(list) == 0 {
		newPrinter(c.App.ErrWriter).f("none is kept: no worker has run it since it came, and nothing was put in its place\n")
	}
	return nil
}

func moduleRollbackCommand() *cli.Command {
	return &cli.Command{
		Name:      "rollback",
		Usage:     "put the previous version of a module back in force",
		ArgsUsage: "NAME [DIGEST]",
		Description: `What was in force until now is kept, so module rollback again takes it back. Of
DIGEST the first 8 digits do; module versions lists them.`,
		Flags: []cli.Flag{rootFlag(), peerFlag(), jsonFlag()},
		Action: func(c *cli.Context) error {
			if err := first(args(c, 1, 2, "NAME [DIGEST]"), wantName(c.Args().First())); err != nil {
				return err
			}
			return moduleRollback(c, c.Args().First(), c.Args().Get(1))
		},
	}
}

func moduleRollback(c *cli.Context, name, typed string) error {
	_, dir, err := openLayer(c)
	if err != nil {
		return err
	}
	var to script.Digest
	if typed != "" {
		if to, err = digestOf(dir, name, typed); err != nil {
			return err
		}
	}
	from, now, err := module.Rollback(dir, name, to, moduleSuffixes()...)
	if err != nil {
		return notFound(err)
	}
	p := printerOf(c)
	if c.Bool("json") {
		return p.json(map[string]any{"name": name, "digest": now.Digest, "before": from.Digest})
	}
	if from == now || from.Digest == now.Digest {
		p.f("%s %s is %s already\n", p.green("✓"), p.bold(name), now.Digest)
		return nil
	}
	p.f("%s %s  %s, of %s\n", p.green("✓"), p.bold(name), now.Digest, now.Since.Local().Format(time.DateTime))
	if !from.Digest.IsZero() {
		p.f("  %s\n", p.dim("it was "+from.Digest.String()))
	}
	peer := ""
	if c.String("peer") != "" {
		peer = " --peer " + quote(c.String("peer"))
	}
	if !from.Digest.IsZero() {
		p.f("  %s\n", p.dim("to take that back: "+host.Command+" module rollback"+peer+" "+name))
	}
	return nil
}
