package bench

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/peer"
)

// density measures what registered peers cost while nobody calls them: time to
// start, and memory; and what the first call into an idle context costs.
func (r *run) density() error {
	sizes := []int{10, 10_000, 100_000}
	if r.Quick {
		sizes = []int{10, 100}
	}
	var few resources
	for i, n := range sizes {
		found, err := r.registered(n)
		if err != nil {
			return fmt.Errorf("%d peers: %w", n, err)
		}
		name := fmt.Sprintf("%d peers", n)
		start := Row{Section: "density", Name: "start with " + name, Value: found.start, Unit: "µs"}
		if i == 0 {
			few = found
			r.add(start)
			continue
		}
		start.Floor = &Floor{Name: fmt.Sprintf("start with %d", sizes[0]), Value: few.start}
		r.add(within(start, 0))
		for _, m := range []struct {
			name        string
			with, least int64
		}{{"heap", found.heap, few.heap}, {"resident", found.resident, few.resident}} {
			if m.with == 0 {
				continue // not known on this system
			}
			r.add(Row{
				Section: "density", Name: fmt.Sprintf("%s memory for each of %s, idle", m.name, name), Unit: "B",
				Value: float64(max(m.with-m.least, 0)) / float64(n-sizes[0]), Aim: 1024,
			})
		}
		if found.watches >= 0 {
			r.add(Row{Section: "density", Name: "file watches with " + name + ", idle", Value: float64(found.watches), Unit: "",
				Floor: &Floor{Name: fmt.Sprintf("with %d", sizes[0]), Value: float64(few.watches)}})
		}
	}
	return r.firstCalls()
}

// resources are what a host takes while nobody calls it.
type resources struct {
	start          float64 // µs until it takes scripts, median
	heap, resident int64   // bytes
	watches        int     // -1 where that is not known
}

// registered measures a root with so many peers, of which some were called once
// and are idle again.
func (r *run) registered(n int) (found resources, err error) {
	p, err := r.newPlace(n)
	if err != nil {
		return found, err
	}
	r.Progress(fmt.Sprintf("density: %d peers, taken in for the first time", n))
	if err := p.open(host.Config{}); err != nil { // makes the index, compiles the module
		return found, err
	}
	if err := p.close(); err != nil {
		return found, err
	}
	var starts []float64
	for range r.of(11, 2) {
		began := time.Now()
		if err := p.open(host.Config{}); err != nil {
			return found, err
		}
		starts = append(starts, micros(time.Since(began)))
		if err := p.close(); err != nil {
			return found, err
		}
	}
	found.start = median(starts)
	ids := p.ids
	if err := p.open(host.Config{IdleAfter: 200 * time.Millisecond}); err != nil {
		return found, err
	}
	key, err := peer.GenerateKey()
	if err != nil {
		return found, err
	}
	called := min(n, r.of(2000, 20))
	r.Progress(fmt.Sprintf("density: %d peers, %d of them called", n, called))
	for i := range called {
		if _, err := p.deliver(work(ids[i*len(ids)/called]), key); err != nil {
			return found, err
		}
	}
	p.ids = nil // ours, and not the host's
	time.Sleep(time.Second)
	runtime.GC()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	found.heap, found.resident, found.watches = int64(m.HeapAlloc), resident(), watches()
	return found, p.remove()
}

// resident is how much memory this process has, in bytes; 0 where that is not known.
func resident() int64 {
	var size, pages int64
	if _, err := fmt.Sscan(firstLine("/proc/self/statm"), &size, &pages); err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// watches is how many files this process has the kernel watch; -1 where that is
// not known.
func watches() int {
	files, err := os.ReadDir("/proc/self/fdinfo")
	if err != nil {
		return -1
	}
	n := 0
	for _, f := range files {
		text, err := os.ReadFile("/proc/self/fdinfo/" + f.Name())
		if err == nil {
			n += bytes.Count(text, []byte("inotify wd"))
		}
	}
	return n
}

// firstCalls measures the first call into a context that is not open, beside one
// into a context that is.
func (r *run) firstCalls() error {
	n := r.of(40, 20)
	p, err := r.newPlace(n)
	if err != nil {
		return err
	}
	r.Progress("density: first calls")
	key, err := peer.GenerateKey()
	if err != nil {
		return err
	}
	var first, warm []float64
	for range r.of(12, 6) {
		// All are closed; the module is compiled by the first call, into none of them.
		if err := p.open(host.Config{}); err != nil {
			return err
		}
		if _, err := p.deliver(work(p.ids[0]), key); err != nil {
			return err
		}
		for _, id := range p.ids[1:] {
			for _, into := range []*[]float64{&first, &warm} {
				took, err := p.deliver(work(id), key)
				if err != nil {
					return err
				}
				*into = append(*into, micros(took))
			}
		}
		if err := p.close(); err != nil {
			return err
		}
	}
	row := Row{Section: "density", Name: "first call into an idle context", Value: median(first), Unit: "µs",
		Floor: &Floor{Name: "into an open one", Value: median(warm)}}
	r.add(within(row, 2))
	return p.remove()
}
