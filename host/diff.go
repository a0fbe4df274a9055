package host

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aymanbagabas/go-udiff"

	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
)

var effectKinds = map[store.ChangeKind]script.EffectKind{
	store.ChangeCreate: script.Created, store.ChangeModify: script.Modified, store.ChangeRemove: script.Removed,
	store.ChangeMkdir: script.MadeDir, store.ChangeSymlink: script.Linked, store.ChangeTimes: script.Touched,
}

// maxDiffs bounds all diffs of one dry run together, in bytes; maxDiffed what is
// compared line by line.
const (
	maxDiffs  = 256 << 10
	maxDiffed = 256 << 10
)

// accountTime bounds how long it may take to find out what a script has done.
const accountTime = 30 * time.Second

// effects are a transaction's changes as the receipt has them. Of a file that
// the script may not read nothing is told but its path: the receipt is the
// caller's too. A dry run shows what would change in a text.
//
// A script makes and removes in no time files that take hours to read, and the
// target's other scripts wait as long: it ends with ctx, and after accountTime.
func effects(ctx context.Context, tx store.Tx, grants *policy.Grants, dryRun bool) ([]script.Effect, error) {
	ctx, cancel := context.WithTimeout(ctx, accountTime)
	defer cancel()
	changes, err := tx.Changes()
	if err != nil {
		return nil, fmt.Errorf("compare the transaction with what was before: %w", err)
	}
	list := make([]script.Effect, len(changes))
	room := maxDiffs
	for i, c := range changes {
		e := script.Effect{Kind: effectKinds[c.Kind], Path: c.Path, To: c.Link}
		if grants.Allow(script.Read, c.Path) == nil {
			diffed := dryRun && room > 0 && c.Sizes.Before <= maxDiffed && c.Sizes.After <= maxDiffed
			var before, after []byte
			if e.Before, before, err = blob(ctx, c.Before, c.Sizes.Before, diffed); err != nil {
				return nil, fmt.Errorf("read %s as it was: %w", c.Path, err)
			}
			if e.After, after, err = blob(ctx, c.After, c.Sizes.After, diffed); err != nil {
				return nil, fmt.Errorf("read %s as it is now: %w", c.Path, err)
			}
			if diffed {
				e.Diff = diff(c.Path, before, after, min(room, script.MaxDiff))
				room -= len(e.Diff)
			}
		}
		list[i] = e
	}
	return list, nil
}

// blob identifies contents, and returns them too if they are wanted.
func blob(ctx context.Context, open func() (io.ReadSeekCloser, error), size int64, wanted bool) (b script.Blob, contents []byte, err error) {
	if open == nil {
		return b, nil, nil
	}
	r, err := open()
	if err != nil {
		return b, nil, err
	}
	defer r.Close()
	sum := sha256.New()
	var kept bytes.Buffer
	to := io.Writer(sum)
	if wanted {
		to = io.MultiWriter(sum, &kept)
	}
	if _, err := io.Copy(to, ending{r, ctx}); err != nil {
		return b, nil, err
	}
	return script.Blob{Size: size, Digest: script.Digest(sum.Sum(nil))}, kept.Bytes(), nil
}

// ending is a reader that fails once its context has ended.
type ending struct {
	io.Reader
	ctx context.Context
}

func (e ending) Read(b []byte) (int, error) {
	if err := e.ctx.Err(); err != nil {
		return 0, err
	}
	return e.Reader.Read(b)
}

// diff is a unified diff of two texts of at most limit bytes, cut at a line; ""
// if one of them is no text.
func diff(path string, before, after []byte, limit int) string {
	if !text(before) || !text(after) {
		return ""
	}
	const cut = "… more\n"
	// A name may be no text, and have lines of its own, which look like changes.
	if q := strconv.Quote(path); len(q) != len(path)+2 {
		path = q
	}
	d := udiff.Unified("before"+path, "after"+path, string(before), string(after))
	if len(d) <= limit {
		return d
	}
	if limit < len(cut) {
		return ""
	}
	d = d[:limit-len(cut)]
	return d[:strings.LastIndexByte(d, '\n')+1] + cut
}

func text(b []byte) bool { return utf8.Valid(b) && bytes.IndexByte(b, 0) < 0 }
