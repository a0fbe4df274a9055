package turns

import (
	"sync"
	"time"
)

// Places are what so many may have at once: a context's, or a host's. They are
// shared in the manner of Choudhury and Hahne's dynamic thresholds (IEEE/ACM
// Transactions on Networking 6, 1998): a caller may have as many as are left for the
// others. So one alone gets half, two get a third each, and there is room for one
// more who comes; nobody has to be thrown out for that.
//
// Nobody waits for a place: who gets none is told so, and after how long to try
// again. It is safe for concurrent use.
type Places struct {
	most int

	mu    sync.Mutex
	taken int
	by    map[string]int // callers who have some
	had   time.Duration  // for about how long one has a place
}

// NewPlaces makes so many places, at least one.
func NewPlaces(most int) *Places { return &Places{most: max(most, 1), by: map[string]int{}} }

// Try again after no less than leastRetry, and no more than mostRetry.
const (
	leastRetry = 100 * time.Millisecond
	mostRetry  = 30 * time.Second
	// hadShare is how much a place that is given back counts in Places.had.
	hadShare = 8
)

// Place is one that was taken. It is given back by Leave.
type Place struct {
	of    *Places
	by    string
	since time.Time
}

// Take takes a place for a caller. Where there is none for that caller, ok is false,
// and retry says when there may be.
func (ps *Places) Take(caller string) (p Place, retry time.Duration, ok bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	mine := ps.by[caller]
	left := ps.most - ps.taken
	if left <= 0 || mine > 0 && mine >= left {
		return Place{}, min(max(ps.had, leastRetry), mostRetry), false
	}
	ps.taken++
	ps.by[caller] = mine + 1
	return Place{ps, caller, time.Now()}, 0, true
}

// Leave gives the place back. It is called once.
func (p Place) Leave() {
	ps := p.of
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.taken--
	if ps.by[p.by]--; ps.by[p.by] == 0 {
		delete(ps.by, p.by)
	}
	ps.had += (time.Since(p.since) - ps.had) / hadShare
}
