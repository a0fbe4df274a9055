// Package review keeps the scripts that wait until the owner of a context has
// looked at what they would do. Start with Put, in the transaction of the receipt
// that says that the script is pending:
//
//	held := &review.Held{Script: id, Caller: caller, Key: key, Expires: expires, Sealed: sealed, Would: receipt}
//	kept, err := review.Put(ctx, tx.Private(), held, review.Limits{}) // kept goes into the receipt
//	// in another transaction, later:
//	items, err := review.List(tx.Private())
//	held, err := items[0].Open(ctx, tx.Private(), kept)
//	err = items[0].Remove(tx.Private())                               // with the final receipt
//
// # What is kept
//
// The script, as its caller sealed it, with the code that it carries, if it does.
// What it did when it was run for the owner to see, in a transaction that was then
// dropped: a receipt that goes to nobody, with diffs, and with the digests and the
// result that the caller is not told. Two digests of that (Outcome), which are
// compared when it is approved and runs again. And what its caller's host answered
// meanwhile about what the caller lent, as nobody is there to be asked later.
//
// # Where
//
// In store.Tx.Private, so that no script reaches it, and it is committed with the
// receipt, or not at all: one file each,
//
//	review/<script>.<log key>.<caller>.<expires>.<bytes>
//
// in hexadecimal digits but for the last two: the ids, the first 8 bytes of a
// digest of the caller's, milliseconds since 1970, and the file's length. So who is
// waiting, and whether there is room for one more, costs one listing.
//
// # Trust
//
// What lies there can be edited by the context's owner, or come from a hostile
// store. A file counts if its digest is the one in the pending receipt, which the
// host signed and the log chains; it is salted, as the receipt is the caller's too.
// Names are hints: what expires, and whose it is, the receipt says.
package review

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
)

// Held is a script that waits.
type Held struct {
	Script  script.ID
	Caller  peer.ID
	Key     store.Key // of the pending receipt in the log
	Expires time.Time // milliseconds count
	Sealed  []byte    // the script, as its caller sealed it
	// Transport is what it came by, as policies know it.
	Transport string
	// Would is what became of it when it was run for the owner to see: an encoded
	// script.Receipt.
	Would   []byte
	Outcome Outcome
	// Answers are those of the caller's host, sealed, by the digest of what was
	// asked; nil if nobody could be asked.
	Answers map[script.Digest][]byte
}

// Outcome is what is compared between the run that was looked at and the one that
// is approved.
type Outcome struct {
	Changes script.Digest // of what it changes in files and records
	Answer  script.Digest // of what its caller is told: code, result, failure, log
}

// Limits bound what waits in one context. The zero value works.
type Limits struct {
	Scripts   int   // in all; 0 means 256
	PerCaller int   // of one caller; 0 means 16
	Bytes     int64 // of all files; 0 means 256 MiB
	// CallerBytes are those of one caller; 0 means 64 MiB. A script that is held
	// takes what was sent, and its result, effects and log.
	CallerBytes int64
}

func (l Limits) withDefaults() Limits {
	return Limits{cmp.Or(l.Scripts, 256), cmp.Or(l.PerCaller, 16), cmp.Or(l.Bytes, 256<<20), cmp.Or(l.CallerBytes, 64<<20)}
}

// FullError is the answer to a script for which there is no room to wait.
type FullError struct{ Own bool } // it is the caller's own scripts that take it

func (e *FullError) Error() string {
	if e.Own {
		return "as many scripts of yours as may wait for this context's owner to look at them do already; send a new one when one of them is decided"
	}
	return "as many scripts as may wait for this context's owner to look at them do already; send a new one later"
}

const (
	dir = "review"
	// maxListed bounds how many names are looked at, whoever put them there.
	maxListed = 4096
	// maxFile bounds one held script: what is sent, what it would answer, and what
	// it was answered.
	maxFile = 3 * script.MaxSealed
	magic   = "circles review 1\n"
)

// Item is a held script as a listing shows it: hints, until Open has checked them.
type Item struct {
	Script  script.ID
	Key     store.Key
	Expires time.Time
	caller  string
	bytes   int64
	name    string
}

// List lists what waits, the first to expire first. What is no file of this
// package's is left out.
func List(private store.FS) ([]Item, error) {
	d, err := private.Open(dir, store.FlagRead|store.FlagDirectory)
	if errors.Is(err, store.ErrNotExist) || errors.Is(err, store.ErrNotDir) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list what waits for review: %w", err)
	}
	defer d.Close()
	entries, err := d.ReadDir(0, maxListed)
	if err != nil {
		return nil, fmt.Errorf("list what waits for review: %w", err)
	}
	var items []Item
	for _, e := range entries {
		if i, ok := parse(e.Name); ok && e.Kind == store.KindFile {
			items = append(items, i)
		}
	}
	slices.SortStableFunc(items, func(a, b Item) int { return a.Expires.Compare(b.Expires) })
	return items, nil
}

// Find returns the one item of a script.
func Find(private store.FS, id script.ID) (Item, bool, error) {
	items, err := List(private)
	for _, i := range items {
		if i.Script == id {
			return i, true, err
		}
	}
	return Item{}, false, err
}

