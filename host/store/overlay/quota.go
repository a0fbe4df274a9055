package overlay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/circles-host/circles/host/store"
)

// Header is what a Backend is too if it can say where its log ends; seq is 0 and
// hash zero while it is empty. What a context holds then need not be counted each
// time that it is opened: see Store.Bound.
type Header interface {
	Head() (seq uint64, hash [32]byte)
}

// Counter is what a Backend, or a Snapshot, is too if it knows better than by a
// walk how many bytes its files have together, and how many entries there are
// below its root.
type Counter interface {
	Count(ctx context.Context) (bytes, entries int64, err error)
}

// LogCounter is what a Backend is too if it knows better than by reading them how
// many bytes its log entries have together, as LogSize has it. It leaves out those
// after seq if it can tell them apart.
type LogCounter interface {
	LogBytes(ctx context.Context, seq uint64) (int64, error)
}

// LogSize is what a log entry with so much data counts as: the fields of its own
// are not free either.
func LogSize(data int) int64 { return int64(data) + 128 }

// meter knows what a context holds.
//
// It is counted when that is first needed, and from then on every commit adds
// what it changed, in memory. When the store is closed the figures are noted, with
// the log entry that they are true after: whoever opens the context next believes
// them if the log still ends there, and counts anew if a crash or another host has
// added to it. A commit that logs nothing drops the note first.
//
// What an owner does with other tools is seen when it is counted again: each day,
// after a crash, and before a write is refused, so that whoever removes files has
// room at once. Since the walk over a large context takes long, it is left alone
// for twenty times as long after that.
type meter struct {
	quota store.Quota
	memo  store.Memo
	life  context.Context // until Close
	stop  context.CancelFunc

	// quiet is held shared while something is committed and booked, and alone for a
	// moment to see where a count begins.
	quiet sync.RWMutex

	mu    sync.Mutex
	used  store.Volume
	files bool         // used.Bytes and used.Entries are known
	log   bool         // used.Log is known
	since store.Volume // what was committed since the count that runs began
	count *counting    // that runs
	// counted is when the files were last walked over, rest until when they are not
	// walked over again.
	counted, rest time.Time
	seq           uint64 // where the log ended when used was last right
	hash          [32]byte
	noted         bool // there may be a note
	guess         bool // another host has committed since what is known was counted
}

// counting is a count that is under way. It is the store's, and not that of the
// script that needed it, whose time may be over first.
type counting struct {
	files bool
	done  chan struct{}
	err   error
}

const (
	countDaily = 24 * time.Hour
	countRest  = 10 * time.Second
	countShare = 20 // a walk that took t is followed by at least 20 t of rest
	// logSpare is how many bytes above Quota.Log are for receipts of scripts without
	// effects: the owner is to know why no more are run.
	logSpare = 1 << 20
	// most is a sum that is not gone over: a file may claim any size.
	most = math.MaxInt64 / 4
	// countEntries is as many as are ever counted: who has more has no room.
	countEntries = 50_000_000
)

// Bound bounds what the context may hold. memo, which may be nil, keeps the
// figures between Close and the next opening. It is called before anything else.
func (s *Store) Bound(q store.Quota, memo store.Memo) {
	s.meter.quota, s.meter.memo, s.meter.noted = q, memo, memo != nil
}

// Volume returns what the context holds. With exact it is counted now, and includes
// what others than transactions have done.
func (s *Store) Volume(ctx context.Context, exact bool) (store.Volume, error) {
	if err := s.usable(); err != nil {
		return store.Volume{}, err
	}
	if exact {
		if err := s.counted(ctx, true, true); err != nil {
			return store.Volume{}, err
		}
	}
	return s.usage(ctx, true)
}

