package plugin

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
	pb "github.com/circles-host/circles/host/store/plugin/storagepb"
)

const (
	maxMessage = 4 << 20  // bytes of one message
	maxPart    = 1 << 20  // bytes of content in one message
	maxPath    = 4096     // bytes, as in overlay
	maxName    = 255      // bytes
	maxDepth   = 128      // components
	maxListing = 64 << 20 // bytes of the names in one directory
	maxLink    = 4096     // bytes of a link's target
	partNames  = 4096     // names, steps or expectations in one message, at most
	partBytes  = 1 << 20  // bytes of them, before the last
)

// reasons are the errors that mean something to a host. What is not among them
// is an error of a backend's own, whatever it says: that a guard said no, above
// all, is not a backend's to say.
var reasons = map[pb.Reason]error{
	pb.Reason_REASON_NOT_EXIST:     store.ErrNotExist,
	pb.Reason_REASON_EXISTS:        store.ErrExists,
	pb.Reason_REASON_CLOSED:        store.ErrClosed,
	pb.Reason_REASON_INVALID:       store.ErrInvalid,
	pb.Reason_REASON_NOT_DIR:       store.ErrNotDir,
	pb.Reason_REASON_IS_DIR:        store.ErrIsDir,
	pb.Reason_REASON_NOT_EMPTY:     store.ErrNotEmpty,
	pb.Reason_REASON_SPECIAL:       store.ErrSpecial,
	pb.Reason_REASON_NAME_TOO_LONG: store.ErrNameTooLong,
	pb.Reason_REASON_TOO_BIG:       store.ErrTooBig,
	pb.Reason_REASON_QUOTA:         store.ErrQuota,
	pb.Reason_REASON_TOO_MANY_OPEN: store.ErrTooManyOpen,
	pb.Reason_REASON_NOT_SUPPORTED: store.ErrNotSupported,
	pb.Reason_REASON_CONFLICT:      store.ErrConflict,
	pb.Reason_REASON_BROKEN:        overlay.ErrBroken,
	pb.Reason_REASON_UNKNOWN:       store.ErrUnknown,
}

// failure says an error of a backend's to the host; nil is none.
func failure(err error) *pb.Failure {
	if err == nil {
		return nil
	}
	f := &pb.Failure{Text: printable(err.Error())}
	for r := pb.Reason_REASON_NOT_EXIST; int(r) <= len(reasons); r++ {
		if errors.Is(err, reasons[r]) {
			f.Reasons = append(f.Reasons, r)
		}
	}
	return f
}

// refusal is a failure that the plugin answered with, as an error.
type refusal struct {
	text string
	is   []error
}

func (r *refusal) Error() string   { return r.text }
func (r *refusal) Unwrap() []error { return r.is }

func asRefusal(f *pb.Failure) error {
	if f == nil {
		return nil
	}
	r := &refusal{text: cmp.Or(printable(f.Text), "the storage plugin refused, without a reason")}
	for i, reason := range f.Reasons {
		if err := reasons[reason]; err != nil && i < len(reasons) {
			r.is = append(r.is, err)
		}
	}
	return r
}

// lie is an answer that cannot be.
type lie string

func (l lie) Error() string { return "it does not keep to the protocol: " + string(l) }

func lied(format string, args ...any) error { return lie(fmt.Sprintf(format, args...)) }

// checkPath refuses what no plugin is asked for. A tree that goes on downwards
// for ever, as one that a plugin makes up, ends here.
func checkPath(path string) error {
	if len(path) > maxPath || strings.Count(path, "/") >= maxDepth {
		return store.ErrNameTooLong
	}
	return nil
}

func checkName(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > maxName || strings.ContainsAny(name, "/\x00") {
		return lied("a directory holds the name %q", printable(name))
	}
	return nil
}

func timeTo(t time.Time) *pb.Time {
	return &pb.Time{Seconds: t.Unix(), Nanoseconds: uint32(t.Nanosecond())}
}

// The years 1 to 9999.
const firstSecond, lastSecond = -62_135_596_800, 253_402_300_799

