package sqlite

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"

	"github.com/ncruces/go-sqlite3"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// tail is where the log ends.
type tail struct {
	seq  uint64
	hash [32]byte // of the last entry; zero if there is none
}

const entryColumns = `seq, prev, time, key, data`

func scanEntry(s *sqlite3.Stmt) store.Entry {
	e := store.Entry{Seq: uint64(s.ColumnInt64(0)), Time: fromNanoseconds(s.ColumnInt64(2)), Data: append([]byte{}, s.ColumnRawBlob(4)...)}
	copy(e.Prev[:], s.ColumnRawBlob(1))
	copy(e.Key[:], s.ColumnRawBlob(3))
	return e
}

func entryAt(c *conn, seq uint64) (e store.Entry, found bool, err error) {
	found, err = c.row(`SELECT `+entryColumns+` FROM log WHERE seq = ?`, func(s *sqlite3.Stmt) { e = scanEntry(s) }, int64(seq))
	return e, found, err
}

func hasKey(c *conn, key store.Key) (bool, error) {
	return c.row(`SELECT 1 FROM log WHERE key = ?`, func(*sqlite3.Stmt) {}, key[:])
}

func logDamage(path string, seq uint64, err error) error {
	return &DamageError{File: path, Err: fmt.Errorf("log entry %d %w", seq, err)}
}

var (
	errMissing  = errors.New("is missing")
	errUnlinked = errors.New("does not follow from the one before it, or was changed")
)

// inspectLog finds where the log ends. A log with a hole would let a script be
// run twice, so that none is missing is always checked; that none was changed,
// only if thorough. Reading an entry checks it too.
func inspectLog(c *conn, path string, thorough bool) (end tail, err error) {
	var count, first, last int64
	if _, err := c.row(`SELECT count(*), min(seq), max(seq) FROM log`, func(s *sqlite3.Stmt) {
		count, first, last = s.ColumnInt64(0), s.ColumnInt64(1), s.ColumnInt64(2)
	}); err != nil || count == 0 {
		return tail{}, err
	}
	if first != 1 || last != count {
		return tail{}, &DamageError{File: path, Err: fmt.Errorf("the log has %d entries, from %d to %d", count, first, last)}
	}
	if !thorough {
		e, found, err := entryAt(c, uint64(last))
		if err == nil && !found {
			err = logDamage(path, uint64(last), errMissing)
		}
		if err != nil {
			return tail{}, err
		}
		if last > 1 {
			before, _, err := entryAt(c, uint64(last-1))
			if err != nil {
				return tail{}, err
			}
			if before.Hash() != e.Prev {
				return tail{}, logDamage(path, uint64(last), errUnlinked)
			}
		}
		return tail{e.Seq, e.Hash()}, nil
	}
	var bad error
	err = c.rows(`SELECT `+entryColumns+` FROM log ORDER BY seq`, func(s *sqlite3.Stmt) bool {
		e := scanEntry(s)
		switch {
		case e.Seq != end.seq+1:
			bad = logDamage(path, end.seq+1, errMissing)
		case e.Prev != end.hash:
			bad = logDamage(path, e.Seq, errUnlinked)
		}
		end = tail{e.Seq, e.Hash()}
		return bad == nil
	})
	return end, errors.Join(err, bad)
}

// end is where the log ends now.
func (b *backend) end() tail {
	b.tails.Lock()
	defer b.tails.Unlock()
	return b.tail
}

// Entry implements overlay.Backend. The entry's hash must be what the entry
// after it says, or what it was when it was written.
func (b *backend) Entry(ctx context.Context, key store.Key) (e store.Entry, found bool, err error) {
	if ctx.Err() != nil {
		return store.Entry{}, false, context.Cause(ctx)
	}
	end := b.end()
	err = b.look(func(c *conn) error {
		if found, err = c.row(`SELECT `+entryColumns+` FROM log WHERE key = ?`,
			func(s *sqlite3.Stmt) { e = scanEntry(s) }, key[:]); err != nil || !found {
			return err
		}
		want := end.hash
		if e.Seq != end.seq {
			known, err := c.row(`SELECT prev FROM log WHERE seq = ?`,
				func(s *sqlite3.Stmt) { want = [32]byte{}; copy(want[:], s.ColumnRawBlob(0)) }, int64(e.Seq)+1)
			switch {
			case err != nil:
				return err
			case !known && e.Seq < end.seq:
				return logDamage(b.path, e.Seq+1, errMissing)
			case !known: // it was committed after we looked where the log ends
				return nil
			}
		}
		if e.Hash() != want {
			return logDamage(b.path, e.Seq, errUnlinked)
		}
		return nil
	})
	if err != nil || !found {
		return store.Entry{}, false, err
	}
	return e, true, nil
}

