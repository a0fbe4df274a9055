package script

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/circles-host/circles/host/script/scriptpb"
)

// Limits of a question and its answer.
const (
	MaxData     = 1 << 20 // bytes of one answer
	MaxListing  = 1024    // entries of one answer
	MaxFileName = 1024    // bytes
	MaxProblem  = 4096    // bytes of a problem's message

	MaxRecords     = 1000     // of one answer
	MaxRecordBytes = 2 << 20  // of their keys and values
	MaxFind        = 64 << 10 // bytes of a query by values, and of where to go on with it
)

// Question asks the caller of a running script for a part of the caller's own
// context. Its host signs it; the caller answers if it has that script under
// way there, and as far as the script's grants and its own policy go.
type Question struct {
	Script ID
	Seq    uint64 // 1, 2, 3 … within a script, so that no two of its questions are alike
	Op     Op
	Path   string // as in a Grant: absolute and clean; AskGet: COLLECTION/KEY; AskQuery, AskFind: COLLECTION
	Offset uint64 // AskRead, AskGet: in bytes; AskList: in entries, in name order
	Length uint32 // AskRead, AskGet: at most MaxData bytes; AskList: at most MaxListing entries; AskQuery, AskFind: at most MaxRecords; at least 1
	From   string // AskQuery: the least key, any text of at most MaxKey bytes; AskFind: Next of the answer before, "" to begin with
	Prefix string // AskQuery: of the keys, any text of at most MaxKey bytes
	Find   string // AskFind: the query, JSON of at most MaxFind bytes
}

// Op is what a question asks for. On the wire: append only.
type Op uint8

const (
	AskRead Op = 1 // contents of a file
	AskList Op = 2 // entries of a directory
	AskStat Op = 3 // what a path is; Offset and Length are 0

	AskGet   Op = 4 // value of a record
	AskQuery Op = 5 // records of a collection, in the order of their keys
	AskFind  Op = 6 // records of a collection that a query is true of, in its order
)

// Answer answers one question. The caller signs it. Unless Problem is set, it is
// an answer to Op, and the field for that counts.
type Answer struct {
	Question Digest // SHA-256 of the question's encoding
	Op       Op     // of the question; 0 with a Problem
	Data     []byte // AskRead: shorter than asked only at the end of the file
	Entries  []ListEntry
	Stat     Stat
	Value    []byte   // AskGet: shorter than asked only at the end of the value
	Records  []Record // AskQuery, AskFind
	Next     string   // AskQuery: the key to go on from; AskFind: what to go on with, of at most MaxFind bytes; "" at the end
	Problem  *Problem
}

// Record is one record of a collection. Denied says that its value may not be
// got.
type Record struct {
	Key    string
	Value  []byte
	Denied bool
}

// ListEntry is one name in a directory. Names that are not UTF-8 are left out of
// a listing, as WIT has no strings for them.
type ListEntry struct {
	Name string
	Kind FileKind
}

// Stat says what a path is.
type Stat struct {
	Kind     FileKind
	Size     uint64 // 0 for a directory
	Modified time.Time
}

// FileKind is on the wire: append only.
type FileKind uint8

const (
	KindFile      FileKind = 1
	KindDirectory FileKind = 2
	KindLink      FileKind = 3
	KindOther     FileKind = 4
)

// Problem is why there is no better answer. It is an error, so that it can be
// handed on as one.
type Problem struct {
	Code    ProblemCode
	Message string // for a person
}

func (p *Problem) Error() string { return p.Message }

// ProblemCode is on the wire: append only. The codes are those of WIT's
// circles:host/contexts error-code that reading can meet.
type ProblemCode uint8

const (
	ProblemNotFound     ProblemCode = 1
	ProblemDenied       ProblemCode = 2
	ProblemNotDirectory ProblemCode = 3
	ProblemIsDirectory  ProblemCode = 4
	ProblemInvalid      ProblemCode = 5
	ProblemTooLarge     ProblemCode = 6
	ProblemUnavailable  ProblemCode = 7
	ProblemIO           ProblemCode = 8
)

