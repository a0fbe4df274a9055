package overlay

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/circles-host/circles/host/store"
)

// Plan is what a commit does to the lower state: Steps, in order, if everything
// in Expect still holds.
//
// The steps come in three parts. First entries leave, the deepest first, at the
// paths that they had in the lower state: removed, or moved out into a numbered
// slot. Then entries come in, a directory before what it holds, at the paths
// that they will have. Last, times are set. So no step depends on the order in
// which a script renamed things about, cycles of renames are no special case,
// and each step can be made idempotent.
//
// Steps on the names of one directory are next to each other.
type Plan struct {
	Base   Snapshot // a Snapshotter's own: the state that the plan was made for
	Steps  []Step
	Expect []Expect
	Dirs   []string // the lower directories in which names will change, by their lower paths
	Slots  int      // StepOut and StepSymlink number their slots from 0
}

// StepKind says what a step does.
type StepKind uint8

const (
	StepRemove  StepKind = iota + 1 // unlink or rmdir Path, which is Was
	StepOut                         // move Path, which is Was, to Slot
	StepMkdir                       // make directory Path
	StepIn                          // move what is in Slot to Path
	StepPut                         // put File, of Size, with its times, at Path
	StepSymlink                     // put a link to Target at Path; Slot is free for making it
	StepTimes                       // set the times of Path, of a link its own
)

// Step is one step of a plan. Path is like a Lower's. In, Put and Symlink
// replace what is not a directory at Path; if the transaction saw something
// there, that is Was.
type Step struct {
	Kind         StepKind
	Path         string
	Was          Attr // its Kind is 0 if there is none
	Slot         int
	Size         int64
	File         Staged
	Target       string
	Atime, Mtime time.Time

	node *node
}

// Expect is what must hold of the lower state when a plan is applied.
type Expect struct {
	Path   string
	Attr   Attr     // what is there; its Kind is 0 if nothing must be
	IsOnly bool     // of a directory that will be removed: it holds nothing but Only
	Only   []string //
}

func (p *Plan) release() {
	for i := range p.Steps {
		if s := &p.Steps[i]; s.Kind == StepPut {
			s.node.staged = nil
		}
	}
}

// planner collects the parts of a plan.
type planner struct {
	t      *Tx
	leave  []Step
	enter  []Step
	times  []Step
	expect []Expect
	dirs   []string
	slots  map[*node]int
	next   int
}

func (t *Tx) plan() (*Plan, error) {
	p := &planner{t: t, slots: map[*node]int{}}
	if t.readOnly {
		return &Plan{}, nil
	}
	if err := p.leaving(t.root); err != nil {
		return nil, err
	}
	slices.SortFunc(p.leave, func(a, b Step) int {
		da, db := strings.Count(a.Path, "/"), strings.Count(b.Path, "/")
		return cmp.Or(-cmp.Compare(da, db), comparePaths(a.Path, b.Path))
	})
	if err := p.entering(t.root, "."); err != nil {
		return nil, err
	}
	return &Plan{
		Base:   t.lower,
		Steps:  slices.Concat(p.leave, p.enter, p.times),
		Expect: p.expect,
		Dirs:   slices.Compact(slices.Sorted(slices.Values(p.dirs))),
		Slots:  p.next,
	}, nil
}

// comparePaths orders a directory before what it holds, and that before the
// directory's next sibling.
func comparePaths(a, b string) int {
	for i := range min(len(a), len(b)) {
		if a[i] == b[i] {
			continue
		}
		switch {
		case a[i] == '/':
			return -1
		case b[i] == '/':
			return 1
		}
		return cmp.Compare(a[i], b[i])
	}
	return cmp.Compare(len(a), len(b))
}

