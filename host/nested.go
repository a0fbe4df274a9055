package host

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"

	"github.com/circles-host/circles/host/envelope"
	remote "github.com/circles-host/circles/host/imports/contexts"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/transport"
)

// A script that runs may send another one, nested in it, to another peer: as the owner
// of the context it runs in, and not as its caller. It waits for the receipt, inside of
// its transaction. What the nested one did is committed where it ran, whatever becomes
// of the one that sent it.
//
// A script may be run again: when others committed first, when its owner approves it,
// when it is delivered twice. So what is nested is derived from it: the nth one has the
// same nonce and times in each run, and is answered, if it is the same, with the receipt
// of the first time.

// defaultSends is how many scripts one may send.
const defaultSends = 16

// sends is what one run sends.
type sends struct {
	receipt *script.Receipt // of the run, which names them
	// try says that nothing is to come of the run: what is nested is tried, and kept
	// nowhere, where that can be done here.
	try bool
	// decision is the owner's who approved the script, which may be over by then.
	decision *script.Script

	n     int
	ids   []script.ID // of what was sent, as it would be in a try
	stuck error       // the run would stand still; whatever it makes of that, it is undone
}

// sendingContext is the context of a target, from which scripts are sent.
type sendingContext struct {
	remote.Context
	*frame
	guard *watched // whose code it is that sends
}

// Send implements contexts.Context.
func (c *sendingContext) Send(ctx context.Context, to, logic, entry string, params []byte) ([]byte, error) {
	other, err := c.may(to)
	if err != nil {
		return nil, err
	}
	s := script.Script{Target: other.ID, Entry: entry, Params: params}
	if strings.HasPrefix(logic, "sha256:") {
		s.Logic.Digest, err = script.ParseDigest(logic)
	} else if s.Logic.Name = logic; !module.ValidName(logic) {
		err = fmt.Errorf("%.80q is neither a module's name nor sha256:DIGEST", logic)
	}
	if err == nil {
		err = c.nest(&s)
	}
	if err != nil {
		return nil, &remote.Error{Code: remote.Invalid, Message: fmt.Sprintf("cannot send to %s: %s", shown80(to), printed(err))}
	}
	c.in.turn.Pause() // others compute meanwhile
	defer c.in.turn.Resume()
	defer c.in.target.waits.send(s.Within.Root)()
	ctx, cancel := c.Host.apart(ctx)
	defer cancel()
	r, err := c.deliver(ctx, s, to)
	c.in.guard.asked.Store(true) // it knows something of the other now
	if err != nil {
		return nil, c.failed(to, err)
	}
	return outcome(to, r)
}

// may is who is called so, if the script may send to them, and as often as it does.
func (c *sendingContext) may(to string) (peer.Peer, error) {
	other, err := c.guard.grants.Send(to)
	c.guard.all().trace.saw(c.guard.grants, script.Send, to, err)
	if c.guard.note(err) != nil {
		return other, &remote.Error{Code: remote.Denied, Message: printed(err), Err: err}
	}
	run := c.in.sends
	most := nearer(c.Host.config.MaxSends, c.in.Limits().Sends)
	deny := func(code remote.Code, format string, a ...any) error {
		return &remote.Error{Code: code, Message: fmt.Sprintf("cannot send to %s: ", shown80(to)) + fmt.Sprintf(format, a...)}
	}
	within := c.in.Script().Within.Contexts
	switch self := c.in.target.entry.ID; {
	case other.ID == "":
		return other, deny(remote.NotFound, "nobody is called that here; name a peer by its did:key, or as the owner of this context knows it")
	case c.readsOnly():
		return other, deny(remote.ReadOnlyContext, "this module says that it only reads; let it name send among the needs of its manifest")
	case run.stuck != nil:
		return other, deny(remote.Unavailable, "%v", run.stuck)
	case run.n >= most:
		return other, deny(remote.Denied, "this script has sent %d others, which is as many as it may; the context's owner can allow more: @limits(\"sends=…\"), and the host's operator: sends, under [limits]", run.n)
	case len(within) >= script.MaxWithin:
		return other, deny(remote.Denied, "this script was sent by one that was sent by one, and so on, %d deep, and no more wait for each other; let an earlier one send it", len(within))
	case other.ID == self:
		return other, deny(remote.Denied, "that is the context that this script runs in, and it would wait for itself; call a module of it instead")
	default:
		for _, id := range within {
			if id == other.ID {
				return other, deny(remote.Denied, "the context of %s waits for this script, and both would wait for ever; return what it should know as the result", shown80(to))
			}
		}
	}
	return other, nil
}

