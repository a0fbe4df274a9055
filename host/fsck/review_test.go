package fsck_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/review"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
)

// What is held for review is what the log says is pending: one that is whole is
// fine; one that is gone or changed is damage until it is decided, and one of which
// the log knows nothing is told.
func TestHeldForReview(t *testing.T) {
	p := inDirectory(t, t.TempDir())
	update := func(f func(tx store.Tx) error) {
		t.Helper()
		s, err := p.open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.Update(t.Context(), f), s.Close()); err != nil {
			t.Fatal(err)
		}
	}
	write := func(tx store.Tx, key store.Key, r script.Receipt) error {
		r.Caller, r.Target, r.Host, r.Started, r.Finished = p.key.ID(), p.key.ID(), p.key.ID(), time.Now(), time.Now()
		sealed, err := envelope.SealReceipt(r, p.key)
		if err != nil {
			return err
		}
		return tx.Append(key, sealed)
	}
	put := func(tx store.Tx, id script.ID) (script.Digest, error) {
		return review.Put(context.Background(), tx.Private(), &review.Held{Script: id, Caller: p.key.ID(), Key: store.Key(id),
			Expires: time.Now().Add(time.Hour), Sealed: []byte("sealed"), Would: []byte("would")}, review.Limits{})
	}
	hold := func(id script.ID) {
		update(func(tx store.Tx) error {
			kept, err := put(tx, id)
			if err != nil {
				return err
			}
			return write(tx, store.Key(id), script.Receipt{Script: id, Code: script.Pending, Expires: time.Now().Add(time.Hour), Kept: kept})
		})
	}
	remove := func(tx store.Tx, id script.ID) error {
		i, _, err := review.Find(tx.Private(), id)
		return errors.Join(err, i.Remove(tx.Private()))
	}
	one, two, three := script.ID{1}, script.ID{2}, script.ID{3}
	hold(one)
	hold(two)
	p.wants(false, 0)

	update(func(tx store.Tx) error { return remove(tx, one) })
	update(func(tx store.Tx) error { // salted, so it is another
		if err := remove(tx, two); err != nil {
			return err
		}
		_, err := put(tx, two)
		return err
	})
	update(func(tx store.Tx) error { _, err := put(tx, three); return err })
	p.wants(false, 2, "damage: /.circles/review script "+two.Short()+" waits for review, and what was kept of it is gone, or was changed",
		"note: /.circles/review script "+three.Short()+" is held for review, and the log does not say that it waits",
		"damage: /.circles/review script "+one.Short()+" waits for review, and what was kept of it is gone")
	update(func(tx store.Tx) error {
		for _, id := range []script.ID{two, three} {
			if err := remove(tx, id); err != nil {
				return err
			}
		}
		for i, id := range []script.ID{one, two} {
			if err := write(tx, store.Key{9, byte(i)}, script.Receipt{Script: id, Code: script.Refused, Pending: script.Digest{1}}); err != nil {
				return err
			}
		}
		return nil
	})
	p.wants(false, 0)
}
