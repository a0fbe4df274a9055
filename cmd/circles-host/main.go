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
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		cancel() // lets what runs finish
		<-signals
		os.Exit(exitInterrupted)
	}()
	os.Exit(run(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr))
}