// Log implements overlay.Backend: the entries that there were when the loop
// began.
func (b *backend) Log(ctx context.Context, from uint64) iter.Seq2[store.Entry, error] {
	return func(yield func(store.Entry, error) bool) {
		end := b.end()
		var prev *[32]byte
		for seq := max(from, 1); seq <= end.seq; seq++ {
			e, err := b.entry(ctx, seq)
			switch hash := e.Hash(); {
			case err != nil:
			case prev != nil && e.Prev != *prev:
				err = logDamage(b.path, seq, errUnlinked)
			case seq == end.seq && hash != end.hash:
				err = logDamage(b.path, seq, errUnlinked)
			default:
				prev = &hash
			}
			if err != nil {
				yield(store.Entry{}, err)
				return
			}
			if !yield(e, nil) {
				return
			}
		}
		if end.seq == 0 || from > end.seq {
			// Nothing was read, so nobody has said whether we are closed.
			if err := b.look(func(*conn) error { return nil }); err != nil {
				yield(store.Entry{}, err)
			}
		}
	}
}

func (b *backend) entry(ctx context.Context, seq uint64) (e store.Entry, err error) {
	if ctx.Err() != nil {
		return store.Entry{}, context.Cause(ctx)
	}
	err = b.look(func(c *conn) error {
		var found bool
		e, found, err = entryAt(c, seq)
		if err == nil && !found {
			err = logDamage(b.path, seq, errMissing)
		}
		return err
	})
	return e, err
}

// appendQueue gathers the entries of views that end at the same time: they share
// one transaction, and so one wait for the disk.
type appendQueue struct {
	mu      sync.Mutex
	waiting []*pendingAppend
}

type pendingAppend struct {
	records []overlay.Record
	size    int
	done    bool
	err     error
}

// batchBytes bounds what one shared transaction writes, save for its first part.
const batchBytes = 32 << 20

func (q *appendQueue) add(records []overlay.Record) *pendingAppend {
	p := &pendingAppend{records: records}
	for _, r := range records {
		p.size += len(r.Data)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, p)
	return p
}

// take takes what may be written together.
func (q *appendQueue) take() []*pendingAppend {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, size := 0, 0
	for n < len(q.waiting) && (n == 0 || size+q.waiting[n].size <= batchBytes) {
		size += q.waiting[n].size
		n++
	}
	batch := q.waiting[:n:n]
	q.waiting = q.waiting[n:]
	return batch
}

// appendOnly commits records without a plan.
func (b *backend) appendOnly(records []overlay.Record) error {
	mine := b.queue.add(records)
	b.write.Lock()
	defer b.write.Unlock()
	for !mine.done { // else whoever had the lock before has done it
		batch := b.queue.take()
		err := b.appendBatch(batch)
		for _, p := range batch {
			p.done = true
			if err != nil {
				p.err = err
			}
		}
	}
	return mine.err
}

// appendBatch commits in one transaction what can be; a key that is there
// already spoils only the commit that it is part of.
func (b *backend) appendBatch(batch []*pendingAppend) error {
	if b.prepared != nil {
		// The update waits for views to end, and this one ends with its entries:
		// so it has the connection first, and the update applies its plan again.
		if err := b.unprepare(); err != nil {
			return err
		}
	}
	if err := b.begin(); err != nil {
		return err
	}
	for _, p := range batch {
		if err := b.do(func(c *conn) error {
			for _, r := range p.records {
				has, err := hasKey(c, r.Key)
				if err != nil {
					return err
				}
				if has {
					p.err = keyExists(r.Key)
					return nil
				}
			}
			return b.insert(c, p.records)
		}); err != nil {
			return err
		}
	}
	return b.commit()
}

func keyExists(key store.Key) error {
	return fmt.Errorf("append log entry %x: %w", key[:8], store.ErrExists)
}