func timeFrom(t *pb.Time) (time.Time, error) {
	if t == nil {
		return time.Time{}, lied("a time is missing")
	}
	if t.Seconds < firstSecond || t.Seconds > lastSecond || t.Nanoseconds >= 1e9 {
		return time.Time{}, lied("a time is %d.%09d seconds after 1970", t.Seconds, t.Nanoseconds)
	}
	return time.Unix(t.Seconds, int64(t.Nanoseconds)).UTC(), nil
}

func attrTo(a overlay.Attr) *pb.Attr {
	if a.Kind == 0 {
		return nil
	}
	return &pb.Attr{
		Kind: pb.Kind(a.Kind), Size: a.Size,
		Atime: timeTo(a.Atime), Mtime: timeTo(a.Mtime), Ctime: timeTo(a.Ctime),
		Version: &pb.Version{
			Device: a.Version.ID[0], Inode: a.Version.ID[1], Size: a.Version.Size,
			Mtime: a.Version.Mtime, Ctime: a.Version.Ctime,
		},
	}
}

func attrFrom(m *pb.Attr) (a overlay.Attr, err error) {
	if m == nil {
		return a, lied("attributes are missing")
	}
	kind, err := kindFrom(m.Kind)
	if err != nil {
		return a, err
	}
	a = overlay.Attr{Kind: kind, Size: m.Size, Version: overlay.Version{
		ID:   [2]uint64{m.Version.GetDevice(), m.Version.GetInode()},
		Size: m.Version.GetSize(), Mtime: m.Version.GetMtime(), Ctime: m.Version.GetCtime(),
	}}
	if a.Size < 0 {
		return a, lied("a size is %d", a.Size)
	}
	if kind == store.KindDir {
		a.Size = 0
	}
	for _, t := range []struct {
		to   *time.Time
		from *pb.Time
	}{{&a.Atime, m.Atime}, {&a.Mtime, m.Mtime}, {&a.Ctime, m.Ctime}} {
		if *t.to, err = timeFrom(t.from); err != nil {
			return a, err
		}
	}
	return a, nil
}

func kindFrom(k pb.Kind) (store.Kind, error) {
	if k < pb.Kind_KIND_FILE || k > pb.Kind_KIND_OTHER {
		return 0, lied("a kind is %d", k)
	}
	return store.Kind(k), nil
}

// fixed is a key or hash.
func fixed(b []byte) (v [32]byte, err error) {
	if len(b) != len(v) {
		return v, lied("a key or hash has %d bytes", len(b))
	}
	return [32]byte(b), nil
}

// entryParts puts entries together. A part that cannot follow is a lie.
type entryParts struct {
	e    store.Entry
	more bool
	most int // bytes of one entry's data
}

// add reports whether the entry is whole.
func (p *entryParts) add(m *pb.EntryPart) (whole bool, err error) {
	switch {
	case m == nil:
		return false, lied("a part of a log entry is empty")
	case p.more:
		if len(m.Key) > 0 || m.Seq != 0 {
			return false, lied("a log entry ends before its end")
		}
		if len(m.Data) == 0 {
			return false, lied("a part of a log entry is empty")
		}
	default:
		p.e = store.Entry{Seq: m.Seq}
		if m.Seq == 0 {
			return false, lied("a log entry has no number")
		}
		key, err := fixed(m.Key)
		if err != nil {
			return false, err
		}
		p.e.Key = key
		if p.e.Prev, err = fixed(m.Prev); err != nil {
			return false, err
		}
		if p.e.Time, err = timeFrom(m.Time); err != nil {
			return false, err
		}
	}
	if len(p.e.Data)+len(m.Data) > p.most {
		return false, lied("log entry %d has more than %d bytes", p.e.Seq, p.most)
	}
	p.e.Data, p.more = append(p.e.Data, m.Data...), m.More
	if !p.more && p.e.Data == nil {
		p.e.Data = []byte{}
	}
	return !p.more, nil
}

