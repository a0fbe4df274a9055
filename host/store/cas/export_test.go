package cas

import (
	"context"

	"github.com/circles-host/circles/host/store"
)

// ForgeLoop gives a bucket the root of a context in which the directory "a" holds
// itself, under that name.
func ForgeLoop(ctx context.Context, r Remote) error {
	s := newState().next()
	s.nextIno = 6
	a := node{kind: store.KindDir, ino: 5}.encode()
	s.files.delta = append(s.files.delta, entry{nodeKey(rootIno, "a"), a}, entry{nodeKey(5, "a"), a})
	_, err := r.SwapRoot(ctx, s.encode(), "")
	return err
}
