// Package budget counts what each caller's scripts have used of one context in
// the last minute, hour and day, for policies that say how much that may be.
//
//	var l budget.Ledger
//	err := l.Refill(…) // from a log
//	err := l.Take(caller, id, now, func(past budget.Past) (most budget.Amount, err error) {
//		// decide by past.At(now); what the script may use at most is counted until it is done
//	})
//	…
//	l.Used(caller, id, began, budget.Amount{Scripts: 1, Fuel: fuel, Bytes: bytes}) // unless it did not run
//	l.Settle(id)
//
// Deciding and counting are one step, so that of two scripts that arrive at the
// same moment the second sees the first: a budget of one is passed by one. A script
// that is under way counts with the most that it may use.
//
// A window is the time of that length up to now, and not that of the calendar, and
// is counted in twelfths: what was used counts for up to a twelfth of the window
// longer. So within any minute, hour or day no more is used than a policy says,
// wherever that time begins.
//
// A Ledger is in memory, and is filled again from a log of what was used.
//
// This package knows no policies and no receipts.
package budget

import (
	"hash/maphash"
	"iter"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

// Amount is what scripts used, or may use.
type Amount struct {
	Scripts int64
	Fuel    int64
	Bytes   int64 // of files and records, that they wrote
}

// Unlimited is a quantity that nothing bounds.
const Unlimited = math.MaxInt64

// plus is the sum, which Unlimited is not exceeded by.
func (a Amount) plus(b Amount) Amount {
	return Amount{sum(a.Scripts, b.Scripts), sum(a.Fuel, b.Fuel), sum(a.Bytes, b.Bytes)}
}

func sum(a, b int64) int64 {
	if a > Unlimited-b {
		return Unlimited
	}
	return a + b
}

// Used is what one caller's scripts used of a context until some moment.
type Used struct{ Minute, Hour, Day Amount }

// windows are their lengths, in the order of Used.
var windows = [...]time.Duration{time.Minute, time.Hour, 24 * time.Hour}

// parts is how many parts a window is counted in. More are more exact and take
// more memory, of which each caller has some 1,300 bytes.
const parts = 12

// span is a window, as a ring of its parts. One more is held than a window has,
// as it begins and ends within a part.
type span [parts + 1]part

// part is what was used in one part of a window, the number-th since 1970.
type part struct {
	number int64
	Amount
}

// add counts what was used at a time. One that comes late, or that the clock was
// set back before, is counted with what is there: longer, and never not at all.
func (s *span) add(window time.Duration, at time.Time, a Amount) {
	n := at.UnixNano() / int64(window/parts)
	p := &s[((n%int64(len(s)))+int64(len(s)))%int64(len(s))]
	if p.number < n {
		*p = part{number: n}
	}
	p.Amount = p.plus(a)
}

// ends is when a part no longer counts.
func (p part) ends(window time.Duration) time.Time {
	return time.Unix(0, (p.number+1)*int64(window/parts)).Add(window)
}

func (s *span) at(window time.Duration, now time.Time) (total Amount) {
	for i := range s {
		if s[i].Amount != (Amount{}) && s[i].ends(window).After(now) {
			total = total.plus(s[i].Amount)
		}
	}
	return total
}

// account is what is known of a caller, or of a number of them.
type account struct {
	spans    [len(windows)]span
	underway int    // scripts
	reserved Amount // by them
	last     time.Time
}

func (a *account) add(at time.Time, used Amount) {
	for i, w := range windows {
		a.spans[i].add(w, at, used)
	}
	if at.After(a.last) {
		a.last = at
	}
}

// blank is what a caller has of whom nothing is known.
var blank account

func (a *account) at(now time.Time, reserved Amount) Used {
	var u [len(windows)]Amount
	for i, w := range windows {
		u[i] = a.spans[i].at(w, now).plus(reserved)
	}
	return Used{u[0], u[1], u[2]}
}

// idle reports whether nothing of it counts any more.
func (a *account) idle(now time.Time) bool {
	const day = 24 * time.Hour
	return a.underway == 0 && now.Sub(a.last) > day+day/parts
}

// Bounds of a Ledger, whatever the number of callers: some 6 MiB.
const (
	maxCallers = 4096
	// Whoever comes when there are as many is counted together with others: they
	// may be refused too early, but nobody's count is forgotten because many came.
	// Keys cost nothing.
	crowds = 64
)

// accounts are those of all callers.
type accounts struct {
	callers map[peer.ID]*account
	crowd   [crowds]*account
	swept   time.Time
}

// seed makes it nobody's choice with whom to be counted.
var seed = maphash.MakeSeed()

// find returns the account of a caller, or a blank one. Whom the crowd may count
// it goes on to count, also when there is room again: what it used is in there.
func (as *accounts) find(caller peer.ID) *account {
	if a := as.callers[caller]; a != nil {
		return a
	}
	if a := as.crowd[maphash.String(seed, string(caller))%crowds]; a != nil {
		return a
	}
	return &blank
}

// open is find for what is to be written.
func (as *accounts) open(caller peer.ID, now time.Time) *account {
	if a := as.callers[caller]; a != nil {
		return a
	}
	if len(as.callers) >= maxCallers || as.find(caller) != &blank {
		as.sweep(now)
	}
	a := as.find(caller)
	if a != &blank {
		return a
	}
	a = new(account)
	if as.callers == nil {
		as.callers = map[peer.ID]*account{}
	}
	if len(as.callers) < maxCallers {
		as.callers[caller] = a
	} else {
		as.crowd[maphash.String(seed, string(caller))%crowds] = a
	}
	return a
}

// sweep forgets of whom nothing counts any more, once a minute at most, as it
// looks at all of them.
func (as *accounts) sweep(now time.Time) {
	if now.Sub(as.swept).Abs() < time.Minute {
		return
	}
	as.swept = now
	maps.DeleteFunc(as.callers, func(_ peer.ID, a *account) bool { return a.idle(now) })
	for i, a := range as.crowd {
		if a != nil && a.idle(now) {
			as.crowd[i] = nil
		}
	}
}

// Ledger is what is counted of one context. Its zero value is empty. It is safe
// for concurrent use.
type Ledger struct {
	taking   sync.RWMutex // held to write while it is filled
	mu       sync.Mutex
	accounts accounts
	underway map[script.ID]*charge
	filling  bool
	late     []entry // added while it is filled
}

// charge is a script that is under way.
type charge struct {
	account    *account
	caller     peer.ID
	at         time.Time
	most       Amount
	used       *Amount // nil: it did not run
	deliveries int     // the same script may arrive twice at once, and counts once
}

type entry struct {
	caller peer.ID
	at     time.Time
	used   Amount
}

// Past is what a caller used, to be looked at while it is decided.
type Past struct {
	account  *account
	reserved Amount
}

// At is what was used until now: by scripts that are done, and, as the most that
// they may use, by those that are not.
func (p Past) At(now time.Time) Used { return p.account.at(now, p.reserved) }

// Later are the moments from now on at which less counts than before, and what
// counts then, if no more is used and what is under way takes next to nothing. It
// may be called later itself, when the Past is gone.
func (p Past) Later(now time.Time) iter.Seq2[time.Time, Used] {
	if p.account == &blank {
		return func(func(time.Time, Used) bool) {}
	}
	then := *p.account
	then.add(now, Amount{Scripts: int64(then.underway)})
	return func(yield func(time.Time, Used) bool) {
		if p.reserved != (Amount{}) && !yield(now.Add(time.Second), then.at(now, Amount{})) {
			return
		}
		var moments []time.Time
		for i, w := range windows {
			for _, part := range then.spans[i] {
				if at := part.ends(w); part.Amount != (Amount{}) && at.After(now) {
					moments = append(moments, at)
				}
			}
		}
		slices.SortFunc(moments, time.Time.Compare)
		for _, at := range slices.CompactFunc(moments, time.Time.Equal) {
			if !yield(at, then.at(at, Amount{})) {
				return
			}
		}
	}
}

// Take has decide look at what caller used, and say what the script may use at
// most; that is counted until Settle. If decide returns an error, which Take
// returns, nothing is, and nothing is remembered of the caller. Other callers wait
// meanwhile.
//
// A script that is under way already does not count twice, and does not see
// itself. Each Take that does not fail is followed by one Settle.
func (l *Ledger) Take(caller peer.ID, id script.ID, now time.Time, decide func(Past) (most Amount, err error)) error {
	l.taking.RLock()
	defer l.taking.RUnlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.accounts.find(caller)
	reserved := a.reserved
	c := l.underway[id]
	if c != nil {
		a, reserved = c.account, l.reserved(c.account, c)
	}
	most, err := decide(Past{a, reserved})
	if err != nil {
		return err
	}
	if c == nil {
		c = &charge{account: l.accounts.open(caller, now), caller: caller, at: now, most: most}
		if l.underway == nil {
			l.underway = map[script.ID]*charge{}
		}
		l.underway[id] = c
		c.begin()
	}
	c.deliveries++
	return nil
}

func (c *charge) begin() {
	c.account.underway++
	c.account.reserved = c.account.reserved.plus(c.most)
}

// reserved is what is reserved by others than c: from a sum that was cut at
// Unlimited nothing can be subtracted.
func (l *Ledger) reserved(a *account, c *charge) (others Amount) {
	if a.underway == 1 {
		return others
	}
	for _, o := range l.underway {
		if o.account == a && o != c {
			others = others.plus(o.most)
		}
	}
	return others
}

// Used tells what a script used. It counts from Settle on; that of one that was
// not taken here counts at once, as of when it began.
func (l *Ledger) Used(caller peer.ID, id script.ID, began time.Time, used Amount) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch c := l.underway[id]; {
	case c != nil:
		c.used = &used
	case l.filling:
		l.late = append(l.late, entry{caller, began, used})
	default:
		l.accounts.open(caller, began).add(began, used)
	}
}