// nest makes s the next script that this run sends.
func (c *sendingContext) nest(s *script.Script) error {
	outer, run := c.in.Script(), c.in.sends
	s.Caller = c.in.target.entry.ID
	s.NotBefore, s.Deadline = outer.NotBefore, outer.Deadline
	s.Within.Root = outer.Within.Root
	if s.Within.IsZero() {
		s.Within.Root = c.in.ID()
	}
	s.Within.Contexts = append(append([]peer.ID(nil), outer.Within.Contexts...), s.Caller)
	s.DryRun = true
	s.Nonce = nestedNonce(c.in.ID(), run.n, true)
	encoded, err := s.Encode()
	if err != nil {
		return err
	}
	run.n++
	run.ids = append(run.ids, script.IDOf(encoded))
	if s.DryRun = run.try || outer.DryRun; s.DryRun {
		return nil
	}
	s.Nonce = nestedNonce(c.in.ID(), run.n-1, false)
	if run.decision != nil {
		// The script was held for review, and its own time may be over. That of the
		// decision differs from one to the next: the half day that it is does not, mostly.
		s.NotBefore = run.decision.NotBefore.Truncate(halfDay)
		s.Deadline = s.NotBefore.Add(2 * halfDay)
	}
	return nil
}

const halfDay = script.MaxLifetime / 2

// nestedNonce is that of the nth script that another sends.
func nestedNonce(outer script.ID, n int, dry bool) (nonce script.Nonce) {
	b := append([]byte("circles nested nonce v1\x00"), outer[:]...)
	b = binary.AppendUvarint(b, uint64(n))
	if dry { // which is another script
		b = append(b, 1)
	}
	sum := sha256.Sum256(b)
	copy(nonce[:], sum[:])
	return nonce
}

// apart is a context that ends with that of a run, and has nothing of it: the nested
// script is a guest of its own.
func (h *Host) apart(ctx context.Context) (context.Context, context.CancelFunc) {
	over, _ := ctx.Deadline() // a run has one
	apart, cancel := context.WithDeadline(h.running, over)
	unlink := context.AfterFunc(ctx, cancel)
	return apart, func() { unlink(); cancel() }
}

// deliver has s run, or tried, where its target is.
func (c *sendingContext) deliver(ctx context.Context, s script.Script, to string) (script.Receipt, error) {
	h, run := c.Host, c.in.sends
	here := h.Holds(s.Target)
	if run.try && !here && (c.in.Supposed() || c.in.guard.asked.Load()) {
		return script.Receipt{}, &remote.Error{Code: remote.Unavailable, Message: "this is a try, and what a script has found out here does not leave this host in one"}
	}
	key, err := h.signs(c.in.target, &s, to)
	if err != nil {
		return script.Receipt{}, err
	}
	if run.try && here {
		if s.Chain != nil {
			return script.Receipt{}, &remote.Error{Code: remote.Unavailable, Message: "this is a try, and a script that is sent by way of a delegation cannot be tried"}
		}
		tried, err := h.Rehearse(inside(ctx), s, nil)
		run.name(script.Sent{Script: run.ids[run.n-1], Target: s.Target, Code: tried.Receipt.Code})
		return tried.Receipt, err
	}
	sealed, id, err := envelope.SealScript(s, key)
	if err != nil {
		return script.Receipt{}, err
	}
	named := script.Sent{Script: id, Target: s.Target}
	run.name(named) // whatever comes of it
	back, by, err := h.carry(ctx, s.Target, sealed, to)
	if err != nil {
		return script.Receipt{}, err
	}
	r, _, err := envelope.OpenReceiptOf(id, back, by)
	if err != nil {
		return r, &remote.Error{Code: remote.Unavailable, Message: printed(fmt.Errorf("its host's answer does not count: %w", err))}
	}
	named.Code, named.Receipt = r.Code, script.DigestOf(back)
	run.name(named)
	return r, nil
}

// name writes down what was sent, or what came of it.
func (run *sends) name(s script.Sent) {
	for i, was := range run.receipt.Sent {
		if was.Script == s.Script {
			if s.Code != script.Unknown {
				run.receipt.Sent[i] = s
			}
			return
		}
	}
	if len(run.receipt.Sent) < script.MaxSent {
		run.receipt.Sent = append(run.receipt.Sent, s)
	}
}

// signs is the key by which a context's owner sends s: the owner's own, or that of this
// host, to which the owner has delegated it.
func (h *Host) signs(from *peerContext, s *script.Script, to string) (*peer.Key, error) {
	key, err := from.entry.Key()
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	given, err := Delegations(h.delegations)
	if err != nil {
		return nil, err
	}
	for _, d := range given {
		if d.Lets(s, s.Caller, h.key.ID(), h.now()) {
			s.Chain = d.Sealed
			return h.key, nil
		}
	}
	what := s.Logic.Name
	if what == "" {
		what = s.Logic.Digest.String()
	}
	if s.Entry != "" {
		what += ":" + s.Entry
	}
	return nil, &remote.Error{Code: remote.Unavailable, Message: fmt.Sprintf(
		"this host has no key of %s to sign with, and no delegation; where that key is: %s, and here: %s delegation add FILE",
		from.entry.Name, shell([]string{Command, "delegation", "create", string(h.key.ID()), what, "--as", string(s.Caller), "--to", to}), Command)}
}

