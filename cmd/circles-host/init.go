package main

import (
	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
)

func initCommand() *cli.Command {
	return &cli.Command{
		Name:      "init",
		Usage:     "make a root: a host's key, and room for modules and peers",
		ArgsUsage: " ",
		Flags:     []cli.Flag{rootFlag(), jsonFlag()},
		Action: func(c *cli.Context) error {
			if err := args(c, 0, 0, "without arguments"); err != nil {
				return err
			}
			r, made, err := host.InitRoot(rootDir(c))
			if err != nil {
				return err
			}
			key, err := r.Key()
			if err != nil {
				return err
			}
			p := printerOf(c)
			if c.Bool("json") {
				return p.json(map[string]any{"root": r.Dir, "host": key.ID(), "made": made})
			}
			if !made {
				p.f("%s holds a host already: %s\n", relative(r.Dir), key.ID())
				return nil
			}
			p.f("%s made %s\n", p.green("✓"), relative(r.Dir))
			p.f("  host  %s\n\nNext: %s peer add alice\n", key.ID(), host.Command)
			return nil
		},
	}
}