// usage is what is known of what the context holds; without files, of its log
// only.
func (s *Store) usage(ctx context.Context, files bool) (store.Volume, error) {
	m := &s.meter
	for {
		m.mu.Lock()
		if !m.log || !m.files {
			s.recall()
		}
		if m.log && (!files || m.files && s.now().Sub(m.counted) < countDaily) {
			defer m.mu.Unlock()
			return m.used, nil
		}
		m.mu.Unlock()
		if err := s.counted(ctx, files, false); err != nil {
			return store.Volume{}, err
		}
	}
}

// counted waits for a count, of the log and with files of those. With anew, one
// that runs already will not do.
func (s *Store) counted(ctx context.Context, files, anew bool) error {
	m := &s.meter
	for {
		m.mu.Lock()
		c := m.count
		running := c != nil
		if !running {
			c = &counting{files: files, done: make(chan struct{})}
			m.count = c
			go s.recount(c)
		}
		m.mu.Unlock()
		select {
		case <-c.done:
		case <-ctx.Done():
			return fmt.Errorf("count what the context holds: %w", context.Cause(ctx))
		}
		if c.err != nil {
			return fmt.Errorf("count what the context holds: %w", c.err)
		}
		if !running || !anew && c.files == files {
			return nil
		}
	}
}

// recount counts.
func (s *Store) recount(c *counting) {
	m := &s.meter
	began := time.Now()
	u, err := s.count(c.files)
	m.mu.Lock()
	defer m.mu.Unlock()
	defer close(c.done)
	m.count, c.err = nil, err
	if c.files {
		m.rest = time.Now().Add(max(countRest, countShare*time.Since(began)))
	}
	if err != nil {
		return
	}
	m.used.Log, m.log = u.Log+m.since.Log, true
	m.guess = m.guess && !c.files
	if c.files {
		m.used.Bytes, m.used.Entries = max(u.Bytes+m.since.Bytes, 0), max(u.Entries+m.since.Entries, 0)
		m.files, m.counted = true, s.now()
	}
}

func (s *Store) count(files bool) (u store.Volume, err error) {
	m := &s.meter
	ctx := m.life
	// Nested, since a commit that waits for views may be that of a script which
	// waits for us.
	if err := s.gate.beginView(store.Nested(ctx)); err != nil {
		return u, err
	}
	defer s.gate.endView()
	if err := m.still(ctx); err != nil {
		return u, err
	}
	state, err := s.snapshot(ctx)
	seq := uint64(math.MaxUint64)
	m.mu.Lock()
	if h, ok := s.backend.(Header); ok {
		m.seq, m.hash = h.Head()
		seq = m.seq
	}
	m.since = store.Volume{}
	m.mu.Unlock()
	m.quiet.Unlock()
	if err != nil {
		return u, err
	}
	defer state.Release()
	if u.Log, err = s.countLog(ctx, seq); err != nil || !files {
		return u, err
	}
	for _, x := range []any{state, s.backend} {
		if c, ok := x.(Counter); ok {
			u.Bytes, u.Entries, err = c.Count(ctx)
			return u, err
		}
	}
	err = countFiles(ctx, state, &u)
	return u, err
}