// Encode returns the one encoding of q.
func (q *Question) Encode() ([]byte, error) {
	if err := q.check(); err != nil {
		return nil, fmt.Errorf("encode question: %w", err)
	}
	b, err := marshal(&scriptpb.Question{
		Script: q.Script[:],
		Seq:    q.Seq,
		Op:     scriptpb.Op(q.Op),
		Path:   q.Path,
		Offset: q.Offset,
		Length: q.Length,
		From:   q.From,
		Prefix: q.Prefix,
		Query:  q.Find,
	})
	if err != nil {
		return nil, fmt.Errorf("encode question: %w", err)
	}
	return b, nil
}

// DecodeQuestion is the inverse of Encode.
func DecodeQuestion(b []byte) (Question, error) {
	var m scriptpb.Question
	if err := unmarshal(b, &m, false); err != nil {
		return Question{}, fmt.Errorf("decode question: %w", err)
	}
	q := Question{Seq: m.Seq, Op: Op(m.Op), Path: m.Path, Offset: m.Offset, Length: m.Length, From: m.From, Prefix: m.Prefix, Find: m.Query}
	if err := q.Script.set(m.Script); err != nil {
		return Question{}, fmt.Errorf("decode question: script: %w", err)
	}
	if err := q.check(); err != nil {
		return Question{}, fmt.Errorf("decode question: %w", err)
	}
	return q, nil
}

func (q *Question) check() error {
	if q.Script == (ID{}) {
		return errors.New("it does not say of which script")
	}
	if q.Seq == 0 {
		return errors.New("it has no sequence number")
	}
	of, ok := map[Op]Action{AskGet: Get, AskQuery: Query, AskFind: Query}[q.Op]
	if !ok {
		of = Read
	}
	if err := CheckResource(of, q.Path); err != nil {
		return err
	}
	if q.Op == AskGet && !strings.Contains(q.Path, "/") {
		return fmt.Errorf("%.80q is a collection, and no record of one", q.Path)
	}
	if q.Op == AskFind {
		if q.Offset != 0 || q.Prefix != "" {
			return errors.New("an offset and a prefix mean nothing to find")
		}
		for _, s := range []string{q.Find, q.From} {
			if len(s) > MaxFind || !utf8.ValidString(s) {
				return fmt.Errorf("a query, or where to go on with it, is no text of at most %d bytes", MaxFind)
			}
		}
	} else if q.Find != "" {
		return fmt.Errorf("a query means nothing to %s", q.Op)
	}
	for _, s := range []string{q.From, q.Prefix} {
		switch {
		case q.Op == AskFind: // what it goes on from is no key
		case s != "" && q.Op != AskQuery:
			return fmt.Errorf("a key to begin with means nothing to %s", q.Op)
		case len(s) > MaxKey || !utf8.ValidString(s):
			return fmt.Errorf("%.80q is no part of a key", s)
		}
	}
	if q.Offset > 1<<63-1 {
		return fmt.Errorf("offset %d is out of range", q.Offset)
	}
	least, most := uint32(1), uint32(0)
	switch q.Op {
	case AskRead, AskGet:
		most = MaxData
	case AskList:
		most = MaxListing
	case AskFind:
		most = MaxRecords
	case AskQuery:
		most = MaxRecords
		if q.Offset != 0 {
			return errors.New("an offset means nothing to query")
		}
	case AskStat:
		least = 0
		if q.Offset != 0 {
			return errors.New("an offset means nothing to stat")
		}
	default:
		return fmt.Errorf("unknown operation %d: this version reads, lists, stats, gets, queries and finds", q.Op)
	}
	if q.Length < least || q.Length > most {
		return fmt.Errorf("length %d, must be between %d and %d", q.Length, least, most)
	}
	return nil
}

// Fits reports whether a is of the kind that q asks for, and no longer.
func (q *Question) Fits(a *Answer) error {
	switch {
	case a.Problem != nil:
		return nil
	case a.Op != q.Op:
		return fmt.Errorf("an answer to %s, but the question was to %s", a.Op, q.Op)
	case q.Op == AskRead && len(a.Data) > int(q.Length):
		return fmt.Errorf("%d bytes, but %d were asked for", len(a.Data), q.Length)
	case q.Op == AskList && len(a.Entries) > int(q.Length):
		return fmt.Errorf("%d entries, but %d were asked for", len(a.Entries), q.Length)
	case q.Op == AskGet && len(a.Value) > int(q.Length):
		return fmt.Errorf("%d bytes, but %d were asked for", len(a.Value), q.Length)
	case q.Op == AskFind && len(a.Records) > int(q.Length):
		return fmt.Errorf("%d records, but %d were asked for", len(a.Records), q.Length)
	case q.Op == AskQuery:
		return q.fits(a)
	}
	return nil
}

