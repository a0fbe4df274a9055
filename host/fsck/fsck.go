// Package fsck checks a context: what keeps it, its log, and its files, records and
// what is held for review against what the log says of them. Start with Check.
//
// Without Config.Repair nothing is written, so it works on a disk that is full or
// read only. What it takes is bounded: 200 bytes for each file that scripts left,
// of at most a million files, and the time to read them once.
//
// # What is damage
//
// In a directory that its owner may edit, a file that differs from what the last
// script left is damaged if its size or contents changed and its time did not;
// with another time, somebody edited it. A file that is gone may have been removed
// by its owner. Where nobody edits, both are damage. The time that a script left is
// known for as long as it can be undone (package history); after that, any time
// while it ran counts. Records are lines of text, which have no times: what differs
// is an edit where the owner may edit, what cannot be read is damage.
//
// # What is mended
//
// What a crash left is finished or removed. A damaged file is put back if its
// contents are kept to undo a later script by. A log cannot be mended: what it
// lacks, nobody knows.
package fsck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"time"

	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/history"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/review"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
)

// Config says which context is checked, and how. All but Backend and Open must be
// given.
type Config struct {
	Target  peer.ID
	Signers []peer.ID // the hosts whose receipts the log may hold
	// Backend checks what keeps the context, while nobody has it open.
	Backend func(ctx context.Context, repair bool, report func(store.Finding)) error
	// Read opens the context without changing anything; Open is asked when there is
	// something to mend.
	Read, Open func(context.Context) (store.Store, error)
	// Edited: the owner may change files with other tools.
	Edited bool
	Repair bool
}

// Result is what was checked.
type Result struct {
	Receipts int `json:"receipts"` // in the log, each signed and chained to the one before
	Files    int `json:"files"`    // files, directories and links that are as a script left them
	Records  int `json:"records"`  // records that are as a script left them
	Kept     int `json:"kept"`     // files that are kept, and as they were
	// Damaged counts findings of damage that is not mended.
	Damaged int `json:"damaged"`
	// Unknown says why files were not compared; "" if they were.
	Unknown string `json:"unknown,omitempty"`
}

// maxPaths bounds what is remembered of the log.
const maxPaths = 1_000_000

// Check checks a context, and reports what it finds as it finds it. An error says
// that it could not be checked.
func Check(ctx context.Context, c Config, report func(store.Finding)) (Result, error) {
	k := &check{Config: c, ctx: ctx, expected: map[string]expected{}, recorded: map[string]record{}, pending: map[script.ID]script.Digest{}, undone: map[script.ID]bool{}, kept: map[script.Digest]history.KeptFile{}}
	k.report = func(f store.Finding) {
		if f.Damage && !f.Fixed {
			k.result.Damaged++
		}
		if !f.Damage && !f.Fixed && f.Fix != "" {
			k.unfinished = true
		}
		report(f)
	}
	if c.Backend != nil {
		if err := c.Backend(ctx, c.Repair, k.report); err != nil {
			return k.result, err
		}
	}
	s, err := c.Read(ctx)
	if err != nil && k.result.Damaged > 0 {
		k.result.Unknown = fmt.Sprintf("it cannot be opened: %v", err)
		return k.result, nil
	}
	if err != nil {
		return k.result, err
	}
	err = k.read(s)
	if closed := s.Close(); err == nil {
		err = closed
	}
	if err != nil && ctx.Err() == nil {
		// What keeps the context could not be read: a disk that fails, or damage that
		// shows only where it is met.
		k.report(store.Finding{Where: "files", What: err.Error(), Damage: true})
		k.result.Unknown, err = "not all of them can be read", nil
	}
	if err == nil && c.Repair && len(k.mend) > 0 {
		err = k.repair()
	}
	return k.result, err
}

type check struct {
	Config
	ctx        context.Context
	report     func(store.Finding)
	result     Result
	unfinished bool

	expected map[string]expected         // by path
	recorded map[string]record           // by COLLECTION/KEY
	pending  map[script.ID]script.Digest // what is kept of those that wait for review
	undone   map[script.ID]bool          // what is kept of these was put back
	kept     map[script.Digest]history.KeptFile
	mend     []damaged
}

// expected is what a script left at a path.
type expected struct {
	kind     store.Kind
	link     string
	blob     script.Blob // of a file; its end, if end is above 0
	end      int64
	mtime    time.Time // zero: it is between from and to
	from, to time.Time // when the script ran
	by       script.ID
}

