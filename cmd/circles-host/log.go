package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/audit"
	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
)

func logCommand() *cli.Command {
	return &cli.Command{
		Name:      "log",
		Usage:     "show what was done, or refused, in a peer's context, by whom and under which rule",
		ArgsUsage: "PEER [RECEIPT]",
		Description: `Lists receipts, oldest first. RECEIPT is the beginning of a script's id, and shows
one whole. The log may be read while a worker writes it.

Whatever is shown has been checked: that each entry follows from the one before
it, and that the host signed it. Nothing in the log itself can tell that its last
entries were taken away, or that the host wrote another: keep the head that --verify
prints, and give it to --head later. Who keeps heads that the host signed, and
receipts, in a folder, checks them all with --heads. --receipt checks one receipt.

   circles-host log bob --sign-head head
   circles-host log --countersign head --as alice --heads seen
   circles-host log bob --verify --heads seen`,
		Flags: []cli.Flag{
			rootFlag(),
			&cli.BoolFlag{Name: "verify", Usage: "only check the log, and print its head"},
			&cli.StringFlag{Name: "head", Usage: "fail unless the entry with this `HASH` is still there"},
			&cli.StringFlag{Name: "heads", Usage: "fail unless the log extends every head, and has every receipt, that is kept in `DIR`"},
			&cli.StringFlag{Name: "sign-head", Usage: "only check the log, and write its head, signed by this host, to `FILE`"},
			&cli.StringFlag{Name: "countersign", Usage: "instead of a log, sign the head in `FILE` as --as, and keep it in --heads"},
			&cli.StringFlag{Name: "as", Usage: "with --countersign: the `PEER` who has seen it, whose key is in this root"},
			&cli.StringFlag{Name: "receipt", Usage: "instead of a log, show the receipt in `FILE`, as send --receipt or an HTTP answer has it"},
			&cli.StringSliceFlag{Name: "signer", Usage: "the `DID` of a host that held the context before, and signed receipts too; with --receipt: that must have signed"},
			&cli.BoolFlag{Name: "denied", Usage: "only what was not done"},
			&cli.StringFlag{Name: "by", Usage: "only what `PEER` sent"},
			&cli.StringFlag{Name: "since", Usage: "only from `TIME` on: 90m or 7d ago, 2026-05-01, 2026-05-01T09:30"},
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with what comes, until Ctrl-C; with --json a line each"},
			&cli.IntFlag{Name: "last", Usage: "only the last `N`"},
			jsonFlag(),
		},
		Action: showLog,
	}
}

// logged is one entry, read.
type logged struct {
	Seq     uint64          `json:"seq"`
	Time    time.Time       `json:"time"`
	Hash    script.Digest   `json:"hash"`
	Receipt *script.Receipt `json:"receipt"`
}

// is reports whether id is the beginning of its script's.
func (l logged) is(id string) bool {
	return strings.HasPrefix(fmt.Sprintf("%x", l.Receipt.Script[:]), id)
}

