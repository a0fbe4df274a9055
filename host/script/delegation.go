package script

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script/scriptpb"
)

// Limits of a chain of delegations. They are met before a signature is checked,
// so what a chain costs its reader is bounded by them.
const (
	MaxChain      = 4        // delegations of one script: as many signatures to check
	MaxDelegation = 16 << 10 // bytes of a sealed one
	MaxTargets    = 16       // of one
	MaxEntries    = 32       // of one
	MaxAllows     = 64       // of one

	// MaxDelegated is the longest time from now that a delegation may still be good
	// for: what a revocation does not reach ends by itself.
	MaxDelegated = 366 * 24 * time.Hour
)

// Delegation lets To send scripts as Issuer, as far as it says, and no further
// than whoever is sent to permits Issuer itself. The issuer signs it. One that
// has a Parent passes on what that one gave its issuer, and can only say less.
type Delegation struct {
	Issuer   peer.ID
	To       peer.ID // a peer, or a host
	Parent   Digest  // id of the delegation that it passes on; zero for the first of a chain
	Nonce    Nonce   // tells two delegations of the same thing apart
	NotAfter time.Time
	Depth    uint32 // how often it may be passed on, at most MaxChain-1
	// Targets are in whose contexts it may be used, and Entries what may be run
	// there: "*", MODULE, MODULE:ENTRY, with sha256:DIGEST or * as MODULE. There is
	// at least one of each: what is for all has to say so.
	Targets []peer.ID
	Entries []string
	// Allows is what that may do to the target's files and records; none if empty.
	Allows []Grant
}

// Encode returns the one encoding of d. Its SHA-256 is d's id.
func (d *Delegation) Encode() ([]byte, error) {
	if err := d.check(); err != nil {
		return nil, fmt.Errorf("encode delegation: %w", err)
	}
	m := &scriptpb.Delegation{
		Issuer: string(d.Issuer), To: string(d.To), Parent: d.Parent.bytes(), Nonce: d.Nonce[:],
		NotAfterMs: d.NotAfter.UnixMilli(), Depth: d.Depth, Entries: d.Entries,
	}
	for _, t := range d.Targets {
		m.Targets = append(m.Targets, string(t))
	}
	for _, g := range d.Allows {
		m.Allows = append(m.Allows, &scriptpb.Grant{Action: string(g.Action), Path: g.Path})
	}
	b, err := marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode delegation: %w", err)
	}
	return b, nil
}

// DecodeDelegation is the inverse of Encode. The result shares no memory with b.
func DecodeDelegation(b []byte) (Delegation, error) {
	var m scriptpb.Delegation
	if err := unmarshal(b, &m, false); err != nil {
		return Delegation{}, fmt.Errorf("decode delegation: %w", err)
	}
	d := Delegation{
		Issuer: peer.ID(m.Issuer), To: peer.ID(m.To), NotAfter: time.UnixMilli(m.NotAfterMs).UTC(),
		Depth: m.Depth, Entries: m.Entries,
	}
	if len(m.Parent) > 0 {
		if err := d.Parent.set(m.Parent); err != nil {
			return Delegation{}, fmt.Errorf("decode delegation: parent: %w", err)
		}
	}
	if len(m.Nonce) != len(d.Nonce) {
		return Delegation{}, fmt.Errorf("decode delegation: the nonce is %d bytes long, must be %d", len(m.Nonce), len(d.Nonce))
	}
	copy(d.Nonce[:], m.Nonce)
	for _, t := range m.Targets {
		d.Targets = append(d.Targets, peer.ID(t))
	}
	for _, g := range m.Allows {
		d.Allows = append(d.Allows, Grant{Action: Action(g.Action), Path: g.Path})
	}
	if err := d.check(); err != nil {
		return Delegation{}, fmt.Errorf("decode delegation: %w", err)
	}
	return d, nil
}

func (d *Delegation) check() error {
	if err := d.checkPeers(); err != nil {
		return err
	}
	if d.Nonce == (Nonce{}) {
		return errors.New("the nonce is zero: draw 16 random bytes for each delegation")
	}
	if err := checkTime("not-after", d.NotAfter); err != nil {
		return err
	}
	if d.Depth > MaxChain-1 {
		return fmt.Errorf("depth: %d, at most %d is allowed", d.Depth, MaxChain-1)
	}
	for _, list := range []struct {
		what       string
		len, least int
		most       int
	}{{"targets", len(d.Targets), 1, MaxTargets}, {"entries", len(d.Entries), 1, MaxEntries}, {"allows", len(d.Allows), 0, MaxAllows}} {
		if list.len < list.least || list.len > list.most {
			return fmt.Errorf("%s: there are %d, must be %d to %d", list.what, list.len, list.least, list.most)
		}
	}
	for _, e := range d.Entries {
		if err := CheckRunnable(e); err != nil {
			return fmt.Errorf("entries: %w", err)
		}
	}
	for _, g := range d.Allows {
		if err := g.check(); err != nil {
			return fmt.Errorf("allows: %w", err)
		}
	}
	return nil
}

