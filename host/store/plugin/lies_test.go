package plugin

import (
	"bytes"
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
	pb "github.com/circles-host/circles/host/store/plugin/storagepb"
)

// liar is a plugin that answers what its fields say, and else keeps files in
// memory as it should.
type liar struct {
	*server
	lstat    func(path string) *pb.LstatResponse
	readDir  func(stream grpc.ServerStreamingServer[pb.ReadDirResponse]) error
	readlink func() *pb.ReadlinkResponse
	openFile func(*pb.OpenFileResponse)
	readFile func(q *pb.ReadFileRequest) *pb.ReadFileResponse
	staged   func(q *pb.ReadStagedRequest) *pb.ReadStagedResponse
	commit   func(*pb.CommitResponse)
	entry    func(stream grpc.ServerStreamingServer[pb.EntryResponse]) error
	log      func(from uint64, stream grpc.ServerStreamingServer[pb.LogResponse]) error
}

func (l *liar) Lstat(ctx context.Context, q *pb.LstatRequest) (*pb.LstatResponse, error) {
	if l.lstat != nil {
		return l.lstat(string(q.Path)), nil
	}
	return l.server.Lstat(ctx, q)
}

func (l *liar) ReadDir(q *pb.ReadDirRequest, stream grpc.ServerStreamingServer[pb.ReadDirResponse]) error {
	if l.readDir != nil {
		return l.readDir(stream)
	}
	return l.server.ReadDir(q, stream)
}

func (l *liar) Readlink(ctx context.Context, q *pb.ReadlinkRequest) (*pb.ReadlinkResponse, error) {
	if l.readlink != nil {
		return l.readlink(), nil
	}
	return l.server.Readlink(ctx, q)
}

func (l *liar) OpenFile(ctx context.Context, q *pb.OpenFileRequest) (*pb.OpenFileResponse, error) {
	m, err := l.server.OpenFile(ctx, q)
	if l.openFile != nil {
		l.openFile(m)
	}
	return m, err
}

func (l *liar) ReadFile(ctx context.Context, q *pb.ReadFileRequest) (*pb.ReadFileResponse, error) {
	if l.readFile != nil {
		return l.readFile(q), nil
	}
	return l.server.ReadFile(ctx, q)
}

func (l *liar) ReadStaged(ctx context.Context, q *pb.ReadStagedRequest) (*pb.ReadStagedResponse, error) {
	if l.staged != nil {
		return l.staged(q), nil
	}
	return l.server.ReadStaged(ctx, q)
}

func (l *liar) Commit(stream grpc.ClientStreamingServer[pb.CommitRequest, pb.CommitResponse]) error {
	if l.commit != nil {
		stream = lyingCommit{stream, l.commit}
	}
	return l.server.Commit(stream)
}

type lyingCommit struct {
	grpc.ClientStreamingServer[pb.CommitRequest, pb.CommitResponse]
	lie func(*pb.CommitResponse)
}

func (l lyingCommit) SendAndClose(m *pb.CommitResponse) error {
	l.lie(m)
	return l.ClientStreamingServer.SendAndClose(m)
}

func (l *liar) Entry(q *pb.EntryRequest, stream grpc.ServerStreamingServer[pb.EntryResponse]) error {
	if l.entry != nil {
		return l.entry(stream)
	}
	return l.server.Entry(q, stream)
}

func (l *liar) Log(q *pb.LogRequest, stream grpc.ServerStreamingServer[pb.LogResponse]) error {
	if l.log != nil {
		return l.log(q.From, stream)
	}
	return l.server.Log(q, stream)
}

// story is a lie with what the host does that meets it.
type story struct {
	play func(*server) pb.BackendServiceServer
	meet func(s store.Store) error
	// want is in the error; and the plugin is ended, unless it stays.
	want  string
	stays bool
}

func stat(s store.Store) error {
	return s.View(context.Background(), func(tx store.Tx) error {
		_, err := tx.Files(nil).Stat("f", false)
		return err
	})
}

func list(s store.Store) error {
	return s.View(context.Background(), func(tx store.Tx) error {
		d, err := tx.Files(nil).Open("/", store.FlagRead|store.FlagDirectory)
		if err == nil {
			_, err = d.ReadDir(0, 1<<30)
		}
		return err
	})
}