// formerHosts are those of --signer.
func formerHosts(c *cli.Context) (ids []peer.ID, err error) {
	for _, text := range c.StringSlice("signer") {
		id, err := peer.ParseID(text)
		if err != nil {
			return nil, coded{exitUsage, err}
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func noReceipt(e peer.Entry, id string) error {
	return coded{exitNotFound, fmt.Errorf("%s has no receipt %s; %s log %s lists them", e.Name, id, host.Command, e.Name)}
}

func showLog(c *cli.Context) error {
	kept, countersign := c.String("receipt") != "", c.String("countersign") != ""
	if kept || countersign {
		if err := args(c, 0, 0, ""); err != nil {
			return err
		}
	} else if err := args(c, 1, 2, "PEER [RECEIPT]"); err != nil {
		return err
	}
	root, err := openRoot(c)
	if err != nil {
		return err
	}
	if kept {
		return showKept(c, root)
	}
	if countersign {
		return countersignHead(c, root)
	}
	if c.Bool("follow") && c.IsSet("heads") {
		return usage("--heads is for what is in the log, --follow for what comes: choose")
	}
	wanted, err := wantedOf(c, root)
	if err != nil {
		return err
	}
	e, err := held(root, c.Args().First())
	if err != nil {
		return err
	}
	key, err := root.Key()
	if err != nil {
		return err
	}
	former, err := formerHosts(c)
	if err != nil {
		return err
	}
	signers := append([]peer.ID{key.ID()}, former...)
	s, err := contextsOf(root).Read(c.Context, e)
	if err != nil {
		return inUse(c, root, e, err)
	}
	defer s.Close()
	log := newLogReader(s, e, signers...)
	if dir := c.String("heads"); dir != "" {
		if log.seen, err = audit.Read(dir, e.ID); err != nil {
			return coded{exitInvalid, err}
		}
	}
	if c.Bool("follow") {
		return log.follow(c, root, wanted)
	}
	entries, err := log.all(c.Context)
	if err != nil {
		return coded{exitInvalid, err}
	}
	if hash := c.String("head"); hash != "" {
		if err := contains(entries, e, hash); err != nil {
			return err
		}
	}
	if err := log.contradictions(); err != nil {
		return err
	}
	if file := c.String("sign-head"); file != "" {
		return log.signHead(c, key, entries, file)
	}
	p := printerOf(c)
	if c.Bool("verify") {
		head := "empty"
		if n := len(entries); n > 0 {
			head = entries[n-1].Hash.String()
		}
		if c.Bool("json") {
			return p.json(map[string]any{"peer": e.Name, "entries": len(entries), "head": head, "verified": true})
		}
		p.f("%s %s: %s, chained and signed by %s\n  head %s\n", p.green("✓"), e.Name, count(len(entries), "receipt"), key.ID(), head)
		if log.seen != nil {
			heads, receipts := log.seen.Len()
			p.f("  as it was seen: %s, %s\n", count(heads, "head"), count(receipts, "receipt"))
		}
		return nil
	}
	if id := strings.TrimPrefix(c.Args().Get(1), "sha256:"); id != "" {
		for _, l := range slices.Backward(entries) { // what was pending has another receipt since
			if l.is(id) {
				if c.Bool("json") {
					return p.json(l)
				}
				showReceipt(p, root, l)
				return nil
			}
		}
		return noReceipt(e, id)
	}
	all := len(entries)
	entries = slices.DeleteFunc(entries, func(l logged) bool { return !wanted.has(l) })
	if n := c.Int("last"); n > 0 && n < len(entries) {
		entries = entries[len(entries)-n:]
	}
	if c.Bool("json") {
		if entries == nil {
			entries = []logged{}
		}
		return p.json(entries)
	}
	for _, l := range entries {
		p.logged(root, l)
	}
	switch note := newPrinter(c.App.ErrWriter); {
	case all == 0:
		note.f("nothing is in the log of %s\n", e.Name)
	case len(entries) == 0:
		note.f("none of the %s in the log of %s is like that\n", count(all, "receipt"), e.Name)
	}
	return nil
}

// wanted says which receipts are shown.
type wanted struct {
	by     peer.ID // "" for anybody
	since  time.Time
	denied bool
}

func wantedOf(c *cli.Context, root *host.Root) (w wanted, err error) {
	w.denied = c.Bool("denied")
	if who := c.String("by"); who != "" {
		e, err := root.Peers.Resolve(who)
		if err != nil {
			return w, coded{exitNotFound, err}
		}
		w.by = e.ID
	}
	if text := c.String("since"); text != "" {
		if w.since, err = since(text, time.Now()); err != nil {
			return w, usage("--since %w", err)
		}
	}
	return w, nil
}

// since reads how far back to go: a date, a time, or how long ago.
func since(text string, now time.Time) (time.Time, error) {
	for _, layout := range []string{time.DateOnly, "2006-01-02 15:04", "2006-01-02T15:04", time.DateTime, time.RFC3339} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	ago := text
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			ago = fmt.Sprintf("%dh", 24*n)
		}
	}
	if d, err := time.ParseDuration(ago); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, fmt.Errorf("%q: want how long ago, as in 90m or 7d, or a date, as in 2026-05-01 or 2026-05-01T09:30", text)
}

func (w wanted) has(l logged) bool {
	return (w.by == "" || l.Receipt.Caller == w.by || slices.ContainsFunc(l.Receipt.Via, func(v script.Via) bool { return v.To == w.by })) && !l.Time.Before(w.since) && (!w.denied || l.Receipt.Code != script.Done)
}

// outcome is the colour of what became of a script.
func (p *printer) outcome(code script.Code) func(string) string {
	switch code {
	case script.Done:
		return p.green
	case script.Pending:
		return p.yellow
	}
	return p.red
}

// logged prints a receipt in a line.
func (p *printer) logged(root *host.Root, l logged) {
	r := l.Receipt
	what := codeText(r)
	paint := p.outcome(r.Code)
	about, _ := splitHint(line(r.Message))
	if _, reason, ok := strings.Cut(about, " in the context of "+nameOf(root, r.Target)+": "); ok {
		about = reason // who and what stand before it
	}
	if r.Code == script.Done {
		about = count(len(r.Effects), "change") + ", permitted by " + strings.Join(r.Policies, ", ")
		if r.DryRun {
			about = "dry run, nothing done, permitted by " + strings.Join(r.Policies, ", ")
		}
	}
	by := sentBy(root, r) + " " + what
	about = p.flow(52+max(20, utf8.RuneCountInString(by)), 6, about)
	p.f("%s  %s  %s  %s  %s  %s\n", p.dim(fmt.Sprintf("%4d", l.Seq)), p.dim(when(l.Time)),
		short(r.Script), paint(pad(r.Code.String(), 11)), pad(by, 20), p.dim(about))
}

// sentBy names who sent a script, and on whose behalf.
func sentBy(root *host.Root, r *script.Receipt) string {
	if n := len(r.Via); n > 0 {
		return nameOf(root, r.Via[n-1].To) + " for " + nameOf(root, r.Caller)
	}
	return nameOf(root, r.Caller)
}

// contains checks that the entry with that hash is in the log.
func contains(entries []logged, e peer.Entry, hash string) error {
	want, err := script.ParseDigest(hash)
	if err != nil {
		return usage("--head: %w", err)
	}
	for _, l := range entries {
		if l.Hash == want {
			return nil
		}
	}
	return coded{exitInvalid, fmt.Errorf("the log of %s is not whole: the entry %s is gone, and perhaps others after it; %d are left", e.Name, hash, len(entries))}
}

// readReceipt reads a receipt that somebody kept, as it is sealed or in an HTTP
// answer. signer may be "", for any.
func readReceipt(file string, signer peer.ID) (r script.Receipt, by peer.ID, err error) {
	f, err := os.Open(file)
	if err != nil {
		return r, "", fmt.Errorf("read receipt: %w", err)
	}
	defer f.Close()
	sealed, err := io.ReadAll(io.LimitReader(f, 2*script.MaxSealed))
	if err != nil {
		return r, "", fmt.Errorf("read receipt: %w", err)
	}
	var answer struct {
		Receipt []byte
		Message string
	}
	if json.Unmarshal(sealed, &answer) == nil {
		if sealed = answer.Receipt; sealed == nil {
			return r, "", coded{exitInvalid, fmt.Errorf("%s has no receipt in it; the host answered: %q", file, answer.Message)}
		}
	}
	if r, by, err = envelope.OpenReceipt(sealed, signer); err != nil {
		return r, "", coded{exitInvalid, fmt.Errorf("%s: %w", file, err)}
	}
	return r, by, nil
}

// showKept shows a receipt that was kept by whoever sent the script.
func showKept(c *cli.Context, root *host.Root) error {
	file := c.String("receipt")
	var signer peer.ID
	switch must, err := formerHosts(c); {
	case err != nil:
		return err
	case len(must) > 1:
		return usage("--signer: one host signs a receipt")
	case len(must) == 1:
		signer = must[0]
	}
	r, by, err := readReceipt(file, signer)
	if err != nil {
		return err
	}
	p := printerOf(c)
	if c.Bool("json") {
		return p.json(&r)
	}
	showReceipt(p, root, logged{Receipt: &r})
	whose := "of which nothing is known here; --signer DID says which one it must be"
	key, err := root.Key()
	if err != nil {
		return err
	}
	if target, ok := root.Peers.ByID(r.Target); by == signer {
		whose = "as it must be"
	} else if ok && target.Host == by || ok && target.Held() && key.ID() == by {
		whose = "which is the host of " + who(target)
	} else if by == key.ID() {
		whose = "which is the host of this root"
	}
	p.f("%s signed by %s, %s\n", p.green("✓"), by, whose)
	return nil
}

// logReader reads the log of a context, checks it on the way, and compares it with
// what was seen of it.
type logReader struct {
	store store.Store
	audit.Reader
	seen *audit.Witness // nil: nothing
}

func newLogReader(s store.Store, e peer.Entry, signers ...peer.ID) *logReader {
	return &logReader{store: s, Reader: audit.Reader{Context: e.ID, Name: e.Name, Signers: signers}}
}

// next yields the entries after those that were read before.
func (r *logReader) next(ctx context.Context) iter.Seq2[logged, error] {
	return func(yield func(logged, error) bool) {
		for entry, err := range r.store.Log(ctx, r.Seq()+1) {
			var l logged
			if err == nil {
				l, err = r.check(entry)
			}
			if !yield(l, err) || err != nil {
				return
			}
		}
	}
}

// all are the entries that were not read before.
func (r *logReader) all(ctx context.Context) (entries []logged, err error) {
	for l, err := range r.next(ctx) {
		if err != nil {
			return nil, err
		}
		entries = append(entries, l)
	}
	return entries, nil
}

func (r *logReader) check(entry store.Entry) (logged, error) {
	receipt, err := r.Next(entry)
	if err != nil {
		return logged{}, err
	}
	if r.seen != nil {
		r.seen.See(entry)
	}
	return logged{entry.Seq, entry.Time, entry.Hash(), &receipt}, nil
}

// contradictions says in what the log is not what was seen of it.
func (r *logReader) contradictions() error {
	if r.seen == nil {
		return nil
	}
	all := r.seen.Contradictions()
	if len(all) == 0 {
		return nil
	}
	const shown = 10
	lines := []string{fmt.Sprintf("the log of %s is not what was seen of it:", r.Name)}
	for _, err := range all[:min(len(all), shown)] {
		lines = append(lines, "  "+err.Error())
	}
	if more := len(all) - shown; more > 0 {
		lines = append(lines, fmt.Sprintf("  and %d more", more))
	}
	return coded{exitInvalid, errors.New(strings.Join(lines, "\n"))}
}

// signHead writes the head of what was read, signed by the host.
func (r *logReader) signHead(c *cli.Context, key *peer.Key, entries []logged, file string) error {
	if len(entries) == 0 {
		return coded{exitNotFound, fmt.Errorf("nothing is in the log of %s, so there is no head to sign", r.Name)}
	}
	last := entries[len(entries)-1]
	head := script.Head{Context: r.Context, Host: key.ID(), Seq: last.Seq, Hash: last.Hash, Time: last.Time}
	sealed, err := envelope.SealHead(head, key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, envelope.Text(envelope.HeadText, sealed), 0o644); err != nil {
		return fmt.Errorf("write head: %w", err)
	}
	p := printerOf(c)
	if c.Bool("json") {
		return p.json(map[string]any{"peer": r.Name, "seq": last.Seq, "head": last.Hash, "file": file})
	}
	p.f("%s %s: entry %d, %s\n  %s\n", p.green("✓"), r.Name, last.Seq, last.Hash, relative(file))
	return nil
}

// countersignHead signs a head as a peer of this root who has seen it.
func countersignHead(c *cli.Context, root *host.Root) error {
	if err := needs(c, "as", "heads"); err != nil {
		return err
	}
	e, err := root.Peers.Resolve(c.String("as"))
	if err != nil {
		return coded{exitNotFound, err}
	}
	key, err := keyOf(root, e)
	if err != nil {
		return err
	}
	head, err := audit.ReadHead(c.String("countersign"))
	if err != nil {
		return coded{exitInvalid, err}
	}
	must, known, err := hostOf(root, head.Context)
	if err != nil {
		return err
	}
	file, err := audit.Countersign(head, key, must, c.String("heads"))
	if err != nil {
		return coded{exitInvalid, err}
	}
	p := printerOf(c)
	if c.Bool("json") {
		return p.json(map[string]any{"context": head.Context, "seq": head.Seq, "head": head.Hash, "file": file})
	}
	p.f("%s %s: entry %d, %s\n  %s\n", p.green("✓"), nameOf(root, head.Context), head.Seq, head.Hash, relative(file))
	if !known {
		newPrinter(c.App.ErrWriter).f("%s of which host receipts for %s are good is not known here; see peer add --host\n", p.yellow("!"), nameOf(root, head.Context))
	}
	return nil
}

// hostOf is who signs for the context of a peer, if that is known.
func hostOf(root *host.Root, id peer.ID) (host peer.ID, known bool, err error) {
	e, ok := root.Peers.ByID(id)
	if ok && e.Held() {
		key, err := root.Key()
		if err != nil {
			return "", false, err
		}
		return key.ID(), true, nil
	}
	return e.Host, e.Host != "", nil
}

// follow shows what is in the log, and what comes, until the command is stopped.
func (r *logReader) follow(c *cli.Context, root *host.Root, w wanted) error {
	p := printerOf(c)
	last := c.Int("last")
	var shown []logged // of what was there at first, the last
	show := func(l logged) error {
		if c.Bool("json") {
			return json.NewEncoder(c.App.Writer).Encode(l)
		}
		p.logged(root, l)
		return nil
	}
	for first := true; ; first = false {
		began := time.Now()
		for l, err := range r.next(c.Context) {
			switch {
			case c.Context.Err() != nil:
				return nil
			case err != nil:
				return coded{exitInvalid, err}
			case !w.has(l):
			case first && last > 0:
				if shown = append(shown, l); len(shown) > last {
					shown = shown[1:]
				}
			default:
				if err := show(l); err != nil {
					return err
				}
			}
		}
		for _, l := range shown {
			if err := show(l); err != nil {
				return err
			}
		}
		shown = nil
		// A long log takes a while to look through again.
		select {
		case <-time.After(max(followEvery, 10*time.Since(began))):
		case <-c.Context.Done():
			return nil
		}
	}
}

const followEvery = 250 * time.Millisecond

// when leaves out the year where that is this one.
func when(t time.Time) string {
	t = t.Local()
	if t.Year() == time.Now().Year() {
		return t.Format("Jan _2 15:04:05")
	}
	return t.Format("2006-01-02 15:04")
}

func nameOf(root *host.Root, id peer.ID) string {
	if e, ok := root.Peers.ByID(id); ok && e.Name != "" {
		return string(e.Name)
	}
	return id.Short()
}

// showVia prints the delegations that a script came by.
func showVia(p *printer, root *host.Root, r *script.Receipt, row func(label, value string)) {
	for i, v := range r.Via {
		label := "sent by"
		if i < len(r.Via)-1 {
			label = "by way of"
		}
		row(label, nameOf(root, v.To)+p.dim("  "+string(v.To)+", by delegation "+short(v.Delegation)))
	}
}

// showReceipt prints all of a receipt for a person.
func showReceipt(p *printer, root *host.Root, l logged) {
	r := l.Receipt
	row := func(label, value string) {
		if value != "" {
			p.f("%s %s\n", p.dim(pad(label, 9)), value)
		}
	}
	paint := p.outcome(r.Code)
	if l.Seq > 0 {
		row("receipt", fmt.Sprintf("%d of the log, %s", l.Seq, l.Time.Local().Format("2006-01-02 15:04:05 MST")))
	} else {
		row("receipt", r.Finished.Local().Format("2006-01-02 15:04:05 MST"))
	}
	row("script", r.Script.String())
	row("outcome", paint(r.Code.String()))
	reason, hint := splitHint(r.Message)
	row("why", clean(reason))
	row("allow it", clean(hint))
	row("caller", nameOf(root, r.Caller)+p.dim("  "+string(r.Caller)))
	showVia(p, root, r, row)
	row("target", nameOf(root, r.Target)+p.dim("  "+string(r.Target)))
	row("host", string(r.Host))
	row("module", codeText(r))
	if !r.Module.IsZero() {
		row(" ", p.dim(r.Module.String()))
	}
	for i, part := range r.Parts {
		label := "ran"
		if i > 0 {
			label = " "
		}
		row(label, partText(part)+p.dim("  "+part.Module.String()))
	}
	row("policies", orNone(r.Policies))
	if !r.Pending.IsZero() {
		by := "nobody in time"
		if !r.Decision.IsZero() {
			by = nameOf(root, r.Target) + p.dim("  by script "+short(r.Decision))
		}
		row("decided", by)
	}
	if !r.Expires.IsZero() {
		row("waits", "until "+r.Expires.Local().Format("2006-01-02 15:04:05 MST"))
	}
	if len(r.Result) > 0 {
		row("result", line(cut(string(r.Result), 500)))
	}
	if r.ExitCode != 0 {
		row("exit code", fmt.Sprint(r.ExitCode))
	}
	for i, e := range r.Effects {
		label := "changes"
		if r.DryRun {
			label = "would do"
		}
		if i > 0 {
			label = " "
		}
		row(label, effectText(e))
	}
	for i, s := range r.Sent {
		label := "sent"
		if i > 0 {
			label = " "
		}
		row(label, sentText(root, s))
	}
	if r.Usage != (script.Usage{}) {
		row("used", usageText(r.Usage))
	}
	if len(r.Log) > 0 {
		row("log", strings.TrimPrefix(indent(strings.Repeat(" ", 10), clean(string(r.Log))), strings.Repeat(" ", 10)))
	}
}

// partText is a module that took part, and its share.
func partText(part script.Part) string {
	name := part.Name
	if name == "" {
		name = "carried code"
	}
	text := line(name) + " of the " + line(part.Layer)
	if part.Layer == module.Carried {
		text = line(name)
	}
	if part.Calls > 1 {
		text += fmt.Sprintf(" ×%d", part.Calls)
	}
	return text + ", " + number(part.Fuel) + " fuel"
}

// partsText is all of them on a line; "" for none.
func partsText(parts []script.Part) string {
	var texts []string
	for _, part := range parts {
		texts = append(texts, partText(part))
	}
	return strings.Join(texts, "; ")
}

// codeText says what a script ran.
func codeText(r *script.Receipt) string {
	what := r.ModuleName
	switch {
	case slices.Equal(r.Policies, []string{policy.Issuer}):
		return "a revocation"
	case !r.Undid.IsZero():
		return "undo of " + short(r.Undid)
	case !r.Decided.IsZero():
		return "review of " + short(r.Decided)
	case what == "":
		what = "carried code"
	}
	if r.Entry != "" {
		what += ":" + r.Entry
	}
	if r.Instead != "" { // which the target has for that
		what += " → " + line(r.Instead)
	}
	return what
}

// sentText is a script that another one sent.
func sentText(root *host.Root, s script.Sent) string {
	what := s.Code.String()
	if s.Code == script.Unknown {
		what = "nobody knows: no receipt came"
	}
	return fmt.Sprintf("%s to %s: %s", short(s.Script), nameOf(root, s.Target), what)
}

// wouldSend prints the scripts that a try sent.
func wouldSend(p *printer, root *host.Root, sent []script.Sent) {
	for _, s := range sent {
		p.f("would send a script to %s, which was tried: %s\n", nameOf(root, s.Target), s.Code)
	}
}

func effectText(e script.Effect) string {
	s := pad(e.Kind.String(), 9) + clean(e.Path)
	if _, _, ok := e.Record(); ok {
		s = pad(strings.TrimPrefix(e.Kind.String(), "record-"), 9) + clean(e.Path[1:])
	}
	switch e.Kind {
	case script.RecordPut:
		switch {
		case e.After.Digest.IsZero(): // the script may not get it
		case e.Before.Digest.IsZero():
			s += fmt.Sprintf("  (record, %s)", bytesText(uint64(e.After.Size)))
		default:
			s += fmt.Sprintf("  (record, %s → %s)", bytesText(uint64(e.Before.Size)), bytesText(uint64(e.After.Size)))
		}
	case script.RecordDeleted:
		s += "  (record)"
	case script.Created:
		s += fmt.Sprintf("  (%s)", bytesText(uint64(e.After.Size)))
	case script.Modified:
		if end := e.End; end != (script.End{}) {
			e.Before.Size, e.After.Size = end.At+end.Before.Size, end.At+end.After.Size
		}
		s += fmt.Sprintf("  (%s → %s)", bytesText(uint64(e.Before.Size)), bytesText(uint64(e.After.Size)))
	case script.Linked:
		s += " → " + clean(e.To)
	}
	return s
}

func usageText(u script.Usage) string {
	parts := []string{took(u.Wall)}
	if u.Fuel > 0 {
		parts = append(parts, number(u.Fuel)+" fuel")
	}
	if u.MemoryBytes > 0 {
		parts = append(parts, bytesText(u.MemoryBytes)+" memory")
	}
	if u.HostCalls > 0 {
		parts = append(parts, number(u.HostCalls)+" host calls")
	}
	if u.FileBytes > 0 {
		parts = append(parts, bytesText(u.FileBytes)+" written")
	}
	if u.Entries > 0 {
		parts = append(parts, number(u.Entries)+" entries")
	}
	if u.Handles > 0 {
		parts = append(parts, number(u.Handles)+" handles")
	}
	return strings.Join(parts, ", ")
}

func cut(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}
