package main

import "github.com/urfave/cli/v2"

func execCommand() *cli.Command { return &cli.Command{Name: "exec"} }
