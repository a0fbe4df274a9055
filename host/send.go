package host

import (
	"context"
	"errors"
	"fmt"
	"path"
	"sync"
	"time"

	"github.com/circles-host/circles/host/envelope"
	remote "github.com/circles-host/circles/host/imports/contexts"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/transport"
)

// Lender is the sending side of a script: it answers what the host that runs the
// script asks about its caller's context, as far as the script lends it and the
// caller's own policies permit.
type Lender struct {
	Key    *peer.Key // of the caller
	Script *script.Script
	ID     script.ID
	Host   peer.ID // who may ask; "" takes any host that the script is shown to
	// Parties as the caller's owner knows them, and the policies of that owner.
	Parties  peer.Parties
	Policies *policy.Set
	// OpenStore opens the caller's context, on the first question.
	OpenStore func(ctx context.Context) (store.Store, error)

	once  sync.Once
	store store.Store
	err   error
}

// Close releases the caller's context.
func (l *Lender) Close() error {
	l.once.Do(func() { l.err = errors.New("closed") })
	if l.store != nil {
		return l.store.Close()
	}
	return nil
}

// Answer is a transport.Back. It answers a question with what the context holds
// or with the reason why not; both are signed. An error means that the question
// does not deserve an answer: it is of another host, or about another script.
func (l *Lender) Answer(ctx context.Context, sealed []byte) ([]byte, error) {
	q, asker, err := envelope.OpenQuestion(sealed, l.Host)
	if err != nil {
		return nil, err
	}
	if q.Script != l.ID {
		return nil, fmt.Errorf("%s asks about script %v, which was not sent to it", asker.Short(), q.Script)
	}
	if over := l.Script.Deadline.Add(envelope.ClockSkew); !l.Script.Deadline.IsZero() && time.Now().After(over) {
		// Or a host could keep a script open, and read what was lent, for ever.
		return nil, fmt.Errorf("%s asks about script %v, whose deadline was %s", asker.Short(), q.Script, l.Script.Deadline.UTC().Format(time.RFC3339))
	}
	l.once.Do(func() { l.store, l.err = l.OpenStore(ctx) })
	a := script.Answer{Op: q.Op}
	if l.err != nil {
		a = script.Answer{Problem: &script.Problem{Code: script.ProblemUnavailable, Message: fmt.Sprintf("the context of %s cannot be opened where the script was sent from", label(l.Parties.Caller))}}
	} else if err := l.look(ctx, q, &a); err != nil {
		a = script.Answer{Problem: problem(err)}
	}
	return envelope.SealAnswer(a, q, l.Key)
}

func (l *Lender) look(ctx context.Context, q script.Question, a *script.Answer) error {
	code := policy.Code{Name: l.Script.Logic.Name, Digest: l.Script.Logic.Digest}
	grants := l.Policies.Lend(l.Script, l.Parties, code, time.Now())
	return l.store.View(ctx, func(tx store.Tx) error {
		files := tx.Files(guard{grants})
		c := remote.Local(string(l.Parties.Caller.ID), string(l.Parties.Caller.Name), files, newTransaction(tx, true).records.As(recordGuard{grants}), nil)
		switch q.Op {
		case script.AskRead:
			data, err := c.ReadAt(ctx, q.Path, q.Offset, int(min(q.Length, script.MaxData)))
			a.Data = data
			return err
		case script.AskStat:
			s, err := c.Stat(ctx, q.Path)
			a.Stat = script.Stat{Kind: wireKinds[s.Kind], Size: s.Size, Modified: time.UnixMilli(int64(s.Modified))}
			return err
		case script.AskList:
			entries, err := list(files, q)
			a.Entries = entries
			return err
		case script.AskGet, script.AskQuery, script.AskFind:
			return answerRecords(ctx, c, q, a)
		}
		return &remote.Error{Code: remote.Invalid, Message: "there is no such question"}
	})
}

// list reads one page of a directory.
func list(files store.FS, q script.Question) ([]script.ListEntry, error) {
	f, err := files.Open(path.Clean(q.Path), store.FlagRead|store.FlagDirectory)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	found, err := f.ReadDir(int(min(q.Offset, 1<<30)), int(min(q.Length, script.MaxListing)))
	if err != nil {
		return nil, err
	}
	entries := make([]script.ListEntry, len(found))
	for i, e := range found {
		entries[i] = script.ListEntry{Name: e.Name, Kind: storeKinds[e.Kind]}
	}
	return entries, nil
}

var (
	wireKinds  = map[remote.Kind]script.FileKind{remote.File: script.KindFile, remote.Directory: script.KindDirectory, remote.Link: script.KindLink, remote.Other: script.KindOther}
	storeKinds = map[store.Kind]script.FileKind{store.KindFile: script.KindFile, store.KindDir: script.KindDirectory, store.KindLink: script.KindLink, store.KindOther: script.KindOther}
)

// problem puts an error into the words that cross to another host.
func problem(err error) *script.Problem {
	var e *remote.Error
	switch {
	case errors.As(err, &e):
		for wire, code := range problemCodes {
			if code == e.Code {
				return &script.Problem{Code: wire, Message: e.Message}
			}
		}
	case errors.Is(err, store.ErrDenied):
		var denied *policy.DeniedError
		if errors.As(err, &denied) {
			return &script.Problem{Code: script.ProblemDenied, Message: denied.Error()}
		}
		return &script.Problem{Code: script.ProblemDenied, Message: "the caller does not allow it"}
	case errors.Is(err, store.ErrNotExist):
		return &script.Problem{Code: script.ProblemNotFound, Message: "there is no such file or directory"}
	case errors.Is(err, store.ErrNotDir):
		return &script.Problem{Code: script.ProblemNotDirectory, Message: "it is not a directory"}
	}
	return &script.Problem{Code: script.ProblemIO, Message: "the caller's side failed to look it up"}
}

// Sent is what became of a script that Send sent.
type Sent struct {
	ID      script.ID
	Sealed  []byte // what was sent
	Receipt script.Receipt
	Bytes   []byte // the sealed receipt: the caller's copy
	Took    time.Duration
}

// Send seals s with key, sends it by way of via, and checks the receipt: that it
// is of this script, signed by host ("" takes any). lend, which may be nil,
// completes a Lender that answers questions about the caller's context. A script
// with a chain is from the caller that the chain begins with, and lends nothing.
func Send(ctx context.Context, via transport.Sender, s script.Script, key *peer.Key, host peer.ID, lend func(*Lender)) (Sent, error) {
	if s.Caller = key.ID(); len(s.Chain) > 0 {
		s.Caller, lend = "", nil
	}
	if s.Deadline.IsZero() { // the Lender has to know it too
		if s.NotBefore.IsZero() {
			s.NotBefore = time.Now()
		}
		s.Deadline = s.NotBefore.Add(envelope.DefaultLifetime)
	}
	sealed, id, err := envelope.SealScript(s, key)
	if err != nil {
		return Sent{}, err
	}
	var answer transport.Back
	if lend != nil {
		l := &Lender{Key: key, Script: &s, ID: id, Host: host}
		lend(l)
		defer l.Close()
		answer = l.Answer
	}
	started := time.Now()
	back, err := via.Send(ctx, sealed, answer)
	sent := Sent{ID: id, Sealed: sealed, Bytes: back, Took: time.Since(started)}
	if err != nil {
		return sent, err
	}
	if sent.Receipt, _, err = envelope.OpenReceiptOf(id, back, host); err != nil {
		return sent, fmt.Errorf("check the receipt: %w", err)
	}
	return sent, nil
}
