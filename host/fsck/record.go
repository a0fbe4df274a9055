package fsck

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/circles-host/circles/host/history"
	"github.com/circles-host/circles/host/records"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
)

// record is what a script left of a record.
type record struct {
	blob script.Blob
	by   script.ID
}

// expectRecord adds what a script did to a record. What it might not get, its
// receipt does not tell.
func (k *check) expectRecord(by script.ID, name string, blob script.Blob) {
	if blob.Digest.IsZero() {
		delete(k.recorded, name)
		return
	}
	if _, known := k.recorded[name]; !known && len(k.expected)+len(k.recorded) >= maxPaths {
		k.result.Unknown = fmt.Sprintf("scripts left more than %d files and records", maxPaths)
		return
	}
	k.recorded[name] = record{blob, by}
}

// expectRecords adds what a receipt says of records.
func (k *check) expectRecords(r *script.Receipt, m *history.Manifest) {
	if m != nil {
		for name, blob := range m.Records() {
			k.expectRecord(r.Script, name, blob)
		}
		return
	}
	for _, e := range r.Effects {
		if _, _, ok := e.Record(); ok {
			k.expectRecord(r.Script, e.Path[1:], e.After)
		}
	}
}

// records reads all records, and compares them with what is expected. Their pages
// are text that the owner may edit line by line, so what differs is told as an
// edit; what cannot be read is damage.
func (k *check) records(private store.FS) error {
	collections := map[string]bool{} // whether it is damaged
	for name := range k.recorded {
		collection, _, _ := strings.Cut(name, "/")
		collections[collection] = false
	}
	names, err := records.Names(private)
	if err != nil {
		return err
	}
	for _, name := range names {
		collections[name] = false
	}
	for _, name := range slices.Sorted(maps.Keys(collections)) {
		if err := k.collection(private, name); err != nil {
			var damage *records.DamageError
			if !errors.As(err, &damage) {
				return err
			}
			k.report(store.Finding{Where: damage.File, What: damage.Err.Error(), Damage: true})
			collections[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(k.recorded)) {
		if collection, _, _ := strings.Cut(name, "/"); !collections[collection] {
			k.differs(name, "is missing", k.recorded[name])
		}
	}
	return nil
}

// collection compares a collection; what was found is no longer in k.recorded.
func (k *check) collection(private store.FS, name string) error {
	of := records.In(private, records.Config{ReadOnly: true}).As(nil)
	for r := (records.Range{}); ; {
		if k.ctx.Err() != nil {
			return context.Cause(k.ctx)
		}
		page, err := of.Scan(k.ctx, name, r)
		if err != nil {
			return err
		}
		for _, found := range page.Records {
			name := script.JoinRecord(name, found.Key)
			want, ok := k.recorded[name]
			if !ok {
				continue
			}
			delete(k.recorded, name)
			if is := (script.Blob{Size: int64(len(found.Value)), Digest: script.DigestOf(found.Value)}); is != want.blob {
				k.differs(name, "has another value", want)
				continue
			}
			k.result.Records++
		}
		if r.From = page.Next; r.From == "" {
			return nil
		}
	}
}

func (k *check) differs(name, wrong string, want record) {
	f := store.Finding{Where: name, Damage: !k.Edited, What: fmt.Sprintf("%s as script %s left it", wrong, want.by.Short())}
	if k.Edited {
		f.What += "; it was changed outside of scripts"
	}
	k.report(f)
}
