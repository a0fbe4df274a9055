package review

import (
	"errors"
	"testing"
	"time"

	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mem"
)

// What scripts used is kept for as long as budgets look back, in bounded room, and
// whatever else lies there holds nothing.
func TestUsed(t *testing.T) {
	s := mem.New(mem.Config{})
	update := func(f func(store.FS) error) {
		t.Helper()
		if err := s.Update(t.Context(), func(tx store.Tx) error { return f(tx.Private()) }); err != nil {
			t.Fatal(err)
		}
	}
	all := func() (used map[script.ID]Used) {
		update(func(private store.FS) (err error) { used, err = AllUsed(private); return err })
		return used
	}
	if len(all()) != 0 {
		t.Error("something was used")
	}
	id := func(n int) script.ID { return script.ID{1, byte(n), byte(n >> 8)} }
	now := time.UnixMilli(1e12)
	note := func(n int, at time.Time) {
		update(func(private store.FS) error {
			if err := private.Mkdir(dir); err != nil && !errors.Is(err, store.ErrExists) {
				return err
			}
			return NoteUsed(private, id(n), at, Used{Fuel: uint64(n), Bytes: 1 << 63})
		})
	}
	for n := range 3 {
		note(n, now.Add(time.Duration(n)*time.Hour))
	}
	if u := all(); len(u) != 3 || u[id(2)] != (Used{2, 1 << 63}) {
		t.Errorf("%v", u)
	}
	note(3, now.Add(26*time.Hour))
	if u := all(); len(u) != 2 || u[id(2)].Fuel != 2 || u[id(3)].Fuel != 3 {
		t.Errorf("a day later: %v", u)
	}
	for n := range maxUsed + 10 {
		note(n, now.Add(26*time.Hour))
	}
	if u := all(); len(u) != maxUsed || u[id(maxUsed+9)] == (Used{}) {
		t.Errorf("%d are kept", len(u))
	}
	for _, text := range []string{"", "nonsense", usedMagic, usedMagic + "short"} {
		update(func(private store.FS) error {
			f, err := private.Open(usedName, store.FlagWrite|store.FlagCreate|store.FlagTruncate)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteAt([]byte(text), 0)
			return err
		})
		if u := all(); len(u) != 0 {
			t.Errorf("%q: %v", text, u)
		}
	}
	note(7, now)
	if u := all(); len(u) != 1 {
		t.Errorf("after nonsense: %v", u)
	}
}
