package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/peer"
)

// coldStart measures how long a host takes to be ready that has many modules, with
// what it made of them the last time in its cache; and the first call of one then.
func (r *run) coldStart() error {
	n := r.of(50, 3)
	for _, name := range []string{"C", "Go"} {
		g := r.guest(name)
		if g.name != name {
			continue // findGuests has noted why
		}
		if err := r.coldStartOf(n, g); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (r *run) coldStartOf(n int, g guest) error {
	p, err := r.newPlace(1)
	if err != nil {
		return err
	}
	dir, lastHour := filepath.Join(p.root.Dir, "modules"), time.Now().Add(-time.Hour)
	for i := range n {
		// A custom section of its own makes each another module.
		wasm := append(bytes.Clone(g.wasm), 0, 5, 2, 'n', 'o', byte(i>>8), byte(i))
		file, err := module.Add(dir, fmt.Sprintf("m%03d", i), wasm)
		if err == nil { // a file that was changed just now is looked at again
			err = os.Chtimes(file, lastHour, lastHour)
		}
		if err != nil {
			return err
		}
	}
	r.Progress(fmt.Sprintf("cold start: compiling %d modules in %s", n, g.name))
	if err := p.open(host.Config{}); err != nil {
		return err
	}
	if err := p.close(); err != nil {
		return err
	}
	key, err := peer.GenerateKey()
	if err != nil {
		return err
	}
	var ready, first, read []float64
	for i := range r.of(7, 1) {
		if err := r.ctx.Err(); err != nil {
			return context.Cause(r.ctx)
		}
		began := time.Now()
		if err := p.open(host.Config{}); err != nil {
			return err
		}
		ready = append(ready, micros(time.Since(began))/1e3)
		s := work(p.ids[0])
		s.Logic.Name = fmt.Sprintf("m%03d", (i*7)%n)
		took, err := p.deliver(s, key)
		if err != nil {
			return err
		}
		first = append(first, micros(took)/1e3)
		if err := p.close(); err != nil {
			return err
		}
		began = time.Now()
		for i := range n {
			if _, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("m%03d.wasm", i))); err != nil {
				return err
			}
		}
		read = append(read, micros(time.Since(began))/1e3)
	}
	r.add(Row{
		Section: "start", Name: fmt.Sprintf("%d modules in %s, until scripts are taken", n, g.name), Value: median(ready), Unit: "ms",
		Floor: &Floor{Name: "reading the files", Value: median(read)}, Aim: 150,
	})
	r.add(Row{Section: "start", Name: "the first call of one of them then", Value: median(first), Unit: "ms"})
	return p.remove()
}
