package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/store"
)

// Move is what Migrate is to do.
type Move struct {
	To string // the name of the backend
	// Replace removes what an earlier move, or another program, left there.
	Replace bool
	// Report is told now and then how far it has come. nil drops it.
	Report func(Progress)
}

// Moved is what Migrate did.
type Moved struct {
	From, To string
	Same            // what is there now, compared with what was there before
	Left     string // where the old data still is, for people
}

// ErrHere is wrapped by the error about a context that is where it is to go.
var ErrHere = errors.New("it is there already")

// ErrTaken is wrapped by the error about a destination that is not empty.
var ErrTaken = errors.New("something is there already")

// Migrate moves e's context to another backend: it copies it, compares both copies
// to the last byte, and then puts a peer.toml in place that names the other
// backend, which is the moment at which it has moved. Until then the context is
// where it was; a process that is killed at any time leaves it there, or moved.
// What an interrupted call has copied is used by the next one, if no script has run
// in between.
//
// The old data stays, out of use; Remove removes it. Whoever has the context open
// makes it fail with ErrInUse.
func (c *Contexts) Migrate(ctx context.Context, e peer.Entry, m Move) (Moved, error) {
	r, err := c.migrate(ctx, e, m)
	if err != nil {
		return r, fmt.Errorf("move the context of %s to %s: %w", e.Name, m.To, err)
	}
	return r, nil
}