func (d *Delegation) checkPeers() error {
	if _, err := peer.ParseID(string(d.Issuer)); err != nil {
		return fmt.Errorf("issuer: %w", err)
	}
	if _, err := peer.ParseID(string(d.To)); err != nil {
		return fmt.Errorf("to: %w", err)
	}
	if d.To == d.Issuer {
		return errors.New("to: it is the issuer itself, who needs none")
	}
	if len(d.Targets) > MaxTargets {
		return fmt.Errorf("targets: there are %d, must be 1 to %d", len(d.Targets), MaxTargets)
	}
	for _, t := range d.Targets {
		if _, err := peer.ParseID(string(t)); err != nil {
			return fmt.Errorf("targets: %w", err)
		}
	}
	return nil
}

// Narrows reports, with the name of the field, in what d does not pass on parent,
// whose id is id, or would give more than that.
func (d *Delegation) Narrows(parent *Delegation, id Digest) error {
	switch {
	case d.Parent != id:
		return errors.New("parent: it passes on another delegation than the one before it")
	case d.Issuer != parent.To:
		return fmt.Errorf("issuer: it is by %s, but the one before it is for %s", d.Issuer.Short(), parent.To.Short())
	case parent.Depth == 0:
		return errors.New("depth: the one before it may not be passed on")
	case d.Depth >= parent.Depth:
		return fmt.Errorf("depth: %d, but it passes on one of %d, so at most %d is left", d.Depth, parent.Depth, parent.Depth-1)
	case d.NotAfter.After(parent.NotAfter):
		return fmt.Errorf("not-after: %s, but the one before it is good until %s", stamp(d.NotAfter), stamp(parent.NotAfter))
	}
	for _, t := range d.Targets {
		if !parent.For(t) {
			return fmt.Errorf("targets: %s is not among those of the one before it", t.Short())
		}
	}
	for _, e := range d.Entries {
		if !parent.runsAll(e) {
			return fmt.Errorf("entries: %.80q is more than the one before it lets run", e)
		}
	}
	for _, g := range d.Allows {
		if !parent.Allow(g.Action, g.Path) {
			return fmt.Errorf("allows: %s:%.80s is more than the one before it allows", g.Action, g.Path)
		}
	}
	return nil
}

// For reports whether d may be used in the context of target.
func (d *Delegation) For(target peer.ID) bool {
	for _, t := range d.Targets {
		if t == target {
			return true
		}
	}
	return false
}

// Allow reports whether d lets a script do action on path, which is as in a Grant
// and has been checked.
func (d *Delegation) Allow(action Action, path string) bool {
	for _, g := range d.Allows {
		if g.Covers(action, path) {
			return true
		}
	}
	return false
}

// Covers reports whether g is about action on path too: the same action, on that
// path, above it, or on the collection that it is a record of.
func (g Grant) Covers(action Action, path string) bool {
	if g.Action != action {
		return false
	}
	rest, ok := strings.CutPrefix(path, g.Path)
	if !ok {
		return false
	}
	if rest == "" {
		return true
	}
	if action.OfRecords() {
		// One record, and not what begins like it.
		return rest[0] == '/' && !strings.Contains(g.Path, "/")
	}
	return g.Path == "/" || rest[0] == '/'
}

// Runs reports whether d lets code be run: that which its target has under a
// name, if any, and with that digest.
func (d *Delegation) Runs(name string, digest Digest, entry string) bool {
	if entry == "" {
		entry = "run" // as Script.Entry has it
	}
	for _, e := range d.Entries {
		module, only, one := splitRunnable(e)
		is := module == "*" || name != "" && module == name || !digest.IsZero() && module == digest.String()
		if is && (!one || only == entry) {
			return true
		}
	}
	return false
}

// runsAll reports whether all that e stands for may be run.
func (d *Delegation) runsAll(e string) bool {
	module, entry, one := splitRunnable(e)
	for _, of := range d.Entries {
		m, only, just := splitRunnable(of)
		if (m == "*" || m == module) && (!just || one && only == entry) {
			return true
		}
	}
	return false
}

