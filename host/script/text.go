package script

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/circles-host/circles/host/peer"
)

// The texts of codes and kinds. Programs compare them: they never change.
var (
	codeTexts = [...]string{
		Unknown: "unknown", Done: "done", Refused: "refused", NotFound: "not-found", Invalid: "invalid",
		Failed: "failed", Trapped: "trapped", Deadline: "deadline", OutOfMemory: "out-of-memory",
		OverLimit: "over-limit", Conflict: "conflict", Unavailable: "unavailable", Internal: "internal", Pending: "pending",
	}
	effectTexts = [...]string{
		0: "unknown", Created: "created", Modified: "modified", Removed: "removed", MadeDir: "made-dir",
		Linked: "linked", Touched: "touched", RecordPut: "record-put", RecordDeleted: "record-deleted",
	}
	opTexts   = [...]string{0: "unknown", AskRead: "read", AskList: "list", AskStat: "stat", AskGet: "get", AskQuery: "query", AskFind: "find"}
	kindTexts = [...]string{
		0: "unknown", KindFile: "file", KindDirectory: "directory", KindLink: "link", KindOther: "other",
	}
	problemTexts = [...]string{
		0: "unknown", ProblemNotFound: "not-found", ProblemDenied: "denied",
		ProblemNotDirectory: "not-directory", ProblemIsDirectory: "is-directory", ProblemInvalid: "invalid",
		ProblemTooLarge: "too-large", ProblemUnavailable: "unavailable", ProblemIO: "io",
	}
)

// text is texts[i], or for a number that a newer version added, what and it.
func text(texts []string, i uint8, what string) string {
	if int(i) < len(texts) {
		return texts[i]
	}
	return what + "-" + strconv.Itoa(int(i))
}

// String returns the code's text, "done", "not-found", …; "code-13" for a code
// that this version does not know.
func (c Code) String() string { return text(codeTexts[:], uint8(c), "code") }

// MarshalText returns String.
func (c Code) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (c *Code) UnmarshalText(b []byte) error {
	for i, t := range codeTexts {
		if t == string(b) {
			*c = Code(i)
			return nil
		}
	}
	if n, ok := strings.CutPrefix(string(b), "code-"); ok {
		if v, err := strconv.ParseUint(n, 10, 8); err == nil && Code(v).String() == string(b) {
			*c = Code(v)
			return nil
		}
	}
	return fmt.Errorf("no such code %.40q: use one of %s", b, strings.Join(codeTexts[1:], ", "))
}

// String returns the kind's text, "created", "modified", ….
func (k EffectKind) String() string { return text(effectTexts[:], uint8(k), "effect") }

// MarshalText returns String.
func (k EffectKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// String returns the operation's text, "read", "list", "stat", "get" or "query".
func (o Op) String() string { return text(opTexts[:], uint8(o), "op") }

// String returns the kind's text, "file", "directory", "link" or "other".
func (k FileKind) String() string { return text(kindTexts[:], uint8(k), "kind") }

// String returns the code's text, as in WIT's error-code.
func (c ProblemCode) String() string { return text(problemTexts[:], uint8(c), "problem") }

// String returns the digest as "sha256:" and 64 hex digits.
func (d Digest) String() string { return "sha256:" + hex.EncodeToString(d[:]) }

// Format writes bare hex digits for the verbs x and X, as for an array of bytes,
// and String for the others.
func (d Digest) Format(f fmt.State, verb rune) {
	switch verb {
	case 'x':
		_, _ = fmt.Fprintf(f, "%x", d[:])
	case 'X':
		_, _ = fmt.Fprintf(f, "%X", d[:])
	case 'q':
		_, _ = fmt.Fprintf(f, "%q", d.String())
	default:
		_, _ = fmt.Fprintf(f, fmt.FormatString(f, 's'), d.String())
	}
}

// Short is the digest's first 12 hex digits: for people, never to decide by.
func (d Digest) Short() string { return hex.EncodeToString(d[:6]) }

// IsZero reports whether d stands for no digest.
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText returns String, or nothing for the zero digest.
func (d Digest) MarshalText() ([]byte, error) {
	if d.IsZero() {
		return nil, nil
	}
	return []byte(d.String()), nil
}

// UnmarshalText is the inverse of MarshalText.
func (d *Digest) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*d = Digest{}
		return nil
	}
	parsed, err := ParseDigest(string(b))
	if err != nil {
		return err
	}
	*d = parsed
	return nil
}

