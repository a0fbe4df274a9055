package host

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/aymanbagabas/go-udiff"

	"github.com/circles-host/circles/host/history"
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

// effects are the files that a script changed as the receipt has them. Of a file that the
// script may not read, of which told is false, nothing is told but its path: the
// receipt is the caller's too. A dry run shows what would change in a text.
// room is what is left for diffs.
func effects(ctx context.Context, changes []history.Change, told func(path string) bool, dryRun bool, room *int) ([]script.Effect, error) {
	list := make([]script.Effect, len(changes))
	for i, c := range changes {
		e := script.Effect{Kind: effectKinds[c.Kind], Path: c.Path, To: c.Link}
		if told(c.Path) {
			e.Before, e.After, e.End = c.Old, c.New, c.End
			if dryRun && *room > 0 && c.Sizes.Before <= maxDiffed && c.Sizes.After <= maxDiffed {
				before, err := contents(ctx, c.Change.Before)
				if err != nil {
					return nil, fmt.Errorf("read %s as it was: %w", c.Path, err)
				}
				after, err := contents(ctx, c.Change.After)
				if err != nil {
					return nil, fmt.Errorf("read %s as it is now: %w", c.Path, err)
				}
				e.Diff = diff(c.Path, before, after, min(*room, script.MaxDiff))
				*room -= len(e.Diff)
			}
		}
		list[i] = e
	}
	return list, nil
}

// contents reads what is at most maxDiffed bytes.
func contents(ctx context.Context, open func() (io.ReadSeekCloser, error)) ([]byte, error) {
	if open == nil || ctx.Err() != nil {
		return nil, ctx.Err()
	}
	r, err := open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, maxDiffed))
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
