package script

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"path"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script/scriptpb"
)

// IDOf returns the id of a script by its encoding.
func IDOf(encoded []byte) ID { return DigestOf(encoded) }

// DigestOf returns the SHA-256 of b.
func DigestOf(b []byte) Digest { return sha256.Sum256(b) }

// Encode returns the one encoding of s, or says which part of it no host would
// take. Times are cut to milliseconds.
func (s *Script) Encode() ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("encode script: %w", err)
	}
	m := &scriptpb.Script{
		Caller:      string(s.Caller),
		Target:      string(s.Target),
		Nonce:       s.Nonce[:],
		NotBeforeMs: s.NotBefore.UnixMilli(),
		DeadlineMs:  s.Deadline.UnixMilli(),
		Logic:       &scriptpb.Logic{},
		Entry:       s.Entry,
		Params:      s.Params,
		DryRun:      s.DryRun,
		Chain:       s.Chain,
	}
	switch {
	case s.Logic.Name != "":
		m.Logic.Logic = &scriptpb.Logic_Name{Name: s.Logic.Name}
	case len(s.Logic.Wasm) > 0:
		m.Logic.Logic = &scriptpb.Logic_Wasm{Wasm: s.Logic.Wasm}
	case s.Logic.Text != Text{}:
		m.Logic.Logic = &scriptpb.Logic_Text{Text: &scriptpb.Text{Language: s.Logic.Text.Language, Source: s.Logic.Text.Source}}
	case len(s.Logic.Revoke) > 0:
		m.Logic.Logic = &scriptpb.Logic_Revoke{Revoke: s.Logic.Revoke}
	case s.Logic.Undo != ID{}:
		m.Logic.Logic = &scriptpb.Logic_Undo{Undo: s.Logic.Undo[:]}
	case s.Logic.Decide != Decision{}:
		m.Logic.Logic = &scriptpb.Logic_Decide{Decide: s.Logic.Decide.message()}
	default:
		m.Logic.Logic = &scriptpb.Logic_Digest{Digest: s.Logic.Digest[:]}
	}
	m.Within = s.Within.message()
	for _, g := range s.Lent {
		m.Lent = append(m.Lent, &scriptpb.Grant{Action: string(g.Action), Path: g.Path})
	}
	b, err := marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode script: %w", err)
	}
	return b, nil
}

// DecodeScript is the inverse of Encode. The result shares no memory with b.
func DecodeScript(b []byte) (Script, error) {
	var m scriptpb.Script
	if err := unmarshal(b, &m, false); err != nil {
		return Script{}, fmt.Errorf("decode script: %w", err)
	}
	s := Script{
		Caller:    peer.ID(m.Caller),
		Target:    peer.ID(m.Target),
		NotBefore: time.UnixMilli(m.NotBeforeMs).UTC(),
		Deadline:  time.UnixMilli(m.DeadlineMs).UTC(),
		Entry:     m.Entry,
		Params:    m.Params,
		DryRun:    m.DryRun,
		Chain:     m.Chain,
	}
	if len(m.Nonce) != len(s.Nonce) {
		return Script{}, fmt.Errorf("decode script: the nonce is %d bytes long, must be %d", len(m.Nonce), len(s.Nonce))
	}
	copy(s.Nonce[:], m.Nonce)
	switch l := m.Logic.GetLogic().(type) {
	case *scriptpb.Logic_Name:
		s.Logic.Name = l.Name
	case *scriptpb.Logic_Digest:
		if err := s.Logic.Digest.set(l.Digest); err != nil {
			return Script{}, fmt.Errorf("decode script: logic: %w", err)
		}
	case *scriptpb.Logic_Wasm:
		s.Logic.Wasm = l.Wasm
	case *scriptpb.Logic_Text:
		s.Logic.Text = Text{Language: l.Text.GetLanguage(), Source: l.Text.GetSource()}
	case *scriptpb.Logic_Revoke:
		s.Logic.Revoke = l.Revoke
	case *scriptpb.Logic_Undo:
		if err := s.Logic.Undo.set(l.Undo); err != nil {
			return Script{}, fmt.Errorf("decode script: logic: %w", err)
		}
	case *scriptpb.Logic_Decide:
		if err := s.Logic.Decide.set(l.Decide); err != nil {
			return Script{}, fmt.Errorf("decode script: logic: %w", err)
		}
	}
	if len(m.Lent) > 0 {
		s.Lent = make([]Grant, len(m.Lent))
		for i, g := range m.Lent {
			s.Lent[i] = Grant{Action: Action(g.Action), Path: g.Path}
		}
	}
	if m.Within != nil {
		if err := s.Within.set(m.Within); err != nil {
			return Script{}, fmt.Errorf("decode script: within: %w", err)
		}
	}
	if err := s.check(); err != nil {
		return Script{}, fmt.Errorf("decode script: %w", err)
	}
	return s, nil
}

