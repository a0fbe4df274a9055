package script

import (
	"errors"
	"fmt"
	"slices"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script/scriptpb"
)

// IsZero reports whether no script waits.
func (w Within) IsZero() bool { return w.Root.IsZero() && len(w.Contexts) == 0 }

// checkWithin: the last that waits is the caller's, who sent it, and the target is
// none of them.
func (s *Script) checkWithin() error {
	w := s.Within
	if w.IsZero() {
		return nil
	}
	n := len(w.Contexts)
	switch {
	case w.Root.IsZero() || n == 0:
		return errors.New("within: it names the first script that waits, and the contexts, or neither")
	case n > MaxWithin:
		return fmt.Errorf("within: %d scripts wait for it, at most %d may", n, MaxWithin)
	case w.Contexts[n-1] != s.Caller:
		return errors.New("within: the last context that waits is not the caller's, who sent it")
	case len(s.Lent) > 0:
		return errors.New("within: a script that another one sends lends nothing")
	case s.Logic.OfOwner():
		return errors.New("within: an undo or a decision is for the owner of the context, and no script sends it")
	}
	for i, id := range w.Contexts {
		if _, err := peer.ParseID(string(id)); err != nil {
			return fmt.Errorf("within: %w", err)
		}
		if slices.Contains(w.Contexts[:i], id) {
			return fmt.Errorf("within: the context of %s waits twice", id)
		}
	}
	if slices.Contains(w.Contexts, s.Target) {
		return fmt.Errorf("within: the context of %s waits for this script, which is to run there: it would wait for itself", s.Target)
	}
	return nil
}

func (w Within) message() *scriptpb.Within {
	if w.IsZero() {
		return nil
	}
	m := &scriptpb.Within{Root: w.Root[:]}
	for _, id := range w.Contexts {
		m.Contexts = append(m.Contexts, string(id))
	}
	return m
}

func (w *Within) set(m *scriptpb.Within) error {
	if err := w.Root.set(m.Root); err != nil {
		return err
	}
	for _, id := range m.Contexts {
		w.Contexts = append(w.Contexts, peer.ID(id))
	}
	return nil
}
