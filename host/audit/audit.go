// Package audit checks the log of a context: that it is the one that its host wrote,
// whole, and that it still says what was seen of it before.
//
// A Reader is handed the entries in order, and says of each whether it follows from
// the one before it and is a receipt that the host signed. That shows an entry that
// was altered, taken out, put in, or moved; but not that the last ones are gone, nor
// that the host itself wrote another log in its place. For that somebody else must
// have seen it. A Witness holds what they kept:
//
//	seen, err := audit.Read("heads", bob)
//	for entry, err := range store.Log(ctx, 1) {
//		receipt, err := reader.Next(entry)
//		seen.See(entry)
//	}
//	contradictions := seen.Contradictions()
//
// What was seen is a head, "entry 12 had this hash", which the host signs and peers
// sign in their turn (Countersign), or a receipt, which whoever sent a script has
// anyhow. A head binds all entries up to it. Two heads of one host that contradict
// each other prove, without any log, that it keeps two.
//
// A countersignature says that its signer saw the head, and not that it had been
// checked what lies before it: only who reads the log can do that.
package audit

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
)

// Reader checks the entries of one log, from the first on.
type Reader struct {
	Context peer.ID   // whose log it is
	Name    peer.Name // for messages
	Signers []peer.ID // the hosts whose receipts it may hold

	seq  uint64
	prev [32]byte
}

// Seq is the number of the last entry that was checked; 0 before the first.
func (r *Reader) Seq() uint64 { return r.seq }

// Next checks the next entry and returns the receipt in it. After an error nothing
// more can be said of the log.
func (r *Reader) Next(e store.Entry) (script.Receipt, error) {
	seq := r.seq + 1
	if e.Seq != seq {
		return script.Receipt{}, fmt.Errorf("the log of %s is not whole: entry %d is missing, where %d is", r.Name, seq, e.Seq)
	}
	if e.Prev != r.prev {
		return script.Receipt{}, fmt.Errorf("the log of %s was altered: entry %d does not follow from the one before it", r.Name, seq)
	}
	receipt, signer, err := envelope.OpenReceipt(e.Data, "")
	if err != nil {
		return script.Receipt{}, fmt.Errorf("the log of %s was altered: entry %d: %w", r.Name, seq, err)
	}
	if !slices.Contains(r.Signers, signer) {
		return script.Receipt{}, fmt.Errorf("the log of %s was altered, or comes from another host: %s signed entry %d; if the context was held there before, say --signer %s",
			r.Name, signer, seq, signer)
	}
	if receipt.Target != r.Context {
		return script.Receipt{}, fmt.Errorf("the log of %s was altered: entry %d is a receipt for %s", r.Name, seq, receipt.Target)
	}
	r.seq, r.prev = seq, e.Hash()
	return receipt, nil
}

const (
	maxFiles = 10_000               // of a directory of evidence
	maxFile  = 2 * script.MaxSealed // bytes; a receipt in base64
	// headSuffix ends the names of files that Countersign writes.
	headSuffix = ".head"
)

// Head is a head that somebody signed.
type Head struct {
	script.Head
	File   string
	Signer peer.ID

	text []byte // of the file
}

// receipt is a receipt that somebody kept.
type receipt struct {
	file   string
	script script.ID
	done   bool
}

// Witness is what was seen of one log, in the files of a directory.
type Witness struct {
	context  peer.ID
	heads    map[uint64][]Head          // by entry
	receipts map[script.Digest]*receipt // by the SHA-256 of their sealed bytes
	seen     map[script.Digest]bool
	wrong    []error
	last     uint64
}