// CheckRunnable says what is wrong with one of the Entries of a Delegation.
func CheckRunnable(s string) error {
	if len(s) > MaxModule+1+MaxEntry {
		return fmt.Errorf("%.40q… is %d bytes long", s, len(s))
	}
	module, entry, one := splitRunnable(s)
	if one {
		if entry == "" {
			return fmt.Errorf("%.80q ends with a colon: leave it out for every entry", s)
		}
		if err := checkEntry(entry); err != nil {
			return err
		}
	}
	switch {
	case module == "*":
		return nil
	case module == "":
		return fmt.Errorf("%.80q: name a module, its sha256:DIGEST, or * for any", s)
	case strings.HasPrefix(module, "sha256:"):
		if d, err := ParseDigest(module); err != nil {
			return err
		} else if d.String() != module {
			return fmt.Errorf("digest %.80q must be written %s", module, d)
		}
		return nil
	}
	return checkModule(module)
}

// splitRunnable takes apart MODULE or MODULE:ENTRY.
func splitRunnable(s string) (module, entry string, one bool) {
	if rest, ok := strings.CutPrefix(s, "sha256:"); ok {
		module, entry, one = strings.Cut(rest, ":")
		return "sha256:" + module, entry, one
	}
	return strings.Cut(s, ":")
}

// Via is one delegation of a script that a receipt is of: which, and to whom.
type Via struct {
	Delegation Digest
	To         peer.ID
}

// Revocation takes a delegation back: scripts that carry it, or one that passes it
// on, are refused where it is known. Its issuer signs it, who is the issuer of the
// delegation or of one that it passes on.
type Revocation struct {
	Delegation Digest
	Issuer     peer.ID
}

// Encode returns the one encoding of r.
func (r *Revocation) Encode() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("encode revocation: %w", err)
	}
	b, err := marshal(&scriptpb.Revocation{Delegation: r.Delegation[:], Issuer: string(r.Issuer)})
	if err != nil {
		return nil, fmt.Errorf("encode revocation: %w", err)
	}
	return b, nil
}

// DecodeRevocation is the inverse of Encode.
func DecodeRevocation(b []byte) (Revocation, error) {
	var m scriptpb.Revocation
	if err := unmarshal(b, &m, false); err != nil {
		return Revocation{}, fmt.Errorf("decode revocation: %w", err)
	}
	r := Revocation{Issuer: peer.ID(m.Issuer)}
	if err := r.Delegation.set(m.Delegation); err != nil {
		return Revocation{}, fmt.Errorf("decode revocation: delegation: %w", err)
	}
	if err := r.check(); err != nil {
		return Revocation{}, fmt.Errorf("decode revocation: %w", err)
	}
	return r, nil
}

func (r *Revocation) check() error {
	if r.Delegation.IsZero() {
		return errors.New("it does not say of which delegation")
	}
	if _, err := peer.ParseID(string(r.Issuer)); err != nil {
		return fmt.Errorf("issuer: %w", err)
	}
	return nil
}

// Head says that entry Seq of the log of a context had Hash, and so all that came
// before it is what it was. The host that kept the log signs it first, and then
// whoever wants to be able to show what they saw.
type Head struct {
	Context peer.ID
	Host    peer.ID
	Seq     uint64
	Hash    Digest
	Time    time.Time // of the entry
}

// Encode returns the one encoding of h.
func (h *Head) Encode() ([]byte, error) {
	if err := h.check(); err != nil {
		return nil, fmt.Errorf("encode head: %w", err)
	}
	b, err := marshal(&scriptpb.Head{
		Context: string(h.Context), Host: string(h.Host), Seq: h.Seq, Hash: h.Hash[:], TimeMs: h.Time.UnixMilli(),
	})
	if err != nil {
		return nil, fmt.Errorf("encode head: %w", err)
	}
	return b, nil
}

// DecodeHead is the inverse of Encode.
func DecodeHead(b []byte) (Head, error) {
	var m scriptpb.Head
	if err := unmarshal(b, &m, false); err != nil {
		return Head{}, fmt.Errorf("decode head: %w", err)
	}
	h := Head{Context: peer.ID(m.Context), Host: peer.ID(m.Host), Seq: m.Seq, Time: time.UnixMilli(m.TimeMs).UTC()}
	if err := h.Hash.set(m.Hash); err != nil {
		return Head{}, fmt.Errorf("decode head: hash: %w", err)
	}
	if err := h.check(); err != nil {
		return Head{}, fmt.Errorf("decode head: %w", err)
	}
	return h, nil
}

func (h *Head) check() error {
	if _, err := peer.ParseID(string(h.Context)); err != nil {
		return fmt.Errorf("context: %w", err)
	}
	if _, err := peer.ParseID(string(h.Host)); err != nil {
		return fmt.Errorf("host: %w", err)
	}
	if h.Seq == 0 || h.Hash.IsZero() {
		return errors.New("it does not say which entry, or not what its hash was")
	}
	return checkTime("time", h.Time)
}
