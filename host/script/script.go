// Package script defines what one peer says to another, and what it is told
// back: Script and Receipt, their codes, and their encoding.
//
// A Delegation lets somebody else send a Script; the Script carries it, and those
// that it passes on, in its Chain.
//
// While a script runs, its host may put a Question to the caller, about what the
// caller lent, and gets an Answer.
//
// All travel as protobuf messages (proto/circles/v1/script.proto); what is signed
// is their exact bytes, so Encode is called once, by the sender, and nobody
// encodes again what somebody else has signed.
//
// A message has one encoding. Decoding refuses any other, and anything outside
// the limits, so that what a Decode function returns can be encoded to the same
// bytes and holds what the types below promise. In a script it also refuses what
// it does not know: a field that a newer version added may be a restriction
// ("only if", "at most"), and a host that skipped it would do what the caller
// forbade. A receipt's unknown fields are skipped: they say more about what
// happened, and change nothing of it.
//
//go:generate go run github.com/bufbuild/buf/cmd/buf@v1.75.0 generate
package script

import (
	"strings"
	"time"

	"github.com/circles-host/circles/host/peer"
)

// Digest is a SHA-256.
type Digest [32]byte

// ID names a script: the SHA-256 of its encoded bytes. Two deliveries of one
// script have one ID and one receipt.
type ID = Digest

// Nonce distinguishes the scripts of one caller. A caller never uses one twice
// towards the same target.
type Nonce [16]byte

// Limits of the parts of a message. Decoding refuses what is beyond them.
const (
	MaxSealed = 32 << 20  // bytes of one sealed script or receipt, checked before anything is parsed
	MaxParams = 16 << 20  // bytes
	MaxModule = 128       // bytes of a module's name
	MaxEntry  = 128       // bytes
	MaxText   = 256 << 10 // bytes of a text
	MaxLent   = 64        // grants
	MaxPath   = 4096      // bytes
	MaxReason = 1024      // bytes
	MaxWithin = 4         // scripts that wait for one
	MaxSent   = 256       // scripts that one sends, as its receipt names them
	// MaxLifetime is the longest time from now to a script's deadline; it bounds
	// how long a captured script can be held back before it is delivered.
	MaxLifetime = 24 * time.Hour

	MaxResult   = 16 << 20 // bytes
	MaxMessage  = 16 << 10 // bytes
	MaxPolicies = 256
	MaxPolicyID = 256      // bytes
	MaxLog      = 1 << 20  // bytes
	MaxDiff     = 16 << 10 // bytes of one effect's diff
	MaxEffects  = 10_000
	MaxParts    = 128
)

// Script is a request: run Entry of Logic with Params in the context of Target.
type Script struct {
	Caller, Target peer.ID
	Nonce          Nonce
	NotBefore      time.Time // millisecond precision on the wire
	Deadline       time.Time // neither started nor left running after it
	Logic          Logic
	Entry          string // name of a reactor's entry; "" is "run"; a command has none
	Params         []byte // passed as list<u8> to a reactor, as stdin to a command
	Lent           []Grant
	// DryRun asks to run the script on a transaction that is dropped, and for a
	// receipt that says what it would have done.
	DryRun bool
	// Chain is how the caller lets whoever signs the script do so: sealed
	// delegations, the first by the caller, the last for the signer. There is none
	// if the caller signs it. Such a script lends nothing, as the caller's context
	// is not the signer's to lend, and undoes nothing.
	Chain [][]byte
	// Within is said by a script that another one sends while it runs, and that this
	// one keeps waiting; it lends nothing, and undoes and decides nothing.
	Within Within
}

// Within says which scripts wait for one: each sent the next one, the last this one.
// It is zero if none does.
type Within struct {
	Root ID // the first of them
	// Contexts are those that they run in, Root's first, and the caller's own last.
	// None of them can be the target: it would wait for itself.
	Contexts []peer.ID
}

// Logic names the code, or the script to undo, or to decide about: exactly one of
// Name, Digest, Wasm, Text, Undo, Decide and Revoke is set.
type Logic struct {
	Name   string // resolved in the target's layers: the peer's own, then the host's
	Digest Digest // a module that the target already has, by content
	Wasm   []byte // carried inline
	Text   Text   // carried inline
	// Undo is an earlier script to the same target, which the target's host is to
	// undo: no code of anybody's runs. Such a script has no entry or params and
	// lends nothing.
	Undo ID
	// Decide is what the target's owner makes of a script that is held there for
	// review; as with Undo, the script has no entry or params and lends nothing.
	Decide Decision
	// Revoke is a sealed Revocation, for the target's host to keep: it takes back a
	// delegation for the target's context. Whoever sends it, it is its issuer's word.
	Revoke []byte
}