// Read reads what is in dir about the log of context: heads, and receipts as send
// --receipt or an HTTP answer has them. What is about other contexts is left out. A
// file that is neither is an error: it may have been one.
func Read(dir string, context peer.ID) (*Witness, error) {
	w := &Witness{context: context, heads: map[uint64][]Head{}, receipts: map[script.Digest]*receipt{}, seen: map[script.Digest]bool{}}
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("read heads: %w", err)
	}
	defer d.Close()
	names, err := d.Readdirnames(maxFiles + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read heads: %w", err)
	}
	if len(names) > maxFiles {
		return nil, fmt.Errorf("read heads: %s has more than %d files", dir, maxFiles)
	}
	slices.Sort(names)
	for _, name := range names {
		if strings.HasPrefix(name, ".") {
			continue
		}
		if err := w.read(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (w *Witness) read(file string) error {
	// A pipe that somebody left there would keep whoever opens it waiting.
	if info, err := os.Stat(file); err != nil || !info.Mode().IsRegular() {
		return fmt.Errorf("read heads: %s is no file", file)
	}
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("read heads: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return fmt.Errorf("read heads: %w", err)
	}
	if bytes.HasPrefix(b, []byte(envelope.HeadText)) {
		h, err := parseHead(b)
		if err != nil {
			return fmt.Errorf("read heads: %s: %w", file, err)
		}
		if h.File = file; h.Context == w.context {
			w.heads[h.Seq] = append(w.heads[h.Seq], h)
		}
		return nil
	}
	var answer struct{ Receipt []byte }
	if json.Unmarshal(b, &answer) == nil && answer.Receipt != nil {
		b = answer.Receipt
	}
	r, _, err := envelope.OpenReceipt(b, "")
	if err != nil {
		return fmt.Errorf("read heads: %s is neither a head nor a receipt: %w", file, err)
	}
	if r.Target == w.context {
		w.receipts[script.DigestOf(b)] = &receipt{file: file, script: r.Script, done: r.Code == script.Done}
	}
	return nil
}

// ReadHead reads a head that somebody signed.
func ReadHead(file string) (Head, error) {
	f, err := os.Open(file)
	if err != nil {
		return Head{}, fmt.Errorf("read head: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 4*envelope.MaxHead))
	if err != nil {
		return Head{}, fmt.Errorf("read head: %w", err)
	}
	h, err := parseHead(b)
	if err != nil {
		return Head{}, fmt.Errorf("read head %s: %w", file, err)
	}
	h.File = file
	return h, nil
}

func parseHead(text []byte) (Head, error) {
	sealed, err := envelope.ParseText(envelope.HeadText, text)
	if err != nil {
		return Head{}, err
	}
	h, signer, err := envelope.OpenHead(sealed[0])
	return Head{Head: h, Signer: signer, text: text}, err
}

// See compares an entry of the log with what was seen of it.
func (w *Witness) See(e store.Entry) {
	w.last = e.Seq
	if len(w.receipts) > 0 {
		if digest := script.DigestOf(e.Data); w.receipts[digest] != nil {
			w.seen[digest] = true
		}
	}
	for _, h := range w.heads[e.Seq] {
		if h.Hash != e.Hash() {
			w.wrong = append(w.wrong, &Contradiction{Head: h, said: fmt.Sprintf(
				"entry %d is not what it was: %s signed a head with another hash (%s); it, or one before it, was replaced", e.Seq, w.who(h), h.File)})
		}
	}
}

// who tells whose word a head is.
func (w *Witness) who(h Head) string {
	if h.Signer == h.Host {
		return "the host " + h.Host.Short()
	}
	return h.Signer.Short()
}

// Contradiction is a log that does not extend what was seen of it.
type Contradiction struct {
	Head Head // zero if it is about a receipt
	said string
}

func (c *Contradiction) Error() string { return c.said }

// Contradictions are what is not in the log, of which See was told, as it was seen:
// each a *Contradiction. A receipt of a script that did not run need not be there, as
// a host does not log every refusal.
func (w *Witness) Contradictions() []error {
	all := append(w.Forks(), w.wrong...)
	for _, seq := range w.seqs() {
		if seq <= w.last {
			continue
		}
		for _, h := range w.heads[seq] {
			all = append(all, &Contradiction{Head: h, said: fmt.Sprintf(
				"the log ends at entry %d, and entry %d was there: %s signed it (%s)", w.last, seq, w.who(h), h.File)})
		}
	}
	var gone []*receipt
	for digest, r := range w.receipts {
		if r.done && !w.seen[digest] {
			gone = append(gone, r)
		}
	}
	slices.SortFunc(gone, func(a, b *receipt) int { return strings.Compare(a.file, b.file) })
	for _, r := range gone {
		all = append(all, &Contradiction{said: fmt.Sprintf("the receipt of script %s, which was done, is not in the log (%s)", r.script.Short(), r.file)})
	}
	return all
}

// Forks are heads of one host that contradict each other: it keeps two logs, or
// showed one and then another.
func (w *Witness) Forks() (forks []error) {
	for _, seq := range w.seqs() {
		heads := w.heads[seq]
		for _, h := range heads[1:] {
			if h.Hash == heads[0].Hash || h.Host != heads[0].Host {
				continue
			}
			forks = append(forks, &Contradiction{Head: h, said: fmt.Sprintf(
				"there are two logs: entry %d has one hash as %s signed it (%s), and another as %s did (%s)",
				seq, w.who(heads[0]), heads[0].File, w.who(h), h.File)})
		}
	}
	return forks
}

func (w *Witness) seqs() []uint64 {
	seqs := make([]uint64, 0, len(w.heads))
	for seq := range w.heads {
		seqs = append(seqs, seq)
	}
	slices.Sort(seqs)
	return seqs
}

// Len is how many heads and receipts it holds.
func (w *Witness) Len() (heads, receipts int) {
	for _, at := range w.heads {
		heads += len(at)
	}
	return heads, len(w.receipts)
}

// Countersign signs a head that ReadHead read, as somebody who has seen it, and keeps
// both in dir, which it makes if need be. It refuses, with a *Contradiction, a head
// that contradicts one that is there, and any but the host's own. host, if it is not "", must have signed it.
func Countersign(h Head, key *peer.Key, host peer.ID, dir string) (file string, err error) {
	if h.Signer != h.Host {
		return "", fmt.Errorf("countersign: %s signed it, and not the host, %s: get the head that the host signed", h.Signer, h.Host)
	}
	if host = cmp.Or(host, h.Host); h.Host != host {
		return "", fmt.Errorf("countersign: it is of the host %s, but the context is held by %s", h.Host, host)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("countersign: %w", err)
	}
	seen, err := Read(dir, h.Context)
	if err != nil {
		return "", err
	}
	seen.heads[h.Seq] = append(seen.heads[h.Seq], h)
	if forks := seen.Forks(); len(forks) > 0 {
		return "", forks[0]
	}
	sealed, err := envelope.SealHead(h.Head, key)
	if err != nil {
		return "", fmt.Errorf("countersign: %w", err)
	}
	if err := os.WriteFile(name(dir, h.Head, h.Signer), h.text, 0o600); err != nil {
		return "", fmt.Errorf("countersign: %w", err)
	}
	file = name(dir, h.Head, key.ID())
	if err := os.WriteFile(file, envelope.Text(envelope.HeadText, sealed), 0o600); err != nil {
		return "", fmt.Errorf("countersign: %w", err)
	}
	return file, nil
}

// name is what a head that signer signed is called in dir.
func name(dir string, h script.Head, signer peer.ID) string {
	end := func(id peer.ID) string { return string(id[max(0, len(id)-8):]) }
	return filepath.Join(dir, fmt.Sprintf("%s-%d-%s%s", end(h.Context), h.Seq, end(signer), headSuffix))
}
