package bench

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

// spin is a module that computes for ever.
//
//	(module (memory (export "memory") 1) (func (export "_start") (loop (br 0))))
var spin = []byte("\x00asm\x01\x00\x00\x00" +
	"\x01\x04\x01\x60\x00\x00" +
	"\x03\x02\x01\x00" +
	"\x05\x03\x01\x00\x01" +
	"\x07\x13\x02\x06memory\x02\x00\x06_start\x00\x00" +
	"\x0a\x09\x01\x07\x00\x03\x40\x0c\x00\x0b\x0b")

// neighbour measures what the scripts of one peer, which never end by themselves,
// do to those of another, in another context: alone and beside them, in turn.
func (r *run) neighbour() error {
	for _, greedy := range []struct {
		name    string
		scripts int
		aim     float64
	}{{"beside one that never ends", 1, 2}, {"beside 24 of one caller", 24, 2}} {
		r.Progress("neighbour: " + greedy.name)
		alone, crowded, err := r.besideGreedy(greedy.scripts)
		if err != nil {
			return err
		}
		for _, q := range []struct {
			name string
			at   float64
		}{{"median", 0.5}, {"99th percentile", 0.99}} {
			row := Row{
				Section: "neighbour", Name: fmt.Sprintf("%s, %s", q.name, greedy.name), Value: quantile(crowded, q.at), Unit: "µs",
				Floor: &Floor{Name: "alone", Value: quantile(alone, q.at)},
			}
			r.add(within(row, greedy.aim))
		}
	}
	return nil
}

func (r *run) besideGreedy(scripts int) (alone, crowded []float64, err error) {
	p, err := r.newPlace(1 + scripts)
	if err != nil {
		return nil, nil, err
	}
	if err := p.open(host.Config{}); err != nil {
		return nil, nil, err
	}
	modest, err := peer.GenerateKey()
	if err != nil {
		return nil, nil, err
	}
	calls := func(into *[]float64) error {
		for range r.of(400, 20) {
			took, err := p.deliver(work(p.ids[0]), modest)
			if err != nil {
				return err
			}
			*into = append(*into, micros(took))
			time.Sleep(time.Millisecond) // as one who asks now and then
		}
		return nil
	}
	var warm []float64
	if err := calls(&warm); err != nil {
		return nil, nil, err
	}
	for range r.of(5, 1) {
		if err := calls(&alone); err != nil {
			return nil, nil, err
		}
		end, err := p.greed(scripts)
		if err != nil {
			return nil, nil, err
		}
		err = calls(&crowded)
		end()
		if err != nil {
			return nil, nil, err
		}
	}
	return alone, crowded, p.remove()
}

// greed has so many scripts of one caller run until end is called, each in a context
// of its own: those that may write to one context run one after the other.
func (p *place) greed(scripts int) (end func(), err error) {
	key, err := peer.GenerateKey()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(p.run.ctx)
	greedy := *p
	greedyRun := *p.run
	greedyRun.ctx = ctx
	greedy.run = &greedyRun
	var all sync.WaitGroup
	for i := range scripts {
		all.Go(func() {
			for ctx.Err() == nil { // each ends by its time, and is sent again
				_, _ = greedy.deliver(script.Script{Target: p.ids[1+i], Logic: script.Logic{Wasm: spin}}, key)
			}
		})
	}
	time.Sleep(50 * time.Millisecond) // until they run
	return func() { cancel(); all.Wait() }, nil
}