func readIt(s store.Store) error {
	if err := put(s, "f", "content", store.Key{1}); err != nil {
		return errors.New("cannot begin")
	}
	_, err := read(s, "f")
	return err
}

func readLink(s store.Store) error {
	return s.View(context.Background(), func(tx store.Tx) error {
		_, err := tx.Files(nil).Readlink("f")
		return err
	})
}

func putTwo(s store.Store) error {
	return errors.Join(put(s, "f", "1", store.Key{1}), put(s, "f", "2", store.Key{2}))
}

func readLogAfter(s store.Store) error {
	if err := putTwo(s); err != nil {
		return errors.New("cannot begin")
	}
	return walk(s, 1)
}

func walk(s store.Store, from uint64) error {
	for _, err := range s.Log(context.Background(), from) {
		if err != nil {
			return err
		}
	}
	return nil
}

func anEntry(key store.Key) func(store.Store) error {
	return func(s store.Store) error {
		if err := putTwo(s); err != nil {
			return errors.New("cannot begin")
		}
		_, _, err := s.Entry(context.Background(), key)
		return err
	}
}

func attr(kind pb.Kind, size int64) *pb.Attr {
	t := &pb.Time{Seconds: 1}
	return &pb.Attr{Kind: kind, Size: size, Atime: t, Mtime: t, Ctime: t}
}

func lstat(a *pb.Attr) func(*server) pb.BackendServiceServer {
	return func(s *server) pb.BackendServiceServer {
		return &liar{server: s, lstat: func(string) *pb.LstatResponse { return &pb.LstatResponse{Attr: a} }}
	}
}

func names(names ...string) func(*server) pb.BackendServiceServer {
	return func(s *server) pb.BackendServiceServer {
		return &liar{server: s, readDir: func(stream grpc.ServerStreamingServer[pb.ReadDirResponse]) error {
			m := &pb.ReadDirResponse{}
			for _, n := range names {
				m.Names, m.Kinds = append(m.Names, []byte(n)), append(m.Kinds, 1)
			}
			return stream.Send(m)
		}}
	}
}

func dir(f func(stream grpc.ServerStreamingServer[pb.ReadDirResponse]) error) func(*server) pb.BackendServiceServer {
	return func(s *server) pb.BackendServiceServer { return &liar{server: s, readDir: f} }
}

func link(target string) func(*server) pb.BackendServiceServer {
	return func(s *server) pb.BackendServiceServer {
		return &liar{server: s,
			lstat:    func(string) *pb.LstatResponse { return &pb.LstatResponse{Attr: attr(pb.Kind_KIND_LINK, 1)} },
			readlink: func() *pb.ReadlinkResponse { return &pb.ReadlinkResponse{Target: []byte(target)} }}
	}
}

func fileOf(f func(q *pb.ReadFileRequest) *pb.ReadFileResponse) func(*server) pb.BackendServiceServer {
	return func(s *server) pb.BackendServiceServer { return &liar{server: s, readFile: f} }
}

func committed(f func(*pb.CommitResponse)) func(*server) pb.BackendServiceServer {
	return func(s *server) pb.BackendServiceServer { return &liar{server: s, commit: f} }
}

// logged gives a log that the host did not write, from any number on.
func logged(f func(send func(*pb.EntryPart) error, from uint64) error) func(*server) pb.BackendServiceServer {
	return func(s *server) pb.BackendServiceServer {
		return &liar{server: s, log: func(from uint64, stream grpc.ServerStreamingServer[pb.LogResponse]) error {
			return f(func(p *pb.EntryPart) error { return stream.Send(&pb.LogResponse{Part: p}) }, from)
		}}
	}
}

func part(seq uint64, key byte, data string) *pb.EntryPart {
	return &pb.EntryPart{Seq: seq, Prev: make([]byte, 32), Time: &pb.Time{Seconds: 1}, Key: bytes.Repeat([]byte{key}, 32), Data: []byte(data)}
}

func oneEntry(p ...*pb.EntryPart) func(*server) pb.BackendServiceServer {
	return func(s *server) pb.BackendServiceServer {
		return &liar{server: s, entry: func(stream grpc.ServerStreamingServer[pb.EntryResponse]) error {
			for _, p := range p {
				if err := stream.Send(&pb.EntryResponse{Part: p}); err != nil {
					return err
				}
			}
			return nil
		}}
	}
}