// leaving collects what leaves the lower directory of d, live or removed, and
// everything below.
func (p *planner) leaving(d *node) error {
	if len(d.masked) > 0 && d.parent != nil {
		e := Expect{Path: d.origin, Attr: d.attr}
		if d.gone {
			e.IsOnly, e.Only = true, slices.Sorted(maps.Keys(d.masked))
		}
		p.expect = append(p.expect, e)
	}
	if len(d.masked) > 0 {
		p.dirs = append(p.dirs, d.origin)
	}
	for _, name := range slices.Sorted(maps.Keys(d.masked)) {
		n := d.masked[name]
		if n.kind != store.KindDir || len(n.masked) == 0 || !n.gone { // else the recursion says more
			p.expect = append(p.expect, Expect{
				Path: n.origin, Attr: n.attr, IsOnly: n.gone && n.kind == store.KindDir,
			})
		}
		gone := n.gone
		if !gone && n.staged != nil { // moved, but its content comes from staging
			same, err := p.t.sameAsOrigin(n)
			if err != nil {
				return err
			}
			gone = !same
		}
		switch c := d.children[name]; {
		case !gone:
			p.slots[n] = p.next
			p.leave = append(p.leave, Step{Kind: StepOut, Path: n.origin, Was: n.attr, Slot: p.next})
			p.next++
		case n.kind != store.KindDir && c != nil && c.kind != store.KindDir && !d.gone:
			// c is renamed over it: whoever looks finds one or the other.
		default:
			p.leave = append(p.leave, Step{Kind: StepRemove, Path: n.origin, Was: n.attr})
		}
		if n.gone && n.kind == store.KindDir {
			if err := p.leaving(n); err != nil {
				return err
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.children)) {
		if c := d.children[name]; c.kind == store.KindDir {
			if err := p.leaving(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// entering collects what comes into d, which will be at path, and below.
func (p *planner) entering(d *node, path string) error {
	if d.parent == nil && d.timesSet {
		p.times = append(p.times, timesStep(d, path))
	}
	names := slices.Sorted(maps.Keys(d.children))
	fresh := false // something has come to a name that the lower directory did not have
	for _, name := range names {
		c := d.children[name]
		at := join(path, name)
		dirty := c.staged != nil
		if dirty && c.origin != "" {
			same, err := p.t.sameAsOrigin(c)
			if err != nil {
				return err
			}
			dirty = !same
		}
		s := Step{Path: at, node: c, Atime: c.atime, Mtime: c.mtime}
		switch {
		case c.home():
			if !dirty {
				break
			}
			s.Kind, s.File, s.Size, s.Was = StepPut, c.staged, c.size, c.attr
			p.expect = append(p.expect, Expect{Path: c.origin, Attr: c.attr})
		case dirty:
			s.Kind, s.File, s.Size = StepPut, c.staged, c.size
		case c.origin != "":
			s.Kind, s.Slot = StepIn, p.slots[c]
		case c.kind == store.KindDir:
			s.Kind = StepMkdir
		default:
			s.Kind, s.Target, s.Slot = StepSymlink, c.target, p.next
			p.next++
		}
		if !c.home() {
			fresh = true
			if was := d.masked[name]; was != nil {
				if _, out := p.slots[was]; !out && was.kind != store.KindDir && c.kind != store.KindDir {
					s.Was = was.attr
				}
			} else if d.origin != "" {
				p.expect = append(p.expect, Expect{Path: join(d.origin, name)})
			}
		}
		if s.Kind != 0 {
			if d.origin != "" {
				p.dirs = append(p.dirs, d.origin)
			}
			p.enter = append(p.enter, s)
		}
		if c.timesSet && s.Kind != StepPut &&
			(c.origin == "" || !c.atime.Equal(c.attr.Atime) || !c.mtime.Equal(c.attr.Mtime)) {
			p.times = append(p.times, timesStep(c, at))
			if c.home() {
				p.expect = append(p.expect, Expect{Path: c.origin, Attr: c.attr})
			}
		}
	}
	if fresh && d.origin != "" && d.parent != nil {
		p.expect = append(p.expect, Expect{Path: d.origin, Attr: d.attr})
	}
	for _, name := range names {
		if c := d.children[name]; c.kind == store.KindDir {
			if err := p.entering(c, join(path, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

func timesStep(n *node, path string) Step {
	return Step{Kind: StepTimes, Path: path, Atime: n.atime, Mtime: n.mtime, node: n}
}

// sameAsOrigin reports whether a staged file holds what its origin holds.
func (t *Tx) sameAsOrigin(n *node) (bool, error) {
	if n.sameAt == n.gen+1 {
		return n.same, nil
	}
	same, err := t.sameContent(n, n.origin, n.attr, n.intact)
	if err != nil {
		return false, err
	}
	n.sameAt, n.same = n.gen+1, same
	return same, nil
}

// sameContent compares a file's content from an offset on with that of the lower
// file at origin. One that is no longer as attr says is not the same.
func (t *Tx) sameContent(n *node, origin string, attr Attr, from int64) (bool, error) {
	if attr.Kind != store.KindFile || attr.Size != n.size {
		return false, nil
	}
	was, err := t.lower.Open(origin)
	if errors.Is(err, store.ErrNotExist) || errors.Is(err, store.ErrSpecial) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer was.Close()
	if !was.Attr().Same(attr) {
		return false, nil
	}
	now, err := t.content(n)
	if err != nil {
		return false, err
	}
	defer now.Close()
	if _, err := now.Seek(from, io.SeekStart); err != nil {
		return false, err
	}
	return equal(t.ctx, n.size-from, io.NewSectionReader(was, from, n.size-from), now)
}

// equal compares two readers of about size bytes.
func equal(ctx context.Context, size int64, a, b io.Reader) (bool, error) {
	chunk := min(size, 64<<10) + 1 // so that a small file is read to its end at once
	bufA, bufB := make([]byte, chunk), make([]byte, chunk)
	for {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		i, errA := io.ReadFull(a, bufA)
		j, errB := io.ReadFull(b, bufB)
		if !bytes.Equal(bufA[:i], bufB[:j]) {
			return false, nil
		}
		for _, err := range []error{errA, errB} {
			if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
				return false, err
			}
		}
		if errA != nil || errB != nil {
			return (errA != nil) == (errB != nil), nil
		}
	}
}
