// Package bench measures a host on the machine that it runs on: what a script
// costs, where, and beside what it cannot cost less than.
//
//	report, err := bench.Run(ctx, bench.Config{Stores: stores, Progress: show})
//	for _, row := range report.Rows {
//		fmt.Println(row.Section, row.Name, row.Value, row.Unit, row.Ratio)
//	}
//
// Each figure that has a floor is measured beside it, in turn, in the same run: on
// a machine that others share, ratios hold where times do not. Figures are medians
// of rounds. What is measured is the code that a worker runs: scripts are signed,
// policies are files, contexts are in directories with their journal.
package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/store"
)

// OpenStore opens the store of a peer's context.
type OpenStore = func(ctx context.Context, e peer.Entry) (store.Store, error)

// Config says what to measure. Stores is required.
type Config struct {
	// Stores returns what opens the contexts of a root, as a worker does, and what is
	// called when all of them are closed.
	Stores func(*host.Root) (OpenStore, func() error)
	// Dir is where roots are made, and removed: the disk that is measured. "" is the
	// system's directory for temporary files.
	Dir string
	// Quick has everything measured once, with small numbers: to see whether it works.
	Quick bool
	// Only, if not empty, are the sections to measure; see Sections.
	Only []string
	// Modules are further modules to make fresh calls of, by what to call them.
	Modules map[string][]byte
	// Progress is told what is being measured. It may be nil.
	Progress func(text string)
}

// Report is what was measured.
type Report struct {
	Machine Machine   `json:"machine"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	Took    Seconds   `json:"took_s"`
	Quick   bool      `json:"quick"`
	Rows    []Row     `json:"rows"`
	Notes   []string  `json:"notes,omitempty"` // what was not measured, and why
}

// Seconds is a time for JSON.
type Seconds float64

// Row is one figure.
type Row struct {
	Section string  `json:"section"`
	Name    string  `json:"name"`
	Value   float64 `json:"value"`
	Unit    string  `json:"unit"`
	// CPU is what the process computed meanwhile, for each of what Value is of, in
	// µs; 0 where that is not known or says nothing.
	CPU   float64 `json:"cpu_us,omitempty"`
	Floor *Floor  `json:"floor,omitempty"`
	// Ratio says how the two compare, in the words of RatioOf.
	Ratio   float64 `json:"ratio,omitempty"`
	RatioOf string  `json:"ratio_of,omitempty"`
	// Aim is a bound of Ratio, or of Value if there is no ratio; 0 for none. AtLeast
	// says on which side of it to be.
	Aim     float64 `json:"aim,omitempty"`
	AtLeast bool    `json:"at_least,omitempty"`
}

// Floor is what a figure is measured beside.
type Floor struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"` // in the row's unit
	CPU   float64 `json:"cpu_us,omitempty"`
}

// Met reports whether a row with an aim meets it.
func (r Row) Met() bool {
	v := r.Value
	if r.Ratio != 0 {
		v = r.Ratio
	}
	if r.AtLeast {
		return v >= r.Aim
	}
	return v <= r.Aim
}

// Section is a part of the report, by its name in Config.Only.
type Section struct {
	Name, Title string
	measure     func(*run) error
}

// sections are measured in this order.
var sections = []Section{
	{"fresh", "a fresh call: instantiate, initialise, call, close", (*run).freshCalls},
	{"path", "a script's whole path, from its arrival to its receipt", (*run).wholePath},
	{"http", "signed scripts over HTTP/2, clients beside the worker", (*run).overHTTP2},
	{"neighbour", "a neighbour of scripts that never end", (*run).neighbour},
	{"density", "peers that nobody calls", (*run).density},
	{"start", "a start with modules that the cache knows", (*run).coldStart},
}

// Sections returns what there is to measure.
func Sections() []Section { return slices.Clone(sections) }

// run is one measurement of everything.
type run struct {
	Config
	ctx    context.Context
	report *Report
	dir    string // for roots, removed in the end
	cache  string // of compiled code
	count  int    // of roots
	guests []guest
}

