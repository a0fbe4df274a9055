package bench

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/bench/load"
	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mem"
	"github.com/circles-host/circles/host/transport"
	"github.com/circles-host/circles/host/transport/http2"
)

// wholePath measures a script from its arrival to its receipt, in process: verified,
// decided about, run, committed, its receipt sealed. Beside it are the two Ed25519
// operations that it cannot do without.
func (r *run) wholePath() error {
	p, err := r.newPlace(1)
	if err != nil {
		return err
	}
	key, err := peer.GenerateKey()
	if err != nil {
		return err
	}
	for _, kept := range []struct {
		name string
		open OpenStore
		aim  float64
	}{
		{"kept in memory", func(context.Context, peer.Entry) (store.Store, error) { return mem.New(mem.Config{}), nil }, 150},
		{"kept in files", nil, 0},
	} {
		r.Progress("whole path: " + kept.name)
		if err := p.open(host.Config{OpenStore: kept.open}); err != nil {
			return err
		}
		n := r.of(100, 10)
		// Sealed beforehand: it is the sender's time.
		rounds := r.of(51, 3)
		sealed := make(chan []byte, rounds*(n+1))
		for range cap(sealed) {
			s := work(p.ids[0])
			s.Caller = key.ID()
			b, _, err := envelope.SealScript(s, key)
			if err != nil {
				return err
			}
			sealed <- b
		}
		deliver := func() error { _, err := p.host.Deliver(r.ctx, <-sealed, nil); return err }
		m, err := r.inTurn(rounds, variant{n, deliver}, variant{n, ed25519Pair()})
		if err != nil {
			return err
		}
		row := within(beside("path", "C guest, "+kept.name, m[0], "Ed25519: verify and sign", m[1]), 0)
		row.Aim = 0
		r.add(row)
		if kept.aim != 0 {
			r.add(Row{Section: "path", Name: "the same, as a time", Value: row.Value, Unit: "µs", CPU: row.CPU, Aim: kept.aim})
		}
		if err := p.close(); err != nil {
			return err
		}
	}
	return p.remove()
}

// ed25519Pair returns what verifies a signature and makes one.
func ed25519Pair() func() error {
	public, secret, err := ed25519.GenerateKey(nil)
	message := make([]byte, 300)
	signed := ed25519.Sign(secret, message)
	return func() error {
		if err != nil {
			return err
		}
		if !ed25519.Verify(public, message, signed) {
			return errors.New("a signature does not verify")
		}
		ed25519.Sign(secret, message)
		return nil
	}
}

const (
	httpClients = 64
	httpTargets = 8 // contexts: no single one takes scripts of all clients at once
)

// overHTTP2 measures signed scripts over HTTP/2 on loopback: clients that sign each
// script and check each receipt, beside the worker, on the same processors.
func (r *run) overHTTP2() error {
	clients := r.of(httpClients, 8)
	var keys []*peer.Key
	for range clients {
		key, err := peer.GenerateKey()
		if err != nil {
			return err
		}
		keys = append(keys, key)
	}
	p, err := r.newPlace(httpTargets)
	if err != nil {
		return err
	}
	if err := p.open(host.Config{}); err != nil {
		return err
	}
	server := http2.NewServer(p.host.Deliver, http2.Config{Host: string(p.host.ID())})
	l, err := server.Listen("127.0.0.1:0")
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(r.ctx))
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, l) }()
	r.Progress(fmt.Sprintf("over HTTP/2: %d clients", clients))
	sent, err := load.Run(r.ctx, load.Config{
		Dial:    func() (transport.Sender, error) { return http2.Dial("http://"+l.Addr().String(), nil) },
		Host:    p.host.ID(),
		Callers: keys, Targets: p.ids, Clients: clients,
		Script: func(int) script.Script { return work("") },
		For:    time.Duration(r.of(10_000, 300)) * time.Millisecond, Warm: 10 * clients,
	})
	stop()
	if err := errors.Join(err, <-served, p.remove()); err != nil {
		return err
	}
	// What cannot be done without: both sides sign and verify, on all processors.
	m, err := r.inTurn(r.of(11, 1), variant{100, ed25519Pair()})
	if err != nil {
		return err
	}
	most := float64(runtime.GOMAXPROCS(0)) * 1e6 / (2 * median(m[0].wall))
	r.add(Row{
		Section: "http", Name: fmt.Sprintf("scripts a second, %d clients", clients), Value: sent.PerSecond(), Unit: "/s", CPU: micros(sent.CPUPerScript()),
		Floor: &Floor{Name: "Ed25519 alone: two signed, two verified", Value: most, CPU: 2 * median(m[0].cpu)},
		Aim:   5000, AtLeast: true,
	})
	r.add(Row{Section: "http", Name: "from signing to a receipt that was checked, median", Value: micros(sent.P50), Unit: "µs"})
	r.add(Row{Section: "http", Name: "the same, 99th percentile", Value: micros(sent.P99), Unit: "µs", Aim: 50_000})
	if sent.Busy > 0 {
		r.note("over HTTP/2: %d scripts were turned away, and sent again", sent.Busy)
	}
	return nil
}