// MaxRevocation is the length of the longest sealed revocation, in bytes.
const MaxRevocation = 1 << 10

// Text is a script as its author wrote it, which a language module of the target's host
// runs.
type Text struct {
	Language string // "javascript"
	Source   string
}

// Carried is what policies know carried code by: its SHA-256, or a text's; zero if l
// carries none.
func (l Logic) Carried() Digest {
	switch {
	case len(l.Wasm) > 0:
		return DigestOf(l.Wasm)
	case l.Text.Source != "":
		return DigestOf([]byte(l.Text.Source))
	}
	return Digest{}
}

// Decision is about one script that is held for review, or, to Expire, about all
// that nobody has decided about in time.
type Decision struct {
	Ruling Ruling
	Script ID
	Reason string // of Reject, for the caller; "" if none is given
	// Of Approve: the script may do something else now than what was looked at, in
	// its target's files and records; or answer something else, by its result, its
	// log or its failure.
	OtherChanges, OtherAnswer bool
}

// Ruling is on the wire: append only.
type Ruling uint8

const (
	Approve Ruling = 1
	Reject  Ruling = 2
	Expire  Ruling = 3
)

// Action is what a grant allows on a file or a record.
type Action string

// The actions on files. They are the Cedar action ids too.
const (
	Read   Action = "read"   // contents, size, times, link targets
	List   Action = "list"   // names in a directory
	Write  Action = "write"  // create, change, make directories and links, set times
	Remove Action = "remove" // unlink, remove a directory, rename away
)

// The actions on records. They are the Cedar action ids too.
const (
	Get    Action = "get"    // a record's value
	Put    Action = "put"    // make a record, or replace its value
	Query  Action = "query"  // the keys of a collection, in order
	Delete Action = "delete" // remove a record
)

// Send is to send a script to another peer. It is a Cedar action id too, and what it
// is done to is a peer's did:key. It cannot be lent.
const Send Action = "send"

// OfRecords reports whether a is done to records, and not to files.
func (a Action) OfRecords() bool {
	switch a {
	case Get, Put, Query, Delete:
		return true
	}
	return false
}

// Reads reports whether a changes nothing.
func (a Action) Reads() bool {
	switch a {
	case Read, List, Get, Query:
		return true
	}
	return false
}

// Grant lends the running script one action on a part of the caller's own
// context. For an action on files, Path is absolute and clean, "/shared", and
// everything below it is lent too. For one on records it is what SplitRecord
// takes: a collection with all its records, or, but for Query, one record.
type Grant struct {
	Action Action
	Path   string
}

// Code says how a script ended. Codes are on the wire: append only.
type Code uint8

const (
	Unknown     Code = 0
	Done        Code = 1  // ran, returned a result, committed
	Refused     Code = 2  // the target's policy did not permit it; nothing ran
	NotFound    Code = 3  // no such module or entry
	Invalid     Code = 4  // not a module this host can run, or params it does not take
	Failed      Code = 5  // the script itself returned an error, or exited with a code other than 0
	Trapped     Code = 6  // WebAssembly trap
	Deadline    Code = 7  // ran into its wall-time limit or its deadline
	OutOfMemory Code = 8  // ran into its memory limit and then failed
	OverLimit   Code = 9  // ran into another limit: output, host calls, log bytes, fuel
	Conflict    Code = 10 // the nonce was used before, for another script; or what is to be undone was touched since
	Unavailable Code = 11 // overload, shutdown, or the caller's side was out of reach: try again
	Internal    Code = 12 // the host's fault; its own log says more
	Pending     Code = 13 // held until the target's owner decides: the same script again is answered with what became of it
)

