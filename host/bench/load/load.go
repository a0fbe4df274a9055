// Package load sends scripts to a host as fast as it answers them, as clients do:
// each is signed, and each receipt checked. Start with Run.
//
//	result, err := load.Run(ctx, load.Config{
//		Dial:    func() (transport.Sender, error) { return http2.Dial(url, nil) },
//		Host:    h.ID(),
//		Callers: keys, Targets: ids,
//		Script:  func(n int) script.Script { return script.Script{Logic: …} },
//		For:     5 * time.Second,
//	})
//
// It is a closed loop: each client sends its next script when it has the receipt
// of the last. So a host that is slow is sent less, and the latencies are those of
// that many clients, not of a rate.
package load

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/transport"
)

// Config says what is sent, by whom and where to. Dial, Callers, Targets, Script
// and one of For and Scripts are required.
type Config struct {
	// Dial is called once for each connection; Run closes what it returns.
	Dial func() (transport.Sender, error)
	// Host signs the receipts; "" takes any.
	Host peer.ID
	// Client i signs as Callers[i % len(Callers)], and sends to
	// Targets[i % len(Targets)]: scripts that write to one context wait for each
	// other, as do callers beyond their share of a host.
	Callers []*peer.Key
	Targets []peer.ID
	// Script returns what is sent as the nth, from 0; its caller, target, nonce and
	// times are filled in. It is called concurrently.
	Script func(n int) script.Script

	Clients     int // that send at the same time; 0 means 64
	Connections int // that they share; 0 means one for each of them

	For     time.Duration // for how long scripts are sent; 0 means without an end
	Scripts int           // how many are; 0 means without an end
	Warm    int           // so many come first, and are not measured
}

// retry is how long a client that was turned away waits before it sends another.
const retry = 5 * time.Millisecond

// Result is what was measured.
type Result struct {
	Clients int           `json:"clients"`
	Scripts int           `json:"scripts"` // that were done
	Busy    int           `json:"busy"`    // that a host turned away for having too much to do
	Wall    time.Duration `json:"wall_ns"`
	CPU     time.Duration `json:"cpu_ns"` // of this process, user and system; 0 where that is not known
	P50     time.Duration `json:"p50_ns"` // from signing a script to a receipt that was checked
	P99     time.Duration `json:"p99_ns"`
	Max     time.Duration `json:"max_ns"`
}

// PerSecond is how many scripts were done in a second.
func (r Result) PerSecond() float64 { return float64(r.Scripts) / r.Wall.Seconds() }

// CPUPerScript is what this process took of the processors for one script: its
// own part, signing and checking, and the host's, if that is in it.
func (r Result) CPUPerScript() time.Duration { return r.CPU / time.Duration(max(r.Scripts, 1)) }

// Run sends until time or number is up, and waits for the last receipts. The first
// script that is not done ends it with an error, unless the host said that it had
// too much to do.
func Run(ctx context.Context, c Config) (Result, error) {
	if c.Dial == nil || c.Script == nil || len(c.Callers) == 0 || len(c.Targets) == 0 {
		return Result{}, errors.New("load: Dial, Script, Callers and Targets must be set")
	}
	if c.For <= 0 && c.Scripts <= 0 {
		return Result{}, errors.New("load: say when to stop: For or Scripts must be set")
	}
	if c.Clients <= 0 {
		c.Clients = 64
	}
	if c.Connections <= 0 || c.Connections > c.Clients {
		c.Connections = c.Clients
	}
	via := make([]transport.Sender, 0, c.Connections)
	defer func() {
		for _, s := range via {
			_ = s.Close()
		}
	}()
	for range c.Connections {
		s, err := c.Dial()
		if err != nil {
			return Result{}, fmt.Errorf("load: %w", err)
		}
		via = append(via, s)
	}
	l := &loading{Config: c, via: via}
	if c.Warm > 0 {
		if _, err := l.round(ctx, 0, c.Warm); err != nil {
			return Result{}, fmt.Errorf("load: warm up: %w", err)
		}
	}
	r, err := l.round(ctx, c.For, c.Scripts)
	if err != nil {
		return r, fmt.Errorf("load: %w", err)
	}
	return r, nil
}

type loading struct {
	Config
	via  []transport.Sender
	next atomic.Int64 // script
}

// round has all clients send, for a time or a number of scripts.
func (l *loading) round(ctx context.Context, d time.Duration, scripts int) (Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if scripts <= 0 {
		scripts = math.MaxInt
	}
	var (
		left    atomic.Int64
		busy    atomic.Int64
		clients sync.WaitGroup
		took    = make([][]time.Duration, l.Clients)
	)
	left.Store(int64(scripts))
	cpu, began := cpuTime(), time.Now()
	for i := range l.Clients {
		clients.Go(func() {
			for ctx.Err() == nil && (d == 0 || time.Since(began) < d) && left.Add(-1) >= 0 {
				t, err := l.send(ctx, i)
				var refused *transport.Error
				switch {
				case err == nil:
					took[i] = append(took[i], t)
				case errors.As(err, &refused) && refused.Code == transport.Unavailable:
					busy.Add(1)
					left.Add(1)
					time.Sleep(retry)
				default:
					cancel(err)
				}
			}
		})
	}
	clients.Wait()
	r := Result{Clients: l.Clients, Wall: time.Since(began), CPU: cpuTime() - cpu, Busy: int(busy.Load())}
	all := slices.Concat(took...)
	slices.Sort(all)
	if r.Scripts = len(all); r.Scripts > 0 {
		at := func(part float64) time.Duration { return all[min(int(part*float64(len(all))), len(all)-1)] }
		r.P50, r.P99, r.Max = at(0.5), at(0.99), all[len(all)-1]
	}
	if ctx.Err() != nil {
		return r, context.Cause(ctx)
	}
	return r, nil
}

// send is one script of client i, from signing it to its receipt.
func (l *loading) send(ctx context.Context, i int) (time.Duration, error) {
	s := l.Script(int(l.next.Add(1) - 1))
	s.Target = l.Targets[i%len(l.Targets)]
	began := time.Now()
	sealed, id, err := envelope.SealScript(s, l.Callers[i%len(l.Callers)])
	if err != nil {
		return 0, err
	}
	back, err := l.via[i%len(l.via)].Send(ctx, sealed, nil)
	if err != nil {
		return 0, err
	}
	r, _, err := envelope.OpenReceiptOf(id, back, l.Host)
	if err != nil {
		return 0, err
	}
	if r.Code != script.Done {
		return 0, fmt.Errorf("script %s was not done, but %v: %s", id.Short(), r.Code, r.Message)
	}
	return time.Since(began), nil
}
