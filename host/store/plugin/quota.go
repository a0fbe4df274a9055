package plugin

import (
	"context"

	"github.com/circles-host/circles/host/store"
)

// bounds are what each store on the plugin is told, however often it is started
// again.
type bounds struct {
	quota store.Quota
	memo  store.Memo
	wide  store.Limits
}

// Bound is overlay.Store.Bound. It is called before anything else.
func (s *Store) Bound(q store.Quota, memo store.Memo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bounds.quota, s.bounds.memo = q, memo
	if s.now != nil {
		s.now.store.Bound(q, memo)
	}
}

// Widen is overlay.Store.Widen. It is called before anything else.
func (s *Store) Widen(l store.Limits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bounds.wide = l
	if s.now != nil {
		s.now.store.Widen(l)
	}
}

// Volume is overlay.Store.Volume.
func (s *Store) Volume(ctx context.Context, exact bool) (store.Volume, error) {
	on, err := s.current(ctx)
	if err != nil {
		return store.Volume{}, err
	}
	return on.Volume(ctx, exact)
}