// Settle ends what Take began. A script that used nothing has not run, and does
// not count.
func (l *Ledger) Settle(id script.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.underway[id]
	if c == nil {
		return
	}
	if c.deliveries--; c.deliveries > 0 {
		return
	}
	c.account.reserved = l.reserved(c.account, c)
	c.account.underway--
	delete(l.underway, id)
	if c.used != nil {
		c.account.add(c.at, *c.used)
	}
}

// Refill counts anew, from what read adds of a log; read need not add what is too
// long ago to count. What is under way is taken over, and what is added of it
// counts once. Take waits meanwhile, the others do not. On an error of read, which
// Refill returns, everything is as before.
//
// Of a script that was not taken here, and ends meanwhile, it is not known whether
// it was in the log when that was read; it may count twice.
func (l *Ledger) Refill(read func(add func(caller peer.ID, id script.ID, at time.Time, used Amount)) error) error {
	l.taking.Lock()
	defer l.taking.Unlock()
	l.mu.Lock()
	underway := maps.Clone(l.underway)
	l.filling = true
	l.mu.Unlock()

	var fresh accounts
	err := read(func(caller peer.ID, id script.ID, at time.Time, used Amount) {
		if underway[id] == nil {
			fresh.open(caller, at).add(at, used)
		}
	})

	l.mu.Lock()
	defer l.mu.Unlock()
	late := l.late
	l.filling, l.late = false, nil
	into := &l.accounts
	if err == nil {
		into = &fresh
		for id, c := range underway {
			c.account = fresh.open(c.caller, c.at)
			if l.underway[id] != nil {
				c.begin()
			} else if c.used != nil { // it was settled meanwhile
				c.account.add(c.at, *c.used)
			}
		}
	}
	for _, e := range late {
		into.open(e.caller, e.at).add(e.at, e.used)
	}
	l.accounts = *into
	return err
}
