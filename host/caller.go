package host

import (
	"context"
	"fmt"
	"path"
	"strings"
	"sync/atomic"

	"github.com/circles-host/circles/host/envelope"
	remote "github.com/circles-host/circles/host/imports/contexts"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/records"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/transport"
	"github.com/circles-host/circles/host/turns"
)

// callerOf returns the caller's context as a script at its target may use it:
// what the caller lent in the script that it signed, as far as the caller's own
// policies permit. It can be read and never changed: a script has one
// transaction, and that is its target's.
//
// It is on this host, or at the other end of the connection that the script came
// by, or out of reach.
func (h *Host) callerOf(a *policy.Accepted, target *peerContext, tx transaction, turn *turns.Turn, back transport.Back) remote.Context {
	caller := a.Parties().Caller
	lent := &lentContext{peer: caller}
	var grants *policy.Grants // of the caller's policies as they are at the first access
	switch {
	case a.Chain() != nil:
		lent.view = func(context.Context, func(store.FS, *records.Collections) error) error {
			return &remote.Error{Code: remote.Denied, Message: fmt.Sprintf(
				"the script was sent on behalf of %s, whose context is not the sender's to lend", label(caller))}
		}
	case caller.ID == target.entry.ID:
		// The transaction that is open already: to wait for another of the same
		// store would be to wait for ourselves.
		lent.view = func(ctx context.Context, f func(store.FS, *records.Collections) error) error {
			if grants == nil {
				grants = h.lend(target, a)
			}
			return f(tx.Files(guard{grants}), tx.records.As(recordGuard{grants}))
		}
	case h.Holds(caller.ID):
		lent.view = func(ctx context.Context, f func(store.FS, *records.Collections) error) error {
			held, release, err := h.contexts.open(ctx, caller.ID)
			if err != nil {
				return err
			}
			defer release()
			if grants == nil {
				grants = h.lend(held, a)
			}
			// One transaction for each access: to hold one while the target's is
			// held too could make two contexts wait for each other.
			return held.store.View(store.Nested(ctx), func(tx store.Tx) error {
				return f(tx.Files(guard{grants}), newTransaction(tx, true).records.As(recordGuard{grants}))
			})
		}
	case back != nil:
		asking := func(ctx context.Context, question []byte) ([]byte, error) {
			turn.Pause() // others compute meanwhile
			defer turn.Resume()
			return back(ctx, question)
		}
		return remote.ReadOnly(&distantContext{host: h, script: a.Script(), id: a.ID(), peer: caller, back: asking})
	default:
		lent.view = func(context.Context, func(store.FS, *records.Collections) error) error {
			return &remote.Error{Code: remote.Unavailable, Message: fmt.Sprintf(
				"the context of %s is on another host, and the connection that this script came by has no way back to it; send it with circles-host send, over HTTP/2", label(caller))}
		}
	}
	lent.report = h.report
	return remote.ReadOnly(lent)
}

// lend is what the policies of the caller's context, which is here, let the
// script do there.
func (h *Host) lend(caller *peerContext, a *policy.Accepted) *policy.Grants {
	parties := h.peers.Meet(a.Script().Caller, a.Script().Target, caller.circles.Load())
	return caller.policies.Current().Lend(a.Script(), parties, a.Code(), h.now())
}

func label(p peer.Peer) string {
	if p.Name != "" {
		return string(p.Name)
	}
	return p.ID.Short()
}

// lentContext is a caller's context on this host.
type lentContext struct {
	peer           peer.Peer
	view           func(ctx context.Context, f func(store.FS, *records.Collections) error) error
	report         func(error)
	remote.Context // the mutating methods, which ReadOnly never lets through
}

func (l *lentContext) ID() string   { return string(l.peer.ID) }
func (l *lentContext) Name() string { return string(l.peer.Name) }

// in runs f on the context as it is now.
func (l *lentContext) in(ctx context.Context, f func(remote.Context) error) error {
	return l.view(ctx, func(files store.FS, of *records.Collections) error {
		return f(remote.Local(l.ID(), l.Name(), files, of, l.report))
	})
}

func (l *lentContext) Read(ctx context.Context, p string, limit int) (data []byte, err error) {
	err = l.in(ctx, func(c remote.Context) (err error) { data, err = c.Read(ctx, p, limit); return })
	return data, err
}

func (l *lentContext) ReadAt(ctx context.Context, p string, offset uint64, length int) (data []byte, err error) {
	err = l.in(ctx, func(c remote.Context) (err error) { data, err = c.ReadAt(ctx, p, offset, length); return })
	return data, err
}

func (l *lentContext) List(ctx context.Context, p string, limit int) (entries []remote.Entry, err error) {
	err = l.in(ctx, func(c remote.Context) (err error) { entries, err = c.List(ctx, p, limit); return })
	return entries, err
}

func (l *lentContext) Stat(ctx context.Context, p string) (s remote.Stat, err error) {
	err = l.in(ctx, func(c remote.Context) (err error) { s, err = c.Stat(ctx, p); return })
	return s, err
}

// distantContext is a caller's context at the other end of the connection. Each
// access is a question that this host signs and an answer that the caller signs,
// so that whoever carries the bytes can neither ask nor answer in their place.
type distantContext struct {
	host   *Host
	script *script.Script
	id     script.ID
	peer   peer.Peer
	back   transport.Back
	seq    atomic.Uint64
	remote.Context
}