// damaged is a file that can be mended.
type damaged struct {
	finding store.Finding
	want    expected
	kept    history.KeptFile
}

func (k *check) read(s store.Store) error {
	return s.View(k.ctx, func(tx store.Tx) error {
		archive, err := history.Read(k.ctx, tx)
		if err != nil {
			return err
		}
		if err := k.log(s, archive); err != nil {
			return err
		}
		if err := k.archive(archive); err != nil {
			return err
		}
		if k.unfinished && !k.Repair {
			k.result.Unknown = "something is unfinished, which --repair finishes"
		}
		if k.result.Unknown != "" {
			return nil
		}
		if err := k.held(tx.Private()); err != nil {
			return err
		}
		if err := k.files(tx.Files(nil)); err != nil {
			return err
		}
		return k.records(tx.Private())
	})
}

// log reads the log, and works out what the files must be.
func (k *check) log(s store.Store, archive *history.Archive) error {
	var prev [32]byte
	seq, strangers := uint64(0), 0
	bad := func(format string, args ...any) {
		k.report(store.Finding{Where: "log", What: fmt.Sprintf(format, args...), Damage: true})
		k.result.Unknown = "the log is damaged, and says no longer what scripts left"
	}
	for e, err := range s.Log(k.ctx, 1) {
		switch {
		case k.ctx.Err() != nil:
			return context.Cause(k.ctx)
		case err != nil:
			bad("%v", err)
			return nil
		case e.Seq != seq+1:
			bad("entry %d is missing, where %d is", seq+1, e.Seq)
			return nil
		case e.Prev != prev:
			bad("entry %d does not follow from the one before it: one of them was changed", e.Seq)
			return nil
		}
		seq, prev = e.Seq, e.Hash()
		r, by, err := envelope.OpenReceipt(e.Data, "")
		switch {
		case err != nil:
			bad("entry %d is no receipt: %v", e.Seq, err)
			continue
		case !slices.Contains(k.Signers, by):
			if strangers++; strangers == 1 { // and as a rule all the others
				bad("entry %d is signed by %s; if that host held the context before, say --signer %s", e.Seq, by, by)
			}
			continue
		case r.Target != k.Target:
			bad("entry %d is a receipt for %s", e.Seq, r.Target)
			continue
		}
		k.result.Receipts++
		if k.result.Unknown != "" {
			continue
		}
		switch {
		case r.Code == script.Pending:
			k.pending[r.Script] = r.Kept
		case !r.Pending.IsZero():
			delete(k.pending, r.Script)
		}
		if r.Code == script.Done && !r.DryRun {
			if err := k.did(archive, &r); err != nil {
				return err
			}
		}
	}
	return nil
}

// did adds what a script did to what is expected.
func (k *check) did(archive *history.Archive, r *script.Receipt) error {
	if !r.Undid.IsZero() {
		k.undone[r.Undid] = true
	}
	if !r.Kept.IsZero() {
		m, err := archive.Manifest(k.ctx, r.Script)
		var broken *history.NotKeptError
		switch {
		case errors.As(err, &broken):
			k.report(store.Finding{Where: "/" + store.PrivateName, What: broken.Error(), Damage: true})
		case err != nil:
			return err
		case m != nil && m.Digest != r.Kept:
			k.report(store.Finding{Where: m.Where(), Damage: true,
				What: fmt.Sprintf("it is not what the receipt of script %s says; the script cannot be undone", r.Script.Short())})
		case m != nil && m.Why == "":
			for l := range m.Left() {
				k.expect(r, l)
			}
			k.expectRecords(r, m)
			return nil
		}
	}
	if r.MoreEffects > 0 {
		clear(k.expected) // anything may have been among them
		clear(k.recorded)
	}
	k.expectRecords(r, nil)
	for _, e := range r.Effects {
		if _, _, ok := e.Record(); ok {
			continue
		}
		k.expect(r, history.Left{Path: e.Path, Kind: changes[e.Kind], Link: e.To, New: e.After, End: e.End})
	}
	return nil
}

var changes = map[script.EffectKind]store.ChangeKind{
	script.Created: store.ChangeCreate, script.Modified: store.ChangeModify, script.Removed: store.ChangeRemove,
	script.MadeDir: store.ChangeMkdir, script.Linked: store.ChangeSymlink, script.Touched: store.ChangeTimes,
}