// check holds the rules that both sides keep.
func (s *Script) check() error {
	if _, err := peer.ParseID(string(s.Caller)); err != nil {
		return fmt.Errorf("caller: %w", err)
	}
	if _, err := peer.ParseID(string(s.Target)); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	if s.Nonce == (Nonce{}) {
		// Zero is what a caller who forgot to draw one sends, every time.
		return errors.New("the nonce is zero: draw 16 random bytes for each script")
	}
	if err := checkTime("not-before", s.NotBefore); err != nil {
		return err
	}
	if err := checkTime("deadline", s.Deadline); err != nil {
		return err
	}
	if s.Deadline.Before(s.NotBefore) {
		return fmt.Errorf("the deadline %s is before the script may start, %s", stamp(s.Deadline), stamp(s.NotBefore))
	}
	if err := s.Logic.check(); err != nil {
		return err
	}
	if err := checkEntry(s.Entry); err != nil {
		return err
	}
	if s.Logic.OfOwner() && (s.Entry != "" || len(s.Params) > 0 || len(s.Lent) > 0) {
		return errors.New("an undo or a decision has no entry and no params, and lends nothing")
	}
	if len(s.Params) > MaxParams {
		return fmt.Errorf("params are %d bytes long, at most %d are allowed: pass a file instead", len(s.Params), MaxParams)
	}
	if len(s.Lent) > MaxLent {
		return fmt.Errorf("%d grants are lent, at most %d are allowed: lend a directory instead of its files", len(s.Lent), MaxLent)
	}
	for _, g := range s.Lent {
		if err := g.check(); err != nil {
			return err
		}
		if g.Action == Send {
			return errors.New("grant: send: scripts are sent from the target's context, and that of the caller cannot be lent for it")
		}
	}
	if err := s.checkWithin(); err != nil {
		return err
	}
	return s.checkChain()
}

func (s *Script) checkChain() error {
	switch {
	case len(s.Chain) == 0:
		return nil
	case len(s.Chain) > MaxChain:
		return fmt.Errorf("the chain has %d delegations, at most %d are allowed", len(s.Chain), MaxChain)
	case len(s.Lent) > 0:
		return errors.New("it is sent on behalf of its caller, and lends something: the caller's context is not the sender's to lend")
	case s.Logic.OfOwner():
		return errors.New("an undo or a decision is for the owner of the context: it cannot be delegated")
	}
	for _, sealed := range s.Chain {
		if len(sealed) == 0 || len(sealed) > MaxDelegation {
			return fmt.Errorf("a delegation of %d bytes, must be 1 to %d", len(sealed), MaxDelegation)
		}
	}
	return nil
}