func (d *distantContext) ID() string   { return string(d.peer.ID) }
func (d *distantContext) Name() string { return string(d.peer.Name) }

func (d *distantContext) ask(ctx context.Context, action script.Action, q script.Question) (script.Answer, error) {
	what := "--lend " + string(action) + ":"
	if !action.OfRecords() {
		// The path goes to another host as it is written there: clean, so that both
		// sides mean the same.
		q.Path = path.Clean("/" + q.Path)
	}
	lent := false
	for _, g := range d.script.Lent {
		inside := g.Path == "/" || q.Path == g.Path || strings.HasPrefix(q.Path, g.Path+"/")
		if action.OfRecords() && strings.Contains(g.Path, "/") {
			inside = q.Path == g.Path // one record, and not what begins like it
		}
		lent = lent || inside && (g.Action == action || q.Op == script.AskStat)
	}
	if !lent {
		return script.Answer{}, &remote.Error{Code: remote.Denied, Message: fmt.Sprintf(
			"may not %s %q in the context of %s: the script does not lend it; send it with %s%s", action, q.Path, label(d.peer), what, q.Path)}
	}
	q.Script, q.Seq = d.id, d.seq.Add(1)
	sealed, err := envelope.SealQuestion(q, d.host.key)
	if err != nil {
		return script.Answer{}, fmt.Errorf("ask %s: %w", d.peer.ID, err)
	}
	reply, err := d.back(ctx, sealed)
	if ctx.Err() != nil {
		return script.Answer{}, ctx.Err()
	}
	var a script.Answer
	if err == nil {
		a, err = envelope.OpenAnswer(reply, d.peer.ID, q)
	}
	if err != nil {
		return script.Answer{}, &remote.Error{Code: remote.Unavailable, Err: err, Message: fmt.Sprintf(
			"cannot %s %q: %s did not answer as it should: %v", action, q.Path, label(d.peer), err)}
	}
	if a.Problem != nil {
		return script.Answer{}, &remote.Error{Code: problemCodes[a.Problem.Code], Message: a.Problem.Message}
	}
	return a, nil
}

var problemCodes = map[script.ProblemCode]remote.Code{
	script.ProblemNotFound: remote.NotFound, script.ProblemDenied: remote.Denied,
	script.ProblemNotDirectory: remote.NotDirectory, script.ProblemIsDirectory: remote.IsDirectory,
	script.ProblemInvalid: remote.Invalid, script.ProblemTooLarge: remote.TooLarge,
	script.ProblemUnavailable: remote.Unavailable, script.ProblemIO: remote.IO,
}

func (d *distantContext) Read(ctx context.Context, p string, limit int) ([]byte, error) {
	var data []byte
	for {
		part, err := d.ReadAt(ctx, p, uint64(len(data)), script.MaxData)
		if err != nil {
			return nil, err
		}
		data = append(data, part...)
		if len(data) > limit {
			return nil, &remote.Error{Code: remote.TooLarge, Message: fmt.Sprintf("cannot read %q at once: it has more than %d bytes; read it in parts with read-at", p, limit)}
		}
		if len(part) < script.MaxData {
			return data, nil
		}
	}
}

func (d *distantContext) ReadAt(ctx context.Context, p string, offset uint64, length int) ([]byte, error) {
	if length <= 0 {
		return nil, nil
	}
	// A shorter read than asked for means the end of the file, so a longer one
	// than an answer carries takes several.
	var data []byte
	for len(data) < length {
		want := min(length-len(data), script.MaxData)
		a, err := d.ask(ctx, script.Read, script.Question{Op: script.AskRead, Path: p, Offset: offset + uint64(len(data)), Length: uint32(want)})
		if err != nil {
			return nil, err
		}
		data = append(data, a.Data...)
		if len(a.Data) < want {
			break
		}
	}
	return data, nil
}

func (d *distantContext) List(ctx context.Context, p string, limit int) ([]remote.Entry, error) {
	var entries []remote.Entry
	for {
		a, err := d.ask(ctx, script.List, script.Question{Op: script.AskList, Path: p, Offset: uint64(len(entries)), Length: script.MaxListing})
		if err != nil {
			return nil, err
		}
		for _, e := range a.Entries {
			entries = append(entries, remote.Entry{Name: e.Name, Kind: fileKinds[e.Kind]})
		}
		if len(entries) > limit {
			return nil, &remote.Error{Code: remote.TooLarge, Message: fmt.Sprintf("cannot list %q: it has more than %d entries", p, limit)}
		}
		if len(a.Entries) < script.MaxListing {
			return entries, nil
		}
	}
}

var fileKinds = map[script.FileKind]remote.Kind{
	script.KindFile: remote.File, script.KindDirectory: remote.Directory, script.KindLink: remote.Link, script.KindOther: remote.Other,
}

func (d *distantContext) Stat(ctx context.Context, p string) (remote.Stat, error) {
	a, err := d.ask(ctx, script.Read, script.Question{Op: script.AskStat, Path: p})
	if err != nil {
		return remote.Stat{}, err
	}
	s := remote.Stat{Kind: fileKinds[a.Stat.Kind], Size: a.Stat.Size}
	if ms := a.Stat.Modified.UnixMilli(); ms > 0 && !a.Stat.Modified.IsZero() {
		s.Modified = uint64(ms)
	}
	return s, nil
}