// carry takes what is sealed to its target, and returns the sealed receipt and who has
// to have signed it, "" if that is not known.
func (h *Host) carry(ctx context.Context, target peer.ID, sealed []byte, to string) ([]byte, peer.ID, error) {
	if h.Holds(target) {
		back, err := h.Deliver(inside(ctx), sealed, nil)
		return back, h.ID(), err
	}
	entry, _ := h.peers.ByID(target)
	url, by := entry.URL, entry.Host
	if entry.Held() { // and served by another worker
		url, by = h.workerOf(ctx, entry), h.ID()
	}
	if url == "" || h.config.Dial == nil {
		return nil, "", &remote.Error{Code: remote.Unavailable, Message: fmt.Sprintf(
			"where the context of %s is, is not known here; the host's operator says so: %s", shown80(to), shell([]string{Command, "peer", "add", "NAME", "--id", string(target), "--url", "URL"}))}
	}
	way, err := h.ways.to(url, h.config.Dial)
	if err != nil {
		return nil, "", err
	}
	back, err := way.Send(ctx, sealed, nil)
	return back, by, err
}

// failed is what the script is told when there is no receipt.
func (c *sendingContext) failed(to string, err error) error {
	tell := func(code remote.Code, why string) error {
		return &remote.Error{Code: code, Message: fmt.Sprintf("cannot send to %s: %s", shown80(to), why), Err: err}
	}
	var told *remote.Error
	if errors.As(err, &told) {
		return tell(told.Code, told.Message)
	}
	var e *transport.Error
	switch {
	case !errors.As(err, &e):
		if !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
			c.Host.report(fmt.Errorf("send from the context of %s: %w", c.in.target.entry.Name, err))
		}
		return tell(remote.Unavailable, "this host could not deliver it; its operator's log may say why")
	case e.Code == transport.Standstill:
		c.in.sends.stuck = errStandstill
		return tell(remote.Unavailable, printed(e))
	case e.Code == transport.Conflict:
		return tell(remote.Conflict, "an earlier run of this script sent something else as its script number "+fmt.Sprint(c.in.sends.n)+", or at another time, and what that did stands; let a script send the same each time that it is run")
	}
	return tell(remote.Unavailable, printed(e))
}

// outcome is what a receipt is to the script that waits for it.
func outcome(to string, r script.Receipt) ([]byte, error) {
	if r.Code == script.Done {
		return r.Result, nil
	}
	code, ok := sentCodes[r.Code]
	if !ok {
		code = remote.Unavailable
	}
	message := r.Message
	if r.Code == script.Pending {
		message = "it is pending: " + message
	}
	return nil, &remote.Error{Code: code, Message: fmt.Sprintf("script %s to %s: %s: %s", r.Script.Short(), shown80(to), r.Code, printedText(message))}
}

var sentCodes = map[script.Code]remote.Code{
	script.Refused: remote.Denied, script.NotFound: remote.NotFound, script.Invalid: remote.Invalid, script.Conflict: remote.Conflict,
	script.Failed: remote.Failed, script.Trapped: remote.Failed, script.Deadline: remote.Failed, script.OutOfMemory: remote.Failed, script.OverLimit: remote.Failed,
}

// shown80 is a name that a script made up.
func shown80(s string) string {
	if _, err := peer.ParseName(s); err == nil {
		return s
	}
	if id, err := peer.ParseID(s); err == nil {
		return id.Short()
	}
	return fmt.Sprintf("%.80q", s)
}

// printed is the text of an error that may be another host's: it goes on to guests,
// receipts and terminals.
func printed(err error) string { return printedText(err.Error()) }

func printedText(s string) string {
	const most = 2 << 10
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || 0x80 <= r && r < 0xa0 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

// inside marks a delivery by a script of this host, which goes on the place that this
// one has: were it turned away, that one would have waited for nothing.
func inside(ctx context.Context) context.Context { return context.WithValue(ctx, insideKey{}, true) }

func isInside(ctx context.Context) bool { return ctx.Value(insideKey{}) != nil }

type insideKey struct{}

// ways are connections to other hosts, kept for the next script that is sent there.
type ways struct {
	mu     sync.Mutex
	by     map[string]transport.Sender
	closed bool
}

// maxWays bounds them. They are as many as circles.toml has routes, or had.
const maxWays = 256

func (w *ways) to(url string, dial func(string) (transport.Sender, error)) (transport.Sender, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.by[url]; s != nil {
		return s, nil
	}
	if w.closed {
		return nil, errShutdown
	}
	s, err := dial(url)
	if err != nil {
		return nil, err
	}
	if w.by == nil || len(w.by) >= maxWays {
		w.by = map[string]transport.Sender{} // those that are in use close when they are idle
	}
	w.by[url] = s
	return s, nil
}

func (w *ways) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for _, s := range w.by {
		_ = s.Close()
	}
	w.by = nil
}
