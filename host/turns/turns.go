// Package turns shares a host's processors and memory out among those who send
// it scripts, so that one of them cannot take all.
//
//	turn, err := ts.Enter(ctx, caller, memory) // ErrBusy, or waits for its share of the memory
//	defer turn.Leave()
//	err = turn.Begin(ctx)                      // waits for a processor
//	turn.Slice()                               // now and then, while it computes: lets others go
//
// There are as many places as processors, and who computes has one. Places go to
// whoever's caller has computed least, by start-time fair queueing (Goyal, Vin
// and Cheng, SIGCOMM 1996): each caller has a virtual time, which advances by the
// time that its scripts compute, and who comes back after a rest starts at the
// time of those who are at it. So a caller with fifty scripts gets no more than
// one with one; the one waits for at most a quantum, and not for fifty scripts.
//
// Memory is reserved by what a script may take, before it starts: what is not
// reserved is never taken. Scripts that do not fit wait, in the same order, and
// the first of them is not overtaken by smaller ones of callers who had more.
//
// Who waits in vain is told at once: beyond Config.Waiting scripts, or a caller's
// share of them, Enter fails.
//
// A script may send another one and wait for it, and keeps its memory meanwhile. Were
// all memory taken by scripts that wait for such as wait for memory, none would ever
// go on. So there is memory for one script of each level that nobody else may have,
// and who finds none in its turn takes that. The deepest sends none and comes to an
// end; then one that waits for such a one can; and so on (Günther, IEEE Transactions
// on Communications 29, 1981, of the buffers of networks). It is no more than one,
// since how deep a script is may be the word of whoever sent it.
package turns

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Config says what there is to share. The zero value works.
type Config struct {
	Processors int    // default GOMAXPROCS
	Memory     uint64 // bytes that all scripts together may take; default 4 GiB
	Waiting    int    // scripts that may wait for memory; default 1,024
	// Share is how many of those one caller may have. Default a quarter of Waiting.
	Share int
	// Quantum is how long a script computes before it lets another go. Default 500 µs.
	Quantum time.Duration
	// Levels is how deep scripts send others: those that nobody waits for are of level
	// 0, and those of level Levels send none. Default 0.
	Levels int
	// Script is what a script takes at most, which is kept back of Memory for each level
	// but 0. Where Memory has not so much, there are fewer levels.
	Script uint64
}

// Errors of Enter. ErrBusy is for now, and the others for good.
var (
	ErrBusy     = errors.New("as many scripts as may are waiting for their turn")
	ErrTooLarge = errors.New("a script may take more memory than all scripts together")
	ErrTooDeep  = errors.New("this host has no memory for a script that so many others wait for")
)

var errOwn = fmt.Errorf("%w: those of this caller", ErrBusy)

// Turns is safe for concurrent use.
type Turns struct {
	config Config
	most   uint64 // memory that is not kept back

	mu         sync.Mutex
	callers    map[string]*caller // those who have a Turn
	clock      time.Duration      // the virtual time at which the last place was given
	memory     uint64             // that is not reserved
	kept       []uint64           // of what is kept back for each level, what is not reserved
	processors int                // places that are free
	entering   queue              // wait for memory
	computing  queue              // wait for a place
	crowded    atomic.Bool        // somebody waits for a place
}

// caller is somebody who has scripts here now.
type caller struct {
	name    string
	turns   int // how many
	waiting int // of these, for memory
	virtual time.Duration
}

// Turn is one script's. It belongs to one goroutine at a time.
type Turn struct {
	ts     *Turns
	caller *caller
	level  int
	memory uint64
	ofKept bool          // it has what was kept back
	ready  chan struct{} // has one element when what it waits for was given to it

	placed bool
	since  time.Time // of the place
	ctx    context.Context
	paused bool
}