// ParseDigest reads what String wrote; the "sha256:" may be left out.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	digits := strings.TrimPrefix(s, "sha256:")
	if len(digits) != hex.EncodedLen(len(d)) {
		return Digest{}, fmt.Errorf("digest %.80q: must be sha256: and %d hex digits", s, hex.EncodedLen(len(d)))
	}
	if _, err := hex.Decode(d[:], []byte(digits)); err != nil {
		return Digest{}, fmt.Errorf("digest %.80q: must be sha256: and %d hex digits", s, hex.EncodedLen(len(d)))
	}
	if d.IsZero() {
		return Digest{}, fmt.Errorf("digest %.80q: all zero stands for none", s)
	}
	return d, nil
}

// ParseAction returns the action of that name.
func ParseAction(s string) (Action, error) {
	switch a := Action(s); a {
	case Read, List, Write, Remove, Get, Put, Query, Delete, Send:
		return a, nil
	}
	return "", fmt.Errorf("no such action %.40q: use read, list, write or remove for files, get, put, query or delete for records, send for peers", s)
}

// MarshalJSON writes the receipt for people and programs. Field names are
// stable, and fields are added only; those that are empty are left out, but for
// the first five and the times. Bytes are a string where they are UTF-8, else
// base64 in a field of the same name with "_base64":
//
//	{"script":"sha256:…","caller":"did:key:…","target":"did:key:…","host":"did:key:…",
//	 "code":"done","policies":["friends"],"module":"sha256:…","module_name":"guestbook",
//	 "entry":"sign","result":"{\"ok\":true}",
//	 "effects":[{"kind":"created","path":"/book/a","after":{"size":3,"digest":"sha256:…"}},
//	            {"kind":"record-put","collection":"seats","key":"7b","after":{"size":2,"digest":"sha256:…"}}],
//	 "usage":{"wall_ns":81000,"fuel":1200,"memory_bytes":1048576,"host_calls":4,
//	          "output_bytes":11,"log_bytes":0,"file_bytes":42,"entries":1,"handles":1},
//	 "started":"2026-01-02T03:04:05.006Z","finished":"2026-01-02T03:04:05.007Z"}
//
// A script that was sent on behalf of its caller has its chain too:
// "via":[{"delegation":"sha256:…","to":"did:key:…"}]. A receipt of a script that is
// held for review has "expires", the one after it "pending", with the digest of that,
// and "decision", with the owner's script that approved or rejected it, which in its
// own receipt has "decided". Where more than one module took part:
// "parts":[{"name":"audit","layer":"peer","module":"sha256:…","calls":1,"fuel":1200}].
// Scripts that it sent while it ran are in "sent":
// [{"script":"sha256:…","target":"did:key:…","code":"done","receipt":"sha256:…"}], the
// last being the digest of the sealed receipt.
//
// This form is not signed, and cannot be turned back into a receipt.
func (r Receipt) MarshalJSON() ([]byte, error) {
	type blobJSON struct {
		Size   int64  `json:"size"`
		Digest Digest `json:"digest"`
	}
	type endJSON struct {
		At     int64     `json:"at"`
		Before *blobJSON `json:"before,omitempty"`
		After  *blobJSON `json:"after,omitempty"`
	}
	type effectJSON struct {
		Kind       EffectKind `json:"kind"`
		Path       string     `json:"path,omitempty"`
		PathBase64 []byte     `json:"path_base64,omitempty"`
		Collection string     `json:"collection,omitempty"` // of a record, in place of path
		Key        string     `json:"key,omitempty"`
		To         string     `json:"to,omitempty"`
		ToBase64   []byte     `json:"to_base64,omitempty"`
		Before     *blobJSON  `json:"before,omitempty"`
		After      *blobJSON  `json:"after,omitempty"`
		End        *endJSON   `json:"end,omitempty"`
		Diff       string     `json:"diff,omitempty"`
	}
	type partJSON struct {
		Name   string `json:"name,omitempty"`
		Layer  string `json:"layer"`
		Module Digest `json:"module"`
		Calls  uint64 `json:"calls"`
		Fuel   uint64 `json:"fuel"`
	}
	type viaJSON struct {
		Delegation Digest  `json:"delegation"`
		To         peer.ID `json:"to"`
	}
	type sentJSON struct {
		Script  ID      `json:"script"`
		Target  peer.ID `json:"target"`
		Code    Code    `json:"code"`
		Receipt string  `json:"receipt,omitempty"`
	}
	out := struct {
		Script       ID           `json:"script"`
		Caller       peer.ID      `json:"caller"`
		Target       peer.ID      `json:"target"`
		Host         peer.ID      `json:"host"`
		Code         Code         `json:"code"`
		Message      string       `json:"message,omitempty"`
		Policies     []string     `json:"policies,omitempty"`
		Module       string       `json:"module,omitempty"`
		ModuleName   string       `json:"module_name,omitempty"`
		Entry        string       `json:"entry,omitempty"`
		Result       string       `json:"result,omitempty"`
		ResultBase64 []byte       `json:"result_base64,omitempty"`
		ExitCode     uint32       `json:"exit_code,omitempty"`
		Log          string       `json:"log,omitempty"`
		LogBase64    []byte       `json:"log_base64,omitempty"`
		Effects      []effectJSON `json:"effects,omitempty"`
		MoreEffects  uint64       `json:"more_effects,omitempty"`
		Usage        Usage        `json:"usage"`
		Started      time.Time    `json:"started"`
		Finished     time.Time    `json:"finished"`
		DryRun       bool         `json:"dry_run,omitempty"`
		Undid        string       `json:"undid,omitempty"`
		Kept         string       `json:"kept,omitempty"`
		Via          []viaJSON    `json:"via,omitempty"`
		Expires      *time.Time   `json:"expires,omitempty"`
		Pending      string       `json:"pending,omitempty"`
		Decision     string       `json:"decision,omitempty"`
		Decided      string       `json:"decided,omitempty"`
		Instead      string       `json:"instead,omitempty"`
		Asked        string       `json:"asked,omitempty"`
		Parts        []partJSON   `json:"parts,omitempty"`
		Sent         []sentJSON   `json:"sent,omitempty"`
	}{
		Script: r.Script, Caller: r.Caller, Target: r.Target, Host: r.Host, Code: r.Code,
		Message: r.Message, Policies: r.Policies, ModuleName: r.ModuleName, Entry: r.Entry,
		ExitCode: r.ExitCode, MoreEffects: r.MoreEffects, Usage: r.Usage,
		Started: r.Started.UTC(), Finished: r.Finished.UTC(), DryRun: r.DryRun, Instead: r.Instead,
	}
	for _, d := range []struct {
		to   *string
		from Digest
	}{
		{&out.Module, r.Module}, {&out.Undid, r.Undid}, {&out.Kept, r.Kept},
		{&out.Pending, r.Pending}, {&out.Decision, r.Decision}, {&out.Decided, r.Decided},
		{&out.Asked, r.Asked},
	} {
		if !d.from.IsZero() {
			*d.to = d.from.String()
		}
	}
	if !r.Expires.IsZero() {
		expires := r.Expires.UTC()
		out.Expires = &expires
	}
	for _, v := range r.Via {
		out.Via = append(out.Via, viaJSON(v))
	}
	for _, p := range r.Parts {
		out.Parts = append(out.Parts, partJSON(p))
	}
	for _, s := range r.Sent {
		j := sentJSON{Script: s.Script, Target: s.Target, Code: s.Code}
		if !s.Receipt.IsZero() {
			j.Receipt = s.Receipt.String()
		}
		out.Sent = append(out.Sent, j)
	}
	out.Result, out.ResultBase64 = Readable(r.Result)
	out.Log, out.LogBase64 = Readable(r.Log)
	blob := func(b Blob) *blobJSON {
		if b == (Blob{}) {
			return nil
		}
		return &blobJSON{Size: b.Size, Digest: b.Digest}
	}
	for _, e := range r.Effects {
		j := effectJSON{Kind: e.Kind, Before: blob(e.Before), After: blob(e.After), Diff: e.Diff}
		if collection, key, ok := e.Record(); ok {
			j.Collection, j.Key = collection, key
		} else {
			j.Path, j.PathBase64 = Readable([]byte(e.Path))
		}
		j.To, j.ToBase64 = Readable([]byte(e.To))
		if e.End != (End{}) {
			j.End = &endJSON{At: e.End.At, Before: blob(e.End.Before), After: blob(e.End.After)}
		}
		out.Effects = append(out.Effects, j)
	}
	return json.Marshal(out)
}

// Readable returns b as text if it is UTF-8, else as bytes.
func Readable(b []byte) (string, []byte) {
	if utf8.Valid(b) {
		return string(b), nil
	}
	return "", b
}

// MarshalJSON is how the JSON of a receipt tells it.
func (u Usage) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		WallNs      int64  `json:"wall_ns"`
		Fuel        uint64 `json:"fuel"`
		MemoryBytes uint64 `json:"memory_bytes"`
		HostCalls   uint64 `json:"host_calls"`
		OutputBytes uint64 `json:"output_bytes"`
		LogBytes    uint64 `json:"log_bytes"`
		FileBytes   uint64 `json:"file_bytes"`
		Entries     uint64 `json:"entries"`
		Handles     uint64 `json:"handles"`
	}{
		int64(u.Wall), u.Fuel, u.MemoryBytes, u.HostCalls, u.OutputBytes, u.LogBytes, u.FileBytes, u.Entries, u.Handles,
	})
}