// still waits for a moment in which nothing is half committed, and locks quiet.
// Whoever waits in Lock holds up those who would commit, and they may be in a hurry;
// so it does that only when there has been no such moment for a while.
func (m *meter) still(ctx context.Context) error {
	for range 200 {
		if m.quiet.TryLock() {
			return nil
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	m.quiet.Lock()
	return nil
}

// countLog adds up the entries up to seq.
func (s *Store) countLog(ctx context.Context, seq uint64) (sum int64, err error) {
	if c, ok := s.backend.(LogCounter); ok {
		return c.LogBytes(ctx, seq)
	}
	from := uint64(1)
	if n, ok := s.note(); ok && n.Seq > 0 && n.Seq <= seq {
		// What was noted of a log stays true, for it only grows: if that is the log.
		for e, err := range s.backend.Log(ctx, n.Seq) {
			if err == nil && e.Seq == n.Seq && e.Hash() == n.Hash {
				from, sum = n.Seq+1, n.Log
			}
			break
		}
	}
	if from > seq {
		return sum, nil
	}
	for e, err := range s.backend.Log(ctx, from) {
		if err != nil {
			return 0, err
		}
		if e.Seq > seq {
			break
		}
		sum = min(sum+LogSize(len(e.Data)), most)
	}
	return sum, nil
}

// countFiles walks over everything.
func countFiles(ctx context.Context, state Lower, u *store.Volume) error {
	dirs := []string{"."}
	for len(dirs) > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		dir := dirs[len(dirs)-1]
		dirs = dirs[:len(dirs)-1]
		names, err := state.ReadDir(dir, countEntries)
		if errors.Is(err, store.ErrNotExist) || errors.Is(err, store.ErrNotDir) || errors.Is(err, store.ErrLoop) {
			continue // the owner has removed it meanwhile, or put something in its place
		}
		if err != nil {
			return err
		}
		if u.Entries += int64(len(names)); u.Entries >= countEntries {
			return nil
		}
		for _, n := range names {
			switch path := join(dir, n.Name); n.Kind {
			case store.KindDir:
				dirs = append(dirs, path)
			case store.KindFile:
				a, err := state.Lstat(path)
				if errors.Is(err, store.ErrNotExist) || errors.Is(err, store.ErrNotDir) || errors.Is(err, store.ErrLoop) {
					continue
				}
				if err != nil {
					return err
				}
				if a.Kind == store.KindFile {
					u.Bytes = min(u.Bytes+min(max(a.Size, 0), most), most)
				}
			}
		}
	}
	return nil
}

// book adds what was committed; its caller holds quiet.
func (s *Store) book(u store.Volume) {
	m := &s.meter
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, to := range []*store.Volume{&m.used, &m.since} {
		to.Bytes += u.Bytes
		to.Entries += u.Entries
		to.Log += u.Log
	}
	// Below nothing there is nothing: somebody else had added what was removed.
	m.used.Bytes, m.used.Entries = max(m.used.Bytes, 0), max(m.used.Entries, 0)
	if h, ok := s.backend.(Header); ok {
		m.seq, m.hash = h.Head()
	}
}

// foreign sees whether another host has committed, to a backend that many may
// commit to and whose snapshots say so; what is known is no longer true then.
func (s *Store) foreign(now Snapshot) {
	h, ok := now.(Header)
	if !ok {
		return
	}
	m := &s.meter
	if !m.quiet.TryLock() {
		return // something is being committed, which may take as long as a server does: next time
	}
	defer m.quiet.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	seq, hash := h.Head()
	_, cheap := now.(Counter)
	switch {
	case !m.files || seq == m.seq && hash == m.hash:
	case !cheap && time.Now().Before(m.rest):
		// Two hosts that commit in turns must not count all there is each time.
		m.seq, m.hash, m.guess = seq, hash, true
	default:
		m.files, m.log = false, false
	}
}

// unlogged forgets the note, for a commit that does not show in the log.
func (s *Store) unlogged() error {
	m := &s.meter
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.noted {
		return nil
	}
	if err := m.memo.Save(nil); err != nil {
		return fmt.Errorf("forget what the context held: %w", err)
	}
	m.noted = false
	return nil
}

// note is what a Memo keeps.
type note struct {
	Seq     uint64    `json:"seq"`
	Hash    [32]byte  `json:"hash"`
	Bytes   int64     `json:"bytes"`
	Entries int64     `json:"entries"`
	Log     int64     `json:"log"`
	Counted time.Time `json:"counted"`
}

// note reads what was noted. It may be anything: it lies where its owner can
// write, and is believed no further than sums stay sums.
func (s *Store) note() (n note, ok bool) {
	if _, has := s.backend.(Header); !has || s.meter.memo == nil {
		return n, false
	}
	text, err := s.meter.memo.Load()
	if err != nil || json.Unmarshal(text, &n) != nil {
		return n, false
	}
	plausible := func(v int64) bool { return v >= 0 && v <= most }
	return n, plausible(n.Bytes) && plausible(n.Entries) && plausible(n.Log) && n.Counted.Before(s.now().Add(time.Hour))
}

// recall believes the note, if the log ends where it did then. Its caller holds
// mu.
func (s *Store) recall() {
	m := &s.meter
	if !m.noted {
		return
	}
	n, ok := s.note()
	if !ok {
		return
	}
	if seq, hash := s.backend.(Header).Head(); n.Seq == seq && n.Hash == hash {
		m.used = store.Volume{Bytes: n.Bytes, Entries: n.Entries, Log: n.Log}
		m.files, m.log, m.counted, m.seq, m.hash = true, true, n.Counted, seq, hash
	}
}

// remember notes what is known, when nothing runs any more. That it cannot be
// noted costs a count, and nothing else.
func (s *Store) remember() {
	m := &s.meter
	h, ok := s.backend.(Header)
	if !ok || m.memo == nil || !m.files || !m.log || m.guess || s.usable() != nil {
		return
	}
	seq, hash := h.Head()
	if seq != m.seq || hash != m.hash {
		return
	}
	text, err := json.Marshal(note{seq, hash, m.used.Bytes, m.used.Entries, m.used.Log, m.counted})
	if err == nil {
		_ = m.memo.Save(text)
	}
}

// room refuses so many more bytes and entries if the context has no room for them.
func (t *Tx) room(bytes, entries int64) error {
	m := &t.s.meter
	q := m.quota
	if bytes <= 0 && entries <= 0 || q.Bytes <= 0 && q.Entries <= 0 {
		return nil
	}
	if !t.measured {
		u, err := t.s.usage(t.ctx, true)
		if err != nil {
			return err
		}
		t.used, t.measured = u, true
	}
	over := func() error {
		switch b, n := t.used.Bytes+t.delta.Bytes+bytes, t.used.Entries+t.delta.Entries+entries; {
		case q.Bytes > 0 && bytes > 0 && b > q.Bytes:
			return fmt.Errorf("the context would hold %d bytes, of at most %d: %w", b, q.Bytes, store.ErrQuota)
		case q.Entries > 0 && entries > 0 && n > q.Entries:
			return fmt.Errorf("the context would hold %d files and directories, of at most %d: %w", n, q.Entries, store.ErrQuota)
		}
		return nil
	}
	err := over()
	if err == nil {
		return nil
	}
	m.mu.Lock()
	rests := time.Now().Before(m.rest)
	m.mu.Unlock()
	if rests {
		return err
	}
	if fail := t.s.counted(t.ctx, true, true); fail != nil { // its owner may have made room
		return fail
	}
	if t.used, err = t.s.usage(t.ctx, true); err != nil {
		return err
	}
	return over()
}

// weigh counts size bytes as what n has of the context's, instead of what it had.
func (t *Tx) weigh(n *node, size int64) {
	t.delta.Bytes += size - n.weight
	n.weight = size
}

// leave counts n as gone from the context.
func (t *Tx) leave(n *node) {
	if n.left {
		return
	}
	n.left = true
	t.weigh(n, 0)
	t.delta.Entries--
}

// logRoom refuses another log entry if the log has no room for it.
func (t *Tx) logRoom(size int64) error {
	most := t.s.meter.quota.Log
	if most <= 0 {
		return nil
	}
	u, err := t.s.usage(t.ctx, false)
	if err != nil {
		return err
	}
	if t.readOnly {
		most += logSpare
	}
	if sum := u.Log + t.delta.Log + size; sum > most {
		return fmt.Errorf("%w: it would have %d bytes, of at most %d", store.ErrLogFull, sum, t.s.meter.quota.Log)
	}
	return nil
}