// Receipt is the outcome of one script, as its host signs it. Times have
// millisecond precision on the wire; a zero time is none.
type Receipt struct {
	Script         ID
	Caller, Target peer.ID
	Host           peer.ID // who ran it and signs this
	Code           Code
	Message        string   // for a person: what happened and what to do next; "" when Done
	Policies       []string // ids of the policies that decided; empty when none permits
	Module         Digest   // the code that ran; zero when none did
	ModuleName     string   // as the script named it, "" for carried code
	Entry          string
	Result         []byte // a reactor's ok value, a command's stdout
	ExitCode       uint32 // of a command that failed
	Log            []byte // what the script logged or wrote to stderr, cut at the log limit
	Effects        []Effect
	MoreEffects    uint64 // how many there were beyond those in Effects
	Usage          Usage
	Started        time.Time
	Finished       time.Time
	DryRun         bool // Effects are what would have been; there were none
	Undid          ID   // Logic.Undo of the script, whatever became of it
	// Kept is the digest of what the host wrote down, for itself, to undo the
	// script by, or, while it is Pending, to run it by; zero if it did not. It is
	// salted, and tells a caller nothing.
	Kept Digest
	// Via is the script's chain, if it has one: the last one's To is who sent it, on
	// behalf of Caller.
	Via     []Via
	Expires time.Time // of Pending: the script is refused unless it is approved by then
	// Of a script that was held: the digest of the sealed receipt that said so, and
	// the owner's script that approved or rejected it, zero if it expired.
	Pending  Digest
	Decision ID
	Decided  ID // Logic.Decide.Script of the script, whatever became of it
	// Sent are the scripts that it sent, in order, in all its runs. What they did
	// stands, whatever became of this one.
	Sent []Sent
	// Instead is the name of the module that ran in place of what the script named or
	// brought, as the target's owner maps that, or ""; Module is its digest, and
	// ModuleName or Asked what was asked for.
	Instead string
	Asked   Digest // what the script brought, or named by its digest; only with Instead
	// Parts are the modules that took part, in the order in which they first ended; nil
	// if there was one alone. There are MaxParts at most.
	Parts []Part
}

// Part is a module that took part in a script, where there was more than one.
type Part struct {
	Name   string // in its layer; "" for code that the script carried
	Layer  string // "peer", "host" or "carried"
	Module Digest
	Calls  uint64 // how often it ran
	Fuel   uint64 // its own share of Usage.Fuel, which is that of all parts
}

// Sent is a script that another one sent while it ran.
type Sent struct {
	Script  ID
	Target  peer.ID
	Code    Code   // of its receipt; Unknown if none came, and then it may have been done
	Receipt Digest // of that, sealed; zero if none came
}

// Effect is one change that a committed script made to its target's files and
// records, or, in a dry run, would have made.
//
// The receipt goes to the caller too. Of a file or record that the script was not
// allowed to read, Before and After are zero: the digest of a short text gives it away.
type Effect struct {
	Kind   EffectKind
	Path   string // absolute within the context; of a record, "/COLLECTION/KEY"
	To     string // a rename's or link's other end
	Before Blob   // zero when there was no file
	After  Blob   // zero when there is none now
	// End takes the place of Before and After for a long file of which only the
	// end changed, as when it was appended to: nobody reads the rest of it.
	End  End
	Diff string // in a dry run: of a text that the script may read, unified, cut at MaxDiff
}

// End is how a file changed from byte At on: what was there, zero if the file
// ended there, and what is there now. The zero End is none.
type End struct {
	At            int64 // above 0
	Before, After Blob
}

// EffectKind is on the wire: append only.
type EffectKind uint8

const (
	Created  EffectKind = 1
	Modified EffectKind = 2
	Removed  EffectKind = 3
	MadeDir  EffectKind = 4
	Linked   EffectKind = 5 // a symbolic link was made; To is its target
	Touched  EffectKind = 6 // times only

	RecordPut     EffectKind = 7 // made or changed
	RecordDeleted EffectKind = 8
)

// Record takes apart the path of an effect on a record; ok is false if it is one
// on a file.
func (e Effect) Record() (collection, key string, ok bool) {
	if e.Kind != RecordPut && e.Kind != RecordDeleted {
		return "", "", false
	}
	collection, key, _ = strings.Cut(strings.TrimPrefix(e.Path, "/"), "/")
	return collection, key, true
}

// Blob identifies file contents.
type Blob struct {
	Size   int64
	Digest Digest
}

// Usage is what a script used.
type Usage struct {
	Wall        time.Duration
	Fuel        uint64 // instructions, by the engine's cost table; 0 when not metered
	MemoryBytes uint64 // peak linear memory
	HostCalls   uint64
	OutputBytes uint64
	LogBytes    uint64
	// Of the target's files, the most at any time: sizes of those that it wrote,
	// names that it made, removed, moved or whose files it wrote, and how many it
	// had open at once.
	FileBytes, Entries, Handles uint64
}