// Run measures what c says. When ctx ends it stops between two rounds, and returns
// the context's error.
func Run(ctx context.Context, c Config) (*Report, error) {
	if c.Stores == nil {
		return nil, errors.New("measure: no Stores: say where contexts are stored")
	}
	for _, name := range c.Only {
		if !slices.ContainsFunc(sections, func(s Section) bool { return s.Name == name }) {
			return nil, fmt.Errorf("measure: there is no section %q", name)
		}
	}
	if c.Progress == nil {
		c.Progress = func(string) {}
	}
	dir, err := os.MkdirTemp(c.Dir, "circles-bench-")
	if err != nil {
		return nil, fmt.Errorf("measure: %w", err)
	}
	defer os.RemoveAll(dir)
	r := &run{Config: c, ctx: ctx, dir: dir, cache: filepath.Join(dir, "cache")}
	r.report = &Report{Machine: thisMachine(), Started: time.Now().UTC().Truncate(time.Second), Quick: c.Quick}
	began := time.Now()
	if err := r.findGuests(); err != nil {
		return nil, fmt.Errorf("measure: %w", err)
	}
	for _, s := range sections {
		if len(c.Only) > 0 && !slices.Contains(c.Only, s.Name) {
			continue
		}
		c.Progress(s.Title)
		if err := s.measure(r); err != nil {
			return nil, fmt.Errorf("measure %s: %w", s.Name, err)
		}
		runtime.GC() // what one section left is not the next one's
	}
	r.report.Took = Seconds(time.Since(began).Seconds())
	return r.report, nil
}

func (r *run) add(row Row) { r.report.Rows = append(r.report.Rows, row) }

func (r *run) note(format string, a ...any) {
	r.report.Notes = append(r.report.Notes, fmt.Sprintf(format, a...))
}

// of is many, or few when it is to be quick.
func (r *run) of(many, few int) int {
	if r.Quick {
		return few
	}
	return many
}

// measured is what one variant took, a round each, in µs for one operation.
type measured struct{ wall, cpu []float64 }

// variant is one of several things that are measured in turn.
type variant struct {
	n  int // operations of a round: for about as long as a round of the others
	do func() error
}

// inTurn measures variants in turn, for so many rounds.
func (r *run) inTurn(rounds int, variants ...variant) ([]measured, error) {
	all := make([]measured, len(variants))
	for range rounds {
		for i, v := range variants {
			if err := r.ctx.Err(); err != nil {
				return nil, context.Cause(r.ctx)
			}
			if err := v.do(); err != nil { // the first finds the caches of the one before
				return nil, err
			}
			cpu, wall := cpuTime(), time.Now()
			for range v.n {
				if err := v.do(); err != nil {
					return nil, err
				}
			}
			n := float64(v.n)
			all[i].wall = append(all[i].wall, micros(time.Since(wall))/n)
			all[i].cpu = append(all[i].cpu, micros(cpuTime()-cpu)/n)
		}
	}
	return all, nil
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

// median sorts; quantile too.
func median(v []float64) float64 { return quantile(v, 0.5) }

func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	return v[min(int(float64(len(v))*q), len(v)-1)]
}

// beside makes a row of a variant and its floor, in µs.
func beside(section, name string, ours measured, floor string, its measured) Row {
	row := Row{
		Section: section, Name: name, Value: median(ours.wall), Unit: "µs", CPU: median(ours.cpu),
		Floor: &Floor{Name: floor, Value: median(its.wall), CPU: median(its.cpu)},
	}
	return row
}

// faster is row with the ratio that says how much less than its floor it takes.
func faster(row Row, aim float64) Row {
	row.Ratio, row.RatioOf, row.Aim, row.AtLeast = row.Floor.Value/row.Value, "times faster", aim, aim != 0
	return row
}

// within is row with the ratio that says how much more than its floor it takes.
func within(row Row, aim float64) Row {
	row.Ratio, row.RatioOf, row.Aim = row.Value/row.Floor.Value, "times the floor", aim
	return row
}
