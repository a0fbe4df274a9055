package overlay

import (
	"time"

	"github.com/circles-host/circles/host/store"
)

// WithCache limits the clean directories that are kept in memory, and all nodes.
func (l Limits) WithCache(clean, all int) Limits {
	l.cachedNodes, l.nodes = clean, all
	return l
}

// Kept is how many nodes a transaction keeps in memory.
func Kept(tx store.Tx) int { return tx.(*Tx).kept }

// Charged is what a transaction counts against its limits.
func Charged(tx store.Tx) (entries int, staged int64, listed int) {
	a := tx.(*Tx).script
	return a.entries, a.staged, a.listed
}

// Rested ends the rest of a store after it has counted.
func Rested(s *Store) {
	s.meter.mu.Lock()
	defer s.meter.mu.Unlock()
	s.meter.rest = time.Time{}
}
