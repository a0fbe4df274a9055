package overlay_test

import (
	"context"
	"testing"
	"time"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mem"
)

// Two contexts whose scripts read each other, with a commit waiting in each:
// views that waited for the commits would wait for each other.
func TestScriptsThatReadEachOtherDoNotDeadlock(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	a, b := mem.New(mem.Config{}), mem.New(mem.Config{})
	both := make(chan struct{}, 2)
	waiting := make(chan struct{})
	read := func(mine, other store.Store) error {
		return mine.View(ctx, func(store.Tx) error {
			both <- struct{}{}
			<-waiting
			return other.View(store.Nested(ctx), func(store.Tx) error { return nil })
		})
	}
	write := func(s store.Store) error {
		return s.Update(ctx, func(tx store.Tx) error { return tx.Files(nil).Mkdir("/x") })
	}
	done := make(chan error, 4)
	go func() { done <- read(a, b) }()
	go func() { done <- read(b, a) }()
	<-both
	<-both
	go func() { done <- write(a) }()
	go func() { done <- write(b) }()
	// A commit that waits for views holds up one that is not nested: that is how
	// the test knows that both wait.
	for _, s := range []store.Store{a, b} {
		for {
			short, stop := context.WithTimeout(ctx, 20*time.Millisecond)
			err := s.View(short, func(store.Tx) error { return nil })
			stop()
			if err != nil {
				break
			}
		}
	}
	close(waiting)
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
