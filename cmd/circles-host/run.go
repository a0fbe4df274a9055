package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/transport/http2"
	"github.com/circles-host/circles/host/turns"
)

func runCommand() *cli.Command {
	return &cli.Command{
		Name:      "run",
		Usage:     "serve the contexts of a root until Ctrl-C",
		ArgsUsage: " ",
		Description: `Takes scripts over HTTP on one port: Connect and gRPC over HTTP/2, JSON over
HTTP/1.1, GET /healthz. Plain text is for loopback only; elsewhere set [tls] in
circles.toml. Policies and modules are reloaded when they change. Ctrl-C lets
running scripts finish; a second one ends them.

   circles-host run --demo --once     see it all in a temporary root`,
		Flags: []cli.Flag{
			rootFlag(),
			&cli.StringFlag{Name: "listen", EnvVars: []string{"CIRCLES_LISTEN"}, Usage: "`HOST:PORT` to listen on, instead of what circles.toml says"},
			&cli.StringSliceFlag{Name: "peer", Usage: "serve only the peer `NAME`; may be given several times"},
			&cli.BoolFlag{Name: "demo", Usage: "make a temporary root with two peers, and show them exchange scripts"},
			&cli.BoolFlag{Name: "once", Usage: "with --demo: end when it has been shown"},
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "log more"},
			jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			if err := args(c, 0, 0, "without arguments"); err != nil {
				return err
			}
			if c.Bool("demo") {
				return demo(c)
			}
			if c.Bool("once") {
				return usage("--once goes with --demo")
			}
			root, err := openRoot(c)
			if err != nil {
				return err
			}
			w, err := startWorker(c, root, c.String("listen"), nil)
			if err != nil {
				return err
			}
			return w.serveUntil(c.Context, c, func() { w.announce(c, root) })
		},
	}
}

// worker is a host and its listener.
type worker struct {
	host   *host.Host
	server *http2.Server
	l      net.Listener
	url    string
	claim  *host.Claim
	// closed is called when the host has closed its contexts.
	closed func() error
}

const (
	defaultScripts = 64 // that run or wait at once
	// receivedEach is how many scripts are received for each that may run: a host knows
	// only then whose they are, and who has had their share must not keep others from
	// being heard. What they hold is bounded by bytes.
	receivedEach = 4
)

// startWorker opens the root's contexts to the network; nothing is served before
// serveUntil. adjust, if it is not nil, has the last word on the configuration.
func startWorker(c *cli.Context, root *host.Root, listen string, adjust func(*host.Config)) (_ *worker, err error) {
	log := logger(c)
	contexts, closed := workersContexts(root)
	config := configOf(root)
	config.OpenStore, config.Log = contexts.Open, log
	bounds := root.Config.Worker
	config.Turns = turns.Config{Memory: uint64(bounds.Memory), Waiting: bounds.Waiting}
	config.MaxContexts = bounds.Contexts
	config.MaxScripts = cmp.Or(max(bounds.Scripts, 0), defaultScripts)
	var only []peer.Entry
	for _, name := range c.StringSlice("peer") {
		e, err := held(root, name)
		if err != nil {
			return nil, err
		}
		only = append(only, e)
		config.Only = append(config.Only, e.ID)
	}
	if adjust != nil {
		adjust(&config)
	}
	tlsConfig, err := tlsOf(root)
	if err != nil {
		return nil, err
	}
	if listen == "" {
		listen = root.Config.Listen
	}
	if listen == "" {
		listen = host.DefaultListen
	}
	claim, err := root.Claim(only...)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			claim.Release()
		}
	}()
	h, err := host.Open(c.Context, root, config)
	if err != nil {
		return nil, err
	}
	server := http2.NewServer(h.Deliver, http2.Config{
		TLS: tlsConfig, Host: string(h.ID()), Version: version, Problem: h.Problem, Log: log,
		MaxConcurrent: receivedEach * config.MaxScripts, MaxReceived: int64(bounds.Received),
	})
	l, err := server.Listen(listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("%w; choose another with --listen HOST:PORT, or with listen in %s", err, filepath.Join(relative(root.Dir), "circles.toml"))
	}
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	scheme := "http://"
	if tlsConfig != nil {
		scheme = "https://"
	}
	w := &worker{h, server, l, scheme + l.Addr().String(), claim, closed}
	if err := claim.Announce(w.url); err != nil {
		return nil, errors.Join(err, l.Close(), h.Close())
	}
	return w, nil
}

func tlsOf(root *host.Root) (*tls.Config, error) {
	t := root.Config.TLS
	if t.Cert == "" && t.Key == "" {
		return nil, nil
	}
	in := func(file string) string {
		if filepath.IsAbs(file) {
			return file
		}
		return filepath.Join(root.Dir, file)
	}
	cert, err := tls.LoadX509KeyPair(in(t.Cert), in(t.Key))
	if err != nil {
		return nil, fmt.Errorf("circles.toml [tls]: %w", err)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}, nil
}

// serveUntil serves until ctx ends, and calls ready when scripts are taken.
func (w *worker) serveUntil(ctx context.Context, c *cli.Context, ready func()) error {
	ready()
	err := w.server.Serve(ctx, w.l)
	err = errors.Join(err, w.host.Close(), w.closed())
	w.claim.Release()
	return err
}

// shownPeers is how many peers a worker names, and looks at, when it starts.
const shownPeers = 100

func (w *worker) announce(c *cli.Context, root *host.Root) {
	p := printerOf(c)
	held := []string{}
	some, more := root.Peers.Some(shownPeers) // counting them all would take long
	for _, e := range some {
		if e.Held() && w.host.Holds(e.ID) {
			held = append(held, string(e.Name))
		}
	}
	if c.Bool("json") {
		_ = p.json(map[string]any{"url": w.url, "host": w.host.ID(), "root": root.Dir, "peers": held, "more": more})
		return
	}
	p.f("%s serving %s on %s\n", p.green("●"), relative(root.Dir), p.bold(w.url))
	p.f("  host   %s\n", w.host.ID())
	switch {
	case len(held) == 0:
		p.f("  peers  none yet; %s peer add alice\n", host.Command)
	case more || len(held) > 8:
		p.f("  peers  %s and more\n", strings.Join(held[:min(8, len(held))], ", "))
	default:
		p.f("  peers  %s\n", strings.Join(held, ", "))
	}
	for _, problem := range w.problems(root) {
		p.f("  %s %s\n", p.yellow("!"), strings.TrimSpace(indent("    ", clean(problem))))
	}
	p.f("%s\n", p.dim("Ctrl-C lets running scripts finish and ends."))
}

// problems says what is not in force as it is written. Contexts open when they
// are first asked for; of some the files are looked at now, so that who starts a
// worker by hand sees a mistake at once.
func (w *worker) problems(root *host.Root) (list []string) {
	if err := w.host.Problem(); err != nil {
		list = append(list, err.Error())
	}
	some, _ := root.Peers.Some(shownPeers)
	for _, e := range some {
		if !e.Held() || !w.host.Holds(e.ID) {
			continue
		}
		for _, problem := range checkPeer(root, e).Problems {
			list = append(list, fmt.Sprintf("peer %s: not in force as written: %s", e.Name, problem))
		}
	}
	return list
}