func (k *check) expect(r *script.Receipt, l history.Left) {
	e := expected{link: l.Link, blob: l.New, mtime: l.Mtime, from: r.Started, to: r.Finished, by: r.Script}
	switch l.Kind {
	case store.ChangeMkdir:
		e.kind = store.KindDir
	case store.ChangeSymlink:
		e.kind = store.KindLink
	case store.ChangeTimes:
		was, ok := k.expected[l.Path]
		if !ok || was.kind != store.KindFile || l.Mtime.IsZero() {
			delete(k.expected, l.Path)
			return
		}
		was.mtime = l.Mtime
		e = was
	case store.ChangeCreate, store.ChangeModify:
		e.kind = store.KindFile
		if l.End != (script.End{}) {
			e.blob, e.end = l.End.After, l.End.At
		}
	}
	// What the script might not read, its receipt does not tell.
	if e.kind == 0 || e.kind == store.KindFile && e.blob.Digest.IsZero() {
		delete(k.expected, l.Path)
		return
	}
	if _, known := k.expected[l.Path]; !known && len(k.expected) >= maxPaths {
		k.result.Unknown = fmt.Sprintf("scripts left more than %d files", maxPaths)
		return
	}
	k.expected[l.Path] = e
}

// held compares what is held for review with what the log says is pending. What
// expired is pending until its final receipt, with which it is removed.
func (k *check) held(private store.FS) error {
	items, err := review.List(private)
	if err != nil {
		return err
	}
	found := map[script.ID]bool{}
	for _, i := range items {
		kept, ok := k.pending[i.Script]
		if !ok {
			k.report(store.Finding{Where: "/" + store.PrivateName + "/review",
				What: fmt.Sprintf("script %s is held for review, and the log does not say that it waits; it cannot be approved", i.Script.Short())})
			continue
		}
		found[i.Script] = true
		_, err := i.Open(k.ctx, private, kept)
		switch {
		case errors.Is(err, review.ErrDamaged):
			k.notHeld(i.Script)
		case err != nil:
			return err
		}
	}
	for _, id := range slices.SortedFunc(maps.Keys(k.pending), func(x, y script.ID) int { return slices.Compare(x[:], y[:]) }) {
		if !found[id] {
			k.notHeld(id)
		}
	}
	return nil
}

func (k *check) notHeld(id script.ID) {
	k.report(store.Finding{Where: "/" + store.PrivateName + "/review", Damage: true,
		What: fmt.Sprintf("script %s waits for review, and %v; it cannot be approved: reject it", id.Short(), review.ErrDamaged)})
}

// archive checks what is kept to undo scripts by.
func (k *check) archive(a *history.Archive) error {
	for _, id := range slices.SortedFunc(a.Scripts(), func(x, y script.ID) int { return slices.Compare(x[:], y[:]) }) {
		if k.ctx.Err() != nil {
			return context.Cause(k.ctx)
		}
		m, err := a.Manifest(k.ctx, id)
		var broken *history.NotKeptError
		if errors.As(err, &broken) || m == nil && err == nil || k.undone[id] {
			continue // it was reported, or was put back
		}
		if err != nil {
			return err
		}
		for f := range m.Kept() {
			wrong, err := a.Check(k.ctx, f)
			if err != nil {
				return err
			}
			if wrong != "" {
				k.report(store.Finding{Where: "/" + store.PrivateName + "/" + f.At, Damage: true,
					What: fmt.Sprintf("what script %s replaced or removed at %s %s; the script cannot be undone", id.Short(), f.From, wrong)})
				continue
			}
			k.result.Kept++
			k.kept[f.Digest] = f
		}
	}
	return nil
}

// files compares the files with what is expected.
func (k *check) files(files store.FS) error {
	for _, p := range slices.Sorted(maps.Keys(k.expected)) {
		if k.ctx.Err() != nil {
			return context.Cause(k.ctx)
		}
		e := k.expected[p]
		info, err := files.Stat(p, false)
		gone := errors.Is(err, store.ErrNotExist) || errors.Is(err, store.ErrNotDir) || errors.Is(err, store.ErrEscapes) || errors.Is(err, store.ErrLoop)
		if err != nil && !gone {
			return err
		}
		var wrong string
		switch {
		case gone:
			wrong = "is missing"
		case info.Kind != e.kind:
			wrong = "is no longer a " + kinds[e.kind]
		case e.kind == store.KindLink:
			target, err := files.Readlink(p)
			if err != nil {
				return err
			}
			if target != e.link {
				wrong = "leads elsewhere"
			}
		case e.kind == store.KindFile:
			if wrong, err = k.contents(files, p, e, info); err != nil {
				return err
			}
		}
		if wrong == "" {
			k.result.Files++
			continue
		}
		k.different(p, e, info, wrong)
	}
	return nil
}

