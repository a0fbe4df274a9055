package main

import (
	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host/policy"
)

func policySchemaCommand() *cli.Command {
	return &cli.Command{
		Name:  "schema",
		Usage: "print what policies can speak of: actions, entities and attributes",
		Description: `It is a Cedar schema, the one that this version checks policies against, for editors
and other tools of the language; its comments say what each part means.`,
		Action: func(c *cli.Context) error {
			if err := args(c, 0, 0, ""); err != nil {
				return err
			}
			printerOf(c).f("%s", policy.Schema)
			return nil
		},
	}
}