const unkept = "does not keep to the protocol"

var lies = map[string]story{
	"NoAttributes":    {lstat(nil), stat, unkept, false},
	"NegativeSize":    {lstat(attr(pb.Kind_KIND_FILE, -1)), stat, unkept, false},
	"KindUnknown":     {lstat(attr(77, 0)), stat, unkept, false},
	"KindNone":        {lstat(attr(0, 0)), stat, unkept, false},
	"KindNegative":    {lstat(attr(-3, 0)), stat, unkept, false},
	"NoTime":          {lstat(&pb.Attr{Kind: 1}), stat, unkept, false},
	"TimeOutOfRange":  {lstat(&pb.Attr{Kind: 1, Atime: &pb.Time{Seconds: math.MaxInt64}}), stat, unkept, false},
	"TimeOfTooManyNs": {lstat(&pb.Attr{Kind: 1, Atime: &pb.Time{Nanoseconds: 1e9}}), stat, unkept, false},
	"NameWithSlash":   {names("a/b"), list, unkept, false},
	"NameWithNUL":     {names("a\x00b"), list, unkept, false},
	"NameParent":      {names(".."), list, unkept, false},
	"NameSelf":        {names("."), list, unkept, false},
	"NameEmpty":       {names(""), list, unkept, false},
	"NameTooLong":     {names(strings.Repeat("x", 256)), list, unkept, false},
	"NameTwice":       {names("a", "b", "a"), list, unkept, false},
	"NamesWithoutKind": {dir(func(s grpc.ServerStreamingServer[pb.ReadDirResponse]) error {
		return s.Send(&pb.ReadDirResponse{Names: [][]byte{{'a'}}})
	}), list, unkept, false},
	"NamesNone": {dir(func(s grpc.ServerStreamingServer[pb.ReadDirResponse]) error { return s.Send(&pb.ReadDirResponse{}) }), list, unkept, false},
	"ListingEndless": {dir(func(s grpc.ServerStreamingServer[pb.ReadDirResponse]) error {
		name := make([]byte, 250)
		for i := 0; ; i++ {
			m := &pb.ReadDirResponse{}
			for j := range 4000 {
				copy(name, []byte{byte('a' + i%26), byte('a' + i/26%26), byte('a' + i/676%26), byte('a' + j%26), byte('a' + j/26%26), byte('a' + j/676)})
				m.Names, m.Kinds = append(m.Names, bytes.ReplaceAll(name, []byte{0}, []byte{'x'})), append(m.Kinds, 1)
			}
			if err := s.Send(m); err != nil {
				return err
			}
		}
	}), list, unkept, false},
	"TreeWithoutBottom": {func(s *server) pb.BackendServiceServer {
		return &liar{server: s,
			lstat: func(path string) *pb.LstatResponse {
				if path == "new" {
					return &pb.LstatResponse{Failure: failure(store.ErrNotExist)}
				}
				return &pb.LstatResponse{Attr: attr(pb.Kind_KIND_DIR, 0)}
			},
			readDir: func(stream grpc.ServerStreamingServer[pb.ReadDirResponse]) error {
				return stream.Send(&pb.ReadDirResponse{Names: [][]byte{[]byte("a")}, Kinds: []byte{byte(pb.Kind_KIND_DIR)}})
			}}
	}, func(s store.Store) error {
		return s.Update(context.Background(), func(tx store.Tx) error {
			return tx.Files(nil).Rename("a", "new")
		})
	}, store.ErrNameTooLong.Error(), true},
	"LinkToNothing":   {link(""), readLink, unkept, false},
	"LinkTooLong":     {link(strings.Repeat("x/", 3000)), readLink, unkept, false},
	"LinkWithNUL":     {link("a\x00"), readLink, unkept, false},
	"LinksWithoutEnd": {link("f"), func(s store.Store) error { _, err := read(s, "f"); return err }, store.ErrLoop.Error(), true},
	"LinkLeadsOut":    {link("../../etc/passwd"), func(s store.Store) error { _, err := read(s, "f"); return err }, store.ErrEscapes.Error(), true},
	"DirectoryOpened": {func(s *server) pb.BackendServiceServer {
		return &liar{server: s, openFile: func(m *pb.OpenFileResponse) { m.Attr = attr(2, 0) }}
	}, readIt, unkept, false},
	"OpenedNegative": {func(s *server) pb.BackendServiceServer {
		return &liar{server: s, openFile: func(m *pb.OpenFileResponse) { m.Attr.Size = math.MinInt64 }}
	}, readIt, unkept, false},
	"SizeAbsurd": {func(s *server) pb.BackendServiceServer {
		return &liar{server: s, openFile: func(m *pb.OpenFileResponse) { m.Attr.Size = math.MaxInt64 }}
	}, readIt, "unexpected EOF", true},
	"MoreThanAsked": {fileOf(func(q *pb.ReadFileRequest) *pb.ReadFileResponse {
		return &pb.ReadFileResponse{Data: make([]byte, q.Size+1)}
	}), readIt, unkept, false},
	"LessThanThereIs": {fileOf(func(*pb.ReadFileRequest) *pb.ReadFileResponse { return &pb.ReadFileResponse{} }), readIt, "unexpected EOF", true},
	"MessageHuge": {fileOf(func(*pb.ReadFileRequest) *pb.ReadFileResponse {
		return &pb.ReadFileResponse{Data: make([]byte, maxMessage)}
	}), readIt, "larger than max", false},
	"FailureTextHuge": {fileOf(func(*pb.ReadFileRequest) *pb.ReadFileResponse {
		return &pb.ReadFileResponse{Failure: &pb.Failure{Text: strings.Repeat("\x1b[2Jx", 1<<19)}}
	}), readIt, "[2Jx", true},
	"FailureUnknown": {fileOf(func(*pb.ReadFileRequest) *pb.ReadFileResponse {
		return &pb.ReadFileResponse{Failure: &pb.Failure{Reasons: []pb.Reason{99}}}
	}), readIt, "without a reason", true},
	"BrokenWithoutEnd": {fileOf(func(*pb.ReadFileRequest) *pb.ReadFileResponse {
		return &pb.ReadFileResponse{Failure: &pb.Failure{Reasons: []pb.Reason{pb.Reason_REASON_BROKEN}}}
	}), readIt, "gone", false},
	"UnknownWithoutCommit": {fileOf(func(*pb.ReadFileRequest) *pb.ReadFileResponse {
		return &pb.ReadFileResponse{Failure: &pb.Failure{Reasons: []pb.Reason{pb.Reason_REASON_UNKNOWN}}}
	}), readIt, "as only a commit can", false},
	"StagedMore": {func(s *server) pb.BackendServiceServer {
		return &liar{server: s, staged: func(q *pb.ReadStagedRequest) *pb.ReadStagedResponse {
			return &pb.ReadStagedResponse{Data: make([]byte, q.Size+1)}
		}}
	}, func(s store.Store) error {
		return s.Update(context.Background(), func(tx store.Tx) error {
			f, err := tx.Files(nil).Open("f", store.FlagRead|store.FlagWrite|store.FlagCreate)
			if err != nil {
				return err
			}
			if _, err := f.WriteAt([]byte("x"), 0); err != nil {
				return err
			}
			_, err = f.ReadAt(make([]byte, 1), 0)
			return err
		})
	}, unkept, false},

	"CommitWithoutPlace":    {committed(func(m *pb.CommitResponse) { m.Prev = nil }), putTwo, overlay.ErrBroken.Error(), false},
	"CommitNumberedZero":    {committed(func(m *pb.CommitResponse) { m.Seq = 0 }), putTwo, overlay.ErrBroken.Error(), false},
	"CommitAtTheSameNumber": {committed(func(m *pb.CommitResponse) { m.Seq, m.Prev = 1, make([]byte, 32) }), putTwo, overlay.ErrBroken.Error(), false},
	"CommitAfterNothing":    {committed(func(m *pb.CommitResponse) { m.Prev = bytes.Repeat([]byte{1}, 32) }), putTwo, overlay.ErrBroken.Error(), false},
	"CommitUnlinked": {committed(func(m *pb.CommitResponse) {
		if m.Seq == 2 {
			m.Prev = bytes.Repeat([]byte{1}, 32)
		}
	}), putTwo, "does not follow", false},
	"CommitSkipsEntries": {committed(func(m *pb.CommitResponse) { m.Seq *= 2 }), putTwo, overlay.ErrBroken.Error(), false},
	"CommitAtTheEnd":     {committed(func(m *pb.CommitResponse) { m.Seq, m.Prev = math.MaxUint64, make([]byte, 32) }), putTwo, overlay.ErrBroken.Error(), false},

	"LogLost": {logged(func(func(*pb.EntryPart) error, uint64) error { return nil }), readLogAfter, "is missing", true},
	"LogForged": {logged(func(send func(*pb.EntryPart) error, from uint64) error {
		return errors.Join(send(part(from, 1, "")), send(part(from+1, 2, "")))
	}), readLogAfter, "does not follow", true},
	"LogOutOfOrder": {logged(func(send func(*pb.EntryPart) error, from uint64) error {
		return errors.Join(send(part(from, 1, "")), send(part(from+2, 2, "")))
	}), readLogAfter, unkept, false},
	"LogNumberWrong": {logged(func(send func(*pb.EntryPart) error, from uint64) error { return send(part(from+7, 1, "")) }), readLogAfter, unkept, false},
	"LogKeyShort": {logged(func(send func(*pb.EntryPart) error, from uint64) error {
		return send(&pb.EntryPart{Seq: from, Key: []byte{1}})
	}), readLogAfter, unkept, false},
	"LogEntryEmpty": {logged(func(send func(*pb.EntryPart) error, _ uint64) error { return send(nil) }), readLogAfter, unkept, false},
	"LogEntryUnended": {logged(func(send func(*pb.EntryPart) error, from uint64) error {
		p := part(from, 1, "x")
		p.More = true
		return send(p)
	}), readLogAfter, "EOF", false},
	"LogEntryEndless": {logged(func(send func(*pb.EntryPart) error, from uint64) error {
		p := part(from, 1, strings.Repeat("x", 1<<20))
		for p.More = true; ; p = &(pb.EntryPart{Data: p.Data, More: true}) {
			if err := send(p); err != nil {
				return err
			}
		}
	}), readLogAfter, unkept, false},
	"LogEntryOfNothing": {logged(func(send func(*pb.EntryPart) error, from uint64) error {
		p := part(from, 1, "")
		for p.More = true; ; p = &(pb.EntryPart{More: true}) {
			if err := send(p); err != nil {
				return err
			}
		}
	}), readLogAfter, unkept, false},

	"EntryOfAnotherKey": {oneEntry(part(1, 9, "")), anEntry(store.Key{1}), unkept, false},
	"EntryChangedLast":  {changed, anEntry(store.Key{2}), "was changed", true},
	"EntryChanged":      {changed, anEntry(store.Key{1}), "was changed", true},
	"EntryOfNoNumber":   {oneEntry(&pb.EntryPart{Prev: make([]byte, 32), Time: &pb.Time{}, Key: make([]byte, 32)}), anEntry(store.Key{}), unkept, false},
}

