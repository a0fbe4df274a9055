package host

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/revoked"
	"github.com/circles-host/circles/host/script"
)

// RevokedDir is where the delegations are that the owner of e takes back, or that
// their issuers took back there: beside the owner's policies, and carried along with
// them. See package revoked.
func RevokedDir(e peer.Entry) string { return filepath.Join(e.Dir, "policy", "revoked") }

// RevokedDir is the same for every context of the root.
func (r *Root) RevokedDir() string { return filepath.Join(r.Dir, "revoked") }

// DelegationsDir is where the delegations are that e was given.
func DelegationsDir(e peer.Entry) string { return filepath.Join(e.Dir, "delegations") }

// DelegationsDir is where those are that the host was given.
func (r *Root) DelegationsDir() string { return filepath.Join(r.Dir, "delegations") }

// takeBack is the work of a script that takes a delegation back in its target's context.
type takeBack struct{ sealed []byte }

func (takeBack) readsOnly() bool       { return true }
func (takeBack) digest() script.Digest { return script.Digest{} }

// What is sent is kept as long as there are no more revocations than this, of one issuer
// and in all: the rest is for the owner's own.
const (
	maxRevokedBy   = 64
	maxRevokedSent = revoked.MaxFiles / 2
)

// do keeps the revocation. That is done also if its receipt cannot be logged: it can be
// sent again.
func (t takeBack) do(_ context.Context, in running) (out engine.Output, err error) {
	start := time.Now()
	r, err := envelope.OpenRevocation(t.sealed)
	if err != nil {
		return out, err
	}
	dir := RevokedDir(in.target.entry)
	all, err := revoked.All(dir)
	if err != nil {
		return out, err
	}
	by, there := 0, false
	for _, e := range all {
		if e.By == r.Issuer {
			by++
			there = there || e.Delegation == r.Delegation
		}
	}
	switch {
	case there || in.Script().DryRun:
	case by >= maxRevokedBy || len(all) >= maxRevokedSent:
		return out, &policy.RefusedError{Reason: fmt.Sprintf("%d revocations of yours are kept there, and %d in all, which is as many as are taken: the owner of the context can remove those that are over", by, len(all))}
	default:
		if _, err := revoked.Add(dir, r.Delegation, t.sealed); err != nil {
			return out, err
		}
	}
	out.Result, err = json.Marshal(map[string]any{"delegation": r.Delegation, "issuer": r.Issuer})
	out.Usage.Wall = time.Since(start)
	return out, err
}

// unrevoked refuses a script that carries a delegation which was taken back, here or
// for all contexts of the host. A script without one costs nothing.
func (c *peerContext) unrevoked(v *envelope.Verified, parties peer.Parties) error {
	if v.Chain() == nil {
		return nil
	}
	for _, list := range []*revoked.List{c.revoked, c.host.revoked} {
		err := list.Check(v.Chain())
		if err == nil {
			continue
		}
		// Anybody can send scripts with chains, as often as they like: what is wrong is
		// said when it changes.
		if broken := errors.Unwrap(err); broken != nil {
			text := broken.Error()
			if said := c.badRevoked.Swap(&text); said == nil || *said != text {
				c.host.report(broken)
			}
		}
		return &policy.RefusedError{Request: policy.Request{Parties: parties}, Reason: err.Error()}
	}
	c.badRevoked.Store(nil)
	return nil
}

// Held is a chain of delegations in the directory of whom it is for.
type Held struct {
	File   string
	Sealed [][]byte
	Links  []envelope.Link // the last is for the holder; nil with Err
	Err    error           // why it is none
}

const (
	delegationSuffix = ".delegation"
	maxHeld          = 1000 // files of a directory that are looked at
)

// ReadDelegation reads the chain in a file.
func ReadDelegation(file string) (Held, error) {
	h := Held{File: file}
	f, err := os.Open(file)
	if err != nil {
		return h, fmt.Errorf("read delegation: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return h, fmt.Errorf("read delegation: %s is no file: %w", file, errors.Join(err, fs.ErrInvalid))
	}
	text, err := io.ReadAll(io.LimitReader(f, envelope.MaxText+1))
	if err != nil {
		return h, fmt.Errorf("read delegation: %w", err)
	}
	if h.Sealed, err = envelope.ParseText(envelope.DelegationText, text); err == nil {
		h.Links, err = envelope.OpenChain(h.Sealed)
	}
	if err != nil {
		return h, fmt.Errorf("read delegation %s: %w", file, err)
	}
	return h, nil
}

// Delegations reads those that are held in dir, by the names of their files; none if
// there is no such directory. One that is none is among them, with its Err.
func Delegations(dir string) ([]Held, error) {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read delegations: %w", err)
	}
	defer d.Close()
	names, err := d.Readdirnames(maxHeld + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read delegations: %w", err)
	}
	if len(names) > maxHeld {
		return nil, fmt.Errorf("read delegations: %s has more than %d files: remove those that are over", dir, maxHeld)
	}
	slices.Sort(names)
	var all []Held
	for _, name := range names {
		if strings.HasPrefix(name, ".") || !strings.HasSuffix(name, delegationSuffix) {
			continue
		}
		// A pipe that somebody left there would keep whoever opens it waiting.
		file := filepath.Join(dir, name)
		if info, err := os.Lstat(file); err != nil || !info.Mode().IsRegular() {
			all = append(all, Held{File: file, Err: fmt.Errorf("read delegation: %s is no file", file)})
			continue
		}
		h, err := ReadDelegation(file)
		h.Err = err
		all = append(all, h)
	}
	return all, nil
}

// KeepDelegation writes a chain into dir, which it makes if need be, and returns the
// file. One that is there already stays as it is.
func KeepDelegation(dir string, sealed [][]byte) (file string, err error) {
	links, err := envelope.OpenChain(sealed)
	if err != nil {
		return "", fmt.Errorf("keep delegation: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("keep delegation: %w", err)
	}
	id := links[len(links)-1].ID
	file = filepath.Join(dir, fmt.Sprintf("%x%s", id[:], delegationSuffix))
	temporary := filepath.Join(dir, ".new-"+rand.Text())
	defer func() { _ = os.Remove(temporary) }()
	err = os.WriteFile(temporary, envelope.Text(envelope.DelegationText, sealed...), 0o600)
	if err == nil {
		err = os.Rename(temporary, file)
	}
	if err != nil {
		return "", fmt.Errorf("keep delegation: %w", err)
	}
	return file, nil
}

// Lets reports whether the chain lets signer send s, on behalf of caller and to
// s.Target, as of now; as far as that shows without the target's modules.
func (h Held) Lets(s *script.Script, caller, signer peer.ID, now time.Time) bool {
	if h.Err != nil || len(h.Links) == 0 || envelope.CheckTime(h.Links, now) != nil {
		return false
	}
	digest := s.Logic.Digest
	if carried := s.Logic.Carried(); !carried.IsZero() {
		digest = carried
	}
	first, last := h.Links[0], h.Links[len(h.Links)-1]
	return first.Issuer == caller && last.To == signer && last.For(s.Target) && last.Runs(s.Logic.Name, digest, s.Entry)
}
