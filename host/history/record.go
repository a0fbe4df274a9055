package history

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/circles-host/circles/host/records"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
)

// maxRecords bounds the records that one script may have changed to be undoable.
const maxRecords = 100_000

// record is a change of a record in a manifest, which has its old value in it: a
// record is small, and many of them are in one file.
type record struct {
	Name string       `json:"name"` // COLLECTION/KEY
	Old  *[]byte      `json:"old,omitempty"`
	New  *script.Blob `json:"new,omitempty"`
}

// Records adds the records that the transaction changed.
func (cs *Changes) Records(changed []records.Change) {
	if len(changed) > maxRecords && cs.why == "" {
		cs.why = fmt.Sprintf("it changed more than %d records", maxRecords)
	}
	cs.records = changed
	for _, c := range changed {
		cs.bytes += int64(len(c.Before))
	}
}

func recordsOf(changed []records.Change) []record {
	list := make([]record, len(changed))
	for i, c := range changed {
		list[i].Name = script.JoinRecord(c.Collection, c.Key)
		if c.Before != nil {
			list[i].Old = &c.Before
		}
		if c.After != nil {
			list[i].New = &script.Blob{Size: int64(len(c.After)), Digest: script.DigestOf(c.After)}
		}
	}
	return list
}

func (r *record) check() error {
	_, key, err := script.SplitRecord(r.Name)
	switch {
	case err != nil:
		return err
	case key == "":
		return errors.New("it names no record")
	case r.Old == nil && r.New == nil:
		return errors.New("it is no change")
	}
	return nil
}

// undoRecords puts the records back that the script changed, once all of them are
// seen to be as it left them.
func (u *undoing) undoRecords() error {
	for _, r := range u.records {
		if u.ctx.Err() != nil {
			return context.Cause(u.ctx)
		}
		collection, key, err := script.SplitRecord(r.Name)
		if err != nil {
			return err
		}
		var is *script.Blob
		value, err := u.of.Get(u.ctx, collection, key)
		switch {
		case err == nil:
			is = &script.Blob{Size: int64(len(value)), Digest: script.DigestOf(value)}
		case !errors.Is(err, store.ErrNotExist):
			return fmt.Errorf("compare record %s with what script %s left: %w", r.Name, u.Script.Short(), err)
		}
		if (is == nil) != (r.New == nil) || is != nil && *is != *r.New {
			u.conflict.add(r.Name)
			if is != nil && len(u.conflict.Now) < maxConflicts {
				u.conflict.Now[r.Name] = *is
			}
		}
	}
	if len(u.conflict.Paths) > 0 {
		return nil
	}
	for _, r := range u.records {
		collection, key, err := script.SplitRecord(r.Name)
		if err == nil && r.Old != nil {
			err = u.of.Put(u.ctx, collection, key, *r.Old)
		} else if err == nil {
			err = u.of.Delete(u.ctx, collection, key)
		}
		if err != nil {
			return fmt.Errorf("bring back record %s: %w", r.Name, err)
		}
	}
	return nil
}

// Records are the names of the records that the script changed, and what it left of
// each; a zero Blob if it left none.
func (m *Manifest) Records() iter.Seq2[string, script.Blob] {
	return func(yield func(string, script.Blob) bool) {
		for _, r := range m.records {
			var left script.Blob
			if r.New != nil {
				left = *r.New
			}
			if !yield(r.Name, left) {
				return
			}
		}
	}
}