// New returns what shares out as c says.
func New(c Config) *Turns {
	if c.Processors <= 0 {
		c.Processors = runtime.GOMAXPROCS(0)
	}
	if c.Memory == 0 {
		c.Memory = 4 << 30
	}
	if c.Waiting <= 0 {
		c.Waiting = 1024
	}
	if c.Share <= 0 {
		c.Share = max(c.Waiting/4, 1)
	}
	if c.Quantum <= 0 {
		c.Quantum = 500 * time.Microsecond
	}
	if c.Script == 0 || c.Levels < 0 {
		c.Levels = 0
	} else {
		c.Levels = int(min(uint64(c.Levels), max(c.Memory/c.Script, 1)-1))
	}
	ts := &Turns{config: c, callers: map[string]*caller{}, memory: c.Memory, processors: c.Processors, kept: make([]uint64, c.Levels+1)}
	for level := 1; level <= c.Levels; level++ {
		ts.kept[level] = c.Script
		ts.memory -= c.Script
	}
	ts.most = ts.memory
	return ts
}

// Enter reserves memory for a script of a caller, for which as many others wait as
// level says, and waits for it until ctx ends. Who gets a Turn must Leave.
func (ts *Turns) Enter(ctx context.Context, name string, level int, memory uint64) (*Turn, error) {
	if level > ts.config.Levels {
		return nil, ErrTooDeep
	}
	if memory > ts.most {
		return nil, ErrTooLarge
	}
	ts.mu.Lock()
	c := ts.callers[name]
	if c == nil {
		c = &caller{name: name, virtual: ts.clock}
		ts.callers[name] = c
	}
	if c.turns == 0 {
		c.virtual = max(c.virtual, ts.clock)
	}
	c.turns++
	t := &Turn{ts: ts, caller: c, level: level, memory: memory, ready: make(chan struct{}, 1)}
	if ts.memory >= memory && ts.entering.empty() {
		ts.memory -= memory
		ts.mu.Unlock()
		return t, nil
	}
	if ts.keeps(t) {
		ts.mu.Unlock()
		return t, nil
	}
	// Those that others wait for have to come to an end, however many there are.
	var full error
	switch {
	case level > 0:
	case ts.entering.len() >= ts.config.Waiting:
		full = ErrBusy
	case c.waiting >= ts.config.Share:
		full = errOwn
	}
	if full != nil {
		ts.gone(c)
		ts.mu.Unlock()
		return nil, full
	}
	c.waiting++
	ts.entering.push(t)
	ts.mu.Unlock()
	select {
	case <-t.ready:
		return t, nil
	case <-ctx.Done():
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.entering.remove(t) {
		c.waiting--
	} else {
		t.giveBack() // given at the same moment
	}
	ts.gone(c)
	ts.enter()
	return nil, context.Cause(ctx)
}

// Leave gives everything back. A second Leave does nothing.
func (t *Turn) Leave() {
	ts := t.ts
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if t.caller == nil {
		return
	}
	t.release()
	t.giveBack()
	ts.gone(t.caller)
	t.caller = nil
	ts.enter()
}

// gone notes that a Turn of c has ended.
func (ts *Turns) gone(c *caller) {
	if c.turns--; c.turns == 0 {
		delete(ts.callers, c.name)
	}
}

// keeps gives t what is kept back for its level, if that is enough. The caller holds
// ts.mu.
func (ts *Turns) keeps(t *Turn) bool {
	if ts.kept[t.level] < t.memory || t.level == 0 {
		return false
	}
	ts.kept[t.level] -= t.memory
	t.ofKept = true
	return true
}

// giveBack is the inverse of what gave t its memory. The caller holds ts.mu.
func (t *Turn) giveBack() {
	if t.ofKept {
		t.ts.kept[t.level] += t.memory
		return
	}
	t.ts.memory += t.memory
}

// enter gives memory to those who wait for it, in their order, and then what is kept
// back for some to those.
func (ts *Turns) enter() {
	for t := ts.entering.first(); t != nil && t.memory <= ts.memory; t = ts.entering.first() {
		ts.memory -= t.memory
		ts.give(t)
	}
	for level := 1; level < len(ts.kept); level++ {
		for t := ts.entering.firstOf(level); t != nil && ts.keeps(t); t = ts.entering.firstOf(level) {
			ts.give(t)
		}
	}
}

func (ts *Turns) give(t *Turn) {
	ts.entering.remove(t)
	t.caller.waiting--
	t.ready <- struct{}{}
}

// Begin waits for a place, until ctx ends, which must be the script's. End gives
// it back; in between the script may Slice, Pause and Resume.
func (t *Turn) Begin(ctx context.Context) error {
	t.ctx = ctx
	return t.take(ctx)
}

// End gives the place back, if it has one.
func (t *Turn) End() {
	t.ts.mu.Lock()
	defer t.ts.mu.Unlock()
	t.release()
	t.ctx = nil
}

// Slice lets others go first if they wait, and this script has had its quantum.
// It is cheap when nobody waits. When the script's context ends meanwhile it
// returns at once, without a place: the script is to be ended.
func (t *Turn) Slice() {
	// Go cannot interrupt a guest: without this, what has to be done to find out that
	// somebody waits (a script received, verified, decided about) would itself wait
	// until the scheduler looks, 10 ms later, whenever guests are on all processors.
	runtime.Gosched()
	if !t.ts.crowded.Load() || !t.placed || time.Since(t.since) < t.ts.config.Quantum {
		return
	}
	t.ts.mu.Lock()
	t.charge()
	next := t.ts.computing.first()
	if next == nil || next.caller.virtual > t.caller.virtual {
		t.ts.mu.Unlock() // it is still this one's turn
		return
	}
	t.release()
	t.ts.mu.Unlock()
	_ = t.take(t.ctx)
}

// Pause gives the place back while the script waits for something else.
func (t *Turn) Pause() {
	t.ts.mu.Lock()
	defer t.ts.mu.Unlock()
	t.paused = t.placed
	t.release()
}

// Resume waits for a place again, as Slice does.
func (t *Turn) Resume() {
	if t.paused {
		t.paused = false
		_ = t.take(t.ctx)
	}
}

func (t *Turn) take(ctx context.Context) error {
	ts := t.ts
	ts.mu.Lock()
	// Who waited for something else while others computed starts where they are.
	t.caller.virtual = max(t.caller.virtual, ts.clock)
	if ts.processors > 0 && ts.computing.empty() {
		ts.processors--
		t.place()
		ts.mu.Unlock()
		return nil
	}
	ts.computing.push(t)
	ts.crowded.Store(true)
	ts.mu.Unlock()
	select {
	case <-t.ready:
		t.since = time.Now()
		return nil
	case <-ctx.Done():
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if !ts.computing.remove(t) {
		<-t.ready // given at the same moment
		t.release()
	}
	ts.crowded.Store(!ts.computing.empty())
	return context.Cause(ctx)
}

// place notes that t has a place. The caller holds ts.mu.
func (t *Turn) place() {
	t.placed, t.since = true, time.Now()
	t.ts.clock = max(t.ts.clock, t.caller.virtual)
}

// charge advances the caller's virtual time by what the script has computed.
func (t *Turn) charge() {
	now := time.Now()
	t.caller.virtual += now.Sub(t.since)
	t.since = now
}

// release passes the place on, if t has one. The caller holds ts.mu.
func (t *Turn) release() {
	if !t.placed {
		return
	}
	t.charge()
	t.placed = false
	ts := t.ts
	next := ts.computing.first()
	if next == nil {
		ts.processors++
		return
	}
	ts.computing.remove(next)
	ts.crowded.Store(!ts.computing.empty())
	next.place()
	next.ready <- struct{}{}
}

// queue holds those who wait, in the order in which they came. There are few:
// looking through them costs less than keeping an order that changes whenever a
// caller's time does.
type queue struct{ turns []*Turn }

func (q *queue) len() int     { return len(q.turns) }
func (q *queue) empty() bool  { return len(q.turns) == 0 }
func (q *queue) push(t *Turn) { q.turns = append(q.turns, t) }

// first is the one whose caller has computed least, the one that came first of
// several; nil if nobody waits.
func (q *queue) first() *Turn { return q.firstOf(-1) }

// firstOf is the same among those of a level; below 0 all are.
func (q *queue) firstOf(level int) (first *Turn) {
	for _, t := range q.turns {
		if (level < 0 || t.level == level) && (first == nil || t.caller.virtual < first.caller.virtual) {
			first = t
		}
	}
	return first
}

func (q *queue) remove(t *Turn) bool {
	for i, other := range q.turns {
		if other == t {
			q.turns = append(q.turns[:i], q.turns[i+1:]...)
			return true
		}
	}
	return false
}
