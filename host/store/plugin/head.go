package plugin

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// head is the last log entry that the host knows to have been committed. It
// outlives the process: a plugin that is started again must still have it, and
// what comes after must follow from it. Until something is committed, it is the
// plugin's word, if it has given one.
type head struct {
	mu   sync.Mutex
	seq  uint64
	hash [32]byte
}

type readLog = func(ctx context.Context, from uint64) iter.Seq2[store.Entry, error]

func (h *head) get() (uint64, [32]byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.seq, h.hash
}

var (
	errUnlinked = errors.New("it does not follow from the one before, or was changed")
	errMissing  = errors.New("it is missing, and was committed")
)

func damage(seq uint64, err error) error {
	return fmt.Errorf("log entry %d of the storage plugin: %w", seq, err)
}

// committed moves the head past records, which the plugin says to have put at seq
// after prev. What is between them and the old head, of other hosts on the same
// storage, must link the two. One commit is checked at a time.
func (h *head) committed(ctx context.Context, log readLog, seq uint64, prev [32]byte, records []overlay.Record) error {
	known, hash := h.get()
	switch {
	case seq <= known:
		return lied("it says to have put log entry %d after %d", seq, known)
	case seq == 1 && prev != [32]byte{}:
		return damage(seq, errUnlinked)
	case known == 0:
	default:
		if seq > known+1 {
			at := known
			for e, err := range log(ctx, known+1) {
				if err != nil {
					return err
				}
				if e.Prev != hash {
					return damage(e.Seq, errUnlinked)
				}
				if at, hash = e.Seq, e.Hash(); at == seq-1 {
					break
				}
			}
			if at != seq-1 {
				return damage(at+1, errMissing)
			}
		}
		if prev != hash {
			return damage(seq, errUnlinked)
		}
	}
	for _, r := range records {
		e := store.Entry{Seq: seq, Prev: prev, Time: r.Time, Key: r.Key, Data: r.Data}
		seq, prev = seq+1, e.Hash()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seq, h.hash = seq-1, prev
	return nil
}

// vouch checks an entry against its neighbour, or against what was committed.
func (h *head) vouch(ctx context.Context, log readLog, e store.Entry) error {
	known, hash := h.get()
	if e.Seq == known {
		if e.Hash() != hash {
			return damage(e.Seq, errUnlinked)
		}
		return nil
	}
	for next, err := range log(ctx, e.Seq+1) {
		if err != nil {
			return err
		}
		if next.Prev != e.Hash() {
			return damage(e.Seq, errUnlinked)
		}
		return nil
	}
	if e.Seq < known {
		return damage(e.Seq+1, errMissing)
	}
	return nil
}

// begin believes a plugin's word of where its log ends, if that can be.
func (h *head) begin(seq uint64, hash [32]byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if seq == 0 && hash != [32]byte{} {
		return lied("an empty log has the hash %x", hash[:8])
	}
	if h.seq > 0 {
		return nil // it is compared with what was committed
	}
	h.seq, h.hash = seq, hash
	return nil
}

// still checks that a plugin which was started again has what was committed. Of one
// to which nobody else commits it takes over what it has besides: a commit whose
// answer was lost.
func (h *head) still(ctx context.Context, log readLog, alone bool) error {
	known, hash := h.get()
	if known == 0 {
		return nil
	}
	seq, prev := uint64(0), hash
	for e, err := range log(ctx, known) {
		if err != nil {
			return err
		}
		own := e.Hash()
		if e.Seq == known && own != hash || e.Seq > known && e.Prev != prev {
			return damage(e.Seq, errUnlinked)
		}
		if seq, prev = e.Seq, own; !alone {
			break
		}
	}
	if seq == 0 {
		return damage(known, errMissing)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seq, h.hash = seq, prev
	return nil
}

// follow checks the chain of what is read, and that it reaches what was committed
// when the reading began.
func (h *head) follow(log iter.Seq2[store.Entry, error], from uint64) iter.Seq2[store.Entry, error] {
	return func(yield func(store.Entry, error) bool) {
		known, hash := h.get()
		next, prev := from, [32]byte{}
		for e, err := range log {
			if err != nil {
				yield(store.Entry{}, err)
				return
			}
			own := e.Hash()
			if (e.Seq > from || e.Seq == 1) && e.Prev != prev || e.Seq == known && own != hash {
				yield(store.Entry{}, damage(e.Seq, errUnlinked))
				return
			}
			next, prev = e.Seq+1, own
			if !yield(e, nil) {
				return
			}
		}
		if next <= known {
			yield(store.Entry{}, damage(next, errMissing))
		}
	}
}
