// Circles-host is the worker and the tools of circles: `circles-host run` serves
// the contexts of one peer or a hundred thousand; the other commands send
// scripts, manage peers, modules and policies, and read the log.
//
// Each command is one file: flags, one call into the library, print.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // so that a second signal ends the process at once
	os.Exit(run(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr))
}