func (c *Contexts) migrate(ctx context.Context, e peer.Entry, m Move) (r Moved, err error) {
	target, err := c.config.Find(m.To)
	if err != nil {
		return r, err
	}
	unlock, err := lock(e, false)
	if err != nil {
		return r, err
	}
	defer unlock()
	source, err := c.Of(e)
	if err != nil {
		return r, err
	}
	r = Moved{From: source.Name, To: m.To}
	began, err := readMove(e)
	if err != nil {
		return r, err
	}
	if source.Name == m.To {
		// Also after a crash between the switch and the end of a move.
		if began.To == m.To {
			return r, errors.Join(ErrHere, forgetMove(e))
		}
		return r, ErrHere
	}
	from, err := openToCarry(ctx, source.Backend, e)
	if err != nil {
		return r, fmt.Errorf("open it in %s: %w", source.Name, err)
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	head, hash, err := end(ctx, from)
	if err != nil {
		return r, err
	}
	this := move{To: m.To, Seq: head, Hash: hash}

	resumed := began == this
	if began.To != "" && !resumed {
		// The beginning of a copy of ours, to elsewhere or of what has changed since.
		if err := c.discard(ctx, e, began.To, source.Name); err != nil {
			return r, err
		}
	}
	for {
		r.Same, err = c.carry(ctx, e, target, from, this, resumed, m)
		var differ *DifferError
		if !resumed || !errors.As(err, &differ) && !errors.Is(err, errStale) {
			break
		}
		// The owner has changed files since it was interrupted.
		if err := c.discard(ctx, e, m.To, source.Name); err != nil {
			return r, err
		}
		resumed = false
	}
	if err != nil {
		return r, err
	}
	// Where others can write it too, somebody may have.
	if now, nowHash, err := end(ctx, from); err != nil {
		return r, err
	} else if now != r.Log || nowHash != r.Head {
		return r, fmt.Errorf("a script ran there meanwhile, on another host: stop the workers that serve it, and do it again")
	}
	if err := e.SetStore(m.To); err != nil {
		return r, err
	}
	r.Left = source.Backend.Where(e)
	return r, forgetMove(e)
}

// carry copies and compares.
func (c *Contexts) carry(ctx context.Context, e peer.Entry, target Backend, from store.Store, this move, resumed bool, m Move) (s Same, err error) {
	to, err := openToCarry(ctx, target, e)
	if err != nil {
		return s, fmt.Errorf("open it there: %w", err)
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	if !resumed {
		vacant, err := empty(ctx, to)
		if err != nil {
			return s, err
		}
		if !vacant {
			if !m.Replace {
				return s, fmt.Errorf("%w, %s: an earlier move may have left it; remove it, or have it replaced", ErrTaken, target.Where(e))
			}
			if err := to.Close(); err != nil {
				return s, err
			}
			if err := target.Remove(ctx, e); err != nil {
				return s, fmt.Errorf("replace what is there: %w", err)
			}
			if to, err = openToCarry(ctx, target, e); err != nil {
				return s, fmt.Errorf("open it there: %w", err)
			}
		}
		// Before the first byte: else a copy that was only begun would be taken for
		// somebody's data.
		if err := writeMove(e, this); err != nil {
			return s, err
		}
	}
	copying := &copying{ctx: ctx, to: to, report: m.Report, batch: c.batch, p: Progress{Doing: "copy"}}
	if err := copying.all(from); err != nil {
		return s, err
	}
	// What is compared is what is on disk, or at the server.
	if err := to.Close(); err != nil {
		return s, err
	}
	if to, err = openToCarry(ctx, target, e); err != nil {
		return s, fmt.Errorf("open it there again: %w", err)
	}
	return Compare(ctx, from, to, m.Report)
}

// Take moves a context that nobody knows of yet, which was written into e.Dir as a
// directory, to another backend, and removes the directory's copy.
func (c *Contexts) Take(ctx context.Context, e peer.Entry, to string) error {
	m, err := c.Migrate(ctx, e, Move{To: to})
	if err == nil {
		return c.Remove(ctx, e, m.From)
	}
	// Nobody will go on with what was begun. What was there before stays.
	if began, noted := readMove(e); noted == nil && began.To == to {
		return errors.Join(err, c.discard(context.WithoutCancel(ctx), e, to, m.From))
	}
	return err
}

// discard removes the beginning of a copy.
func (c *Contexts) discard(ctx context.Context, e peer.Entry, name, live string) error {
	if name == live { // it was moved there in the end
		return forgetMove(e)
	}
	b, err := c.config.Find(name)
	if err != nil {
		return fmt.Errorf("remove the copy to %s that was begun: %w", name, err)
	}
	if err := b.Remove(ctx, e); err != nil {
		return fmt.Errorf("remove the copy to %s that was begun: %w", name, err)
	}
	return forgetMove(e)
}

// Unfold writes the open context s of e as a directory into dir, which must be
// empty: its files, its log and a peer.toml, as a context in the backend host.FS has
// them; compared, and on disk. It is for an archive.
func (c *Contexts) Unfold(ctx context.Context, e peer.Entry, s store.Store, dir string, report func(Progress)) error {
	target, err := c.config.Find(host.FS)
	if err != nil {
		return err
	}
	to, err := openToCarry(ctx, target, peer.Entry{ID: e.ID, Name: e.Name, Dir: dir})
	if err != nil {
		return fmt.Errorf("write the context of %s as a directory: %w", e.Name, err)
	}
	defer to.Close()
	err = Copy(ctx, to, s, report)
	if err == nil {
		_, err = Compare(ctx, s, to, report)
	}
	if err == nil {
		err = peer.WriteIdentity(dir, e.ID)
	}
	if err != nil {
		return fmt.Errorf("write the context of %s as a directory: %w", e.Name, err)
	}
	return nil
}

// Remove removes what a backend that e's context is not in any more still has of
// it, for good.
func (c *Contexts) Remove(ctx context.Context, e peer.Entry, name string) error {
	unlock, err := lock(e, false)
	if err != nil {
		return err
	}
	defer unlock()
	now, err := c.Of(e)
	if err != nil {
		return err
	}
	if now.Name == name {
		return fmt.Errorf("remove the context of %s from %s: that is where it is", e.Name, name)
	}
	b, err := c.config.Find(name)
	if err != nil {
		return err
	}
	if err := b.Remove(ctx, e); err != nil {
		return fmt.Errorf("remove the context of %s from %s: %w", e.Name, name, err)
	}
	return nil
}

// openToCarry opens a context for what is there already, of any size.
func openToCarry(ctx context.Context, b Backend, e peer.Entry) (store.Store, error) {
	s, err := b.Open(ctx, e)
	if err != nil {
		return nil, err
	}
	if w, ok := s.(interface{ Widen(store.Limits) }); ok {
		w.Widen(store.Limits{Bytes: math.MaxInt64 / 4, FileSize: math.MaxInt64 / 4, Listed: maxListed})
	}
	return s, nil
}

// end is the last entry of a log.
func end(ctx context.Context, s store.Store) (seq uint64, hash [32]byte, err error) {
	for e, err := range s.Log(ctx, 1) {
		if err != nil {
			return 0, hash, err
		}
		seq, hash = e.Seq, e.Hash()
	}
	return seq, hash, nil
}

// empty reports whether nothing is in a store.
func empty(ctx context.Context, s store.Store) (bool, error) {
	for _, err := range s.Log(ctx, 1) {
		return false, err
	}
	vacant := true
	err := s.View(ctx, func(tx store.Tx) error {
		// Names that cannot be said are something too.
		v, err := volume(store.Nested(ctx), s, true)
		if !errors.Is(err, store.ErrNotSupported) {
			vacant = v.Entries == 0
			return err
		}
		for _, area := range areas {
			for i, err := range walk(ctx, area.of(tx)) {
				if err != nil {
					return err
				}
				if vacant = i.path == "/" && area.name == ""; !vacant {
					return nil
				}
			}
		}
		return nil
	})
	return vacant, err
}

// move is what lies in context.moving: a copy was begun, of the context as it was
// when its log ended there.
type move struct {
	To   string   `json:"to"`
	Seq  uint64   `json:"seq"`
	Hash [32]byte `json:"hash"`
}

func moveFile(e peer.Entry) string { return filepath.Join(e.Dir, "context.moving") }

func readMove(e peer.Entry) (m move, err error) {
	text, err := readNote(moveFile(e))
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil {
		return m, fmt.Errorf("read %s, which says that a move was begun: %w; if you know of none, remove it", moveFile(e), err)
	}
	return m, nil
}

// writeMove is durable before it returns.
func writeMove(e peer.Entry, m move) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(e.Dir, ".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("note that the move begins: %w", err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), moveFile(e))
	}
	if err == nil {
		err = syncDir(e.Dir)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("note that the move begins: %w", err), os.RemoveAll(f.Name()))
	}
	return nil
}

func forgetMove(e peer.Entry) error {
	if err := os.Remove(moveFile(e)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("note that the move has ended: %w", err)
	}
	return nil
}

// syncDir makes the names in a directory durable, where that can be asked for.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}