// Room reports, with a *FullError, whether so many bytes more of a caller may wait.
func Room(private store.FS, caller peer.ID, bytes int64, l Limits) error {
	l = l.withDefaults()
	items, err := List(private)
	if err != nil {
		return err
	}
	own, ownBytes, allBytes, who := 1, bytes, bytes, short(caller)
	for _, i := range items {
		allBytes += i.bytes
		if i.caller == who {
			own++
			ownBytes += i.bytes
		}
	}
	switch {
	case own > l.PerCaller || ownBytes > l.CallerBytes:
		return &FullError{Own: true}
	case len(items)+1 > l.Scripts || allBytes > l.Bytes:
		return &FullError{}
	}
	return nil
}

// Put keeps a script, and returns the digest of what it wrote, which belongs into
// the pending receipt. An error that is a *FullError means that there is no room.
func Put(ctx context.Context, private store.FS, h *Held, l Limits) (script.Digest, error) {
	text := h.encode()
	if len(text) > maxFile {
		return script.Digest{}, &FullError{Own: true}
	}
	if err := Room(private, h.Caller, int64(len(text)), l); err != nil {
		return script.Digest{}, err
	}
	if err := private.Mkdir(dir); err != nil && !errors.Is(err, store.ErrExists) {
		return script.Digest{}, fmt.Errorf("keep script %s for review: %w", h.Script.Short(), err)
	}
	i := Item{Script: h.Script, Key: h.Key, Expires: h.Expires, caller: short(h.Caller), bytes: int64(len(text))}
	f, err := private.Open(dir+"/"+i.format(), store.FlagWrite|store.FlagCreate|store.FlagExclusive)
	if err != nil {
		return script.Digest{}, fmt.Errorf("keep script %s for review: %w", h.Script.Short(), err)
	}
	defer f.Close()
	if _, err := f.WriteAt(text, 0); err != nil {
		return script.Digest{}, fmt.Errorf("keep script %s for review: %w", h.Script.Short(), err)
	}
	return script.DigestOf(text), ctx.Err()
}

// ErrDamaged is wrapped by the error of Open if what is there is not what Put
// wrote.
var ErrDamaged = errors.New("what was kept of it is gone, or was changed since")

// Open reads a held script and checks it by the digest that Put returned.
func (i Item) Open(ctx context.Context, private store.FS, kept script.Digest) (*Held, error) {
	text, err := i.read(ctx, private)
	if err == nil && script.DigestOf(text) != kept {
		err = ErrDamaged
	}
	var h *Held
	if err == nil {
		h, err = decode(text)
	}
	if err != nil {
		return nil, fmt.Errorf("script %s: %w", i.Script.Short(), err)
	}
	return h, nil
}

func (i Item) read(ctx context.Context, private store.FS) ([]byte, error) {
	f, err := private.Open(dir+"/"+i.name, store.FlagRead|store.FlagNoFollow)
	if errors.Is(err, store.ErrNotExist) || errors.Is(err, store.ErrLoop) || errors.Is(err, store.ErrSpecial) || errors.Is(err, store.ErrIsDir) {
		return nil, ErrDamaged
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size != i.bytes || info.Size > maxFile {
		return nil, ErrDamaged
	}
	text := make([]byte, info.Size)
	for at := 0; at < len(text); {
		const piece = 1 << 20 // so that a slow store is left when ctx ends
		n, err := f.ReadAt(text[at:min(at+piece, len(text))], int64(at))
		at += n
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, io.EOF) && at < len(text), err == nil && n == 0:
			return nil, ErrDamaged
		case err != nil && !errors.Is(err, io.EOF):
			return nil, err
		}
	}
	return text, nil
}

// Remove forgets a held script; it is in the transaction of its final receipt.
func (i Item) Remove(private store.FS) error {
	if err := private.Unlink(dir + "/" + i.name); err != nil && !errors.Is(err, store.ErrNotExist) {
		return fmt.Errorf("forget script %s, which was held for review: %w", i.Script.Short(), err)
	}
	return nil
}

func short(caller peer.ID) string {
	d := script.DigestOf([]byte(caller))
	return hex.EncodeToString(d[:8])
}

func (i Item) format() string {
	return fmt.Sprintf("%x.%x.%s.%d.%d", i.Script[:], i.Key[:], i.caller, i.Expires.UnixMilli(), i.bytes)
}

// parse is the inverse of format, and takes nothing else.
func parse(name string) (i Item, ok bool) {
	parts := strings.Split(name, ".")
	if len(parts) != 5 {
		return i, false
	}
	id, err1 := hex.DecodeString(parts[0])
	key, err2 := hex.DecodeString(parts[1])
	ms, err3 := strconv.ParseInt(parts[3], 10, 64)
	size, err4 := strconv.ParseInt(parts[4], 10, 64)
	if errors.Join(err1, err2, err3, err4) != nil || len(id) != len(i.Script) || len(key) != len(i.Key) || ms <= 0 || size < 0 {
		return i, false
	}
	copy(i.Script[:], id)
	copy(i.Key[:], key)
	i.caller, i.Expires, i.bytes, i.name = parts[2], time.UnixMilli(ms), size, name
	return i, i.format() == name
}

// salt keeps the digest in the receipt from telling what is in the file.
func salt() []byte {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return b
}
