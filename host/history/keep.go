package history

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
)

// bucket is a directory of manifests and of what they keep.
type bucket struct {
	name  string
	start time.Time
	bytes int64
	names int
}

const (
	bucketLayout = "20060102T150405.000"
	bucketTime   = time.Hour
	bucketNames  = 4096
	bucketShare  = 16 // a bucket is full when it has this part of Config.Bytes

	// pruned is how many names one transaction removes, beyond as many as it adds.
	pruned = 64

	// maxNames is how many files are kept in all: a context may hold only so many,
	// and most of them should be its owner's.
	maxNames   = 100_000
	maxBuckets = 100_000
	sizesFile  = dir + "/sizes"
	maxSizes   = 8 << 20
)

// Kept is what Keep kept of one script.
type Kept struct {
	Digest  script.Digest // of the manifest; zero if nothing was kept or need be
	Why     string        // the script cannot be undone; "" if it can, or has changed nothing
	Problem error         // for the operator: why the history cannot be used, if that is so

	done func()
}

// Committed says that the transaction of Keep was.
func (k *Kept) Committed() {
	if k != nil && k.done != nil {
		k.done()
	}
}

// Keep writes down how to undo the changes of script id, whose receipt has that
// key in the log, and keeps what that takes. It is the last that is done in their
// transaction, before the receipt is appended, which must say Kept.Digest.
//
// What cannot be kept is not kept, and is no reason for the script to fail. An
// error is: something is half done, so nothing may be committed.
func (h *History) Keep(ctx context.Context, tx store.Tx, id script.ID, key store.Key, cs *Changes) (*Kept, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := &keeping{ctx: ctx, h: h, tx: tx, private: tx.Private()}
	kept := &Kept{Why: cs.why, done: func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, f := range w.committed {
			f()
		}
	}}
	if len(cs.List) == 0 && len(cs.records) == 0 {
		kept.Why = ""
		return kept, nil // nor is anything removed: most that changes nothing should commit nothing
	}
	if err := h.load(w); err != nil {
		kept.Why, kept.Problem = "the host could not keep anything", fmt.Errorf("look up what is kept to undo scripts by: %w", err)
		return kept, nil
	}
	if err := w.prune(cs.bytes, pruned+2*len(cs.List)); err != nil {
		return nil, fmt.Errorf("remove what was kept long enough to undo scripts by: %w", err)
	}
	if h.config.Keep < 0 {
		return kept, nil
	}
	if h.bytes-w.freed+cs.bytes > h.config.Bytes && kept.Why == "" {
		kept.Why = "there was no room to keep what it replaced; [undo] in circles.toml says how much there is"
	}
	m := &Manifest{Script: id, Key: key, Time: h.config.Now(), Why: kept.Why}
	for {
		err := w.keep(m, cs)
		if err == nil {
			kept.Digest, kept.Why = m.Digest, m.Why
			return kept, nil
		}
		// Before anything else is done, what was kept is removed, which is as if it
		// had been removed in the first place.
		if undo := w.drop(); undo != nil {
			return nil, fmt.Errorf("keep what script %s replaced: %w: %w", id.Short(), err, undo)
		}
		var why string
		switch {
		case ctx.Err() != nil:
			return nil, fmt.Errorf("keep what script %s replaced: %w", id.Short(), context.Cause(ctx))
		case errors.Is(err, errFull), errors.Is(err, store.ErrQuota), errors.Is(err, store.ErrTooBig):
			why = "what it changed is more than could be kept, or the context has no room for it"
			if m.Why != "" { // not even for that word
				kept.Why = m.Why
				return kept, nil
			}
		case errors.Is(err, store.ErrInvalid) && m.Why == "":
			why = "it moved large files over others"
		default:
			return nil, fmt.Errorf("keep what script %s replaced: %w", id.Short(), err)
		}
		m = &Manifest{Script: id, Key: key, Time: m.Time, Why: why}
	}
}

// keeping is one Keep.
type keeping struct {
	ctx     context.Context
	h       *History
	tx      store.Tx
	private store.FS

	into      *bucket
	fresh     bool     // into is new
	made      []string // paths
	freed     int64    // by prune
	committed []func() // what to remember once it is true
}

