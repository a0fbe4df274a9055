package host

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/circles-host/circles/host/budget"
	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/review"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/transport"
)

// spending is what each caller used of a context, for policies that ask. Where
// none does nothing is counted. It is read from the receipts in the log when it is
// first asked for, so that it is what is known to have been done, also after the
// host was killed; from then on it is kept in memory.
type spending struct {
	ledger  budget.Ledger
	counts  atomic.Int64 // how far back it is known, as a time.Duration; 0 if not at all
	counted atomic.Bool  // whether what ends is to be counted, as policies have asked once
	mu      sync.Mutex
	reading *reading // of the log; nil if nobody does
}

type reading struct {
	done chan struct{}
	err  error
}

// decide has a set of policies decide, and takes what the script may use from its
// caller's budgets, if there are any, in the same moment.
func (c *peerContext) decide(ctx context.Context, set *policy.Set, v *envelope.Verified, parties peer.Parties, code policy.Code) (accepted *policy.Accepted, err error) {
	when := policy.Occasion{Now: c.host.now(), Transport: transport.Name(ctx)}
	if set.Counts() == 0 || v.Script().Logic.OfOwner() {
		return set.Accept(v, parties, code, when)
	}
	if err := c.count(ctx, set.Counts()); err != nil {
		return nil, err
	}
	var later iter.Seq2[time.Time, budget.Used]
	err = c.spending.ledger.Take(parties.Caller.ID, v.ID(), when.Now, func(past budget.Past) (budget.Amount, error) {
		when.Used = past.At(when.Now)
		if accepted, err = set.Accept(v, parties, code, when); err != nil {
			later = past.Later(when.Now)
			return budget.Amount{}, err
		}
		return c.host.most(accepted), nil
	})
	var refused *policy.RefusedError
	if errors.As(err, &refused) {
		refused.Again = set.Again(refused, later)
	}
	return accepted, err
}

// most is what an accepted script may use, as far as that is limited.
func (h *Host) most(a *policy.Accepted) budget.Amount {
	limit := func(n uint64) int64 {
		if n == 0 || n > budget.Unlimited {
			return budget.Unlimited
		}
		return int64(n)
	}
	bytes := limit(uint64(max(h.config.Files.Bytes, 0)))
	return budget.Amount{Scripts: 1, Fuel: limit(h.limits(a).Fuel), Bytes: min(bytes, limit(a.Limits().Bytes))}
}

// count sees to it that what callers used is counted, back as far as policies ask.
// Who comes while the log is read waits for that.
func (c *peerContext) count(ctx context.Context, back time.Duration) error {
	s := &c.spending
	for time.Duration(s.counts.Load()) < back {
		s.mu.Lock()
		r, mine := s.reading, false
		if r == nil && time.Duration(s.counts.Load()) < back {
			r, mine = &reading{done: make(chan struct{})}, true
			s.reading = r
		}
		s.mu.Unlock()
		if mine {
			// To its end, for those that wait too, though this sender may be gone.
			r.err = c.recount(c.host.running, back)
			s.mu.Lock()
			s.reading = nil
			s.mu.Unlock()
			close(r.done)
		}
		if r == nil {
			continue
		}
		select {
		case <-r.done:
			if r.err != nil {
				return r.err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// recount reads the log as far back as is asked for.
func (c *peerContext) recount(ctx context.Context, back time.Duration) error {
	since := c.host.now().Add(-back - back/4) // its first part may have begun before
	err := c.spending.ledger.Refill(func(add func(peer.ID, script.ID, time.Time, budget.Amount)) error {
		c.spending.counted.Store(true)
		var held map[script.ID]review.Used
		err := c.store.View(ctx, func(tx store.Tx) (err error) {
			held, err = review.AllUsed(tx.Private())
			return err
		})
		if err != nil {
			return err
		}
		first, err := firstSince(ctx, c.store, since)
		if err != nil {
			return err
		}
		for e, err := range c.store.Log(ctx, first) {
			if err != nil {
				return err
			}
			r, err := envelope.ReadReceipt(e.Data)
			if err != nil {
				return fmt.Errorf("entry %d: %w", e.Seq, err)
			}
			if u, ok := held[r.Script]; ok && r.Code == script.Pending {
				r.Usage.Fuel, r.Usage.FileBytes = u.Fuel, u.Bytes
			}
			if used, ran := usedBy(&r); ran {
				add(r.Caller, r.Script, r.Started, used)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("count what was used in the context of %s: %w", c.entry.Name, err)
	}
	c.spending.counts.Store(int64(back))
	return nil
}

// firstSince is the sequence number of an entry that is not long before the first
// since then: the log is in the order of time, and may be long.
func firstSince(ctx context.Context, s store.Store, then time.Time) (uint64, error) {
	early := func(n uint64) (bool, error) {
		for e, err := range s.Log(ctx, n) {
			return err == nil && e.Time.Before(then), err
		}
		return false, nil // there are fewer
	}
	low, high := uint64(1), uint64(1) // all before low are early, that at high is not
	for {
		before, err := early(high)
		if err != nil {
			return 0, err
		}
		if !before {
			break
		}
		low, high = high+1, 2*high
	}
	for low < high {
		middle := low + (high-low)/2
		before, err := early(middle)
		if err != nil {
			return 0, err
		}
		if before {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low, nil
}

// usedBy is what a receipt says was used, and whether code ran at all.
func usedBy(r *script.Receipt) (budget.Amount, bool) {
	cut := func(n uint64) int64 { return int64(min(n, budget.Unlimited)) }
	// What was held for review counts when it was held: it is the owner who ran it again.
	// Its pending receipt, which its caller has, tells that it ran, and not what it took:
	// see review.Used.
	return budget.Amount{Scripts: 1, Fuel: cut(r.Usage.Fuel), Bytes: cut(r.Usage.FileBytes)}, r.Usage.Wall > 0 && r.Pending.IsZero()
}

// spent tells what a script used, if it ran.
func (s *spending) spent(r *script.Receipt) {
	if !s.counted.Load() {
		return
	}
	if used, ran := usedBy(r); ran {
		s.ledger.Used(r.Caller, r.Script, r.Started, used)
	}
}

// settle has what a script used counted, in place of what it might have.
func (s *spending) settle(id script.ID) {
	if s.counted.Load() {
		s.ledger.Settle(id)
	}
}
