package host

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/history"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
)

// undoable is how long, and how much, is kept of a context to undo scripts by.
func (h *Host) undoable(e peer.Entry) history.Config {
	c := h.config.Undo
	if c.Now == nil {
		c.Now = h.now
	}
	own, _ := ReadContext(e) // one that cannot be read has no quota of its own
	if quota := int64(own.Quota.Or(h.quota, DefaultQuota).Bytes) / 4; c.Bytes == 0 {
		c.Bytes = min(history.DefaultBytes, quota) // most of the room is for what is there, not what was
	}
	return c
}

// undo is the work of a script that asks to undo another.
type undo struct {
	*Host
	id script.ID
}

func (undo) readsOnly() bool       { return false }
func (undo) digest() script.Digest { return script.Digest{} }

// do undoes the script in the transaction of the one that asks for it. What it was
// that the script changed is believed if the receipt in the log says that it is:
// the files of a context are its owner's to edit.
func (u undo) do(ctx context.Context, in running) (engine.Output, error) {
	start := time.Now()
	m, err := in.target.history.Find(ctx, in.tx, u.id)
	if err != nil {
		return engine.Output{}, err
	}
	entry, ok, err := in.target.store.Entry(ctx, m.Key)
	if err != nil {
		return engine.Output{}, fmt.Errorf("find the receipt of script %s: %w", u.id.Short(), err)
	}
	var r script.Receipt
	if ok {
		if r, _, err = envelope.OpenReceipt(entry.Data, ""); err != nil {
			return engine.Output{}, fmt.Errorf("read the log of %s: entry %d: %w", in.target.entry.Name, entry.Seq, err)
		}
	}
	if r.Script != u.id || r.Kept != m.Digest {
		return engine.Output{}, &history.NotKeptError{Script: u.id, Reason: "what was written down about it was changed since, and is not what its receipt says"}
	}
	var conflict *history.ConflictError
	if err := m.Undo(ctx, in.tx, in.tx.records.As(nil)); errors.As(err, &conflict) {
		return engine.Output{}, u.touched(ctx, in.target, entry.Seq, conflict)
	} else if err != nil {
		return engine.Output{}, err
	}
	if err := in.tx.records.Flush(ctx); err != nil {
		return engine.Output{}, err
	}
	return engine.Output{Usage: engine.Usage{Wall: time.Since(start)}}, nil
}

// touchedError says who touched what a script left, and so what to undo first.
type touchedError struct {
	conflict *history.ConflictError
	by       []string // scripts, the last first
	others   []string // paths that no script touched
	unsure   bool     // not all of the log was looked at
}

func (e *touchedError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "script %s cannot be undone, since what it left is no longer as it left it", e.conflict.Script.Short())
	some := func(what string, list []string) {
		const shown = 5
		if len(list) > 0 {
			fmt.Fprintf(&b, "; %s %s", what, strings.Join(list[:min(len(list), shown)], ", "))
		}
		if more := len(list) - shown; more > 0 {
			fmt.Fprintf(&b, " and %d more", more)
		}
	}
	some("undo first, in this order:", e.by)
	some("changed outside of scripts:", e.others)
	if e.unsure {
		b.WriteString("; there may be more than that")
	}
	return b.String()
}

const (
	// touchedTime bounds how long the log is looked through for who is to blame.
	touchedTime = 2 * time.Second
	maxTouched  = 100
)

// touched finds out which scripts changed paths since an entry of the log.
func (h *Host) touched(ctx context.Context, target *peerContext, since uint64, conflict *history.ConflictError) error {
	ctx, cancel := context.WithTimeout(ctx, touchedTime)
	defer cancel()
	e := &touchedError{conflict: conflict, unsure: conflict.More}
	last := map[string]script.Blob{} // what the last script left of the files that are in the way
	var by []toucher
	for entry, err := range target.store.Log(ctx, since+1) {
		if ctx.Err() != nil || len(by) > maxTouched {
			e.unsure = true
			break
		}
		if err != nil {
			return fmt.Errorf("read the log of %s: %w", target.entry.Name, err)
		}
		r, _, err := envelope.OpenReceipt(entry.Data, "")
		if err != nil {
			return fmt.Errorf("read the log of %s: entry %d: %w", target.entry.Name, entry.Seq, err)
		}
		if r.Code != script.Done || r.DryRun {
			continue
		}
		e.unsure = e.unsure || r.MoreEffects > 0
		paths := touches(r.Effects, conflict.Paths)
		if len(paths) == 0 {
			continue
		}
		for _, x := range r.Effects {
			last[named(x)] = x.After
		}
		// An undo and what it undid are as if neither had been.
		if i := slices.IndexFunc(by, func(t toucher) bool { return t.id == r.Undid }); i >= 0 {
			by = slices.Delete(by, i, i+1)
			continue
		}
		by = append(by, toucher{r.Script, paths, h.byWhom(target, entry, r, paths)})
	}
	blamed := map[string]bool{}
	for _, t := range slices.Backward(by) {
		e.by = append(e.by, t.text)
		for _, p := range t.paths {
			blamed[p] = true
		}
	}
	for _, p := range conflict.Paths {
		now, read := conflict.Now[p]
		left, known := last[p]
		if !blamed[p] || read && known && left != (script.Blob{}) && left != now {
			e.others = append(e.others, quoted(p))
		}
	}
	return e
}

// toucher is a script that touched what is in the way of an undo.
type toucher struct {
	id    script.ID
	paths []string
	text  string
}

// touches are those of paths that effects are on, or above, or below.
func touches(effects []script.Effect, paths []string) (touched []string) {
	within := func(dir, p string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }
	for _, p := range paths {
		for _, e := range effects {
			// A record is "collection/key" there, and has nothing below it.
			if _, _, record := e.Record(); record || p[0] != '/' {
				if named(e) != p {
					continue
				}
			} else if !within(e.Path, p) && !within(p, e.Path) {
				continue
			}
			touched = append(touched, p)
			break
		}
	}
	return touched
}

// named is what an effect is on: a path, or "collection/key".
func named(e script.Effect) string {
	if collection, key, ok := e.Record(); ok {
		return script.JoinRecord(collection, key)
	}
	return e.Path
}

// byWhom names a script for the owner of its target: which, whose, what, when and
// where.
func (h *Host) byWhom(target *peerContext, entry store.Entry, r script.Receipt, paths []string) string {
	what := r.ModuleName
	switch {
	case r.Undid != script.ID{}:
		what = "undo of " + r.Undid.Short()
	case what == "":
		what = "carried code"
	}
	where := quoted(paths[0])
	if len(paths) > 1 {
		where += fmt.Sprintf(" and %d more", len(paths)-1)
	}
	return fmt.Sprintf("%s (%s by %s, %s, on %s)", r.Script.Short(), what, label(target.meet(r.Caller).Caller), entry.Time.UTC().Format(time.DateTime), where)
}

// quoted is a path, in quotes if it would not stay one word of a line.
func quoted(p string) string {
	if q := fmt.Sprintf("%q", p); len(q) != len(p)+2 || strings.ContainsAny(p, " ,;()") {
		return q
	}
	return p
}
