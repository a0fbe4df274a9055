package history

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"sync"
	"unicode/utf8"

	"github.com/circles-host/circles/host/records"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
)

// Change is one change of a transaction. Old and New are the digests of contents,
// or of a long file of which only the end changed End is; all are zero where
// nobody asked for them.
type Change struct {
	store.Change
	Old, New script.Blob
	End      script.End

	how how
}

// how a change is undone.
type how uint8

const (
	howNot   how = iota // there was nothing before, or no file
	howMoved            // what was here is elsewhere, as it was: it moves back
	howCut              // the file is cut to its size of before
	howEnd              // it is cut, and gets its end back, which is kept
	howWhole            // what was here is kept
)

// Changes are what a transaction changed.
type Changes struct {
	List    []Change
	records []records.Change
	bytes   int64  // to be kept
	why     string // they cannot be undone; "" if they can
}

// longFile is the size in bytes from which on a file is not read whole to find
// out what became of its end.
const longFile = 64 << 10

// Changes finds out what a transaction changed. It reads what would be kept, and
// the files for whose paths told returns true. Its readers end with ctx.
func (h *History) Changes(ctx context.Context, tx store.Tx, told func(path string) bool) (*Changes, error) {
	list, err := tx.Changes()
	if err != nil {
		return nil, fmt.Errorf("compare the transaction with what was before: %w", err)
	}
	cs := &Changes{List: make([]Change, len(list))}
	moved := map[string]bool{}
	for _, c := range list {
		if c.From != "" {
			moved[c.From] = true
		}
	}
	if len(list) > maxChanges {
		cs.why = fmt.Sprintf("it changed more than %d files and directories", maxChanges)
	}
	for i, c := range list {
		cs.List[i] = Change{Change: c}
		cs.plan(&cs.List[i], moved)
	}
	if h.config.Keep < 0 {
		cs.why = "nothing is kept here to undo scripts by; [undo] in circles.toml says so"
	} else if cs.bytes > h.config.Bytes/4 && cs.why == "" {
		cs.why = fmt.Sprintf("it replaced or removed %d bytes, and no more than %d are kept for one script", cs.bytes, h.config.Bytes/4)
	}
	for i := range cs.List {
		if c := &cs.List[i]; cs.why == "" || told(c.Path) {
			if err := c.digest(ctx); err != nil {
				return nil, err
			}
		}
	}
	return cs, nil
}

// plan decides how a change will be undone.
func (cs *Changes) plan(c *Change, moved map[string]bool) {
	not := func(why string) {
		if cs.why == "" {
			cs.why = why
		}
	}
	switch {
	case !utf8.ValidString(c.Path) || !utf8.ValidString(c.From) || !utf8.ValidString(c.Was.Link) || !utf8.ValidString(c.Link):
		not("it moved something whose name is no text")
	case c.Was.Kind == store.KindOther || c.Kind == store.ChangeCreate && c.After == nil:
		not("it moved or removed something that is neither a file nor a directory nor a link")
	case c.Before == nil || c.Kind == store.ChangeTimes:
	case c.Appended:
		c.how = howCut
	case c.Kind == store.ChangeModify && c.long() && c.Intact >= c.Sizes.Before/2 && c.Sizes.Before-c.Intact <= maxCopied:
		c.how = howEnd
		cs.bytes += c.Sizes.Before - c.Intact
	case moved[c.Path]:
		c.how = howMoved
	default:
		c.how = howWhole
		cs.bytes += c.Sizes.Before
	}
}

func (c *Change) long() bool {
	return c.Intact > 0 && max(c.Sizes.Before, c.Sizes.After) > longFile
}

// digest fills in the digests.
func (c *Change) digest(ctx context.Context) (err error) {
	if c.long() && (c.how == howCut || c.how == howEnd) {
		c.End.At = c.Intact
		if c.how == howEnd {
			if c.End.Before, err = blob(ctx, c.Before, c.Intact); err != nil {
				return fmt.Errorf("read %s as it was: %w", c.Path, err)
			}
		}
		if c.End.After, err = blob(ctx, c.After, c.Intact); err != nil {
			return fmt.Errorf("read %s as it is now: %w", c.Path, err)
		}
		return nil
	}
	if c.Old, err = blob(ctx, c.Before, 0); err != nil {
		return fmt.Errorf("read %s as it was: %w", c.Path, err)
	}
	if c.New, err = blob(ctx, c.After, 0); err != nil {
		return fmt.Errorf("read %s as it is now: %w", c.Path, err)
	}
	return nil
}

// blob identifies contents from an offset on.
func blob(ctx context.Context, open func() (io.ReadSeekCloser, error), from int64) (b script.Blob, err error) {
	if open == nil {
		return b, nil
	}
	r, err := open()
	if err != nil {
		return b, err
	}
	defer r.Close()
	if _, err := r.Seek(from, io.SeekStart); err != nil {
		return b, err
	}
	return Digest(ctx, r)
}

// Digest identifies what r yields, unless ctx ends first.
func Digest(ctx context.Context, r io.Reader) (script.Blob, error) {
	sum := sha256.New()
	n, err := copyTo(sum, ending{r, ctx})
	if err != nil {
		return script.Blob{}, err
	}
	b := script.Blob{Size: n}
	sum.Sum(b.Digest[:0])
	return b, nil
}

// copyTo is io.Copy with a buffer that others have used. A script changes files
// of a few bytes as a rule, and a new buffer for each would be most of what it
// costs to look at them.
func copyTo(w io.Writer, r io.Reader) (int64, error) {
	buf := buffers.Get().(*[32 << 10]byte)
	defer buffers.Put(buf)
	return io.CopyBuffer(onlyWriter{w}, r, buf[:])
}

var buffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// onlyWriter hides what a writer can do besides, for io.CopyBuffer.
type onlyWriter struct{ io.Writer }

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