// fits checks that records are those that were asked for, in their order, and that
// going on from Next comes to an end.
func (q *Question) fits(a *Answer) error {
	if len(a.Records) > int(q.Length) {
		return fmt.Errorf("%d records, but %d were asked for", len(a.Records), q.Length)
	}
	last := ""
	for _, r := range a.Records {
		if r.Key <= last || r.Key < q.From || !strings.HasPrefix(r.Key, q.Prefix) {
			return fmt.Errorf("the record %.80q is not one that was asked for, or not in order", r.Key)
		}
		last = r.Key
	}
	if a.Next != "" && (len(a.Records) == 0 || a.Next <= last || !strings.HasPrefix(a.Next, q.Prefix)) {
		return fmt.Errorf("the next record, %.80q, is not behind the others", a.Next)
	}
	return nil
}

// Encode returns the one encoding of a. A problem's message is cut to its limit.
func (a *Answer) Encode() ([]byte, error) {
	fit := *a
	if a.Problem != nil {
		fit.Problem = &Problem{Code: a.Problem.Code, Message: cutText(a.Problem.Message, MaxProblem)}
	}
	if err := fit.check(); err != nil {
		return nil, fmt.Errorf("encode answer: %w", err)
	}
	m := &scriptpb.Answer{Question: fit.Question[:]}
	switch {
	case fit.Problem != nil:
		m.Answer = &scriptpb.Answer_Problem{Problem: &scriptpb.Problem{
			Code: scriptpb.ProblemCode(fit.Problem.Code), Message: fit.Problem.Message,
		}}
	case fit.Op == AskRead:
		m.Answer = &scriptpb.Answer_Data{Data: fit.Data}
	case fit.Op == AskList:
		l := &scriptpb.Listing{}
		for _, e := range fit.Entries {
			l.Entries = append(l.Entries, &scriptpb.ListEntry{Name: e.Name, Kind: scriptpb.FileKind(e.Kind)})
		}
		m.Answer = &scriptpb.Answer_Listing{Listing: l}
	case fit.Op == AskGet:
		m.Answer = &scriptpb.Answer_Value{Value: fit.Value}
	case fit.Op == AskQuery, fit.Op == AskFind:
		l := &scriptpb.Records{Next: fit.Next}
		for _, r := range fit.Records {
			l.Records = append(l.Records, &scriptpb.RecordEntry{Key: r.Key, Value: r.Value, Denied: r.Denied})
		}
		m.Answer = &scriptpb.Answer_Records{Records: l}
		if fit.Op == AskFind {
			m.Answer = &scriptpb.Answer_Found{Found: l}
		}
	case fit.Op == AskStat:
		// A file older than 1970 is shown as of then: WIT has no other time for it.
		m.Answer = &scriptpb.Answer_Stat{Stat: &scriptpb.Stat{
			Kind: scriptpb.FileKind(fit.Stat.Kind), Size: fit.Stat.Size, ModifiedMs: max(fit.Stat.Modified.UnixMilli(), 0),
		}}
	}
	b, err := marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode answer: %w", err)
	}
	return b, nil
}

// DecodeAnswer is the inverse of Encode. The result shares no memory with b.
func DecodeAnswer(b []byte) (Answer, error) {
	var m scriptpb.Answer
	if err := unmarshal(b, &m, false); err != nil {
		return Answer{}, fmt.Errorf("decode answer: %w", err)
	}
	var a Answer
	if err := a.Question.set(m.Question); err != nil {
		return Answer{}, fmt.Errorf("decode answer: question: %w", err)
	}
	switch m := m.Answer.(type) {
	case *scriptpb.Answer_Data:
		a.Op, a.Data = AskRead, m.Data
	case *scriptpb.Answer_Listing:
		a.Op = AskList
		for _, e := range m.Listing.Entries {
			a.Entries = append(a.Entries, ListEntry{Name: e.Name, Kind: FileKind(e.Kind)})
		}
	case *scriptpb.Answer_Stat:
		if m.Stat.ModifiedMs < 0 {
			return Answer{}, errors.New("decode answer: a time before 1970")
		}
		a.Op = AskStat
		a.Stat = Stat{Kind: FileKind(m.Stat.Kind), Size: m.Stat.Size, Modified: time.UnixMilli(m.Stat.ModifiedMs).UTC()}
	case *scriptpb.Answer_Value:
		a.Op, a.Value = AskGet, m.Value
	case *scriptpb.Answer_Records:
		a.Op = AskQuery
		a.set(m.Records)
	case *scriptpb.Answer_Found:
		a.Op = AskFind
		a.set(m.Found)
	case *scriptpb.Answer_Problem:
		a.Problem = &Problem{Code: ProblemCode(m.Problem.Code), Message: m.Problem.Message}
	}
	if err := a.check(); err != nil {
		return Answer{}, fmt.Errorf("decode answer: %w", err)
	}
	return a, nil
}