// keep makes the manifest, and keeps what it speaks of.
func (w *keeping) keep(m *Manifest, cs *Changes) error {
	if w.into == nil {
		var err error
		if w.into, w.fresh, err = w.bucket(m.Time); err != nil {
			return err
		}
	}
	b, fresh := w.into, w.fresh
	files := w.tx.Files(nil)
	var bytes int64
	for _, c := range cs.List {
		if m.Why != "" {
			break
		}
		e := change{Path: c.Path, Kind: c.Kind, How: c.how, Link: c.Link, From: c.From}
		if c.Was.Kind != 0 {
			e.Was = was{c.Was.Kind, c.Was.Link, times{stampOf(c.Was.Atime), stampOf(c.Was.Mtime)}}
		}
		if c.Old != (script.Blob{}) {
			e.Old = &c.Old
		}
		if c.New != (script.Blob{}) {
			e.New = &c.New
		}
		if c.End != (script.End{}) {
			e.End = &c.End
		}
		switch c.Kind {
		case store.ChangeCreate, store.ChangeModify, store.ChangeTimes:
			info, err := files.Stat(c.Path, false)
			if err != nil {
				return err
			}
			e.Times = &times{stampOf(info.Atime), stampOf(info.Mtime)}
		}
		switch c.how {
		case howCut, howEnd:
			e.Cut = c.Intact
			if c.how == howCut {
				e.Cut = c.Sizes.Before
			}
		}
		if c.how == howEnd || c.how == howWhole {
			e.N = len(w.made) + 1
			to := b.path(fmt.Sprintf("%s.%d", name(m.Script), e.N))
			if err := w.content(&c, to); err != nil {
				return err
			}
			bytes += c.Sizes.Before - e.Cut
		}
		m.changes = append(m.changes, e)
	}
	if m.Why == "" {
		m.records = recordsOf(cs.records)
	}
	enc, err := m.encode()
	if err != nil {
		return err
	}
	if err := w.write(b.path(name(m.Script)), strings.NewReader(string(enc))); err != nil {
		return err
	}
	bytes += int64(len(enc))
	names := len(w.made)
	w.committed = append(w.committed, func() {
		if fresh {
			w.h.buckets = append(w.h.buckets, b)
		}
		b.bytes, b.names, w.h.bytes, w.h.names = b.bytes+bytes, b.names+names, w.h.bytes+bytes, w.h.names+names
	})
	return nil
}

// content keeps what a change replaced, or the end of it.
func (w *keeping) content(c *Change, to string) error {
	if c.how == howWhole {
		err := w.tx.Keep(c.Path, to)
		if err == nil {
			w.made = append(w.made, to)
			return nil
		}
		// It is in use, in the place of its like, or in another's.
		if !errors.Is(err, store.ErrInvalid) || c.Sizes.Before > maxCopied {
			return err
		}
	}
	r, err := c.Before()
	if err != nil {
		return err
	}
	defer r.Close()
	if c.how == howEnd {
		if _, err := r.Seek(c.Intact, io.SeekStart); err != nil {
			return err
		}
	}
	return w.write(to, ending{r, w.ctx})
}

func (w *keeping) write(to string, r io.Reader) error {
	f, err := w.private.Open(to, store.FlagWrite|store.FlagCreate|store.FlagExclusive)
	if err != nil {
		return err
	}
	defer f.Close()
	w.made = append(w.made, to)
	_, err = copyTo(io.NewOffsetWriter(f, 0), r)
	return err
}

// drop removes what was kept.
func (w *keeping) drop() error {
	for _, path := range w.made {
		if err := w.private.Unlink(path); err != nil {
			return err
		}
	}
	w.made = nil
	return nil
}

// bucket is the one to write to, made if there is none or the last is full.
func (w *keeping) bucket(now time.Time) (b *bucket, fresh bool, err error) {
	h := w.h
	if n := len(h.buckets); n > 0 {
		b = h.buckets[n-1]
		if b != h.going && b.names < bucketNames && b.bytes < h.config.Bytes/bucketShare && now.Sub(b.start).Abs() < bucketTime {
			return b, false, nil
		}
		if err := w.sizes(func(*bucket) bool { return true }); err != nil {
			return nil, false, err
		}
	}
	for {
		b = &bucket{name: now.UTC().Format(bucketLayout), start: now}
		err := w.private.Mkdir(dir)
		if err == nil || errors.Is(err, store.ErrExists) {
			err = w.private.Mkdir(b.path())
		}
		if err == nil {
			return b, true, nil
		}
		if !errors.Is(err, store.ErrExists) {
			return nil, false, err
		}
		now = now.Add(time.Millisecond) // several in one, or a clock that was put back
	}
}

// sizes writes down how much is in the buckets that are full, so that nobody has
// to count it again.
func (w *keeping) sizes(of func(*bucket) bool) error {
	sizes := map[string][2]int64{}
	for _, b := range w.h.buckets {
		if of(b) {
			sizes[b.name] = [2]int64{b.bytes, int64(b.names)}
		}
	}
	enc, err := json.Marshal(sizes)
	if err != nil {
		return err
	}
	f, err := w.private.Open(sizesFile, store.FlagWrite|store.FlagCreate|store.FlagTruncate)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(enc, 0)
	return err
}