var kinds = map[store.Kind]string{store.KindFile: "file", store.KindDir: "directory", store.KindLink: "link"}

// contents reports what is different of a file.
func (k *check) contents(files store.FS, p string, e expected, info store.Info) (string, error) {
	if info.Size != e.end+e.blob.Size {
		return fmt.Sprintf("has %d bytes, and not %d", info.Size, e.end+e.blob.Size), nil
	}
	f, err := files.Open(p, store.FlagRead|store.FlagNoFollow)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", p, err)
	}
	defer f.Close()
	is, err := history.Digest(k.ctx, io.NewSectionReader(f, e.end, e.blob.Size))
	if err != nil && k.ctx.Err() == nil {
		return fmt.Sprintf("cannot be read: %v", err), nil
	}
	if err == nil && is != e.blob {
		return "has other contents", nil
	}
	return "", err
}

// different reports what is not as a script left it.
func (k *check) different(p string, e expected, info store.Info, wrong string) {
	f := store.Finding{Where: p, Damage: true}
	as := fmt.Sprintf("script %s left it", e.by.Short())
	const slack = 2 * time.Second // clocks, and file systems that round
	unchanged := info.Mtime.Equal(e.mtime)
	if e.mtime.IsZero() {
		unchanged = !info.Mtime.Before(e.from.Add(-slack)) && !info.Mtime.After(e.to.Add(slack))
	}
	switch {
	case !k.Edited:
	case info.Kind == 0:
		f.Damage = false
		as += "; it was removed outside of scripts, or lost"
	case info.Kind != store.KindFile || e.kind != store.KindFile || !unchanged:
		f.Damage = false
		as += fmt.Sprintf("; it was changed outside of scripts, %s", info.Mtime.UTC().Format(time.DateTime+" MST"))
	}
	f.What = fmt.Sprintf("%s as %s", wrong, as)
	if kept, ok := k.kept[e.blob.Digest]; ok && f.Damage && e.kind == store.KindFile && e.end == 0 && e.blob == kept.Blob {
		f.Fix = "its contents are kept, and can be put back"
		if k.Repair {
			k.mend = append(k.mend, damaged{f, e, kept}) // reported when it is known whether that worked
			return
		}
	}
	k.report(f)
}

// repair puts back what is kept of damaged files.
func (k *check) repair() error {
	s, err := k.Open(k.ctx)
	if err == nil {
		for i := range k.mend {
			d := &k.mend[i]
			if fail := s.Update(k.ctx, func(tx store.Tx) error { return putBack(k.ctx, tx, *d) }); fail != nil {
				d.finding.What += fmt.Sprintf("; it could not be put back: %v", fail)
				continue
			}
			d.finding.Fixed = true
		}
		err = s.Close()
	}
	for _, d := range k.mend {
		if err != nil && !d.finding.Fixed {
			d.finding.What += fmt.Sprintf("; it could not be put back: %v", err)
		}
		k.report(d.finding)
	}
	return nil
}

// putBack writes what is kept to where it belongs, if it still is what it was.
func putBack(ctx context.Context, tx store.Tx, d damaged) error {
	files := tx.Files(nil)
	if info, err := files.Stat(path.Dir(d.finding.Where), false); err != nil || info.Kind != store.KindDir {
		return errors.Join(err, store.ErrNotDir)
	}
	from, err := tx.Private().Open(d.kept.At, store.FlagRead|store.FlagNoFollow)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := files.Open(d.finding.Where, store.FlagWrite|store.FlagRead|store.FlagCreate|store.FlagTruncate|store.FlagNoFollow)
	if err != nil {
		return err
	}
	defer to.Close()
	if _, err := io.Copy(io.NewOffsetWriter(to, 0), io.NewSectionReader(from, 0, d.want.blob.Size)); err != nil {
		return err
	}
	if is, err := history.Digest(ctx, io.NewSectionReader(to, 0, d.want.blob.Size)); err != nil || is != d.want.blob {
		return errors.Join(err, errors.New("what is kept has changed meanwhile"))
	}
	return to.SetTimes(time.Time{}, d.want.mtime)
}
