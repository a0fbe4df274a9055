package plugin

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
	pb "github.com/circles-host/circles/host/store/plugin/storagepb"
)

// TestPlansCross: a plan that was sent in parts is the plan that it was, and no part
// is larger than may be.
func TestPlansCross(t *testing.T) {
	at := time.Unix(1e9, 7).UTC()
	attr := overlay.Attr{
		Kind: store.KindFile, Size: 1 << 40, Atime: at, Mtime: at.Add(1), Ctime: at.Add(2),
		Version: overlay.Version{ID: [2]uint64{1, 1<<64 - 1}, Size: 3, Mtime: -4, Ctime: 5},
	}
	long := strings.Repeat("x/", 2000) + "\xff\xfe"
	file := &staged{id: 77}
	p := &overlay.Plan{Slots: 3, Dirs: []string{".", long}}
	for i := range 10_000 {
		p.Steps = append(p.Steps,
			overlay.Step{Kind: overlay.StepOut, Path: fmt.Sprint(i), Was: attr, Slot: 2, Atime: time.Time{}, Mtime: at},
			overlay.Step{Kind: overlay.StepPut, Path: long, File: file, Size: 9, Atime: at, Mtime: at},
			overlay.Step{Kind: overlay.StepSymlink, Path: "l", Target: long, Atime: at, Mtime: at})
		p.Dirs = append(p.Dirs, long)
	}
	var names []string
	for i := range 50_000 {
		names = append(names, fmt.Sprint(strings.Repeat("n", 200), i))
	}
	p.Expect = []overlay.Expect{{Path: "a"}, {Path: "b", Attr: attr, IsOnly: true, Only: names}, {Path: "c", IsOnly: true}, {Path: "d", Only: names[:1]}}

	got, parts := &overlay.Plan{}, 0
	err := sendPlan(5, 6, p, func(s overlay.Staged) uint64 { return s.(*staged).id }, func(m *pb.PrepareRequest) error {
		parts++
		b, err := proto.Marshal(m)
		if err != nil || len(b) > maxMessage/2 || m.Plan != 5 || m.Base != 6 {
			return fmt.Errorf("part %d of %d bytes, plan %d on %d: %v", parts, len(b), m.Plan, m.Base, err)
		}
		var read pb.PrepareRequest
		if err := proto.Unmarshal(b, &read); err != nil {
			return err
		}
		return addPlan(got, &read, func(id uint64) (overlay.Staged, error) {
			if id != 77 {
				return nil, errUnknown
			}
			return file, nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, p) {
		t.Error("another plan came than was sent")
	}
	if parts < 10 {
		t.Errorf("%d parts: the test tests little", parts)
	}
}

// TestEverythingCrosses fails when package overlay gets something that this
// protocol does not carry: put it there, and then here.
func TestEverythingCrosses(t *testing.T) {
	for _, c := range []struct {
		of   any
		want string
	}{
		{overlay.Plan{}, "Base Steps Expect Dirs Slots"},
		{overlay.Step{}, "Kind Path Was Slot Size File Target Atime Mtime"},
		{overlay.Expect{}, "Path Attr IsOnly Only"},
		{overlay.Attr{}, "Kind Size Atime Mtime Ctime Version"},
		{overlay.Version{}, "ID Size Mtime Ctime"},
		{overlay.Name{}, "Name Kind"},
		{overlay.Record{}, "Key Time Data"},
		{store.Entry{}, "Seq Prev Time Key Data"},
	} {
		var got []string
		typ := reflect.TypeOf(c.of)
		for i := range typ.NumField() {
			if f := typ.Field(i); f.IsExported() {
				got = append(got, f.Name)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%v has %v, and what crosses is %s", typ, got, c.want)
		}
	}
	if methods := reflect.TypeFor[overlay.Backend]().NumMethod(); methods != 12 {
		t.Errorf("a Backend has %d methods, and 12 cross", methods)
	}
	if overlay.StepTimes != overlay.StepKind(pb.StepKind_STEP_KIND_TIMES) || store.KindOther != store.Kind(pb.Kind_KIND_OTHER) {
		t.Error("the numbers of steps or kinds are not those of the protocol")
	}
}

func TestEntriesCross(t *testing.T) {
	for _, size := range []int{0, 1, maxPart, maxPart + 1, 3*maxPart + 7} {
		e := store.Entry{Seq: 9, Prev: [32]byte{1}, Time: time.Unix(5, 6).UTC(), Key: store.Key{2}, Data: bytes.Repeat([]byte{3}, size)}
		p := entryParts{most: 3*maxPart + 7}
		whole := false
		if err := sendEntry(e, func(m *pb.EntryPart) (err error) {
			if whole {
				return errors.New("a part after the last")
			}
			whole, err = p.add(m)
			return err
		}); err != nil || !whole {
			t.Errorf("%d bytes: %v", size, err)
		}
		if !reflect.DeepEqual(p.e, e) {
			t.Errorf("%d bytes: another entry came", size)
		}
	}
}

func TestErrorsCross(t *testing.T) {
	for reason, is := range reasons {
		f := failure(fmt.Errorf("open file: %w", is))
		if err := asRefusal(f); !errors.Is(err, is) || err.Error() != "open file: "+is.Error() {
			t.Errorf("%v came as %v", reason, err)
		}
	}
	both := asRefusal(failure(fmt.Errorf("%w: %w", store.ErrExists, overlay.ErrBroken)))
	if !errors.Is(both, store.ErrExists) || !errors.Is(both, overlay.ErrBroken) {
		t.Errorf("two came as %v", both)
	}
	// What a guard says, a plugin cannot.
	for _, is := range []error{store.ErrDenied, store.ErrHidden, store.ErrReadOnly, store.ErrEscapes} {
		if err := asRefusal(failure(is)); errors.Is(err, is) {
			t.Errorf("%v crosses", is)
		}
	}
	if failure(nil) != nil || asRefusal(nil) != nil {
		t.Error("no error became one")
	}
}

// FuzzAnswers: whatever a plugin answers, reading it ends in an error or in something
// that keeps to the bounds.
func FuzzAnswers(f *testing.F) {
	for _, m := range []proto.Message{
		&pb.LstatResponse{Attr: attr(pb.Kind_KIND_FILE, 5)},
		&pb.LogResponse{Part: part(1, 2, "data")},
		&pb.CommitResponse{Seq: 1, Prev: make([]byte, 32), Failure: &pb.Failure{Text: "no", Reasons: []pb.Reason{1, 2, 99, -1}}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var stat pb.LstatResponse
		if proto.Unmarshal(b, &stat) == nil {
			if a, err := attrFrom(stat.Attr); err == nil && (a.Size < 0 || a.Kind < store.KindFile || a.Kind > store.KindOther ||
				a.Mtime.Year() < 1 || a.Mtime.Year() > 9999) {
				t.Errorf("%+v passes", a)
			}
			if err := asRefusal(stat.Failure); err != nil && len(err.Error()) > 1100 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		}
		var log pb.LogResponse
		if proto.Unmarshal(b, &log) == nil {
			p := entryParts{most: 100}
			for range 3 {
				if whole, err := p.add(log.Part); err != nil || whole {
					break
				}
			}
			if len(p.e.Data) > 100 {
				t.Errorf("an entry of %d bytes", len(p.e.Data))
			}
		}
	})
}
