package cas

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// snapshot is a state as one transaction sees it. It implements overlay.Snapshot.
type snapshot struct {
	*state
	ctx context.Context
	b   *backend
}

// Release implements overlay.Snapshot. A state holds nothing that must be given back.
func (s *snapshot) Release() {}

// fail makes what went wrong while s was read into what that means. What is not
// there any more was collected as garbage, if s is old; otherwise it is lost.
func (s *snapshot) fail(err error) error {
	if err == nil || !errors.Is(err, store.ErrNotExist) {
		return err
	}
	now, refreshed := s.b.refresh(s.ctx)
	switch {
	case refreshed != nil:
		return fmt.Errorf("%v; and is it still needed? %w", err, refreshed)
	case now.epoch > s.epoch:
		return fmt.Errorf("%w: what was replaced since has been deleted; run the script again (%v)", store.ErrConflict, err)
	}
	return &DamageError{What: "it lacks something", Err: errors.New(err.Error())} // not to be taken for a path that is not there
}

// get finds a node by its key. Nothing there is store.ErrNotExist.
func (s *snapshot) get(key []byte) (node, error) {
	val, err := s.files.get(s.ctx, s.b.bucket, key)
	if err != nil {
		return node{}, s.fail(err)
	}
	if val == nil {
		return node{}, store.ErrNotExist
	}
	n, err := decodeNode(val)
	if err != nil {
		return node{}, &DamageError{What: "the table of files", Err: err}
	}
	return n, nil
}

func (s *snapshot) find(path string) (node, error) {
	n, err := s.get(nodeKey(0, ""))
	if errors.Is(err, store.ErrNotExist) || err == nil && n.kind != store.KindDir {
		return node{}, &DamageError{What: "the table of files", Err: errors.New("no top directory")}
	}
	if err != nil || path == "." {
		return n, err
	}
	above := make([]uint64, 0, 16)
	for name := range strings.SplitSeq(path, "/") {
		if n.kind != store.KindDir {
			return node{}, store.ErrNotDir
		}
		// Directories that an enemy put into each other would have no end.
		if slices.Contains(above, n.ino) {
			return node{}, &DamageError{What: "the table of files", Err: errors.New("a directory that is in itself")}
		}
		above = append(above, n.ino)
		if n, err = s.get(nodeKey(n.ino, name)); err != nil {
			return node{}, err
		}
	}
	return n, nil
}

// Lstat implements overlay.Lower.
func (s *snapshot) Lstat(path string) (overlay.Attr, error) {
	n, err := s.find(path)
	if err != nil {
		return overlay.Attr{}, err
	}
	return n.attr(), nil
}

// ReadDir implements overlay.Lower.
func (s *snapshot) ReadDir(path string, limit int) ([]overlay.Name, error) {
	n, err := s.find(path)
	if err != nil {
		return nil, err
	}
	if n.kind != store.KindDir {
		return nil, store.ErrNotDir
	}
	var names []overlay.Name
	prefix := nodeKey(n.ino, "")
	err = s.files.scan(s.ctx, s.b.bucket, prefix, prefix, func(e entry) (bool, error) {
		if len(names) >= limit {
			return false, nil
		}
		c, err := decodeNode(e.val)
		if err != nil {
			return false, &DamageError{What: "the table of files", Err: err}
		}
		names = append(names, overlay.Name{Name: string(e.key[len(prefix):]), Kind: c.kind})
		return true, nil
	})
	return names, s.fail(err)
}

// Readlink implements overlay.Lower.
func (s *snapshot) Readlink(path string) (string, error) {
	n, err := s.find(path)
	if err != nil {
		return "", err
	}
	if n.kind != store.KindLink {
		return "", store.ErrInvalid
	}
	return n.target, nil
}

// Open implements overlay.Lower.
func (s *snapshot) Open(path string) (overlay.LowerFile, error) {
	n, err := s.find(path)
	if err != nil {
		return nil, err
	}
	if n.kind != store.KindFile {
		return nil, store.ErrSpecial
	}
	return &lowerFile{s: s, node: n, place: -1}, nil
}

// Head implements overlay.Header.
func (s *snapshot) Head() (seq uint64, hash [32]byte) { return s.logSeq, s.logHash }

// Count implements overlay.Counter: every commit counts.
func (s *snapshot) Count(context.Context) (bytes, entries int64, err error) {
	return plausible(s.bytes), plausible(s.entries), nil
}

// HasKey implements overlay.Snapshot. If that cannot be told now, the commit will
// say so.
func (s *snapshot) HasKey(key store.Key) bool {
	val, err := s.log.get(s.ctx, s.b.bucket, keyKey(key))
	return err == nil && val != nil
}

// chunk returns the pieces of a chunk; none, if it is all zeros.
func (s *snapshot) chunk(ino uint64, place int64) ([]piece, error) {
	val, err := s.files.get(s.ctx, s.b.bucket, chunkKey(ino, place))
	if err != nil {
		return nil, s.fail(err)
	}
	pieces, _, err := decodePieces(val, chunkSize)
	if err != nil {
		return nil, &DamageError{What: "the table of files", Err: err}
	}
	return pieces, nil
}

// read fills p with what pieces hold from off on, and zeros after their end.
func (b *bucket) read(ctx context.Context, pieces []piece, p []byte, off int) error {
	for _, q := range pieces {
		if off >= q.n {
			off -= q.n
			continue
		}
		k := min(q.n-off, len(p))
		switch {
		case q.raw != nil:
			copy(p[:k], q.raw[off:])
		case q.blob.Epoch == 0:
			clear(p[:k])
		default:
			o, err := b.blob(ctx, q.blob)
			if err != nil {
				return err
			}
			if q.off+q.n > len(o.data) {
				return &DamageError{What: "blob " + q.blob.String(), Err: errors.New("it is shorter than what should be in it")}
			}
			copy(p[:k], o.data[q.off+off:])
		}
		if p, off = p[k:], 0; len(p) == 0 {
			return nil
		}
	}
	clear(p)
	return nil
}

// lowerFile implements overlay.LowerFile.
type lowerFile struct {
	s *snapshot
	node

	mu     sync.Mutex // the chunk that was read last
	place  int64
	pieces []piece
}

func (f *lowerFile) Attr() overlay.Attr { return f.attr() }
func (f *lowerFile) Close() error       { return nil }

func (f *lowerFile) ReadAt(p []byte, off int64) (int, error) {
	if off >= f.size {
		return 0, io.EOF
	}
	short := int64(len(p)) > f.size-off
	if short {
		p = p[:f.size-off]
	}
	n := 0
	for n < len(p) {
		place, in := (off+int64(n))/chunkSize, int((off+int64(n))%chunkSize)
		pieces, err := f.chunk(place)
		if err != nil {
			return n, err
		}
		q := p[n:min(len(p), n+chunkSize-in)]
		if err := f.s.b.bucket.read(f.s.ctx, pieces, q, in); err != nil {
			return n, f.s.fail(err)
		}
		n += len(q)
	}
	if short {
		return n, io.EOF
	}
	return n, nil
}

func (f *lowerFile) chunk(place int64) ([]piece, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.place != place {
		pieces, err := f.s.chunk(f.ino, place)
		if err != nil {
			return nil, err
		}
		f.place, f.pieces = place, pieces
	}
	return f.pieces, nil
}