// prune removes names of the oldest bucket, at most budget, if it is too old or
// its room is needed.
func (w *keeping) prune(need int64, budget int) error {
	h := w.h
	if len(h.buckets) == 0 {
		return nil
	}
	b := h.buckets[0]
	old := h.config.Now().Sub(b.start) > max(h.config.Keep, 0)+bucketTime
	if h.going != b {
		if !old && h.bytes+need <= h.config.Bytes && h.names <= maxNames {
			return nil
		}
		names, err := list(w.private, b.path())
		if err != nil && !errors.Is(err, store.ErrNotExist) {
			return err
		}
		h.going, h.remove = b, names
	}
	names := h.remove[:min(len(h.remove), budget)]
	for _, name := range names {
		at := b.path(name)
		info, err := w.private.Stat(at, false)
		if err == nil && info.Kind == store.KindDir {
			err = w.private.Rmdir(at) // not ours, and not in our way if it is empty
		} else if err == nil {
			w.freed += info.Size
			err = w.private.Unlink(at)
		}
		if err != nil && !errors.Is(err, store.ErrNotExist) && !errors.Is(err, store.ErrNotEmpty) {
			return err
		}
	}
	gone := len(names) == len(h.remove)
	if gone {
		// What is not ours may be in there: then it stays, and is nobody's.
		if err := w.private.Rmdir(b.path()); err != nil && !errors.Is(err, store.ErrNotExist) && !errors.Is(err, store.ErrNotEmpty) {
			return err
		}
		w.freed = max(w.freed, b.bytes)
		if err := w.sizes(func(o *bucket) bool { return o != b && o != h.buckets[len(h.buckets)-1] }); err != nil {
			return err
		}
	}
	freed := w.freed
	w.committed = append(w.committed, func() {
		if h.going == b {
			h.remove = h.remove[min(len(names), len(h.remove)):]
		}
		freed, fewer := min(freed, b.bytes), min(len(names), b.names)
		if gone {
			freed, fewer = b.bytes, b.names
		}
		b.bytes, h.bytes, b.names, h.names = b.bytes-freed, h.bytes-freed, b.names-fewer, h.names-fewer
		if gone {
			h.going, h.buckets = nil, slices.DeleteFunc(h.buckets, func(o *bucket) bool { return o == b })
		}
	})
	return nil
}

// load finds the buckets that there are.
func (h *History) load(w *keeping) error {
	if h.loaded {
		return nil
	}
	names, err := list(w.private, dir)
	if err != nil && !errors.Is(err, store.ErrNotExist) {
		return err
	}
	sizes := map[string][2]int64{}
	if b, err := read(w.ctx, w.private, sizesFile, maxSizes); err == nil {
		if json.Unmarshal(b, &sizes) != nil {
			sizes = nil // it is counted anew
		}
	} else if w.ctx.Err() != nil {
		return err
	}
	h.buckets, h.bytes, h.names = nil, 0, 0
	for _, name := range names {
		start, err := time.Parse(bucketLayout, name)
		if err != nil {
			continue // the sizes, or an owner's note
		}
		b := &bucket{name: name, start: start}
		if s, ok := sizes[name]; ok && s[0] >= 0 && s[1] >= 0 && s[0] < 1<<50 && s[1] < 1<<30 {
			b.bytes, b.names = s[0], int(s[1])
		} else if err := b.count(w); err != nil {
			return err
		}
		h.buckets = append(h.buckets, b)
		h.bytes, h.names = h.bytes+b.bytes, h.names+b.names
	}
	h.loaded = true
	return nil
}

// count finds out what is in a bucket.
func (b *bucket) count(w *keeping) error {
	names, err := list(w.private, b.path())
	if err != nil {
		return err
	}
	b.names = len(names)
	for _, name := range names {
		if w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		info, err := w.private.Stat(b.path(name), false)
		if err != nil {
			return err
		}
		b.bytes += info.Size
	}
	return nil
}

// list returns the names in a directory, in order.
func list(private store.FS, path string) ([]string, error) {
	d, err := private.Open(path, store.FlagRead|store.FlagDirectory)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	entries, err := d.ReadDir(0, maxBuckets)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name
	}
	return names, nil
}

// read reads a file of at most limit bytes.
func read(ctx context.Context, files store.FS, path string, limit int64) ([]byte, error) {
	f, err := files.Open(path, store.FlagRead|store.FlagNoFollow)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(ending{io.NewSectionReader(f, 0, limit+1), ctx})
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s is longer than %d bytes: %w", path, limit, store.ErrTooBig)
	}
	return b, nil
}