// TestLies: what a plugin says that cannot be fails the call, quickly, and the
// plugin is ended where it has broken the protocol.
func TestLies(t *testing.T) {
	for name, l := range lies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := play("lies", name)
			c.Log, c.CallTimeout = quiet, time.Minute
			s := mustOpen(t, c)
			begin := time.Now()
			err := l.meet(s)
			if err == nil || !strings.Contains(err.Error(), l.want) {
				t.Fatalf("error %v, want %q", err, l.want)
			}
			if len(err.Error()) > 3000 || strings.ContainsRune(err.Error(), '\x1b') {
				t.Errorf("the error is %d bytes, with escapes: %.200q", len(err.Error()), err)
			}
			if strings.Contains(err.Error(), "DeadlineExceeded") {
				t.Errorf("it took %v: %v", time.Since(begin), err)
			}
			if gone := s.now.connection.client.gone(); gone == l.stays {
				t.Errorf("the plugin was ended: %v; %v", gone, err)
			}
		})
	}
}

func changed(s *server) pb.BackendServiceServer {
	s.open = func(ctx context.Context, settings map[string]string) (overlay.Backend, error) {
		b, err := inMemory(ctx, settings)
		return changing{b}, err
	}
	return s
}

// changing gives entries with another content than they were committed with.
type changing struct{ overlay.Backend }

func (c changing) Entry(ctx context.Context, key store.Key) (store.Entry, bool, error) {
	e, found, err := c.Backend.Entry(ctx, key)
	e.Data = append(e.Data, '!')
	return e, found, err
}