// sendEntry sends an entry in parts.
func sendEntry(e store.Entry, send func(*pb.EntryPart) error) error {
	part := &pb.EntryPart{Seq: e.Seq, Prev: e.Prev[:], Time: timeTo(e.Time), Key: e.Key[:]}
	data := e.Data
	for {
		k := min(len(data), maxPart)
		part.Data, part.More = data[:k], len(data) > k
		if err := send(part); err != nil || !part.More {
			return err
		}
		part, data = new(pb.EntryPart), data[k:]
	}
}

// sendPlan sends a plan in parts; file tells the number of a staged file.
func sendPlan(id, base uint64, p *overlay.Plan, file func(overlay.Staged) uint64, send func(*pb.PrepareRequest) error) error {
	begin := func() *pb.PrepareRequest {
		return &pb.PrepareRequest{Plan: id, Base: base, Slots: uint32(p.Slots)}
	}
	part, size, n := begin(), 0, 0
	flush := func() error {
		err := send(part)
		part, size, n = begin(), 0, 0
		return err
	}
	count := func(bytes int) error {
		size, n = size+bytes+100, n+1
		if size < partBytes && n < partNames {
			return nil
		}
		return flush()
	}
	for _, s := range p.Steps {
		m := &pb.Step{
			Kind: pb.StepKind(s.Kind), Path: []byte(s.Path), Was: attrTo(s.Was), Slot: uint32(s.Slot), Size: s.Size,
			Target: []byte(s.Target), Atime: timeTo(s.Atime), Mtime: timeTo(s.Mtime),
		}
		if s.File != nil {
			m.Staged = file(s.File)
		}
		part.Steps = append(part.Steps, m)
		if err := count(len(s.Path) + len(s.Target)); err != nil {
			return err
		}
	}
	for _, e := range p.Expect {
		m := &pb.Expect{Path: []byte(e.Path), Attr: attrTo(e.Attr), IsOnly: e.IsOnly}
		part.Expect = append(part.Expect, m)
		if err := count(len(e.Path)); err != nil {
			return err
		}
		for only := e.Only; len(only) > 0; {
			k := min(len(only), partNames/4)
			m := &pb.Expect{Continues: true}
			bytes := 0
			for _, name := range only[:k] {
				m.Only = append(m.Only, []byte(name))
				bytes += len(name) + 8
			}
			part.Expect = append(part.Expect, m)
			if err := count(bytes); err != nil {
				return err
			}
			only = only[k:]
		}
	}
	for _, d := range p.Dirs {
		part.Dirs = append(part.Dirs, []byte(d))
		if err := count(len(d)); err != nil {
			return err
		}
	}
	return flush()
}

// addPlan puts a part of a plan to p.
func addPlan(p *overlay.Plan, m *pb.PrepareRequest, file func(uint64) (overlay.Staged, error)) error {
	p.Slots = int(m.Slots)
	for _, s := range m.Steps {
		step := overlay.Step{
			Kind: overlay.StepKind(s.Kind), Path: string(s.Path), Slot: int(s.Slot), Size: s.Size, Target: string(s.Target),
		}
		var err error
		if s.Was != nil {
			if step.Was, err = attrFrom(s.Was); err != nil {
				return err
			}
		}
		if step.Atime, err = timeFrom(s.Atime); err != nil {
			return err
		}
		if step.Mtime, err = timeFrom(s.Mtime); err != nil {
			return err
		}
		if step.Kind == overlay.StepPut {
			if step.File, err = file(s.Staged); err != nil {
				return err
			}
		}
		p.Steps = append(p.Steps, step)
	}
	for _, e := range m.Expect {
		if e.Continues {
			if len(p.Expect) == 0 {
				return lied("an expectation continues none")
			}
			last := &p.Expect[len(p.Expect)-1]
			for _, name := range e.Only {
				last.Only = append(last.Only, string(name))
			}
			continue
		}
		expect := overlay.Expect{Path: string(e.Path), IsOnly: e.IsOnly}
		if e.Attr != nil {
			var err error
			if expect.Attr, err = attrFrom(e.Attr); err != nil {
				return err
			}
		}
		p.Expect = append(p.Expect, expect)
	}
	for _, d := range m.Dirs {
		p.Dirs = append(p.Dirs, string(d))
	}
	return nil
}