func (a *Answer) set(l *scriptpb.Records) {
	a.Next = l.Next
	for _, r := range l.Records {
		a.Records = append(a.Records, Record{Key: r.Key, Value: r.Value, Denied: r.Denied})
	}
}

func (a *Answer) check() error {
	if a.Question == (Digest{}) {
		return errors.New("it does not say to which question")
	}
	if a.Problem != nil {
		switch {
		case a.Op != 0:
			return errors.New("it holds both a problem and an answer")
		case a.Problem.Code == 0:
			return errors.New("a problem without a code")
		case len(a.Problem.Message) > MaxProblem:
			return fmt.Errorf("a problem of %d bytes, at most %d are allowed", len(a.Problem.Message), MaxProblem)
		}
		return nil
	}
	switch a.Op {
	case AskRead:
		if len(a.Data) > MaxData {
			return fmt.Errorf("%d bytes of data, at most %d are allowed", len(a.Data), MaxData)
		}
	case AskList:
		if len(a.Entries) > MaxListing {
			return fmt.Errorf("%d entries, at most %d are allowed", len(a.Entries), MaxListing)
		}
		for _, e := range a.Entries {
			if err := e.check(); err != nil {
				return err
			}
		}
	case AskStat:
		if err := a.Stat.Kind.check(); err != nil {
			return err
		}
		if a.Stat.Modified.After(maxTime) {
			return errors.New("a time after the year 9999")
		}
	case AskGet:
		if len(a.Value) > MaxData {
			return fmt.Errorf("%d bytes of a value, at most %d are allowed", len(a.Value), MaxData)
		}
	case AskQuery, AskFind:
		return a.checkRecords()
	default:
		return errors.New("it holds no answer")
	}
	return nil
}

func (a *Answer) checkRecords() error {
	if len(a.Records) > MaxRecords {
		return fmt.Errorf("%d records, at most %d are allowed", len(a.Records), MaxRecords)
	}
	size := 0
	for _, r := range a.Records {
		if err := CheckKey(r.Key); err != nil {
			return err
		}
		if r.Denied && len(r.Value) > 0 {
			return errors.New("a record with a value that is denied")
		}
		if size += len(r.Key) + len(r.Value); size > MaxRecordBytes {
			return fmt.Errorf("more than %d bytes of records", MaxRecordBytes)
		}
	}
	if a.Op == AskFind {
		if len(a.Next) > MaxFind || !utf8.ValidString(a.Next) {
			return fmt.Errorf("what to go on with is no text of at most %d bytes", MaxFind)
		}
	} else if a.Next != "" {
		return CheckKey(a.Next)
	}
	return nil
}

// check: a name is one component of a path, so that whoever joins it to its
// directory stays in there.
func (e ListEntry) check() error {
	switch {
	case e.Name == "" || e.Name == "." || e.Name == ".." || strings.ContainsAny(e.Name, "/\x00"):
		return fmt.Errorf("%.80q is not a name in a directory", e.Name)
	case len(e.Name) > MaxFileName:
		return fmt.Errorf("a name of %d bytes, at most %d are allowed", len(e.Name), MaxFileName)
	case !utf8.ValidString(e.Name):
		return fmt.Errorf("name %.80q is not UTF-8", e.Name)
	}
	return e.Kind.check()
}

func (k FileKind) check() error {
	if k < KindFile || k > KindOther {
		return fmt.Errorf("unknown kind of file %d", k)
	}
	return nil
}