func (l Logic) check() error {
	set := 0
	for _, is := range []bool{l.Name != "", l.Digest != (Digest{}), len(l.Wasm) > 0, l.Text != (Text{}), l.Undo != (ID{}), l.Decide != (Decision{}), len(l.Revoke) > 0} {
		if is {
			set++
		}
	}
	if set != 1 {
		return errors.New("logic: name a module, or its digest, or carry one, or a text, or say what to undo or decide: exactly one of them")
	}
	if l.Decide != (Decision{}) {
		return l.Decide.check()
	}
	if len(l.Revoke) > MaxRevocation {
		return fmt.Errorf("a revocation of %d bytes, at most %d are allowed", len(l.Revoke), MaxRevocation)
	}
	if l.Name != "" {
		return checkModule(l.Name)
	}
	if l.Text != (Text{}) {
		return l.Text.check()
	}
	return nil
}

// check holds what does not depend on the language. Whether it can be read, the language
// module says.
func (t Text) check() error {
	switch {
	case t.Language == "" || len(t.Language) > MaxModule || strings.Trim(t.Language, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
		return fmt.Errorf("the language %.40q of a text: use a-z, 0-9 and -, as in javascript", t.Language)
	case t.Source == "":
		return errors.New("a text is empty")
	case len(t.Source) > MaxText:
		return fmt.Errorf("a text has %d bytes, at most %d are allowed", len(t.Source), MaxText)
	}
	return nil
}

// checkModule: a module's name becomes part of a path on the host, so it has no
// slash and does not start with a dot.
func checkModule(name string) error {
	if len(name) > MaxModule {
		return fmt.Errorf("module name is %d bytes long, at most %d are allowed", len(name), MaxModule)
	}
	for i := 0; i < len(name); i++ {
		if !alnum(name[i]) && (i == 0 || strings.IndexByte("._-", name[i]) < 0) {
			return fmt.Errorf("module name %.40q: use letters, digits, and . _ - after the first", name)
		}
	}
	return nil
}

// checkEntry allows the names of WIT exports, "run", "circles:script/run@0.1.0#run".
func checkEntry(entry string) error {
	if len(entry) > MaxEntry {
		return fmt.Errorf("entry is %d bytes long, at most %d are allowed", len(entry), MaxEntry)
	}
	for i := 0; i < len(entry); i++ {
		if !alnum(entry[i]) && entry[i] != '_' && (i == 0 || strings.IndexByte(".-:/@#", entry[i]) < 0) {
			return fmt.Errorf("entry %.40q: use letters, digits, _, and . - : / @ # after the first", entry)
		}
	}
	return nil
}

func alnum(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func (g Grant) check() error {
	if _, err := ParseAction(string(g.Action)); err != nil {
		return fmt.Errorf("grant: %w", err)
	}
	if err := CheckResource(g.Action, g.Path); err != nil {
		return fmt.Errorf("grant: %w", err)
	}
	return nil
}

func checkPath(p string) error {
	switch {
	case len(p) > MaxPath:
		return fmt.Errorf("path is %d bytes long, at most %d are allowed", len(p), MaxPath)
	case !strings.HasPrefix(p, "/"):
		return fmt.Errorf("path %.80q must start with /", p)
	case path.Clean(p) != p:
		return fmt.Errorf("path %.80q must be written %.80q", p, path.Clean(p))
	case strings.IndexByte(p, 0) >= 0:
		return fmt.Errorf("path %.80q has a NUL in it", p)
	case !utf8.ValidString(p):
		return fmt.Errorf("path %.80q is not UTF-8", p)
	}
	return nil
}

// The times that a message may name: what has a millisecond since 1970 and a
// year of four digits, beyond which time.Time has no JSON.
var (
	minTime = time.UnixMilli(1)
	maxTime = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

func checkTime(what string, t time.Time) error {
	if t.Before(minTime) || t.After(maxTime) {
		return fmt.Errorf("%s: not a time after 1970 and before the year 10000", what)
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// set sets d from the 32 bytes of a digest that is there.
func (d *Digest) set(b []byte) error {
	if len(b) != len(d) {
		return fmt.Errorf("a digest of %d bytes, must be %d", len(b), len(d))
	}
	copy(d[:], b)
	if *d == (Digest{}) {
		return errors.New("a digest of zeros, which stands for none")
	}
	return nil
}

// maxEffectBytes keeps a receipt below MaxSealed however long the paths are.
const maxEffectBytes = 4 << 20

// Encode returns the one encoding of r. A script must not be able to prevent its
// own receipt, so what a script can make arbitrarily long or odd is cut to its
// limit instead of refused: message, log, effects (MoreEffects counts the rest),
// and text that is not UTF-8. An error means that the host filled it in wrongly;
// a result longer than MaxResult is one, since half a result would be a lie.
func (r *Receipt) Encode() ([]byte, error) {
	fit := *r
	fit.Message = cutText(r.Message, MaxMessage)
	fit.ModuleName = cutText(r.ModuleName, MaxModule)
	fit.Entry = cutText(r.Entry, MaxEntry)
	if len(fit.Log) > MaxLog {
		fit.Log = fit.Log[:MaxLog]
	}
	fit.Policies = nil
	for _, p := range r.Policies[:min(len(r.Policies), MaxPolicies)] {
		fit.Policies = append(fit.Policies, cutText(p, MaxPolicyID))
	}
	fit.Effects, fit.MoreEffects = r.fitEffects()
	fit.Usage.Wall = max(r.Usage.Wall, 0)
	if err := fit.check(); err != nil {
		return nil, fmt.Errorf("encode receipt: %w", err)
	}
	m := &scriptpb.Receipt{
		Script:      fit.Script[:],
		Caller:      string(fit.Caller),
		Target:      string(fit.Target),
		Host:        string(fit.Host),
		Code:        scriptpb.Code(fit.Code),
		Message:     fit.Message,
		Policies:    fit.Policies,
		Module:      fit.Module.bytes(),
		ModuleName:  fit.ModuleName,
		Entry:       fit.Entry,
		Result:      fit.Result,
		ExitCode:    fit.ExitCode,
		Log:         fit.Log,
		MoreEffects: fit.MoreEffects,
		Usage: &scriptpb.Usage{
			WallNs:      int64(fit.Usage.Wall),
			Fuel:        fit.Usage.Fuel,
			MemoryBytes: fit.Usage.MemoryBytes,
			HostCalls:   fit.Usage.HostCalls,
			OutputBytes: fit.Usage.OutputBytes,
			LogBytes:    fit.Usage.LogBytes,
			FileBytes:   fit.Usage.FileBytes,
			Entries:     fit.Usage.Entries,
			Handles:     fit.Usage.Handles,
		},
		StartedMs:  millis(fit.Started),
		FinishedMs: millis(fit.Finished),
		DryRun:     fit.DryRun,
		Undid:      fit.Undid.bytes(),
		Kept:       fit.Kept.bytes(),
		ExpiresMs:  millis(fit.Expires),
		Pending:    fit.Pending.bytes(),
		Decision:   fit.Decision.bytes(),
		Decided:    fit.Decided.bytes(),
		Instead:    fit.Instead,
		Asked:      fit.Asked.bytes(),
	}
	for _, s := range fit.Sent {
		m.Sent = append(m.Sent, &scriptpb.Sent{Script: s.Script[:], Target: string(s.Target), Code: scriptpb.Code(s.Code), Receipt: s.Receipt.bytes()})
	}
	for _, v := range fit.Via {
		m.Via = append(m.Via, &scriptpb.Via{Delegation: v.Delegation[:], To: string(v.To)})
	}
	for _, p := range fit.Parts {
		m.Parts = append(m.Parts, &scriptpb.Part{Name: p.Name, Layer: p.Layer, Module: p.Module[:], Calls: p.Calls, Fuel: p.Fuel})
	}
	for i := range fit.Effects {
		e := &fit.Effects[i]
		m.Effects = append(m.Effects, &scriptpb.Effect{
			Kind:   scriptpb.EffectKind(e.Kind),
			Path:   []byte(e.Path),
			To:     []byte(e.To),
			Before: e.Before.message(),
			After:  e.After.message(),
			Diff:   e.Diff,
			End:    e.End.message(),
		})
	}
	b, err := marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode receipt: %w", err)
	}
	return b, nil
}

// fitEffects returns the effects that a receipt has room for, and how many are
// left out.
func (r *Receipt) fitEffects() (listed []Effect, more uint64) {
	const each = 256 // bytes, at most, of an effect without its paths
	size := 0
	listed = r.Effects
	for i, e := range r.Effects {
		size += len(e.Path) + len(e.To) + len(e.Diff) + each
		if i >= MaxEffects || size > maxEffectBytes || len(e.Path) > MaxPath || len(e.To) > MaxPath || len(e.Diff) > MaxDiff {
			listed = r.Effects[:i:i]
			break
		}
	}
	return listed, r.MoreEffects + uint64(len(r.Effects)-len(listed))
}

// DecodeReceipt is the inverse of Encode, but for fields that a newer host added:
// they are skipped. The result shares no memory with b.
func DecodeReceipt(b []byte) (Receipt, error) {
	r, err := decodeReceipt(b)
	if err != nil {
		return Receipt{}, fmt.Errorf("decode receipt: %w", err)
	}
	return r, nil
}

func decodeReceipt(b []byte) (Receipt, error) {
	var m scriptpb.Receipt
	if err := unmarshal(b, &m, true); err != nil {
		return Receipt{}, err
	}
	r := Receipt{
		Caller:      peer.ID(m.Caller),
		Target:      peer.ID(m.Target),
		Host:        peer.ID(m.Host),
		Code:        Code(m.Code),
		Message:     m.Message,
		Policies:    m.Policies,
		ModuleName:  m.ModuleName,
		Entry:       m.Entry,
		Result:      m.Result,
		ExitCode:    m.ExitCode,
		Log:         m.Log,
		MoreEffects: m.MoreEffects,
		Usage: Usage{
			Wall:        time.Duration(m.Usage.GetWallNs()),
			Fuel:        m.Usage.GetFuel(),
			MemoryBytes: m.Usage.GetMemoryBytes(),
			HostCalls:   m.Usage.GetHostCalls(),
			OutputBytes: m.Usage.GetOutputBytes(),
			LogBytes:    m.Usage.GetLogBytes(),
			FileBytes:   m.Usage.GetFileBytes(),
			Entries:     m.Usage.GetEntries(),
			Handles:     m.Usage.GetHandles(),
		},
		Started:  fromMillis(m.StartedMs),
		Finished: fromMillis(m.FinishedMs),
		DryRun:   m.DryRun,
		Expires:  fromMillis(m.ExpiresMs),
		Instead:  m.Instead,
	}
	if m.Usage == nil {
		return Receipt{}, errors.New("usage is missing")
	}
	if err := r.Script.set(m.Script); err != nil {
		return Receipt{}, fmt.Errorf("script: %w", err)
	}
	for _, d := range []struct {
		what string
		to   *Digest
		from []byte
	}{
		{"module", &r.Module, m.Module}, {"undid", &r.Undid, m.Undid}, {"kept", &r.Kept, m.Kept},
		{"pending", &r.Pending, m.Pending}, {"decision", &r.Decision, m.Decision}, {"decided", &r.Decided, m.Decided},
		{"asked", &r.Asked, m.Asked},
	} {
		if len(d.from) == 0 {
			continue
		}
		if err := d.to.set(d.from); err != nil {
			return Receipt{}, fmt.Errorf("%s: %w", d.what, err)
		}
	}
	for _, v := range m.Via {
		via := Via{To: peer.ID(v.To)}
		if err := via.Delegation.set(v.Delegation); err != nil {
			return Receipt{}, fmt.Errorf("via: %w", err)
		}
		r.Via = append(r.Via, via)
	}
	for _, p := range m.Parts {
		part := Part{Name: p.Name, Layer: p.Layer, Calls: p.Calls, Fuel: p.Fuel}
		if err := part.Module.set(p.Module); err != nil {
			return Receipt{}, fmt.Errorf("parts: %w", err)
		}
		r.Parts = append(r.Parts, part)
	}
	for _, s := range m.Sent {
		sent := Sent{Target: peer.ID(s.Target), Code: Code(s.Code)}
		err := sent.Script.set(s.Script)
		if err == nil && len(s.Receipt) > 0 {
			err = sent.Receipt.set(s.Receipt)
		}
		if err != nil {
			return Receipt{}, fmt.Errorf("sent: %w", err)
		}
		r.Sent = append(r.Sent, sent)
	}
	if len(m.Effects) > 0 {
		r.Effects = make([]Effect, len(m.Effects))
	}
	for i, e := range m.Effects {
		before, err := blob(e.Before)
		if err != nil {
			return Receipt{}, err
		}
		after, err := blob(e.After)
		if err != nil {
			return Receipt{}, err
		}
		end, err := end(e.End)
		if err != nil {
			return Receipt{}, err
		}
		r.Effects[i] = Effect{
			Kind: EffectKind(e.Kind), Path: string(e.Path), To: string(e.To),
			Before: before, After: after, End: end, Diff: e.Diff,
		}
	}
	if err := r.check(); err != nil {
		return Receipt{}, err
	}
	return r, nil
}

func (r *Receipt) check() error {
	if r.Script == (ID{}) {
		return errors.New("it does not say of which script")
	}
	for _, p := range []struct {
		what string
		id   peer.ID
	}{{"caller", r.Caller}, {"target", r.Target}, {"host", r.Host}} {
		if _, err := peer.ParseID(string(p.id)); err != nil {
			return fmt.Errorf("%s: %w", p.what, err)
		}
	}
	if r.Code == Unknown {
		return errors.New("it has no code")
	}
	for _, p := range []struct {
		what     string
		len, max int
	}{
		{"message", len(r.Message), MaxMessage}, {"module name", len(r.ModuleName), MaxModule},
		{"entry", len(r.Entry), MaxEntry}, {"result", len(r.Result), MaxResult},
		{"log", len(r.Log), MaxLog}, {"list of policies", len(r.Policies), MaxPolicies},
		{"list of effects", len(r.Effects), MaxEffects}, {"chain", len(r.Via), MaxChain},
		{"list of parts", len(r.Parts), MaxParts},
		{"list of what it sent", len(r.Sent), MaxSent},
	} {
		if p.len > p.max {
			return fmt.Errorf("the %s is %d long, at most %d is allowed", p.what, p.len, p.max)
		}
	}
	for _, p := range r.Policies {
		if len(p) > MaxPolicyID {
			return fmt.Errorf("a policy id is %d bytes long, at most %d are allowed", len(p), MaxPolicyID)
		}
	}
	for i := range r.Effects {
		if err := r.Effects[i].check(); err != nil {
			return err
		}
	}
	for _, v := range r.Via {
		if _, err := peer.ParseID(string(v.To)); err != nil {
			return fmt.Errorf("via: %w", err)
		}
		if v.Delegation.IsZero() {
			return errors.New("via: it does not say which delegation")
		}
	}
	for _, p := range r.Parts {
		switch {
		case p.Module.IsZero():
			return errors.New("a part does not say which module it is")
		case len(p.Name) > MaxModule || len(p.Layer) > MaxModule:
			return fmt.Errorf("the name of a part is longer than %d bytes", MaxModule)
		case p.Calls == 0:
			return errors.New("a part did not take part")
		}
	}
	for _, s := range r.Sent {
		if _, err := peer.ParseID(string(s.Target)); err != nil {
			return fmt.Errorf("sent: %w", err)
		}
		if s.Script.IsZero() {
			return errors.New("sent: it does not say which script")
		}
	}
	if r.Usage.Wall < 0 {
		return errors.New("it used a negative time")
	}
	for _, t := range []time.Time{r.Started, r.Finished, r.Expires} {
		if !t.IsZero() {
			if err := checkTime("started, finished, expires", t); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *Effect) check() error {
	if e.Kind == 0 {
		return errors.New("an effect has no kind")
	}
	if !strings.HasPrefix(e.Path, "/") {
		return fmt.Errorf("an effect's path %.80q does not start with /", e.Path)
	}
	if len(e.Path) > MaxPath || len(e.To) > MaxPath {
		return fmt.Errorf("an effect's path is longer than %d bytes", MaxPath)
	}
	if len(e.Diff) > MaxDiff {
		return fmt.Errorf("the diff of %.80q is longer than %d bytes", e.Path, MaxDiff)
	}
	if e.Before.Size < 0 || e.After.Size < 0 {
		return fmt.Errorf("an effect on %.80q has a negative size", e.Path)
	}
	if end := e.End; end != (End{}) {
		switch {
		case end.At <= 0 || end.Before.Size < 0 || end.After.Size < 0, end.At > math.MaxInt64-max(end.Before.Size, end.After.Size):
			return fmt.Errorf("an effect on %.80q has an end that begins nowhere", e.Path)
		case e.Before != Blob{} || e.After != Blob{}:
			return fmt.Errorf("an effect on %.80q has an end, and all of its contents", e.Path)
		}
	}
	for _, b := range []Blob{e.Before, e.After, e.End.Before, e.End.After} {
		if b.Size > 0 && b.Digest == (Digest{}) {
			return fmt.Errorf("an effect on %.80q has a size and no digest", e.Path)
		}
	}
	return nil
}

func (b Blob) message() *scriptpb.Blob {
	if b == (Blob{}) {
		return nil
	}
	return &scriptpb.Blob{Size: b.Size, Digest: b.Digest[:]}
}

func (e End) message() *scriptpb.End {
	if e == (End{}) {
		return nil
	}
	return &scriptpb.End{At: e.At, Before: e.Before.message(), After: e.After.message()}
}

func end(m *scriptpb.End) (e End, err error) {
	if m == nil {
		return End{}, nil
	}
	e.At = m.At
	if e.Before, err = blob(m.Before); err != nil {
		return End{}, err
	}
	if e.After, err = blob(m.After); err != nil {
		return End{}, err
	}
	if e == (End{}) {
		return End{}, errors.New("an end of nothing")
	}
	return e, nil
}

func blob(m *scriptpb.Blob) (Blob, error) {
	if m == nil {
		return Blob{}, nil
	}
	b := Blob{Size: m.Size}
	if err := b.Digest.set(m.Digest); err != nil {
		return Blob{}, fmt.Errorf("contents: %w", err)
	}
	return b, nil
}

func (d Digest) bytes() []byte {
	if d == (Digest{}) {
		return nil
	}
	return bytes.Clone(d[:])
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// cutText returns s as UTF-8 in at most limit bytes, and shows that it was cut.
func cutText(s string, limit int) string {
	const mark = "…"
	if utf8.ValidString(s) && len(s) <= limit {
		return s
	}
	// Cut before replacing what is not UTF-8, so that a huge text costs nothing,
	// and after, as that may lengthen it.
	long := len(s) > limit
	s = strings.ToValidUTF8(s[:min(len(s), limit)], "\uFFFD")
	if !long && len(s) <= limit {
		return s
	}
	end := min(len(s), limit-len(mark))
	for end > 0 && end < len(s) && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + mark
}
