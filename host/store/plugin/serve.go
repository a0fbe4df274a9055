package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
	pb "github.com/circles-host/circles/host/store/plugin/storagepb"
)

// Serve is the main function of a storage plugin: it serves the backend that open
// makes of the host's settings, and ends the process when the host is gone or
// does not need it any more. Started by anything but a host, it says so and ends.
//
// A backend must keep what overlay.Backend promises across a kill at any moment:
// that is how a plugin ends which did not answer in time. What it writes to
// os.Stderr goes to the host's log, and so does what it writes to os.Stdout.
func Serve(open func(ctx context.Context, settings map[string]string) (overlay.Backend, error)) {
	serve(&server{open: open})
}

func serve(s pb.BackendServiceServer, o ...grpc.ServerOption) {
	go func() {
		// The other end is the host's, and is closed when that ends, however it
		// does. There is nobody to serve then, and nothing to finish.
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig:  handshake,
		VersionedPlugins: map[int]goplugin.PluginSet{Version: {pluginName: kind{s}}},
		Logger:           hclog.NewNullLogger(),
		GRPCServer: func(secure []grpc.ServerOption) *grpc.Server {
			o := append([]grpc.ServerOption{grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage)}, o...)
			return grpc.NewServer(append(o, secure...)...)
		},
	})
}

// server is a backend, as the host calls it.
type server struct {
	pb.UnimplementedBackendServiceServer
	open func(context.Context, map[string]string) (overlay.Backend, error)

	// One call at a time of these, as a Backend is promised; a call that the host
	// has given up may still run when the next one comes.
	planning sync.Mutex
	plans    map[uint64]*overlay.Plan // guarded by planning

	mu      sync.Mutex
	backend overlay.Backend
	closed  bool
	files   map[uint64]overlay.LowerFile
	staged  map[uint64]*stagedFile
	states  map[uint64]*snapshot
}

// snapshot is one that a transaction works on, or that is being made.
type snapshot struct {
	overlay.Snapshot
	cancel  func()
	dropped bool // given up before it was made
}

// stagedFile is a staged file, or one that is being made.
type stagedFile struct {
	overlay.Staged
	dropped bool // given up before it was made
}

var (
	errNotOpen = errors.New("no context is open")
	errUnknown = errors.New("there is no file, state or plan of that number")
)

func (s *server) Open(ctx context.Context, q *pb.OpenRequest) (*pb.OpenResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.backend != nil || s.closed {
		return &pb.OpenResponse{Failure: failure(errors.New("a context is open already"))}, nil
	}
	b, err := s.open(context.WithoutCancel(ctx), q.Settings)
	if err == nil {
		s.backend = b
		s.files, s.staged = map[uint64]overlay.LowerFile{}, map[uint64]*stagedFile{}
		s.plans, s.states = map[uint64]*overlay.Plan{}, map[uint64]*snapshot{}
	}
	answer := &pb.OpenResponse{Failure: failure(err)}
	if _, answer.Snapshots = b.(overlay.Snapshotter); err == nil && !answer.Snapshots {
		if h, ok := b.(overlay.Header); ok {
			seq, hash := h.Head()
			answer.End = &pb.End{Seq: seq, Hash: hash[:]}
		}
	}
	return answer, nil
}

func (s *server) Snapshot(ctx context.Context, q *pb.SnapshotRequest) (*pb.SnapshotResponse, error) {
	b, err := s.opened()
	of, ok := b.(overlay.Snapshotter)
	if err == nil && !ok {
		err = store.ErrNotSupported
	}
	if err != nil {
		return &pb.SnapshotResponse{Failure: failure(err)}, nil
	}
	until, cancel := context.WithCancel(context.WithoutCancel(ctx)) // it outlives this call
	state := &snapshot{cancel: cancel}
	s.mu.Lock()
	s.states[q.Snapshot] = state
	s.mu.Unlock()
	given := context.AfterFunc(ctx, cancel)
	made, err := of.Snapshot(until)
	given()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		delete(s.states, q.Snapshot)
		cancel()
	case state.dropped:
		made.Release()
	default:
		state.Snapshot = made
	}
	return &pb.SnapshotResponse{Failure: failure(err)}, nil
}

func (s *server) ReleaseSnapshot(_ context.Context, q *pb.ReleaseSnapshotRequest) (*pb.ReleaseSnapshotResponse, error) {
	s.mu.Lock()
	state := s.states[q.Snapshot]
	delete(s.states, q.Snapshot)
	var made overlay.Snapshot
	if state != nil {
		state.dropped, made = true, state.Snapshot
	}
	s.mu.Unlock()
	if state != nil {
		state.cancel()
	}
	if made != nil {
		made.Release()
	}
	return &pb.ReleaseSnapshotResponse{}, nil
}

// state is that of a snapshot, or the committed one.
func (s *server) state(id uint64) (interface {
	overlay.Lower
	HasKey(store.Key) bool
}, error) {
	b, err := s.opened()
	if err != nil || id == 0 {
		return b, err
	}
	state, err := s.snapshot(id)
	return state, err
}

func (s *server) snapshot(id uint64) (overlay.Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state := s.states[id]; state != nil && state.Snapshot != nil {
		return state.Snapshot, nil
	}
	return nil, errUnknown
}

func (s *server) Close(context.Context, *pb.CloseRequest) (*pb.CloseResponse, error) {
	b, err := s.opened()
	if err == nil {
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		err = b.Close()
	}
	return &pb.CloseResponse{Failure: failure(err)}, nil
}

func (s *server) opened() (overlay.Backend, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, store.ErrClosed
	case s.backend == nil:
		return nil, errNotOpen
	}
	return s.backend, nil
}

func (s *server) Lstat(_ context.Context, q *pb.LstatRequest) (*pb.LstatResponse, error) {
	b, err := s.state(q.Snapshot)
	if err != nil {
		return &pb.LstatResponse{Failure: failure(err)}, nil
	}
	a, err := b.Lstat(string(q.Path))
	if err != nil {
		return &pb.LstatResponse{Failure: failure(err)}, nil
	}
	return &pb.LstatResponse{Attr: attrTo(a)}, nil
}

func (s *server) ReadDir(q *pb.ReadDirRequest, stream grpc.ServerStreamingServer[pb.ReadDirResponse]) error {
	b, err := s.state(q.Snapshot)
	var names []overlay.Name
	if err == nil {
		names, err = b.ReadDir(string(q.Path), int(min(q.Limit, 1<<31-1)))
	}
	if err != nil {
		return stream.Send(&pb.ReadDirResponse{Failure: failure(err)})
	}
	part, bytes := &pb.ReadDirResponse{}, 0
	for i, n := range names {
		part.Names, part.Kinds = append(part.Names, []byte(n.Name)), append(part.Kinds, byte(n.Kind))
		bytes += len(n.Name)
		if len(part.Names) == partNames || bytes >= partBytes || i == len(names)-1 {
			if err := stream.Send(part); err != nil {
				return err
			}
			part, bytes = &pb.ReadDirResponse{}, 0
		}
	}
	return nil
}

func (s *server) Readlink(_ context.Context, q *pb.ReadlinkRequest) (*pb.ReadlinkResponse, error) {
	b, err := s.state(q.Snapshot)
	var target string
	if err == nil {
		target, err = b.Readlink(string(q.Path))
	}
	return &pb.ReadlinkResponse{Failure: failure(err), Target: []byte(target)}, nil
}

func (s *server) OpenFile(ctx context.Context, q *pb.OpenFileRequest) (*pb.OpenFileResponse, error) {
	b, err := s.state(q.Snapshot)
	if err != nil {
		return &pb.OpenFileResponse{Failure: failure(err)}, nil
	}
	f, err := b.Open(string(q.Path))
	if err != nil {
		return &pb.OpenFileResponse{Failure: failure(err)}, nil
	}
	s.mu.Lock()
	s.files[q.File] = f
	s.mu.Unlock()
	return &pb.OpenFileResponse{Attr: attrTo(f.Attr())}, nil
}

func (s *server) file(id uint64) (overlay.LowerFile, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.files[id]; f != nil {
		return f, nil
	}
	return nil, errUnknown
}

func (s *server) ReadFile(_ context.Context, q *pb.ReadFileRequest) (*pb.ReadFileResponse, error) {
	f, err := s.file(q.File)
	if err != nil {
		return &pb.ReadFileResponse{Failure: failure(err)}, nil
	}
	data, err := readAt(f, q.Offset, q.Size)
	return &pb.ReadFileResponse{Failure: failure(err), Data: data}, nil
}

// readAt reads at most size bytes, fewer where the file ends.
func readAt(r io.ReaderAt, off int64, size uint32) ([]byte, error) {
	if size > maxPart || off < 0 {
		return nil, store.ErrInvalid
	}
	p := make([]byte, size)
	n, err := r.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return p[:n], nil
}

func (s *server) CloseFile(_ context.Context, q *pb.CloseFileRequest) (*pb.CloseFileResponse, error) {
	s.mu.Lock()
	f := s.files[q.File]
	delete(s.files, q.File)
	s.mu.Unlock()
	if f != nil {
		_ = f.Close()
	}
	return &pb.CloseFileResponse{}, nil
}

func (s *server) Stage(ctx context.Context, q *pb.StageRequest) (*pb.StageResponse, error) {
	b, err := s.opened()
	var from overlay.LowerFile
	if err == nil && q.From != 0 {
		from, err = s.file(q.From)
	}
	if err != nil {
		return &pb.StageResponse{Failure: failure(err)}, nil
	}
	f := &stagedFile{}
	s.mu.Lock()
	s.staged[q.Staged] = f
	s.mu.Unlock()
	made, err := b.Stage(ctx, from, q.Size)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		delete(s.staged, q.Staged)
	case f.dropped:
		made.Discard()
	default:
		f.Staged = made
	}
	return &pb.StageResponse{Failure: failure(err)}, nil
}

func (s *server) stagedFile(id uint64) (overlay.Staged, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.staged[id]; f != nil && f.Staged != nil {
		return f.Staged, nil
	}
	return nil, errUnknown
}

func (s *server) ReadStaged(_ context.Context, q *pb.ReadStagedRequest) (*pb.ReadStagedResponse, error) {
	f, err := s.stagedFile(q.Staged)
	if err != nil {
		return &pb.ReadStagedResponse{Failure: failure(err)}, nil
	}
	data, err := readAt(f, q.Offset, q.Size)
	return &pb.ReadStagedResponse{Failure: failure(err), Data: data}, nil
}

func (s *server) WriteStaged(_ context.Context, q *pb.WriteStagedRequest) (*pb.WriteStagedResponse, error) {
	f, err := s.stagedFile(q.Staged)
	if err == nil && len(q.Data) > 0 {
		var n int
		if n, err = f.WriteAt(q.Data, q.Offset); err == nil && n < len(q.Data) {
			err = io.ErrShortWrite
		}
	}
	if err == nil && q.Idle {
		f.Idle()
	}
	return &pb.WriteStagedResponse{Failure: failure(err)}, nil
}

func (s *server) TruncateStaged(_ context.Context, q *pb.TruncateStagedRequest) (*pb.TruncateStagedResponse, error) {
	f, err := s.stagedFile(q.Staged)
	if err == nil {
		err = f.Truncate(q.Size)
	}
	return &pb.TruncateStagedResponse{Failure: failure(err)}, nil
}

func (s *server) DiscardStaged(_ context.Context, q *pb.DiscardStagedRequest) (*pb.DiscardStagedResponse, error) {
	s.mu.Lock()
	f := s.staged[q.Staged]
	delete(s.staged, q.Staged)
	var made overlay.Staged
	if f != nil {
		f.dropped, made = true, f.Staged
	}
	s.mu.Unlock()
	if made != nil {
		made.Discard()
	}
	return &pb.DiscardStagedResponse{}, nil
}

func (s *server) Prepare(stream grpc.ClientStreamingServer[pb.PrepareRequest, pb.PrepareResponse]) error {
	p, id, base := &overlay.Plan{}, uint64(0), uint64(0)
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		id, base = m.Plan, m.Base
		if err := addPlan(p, m, s.stagedFile); err != nil {
			return stream.SendAndClose(&pb.PrepareResponse{Failure: failure(err)})
		}
	}
	b, err := s.opened()
	if err == nil && base != 0 {
		p.Base, err = s.snapshot(base)
	}
	if err == nil {
		s.planning.Lock()
		defer s.planning.Unlock()
		s.plans[id] = p
		err = b.Prepare(stream.Context(), p)
	}
	return stream.SendAndClose(&pb.PrepareResponse{Failure: failure(err)})
}

func (s *server) Abandon(_ context.Context, q *pb.AbandonRequest) (*pb.AbandonResponse, error) {
	s.planning.Lock()
	defer s.planning.Unlock()
	b, err := s.opened()
	if p := s.plans[q.Plan]; p != nil && err == nil {
		delete(s.plans, q.Plan)
		b.Abandon(p)
	}
	return &pb.AbandonResponse{}, nil
}

func (s *server) Commit(stream grpc.ClientStreamingServer[pb.CommitRequest, pb.CommitResponse]) error {
	var records []overlay.Record
	var plan uint64
	for more := false; ; {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		plan = m.Plan
		if !more {
			if len(m.Key) == 0 {
				continue
			}
			key, err := fixed(m.Key)
			if err != nil {
				return err
			}
			at, err := timeFrom(m.Time)
			if err != nil {
				return err
			}
			records = append(records, overlay.Record{Key: key, Time: at, Data: []byte{}})
		}
		last := &records[len(records)-1]
		last.Data, more = append(last.Data, m.Data...), m.More
	}
	answer, err := s.commit(stream.Context(), plan, records)
	if err != nil {
		answer = &pb.CommitResponse{Failure: failure(err)}
	}
	return stream.SendAndClose(answer)
}

func (s *server) commit(ctx context.Context, plan uint64, records []overlay.Record) (*pb.CommitResponse, error) {
	b, err := s.opened()
	if err != nil {
		return nil, err
	}
	var p *overlay.Plan
	if plan != 0 {
		s.planning.Lock()
		defer s.planning.Unlock()
		if p = s.plans[plan]; p == nil {
			return nil, errUnknown
		}
	}
	// The host waits for the outcome, whoever has given up waiting for the host.
	err = b.Commit(context.WithoutCancel(ctx), p, records)
	if p != nil && (err == nil || errors.Is(err, overlay.ErrBroken)) {
		delete(s.plans, plan)
		s.taken(p)
	}
	if err != nil || len(records) == 0 {
		return &pb.CommitResponse{}, err
	}
	first, found, err := b.Entry(ctx, records[0].Key)
	if err == nil && !found {
		err = store.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("find what was committed: %w: %w", overlay.ErrBroken, err)
	}
	return &pb.CommitResponse{Seq: first.Seq, Prev: first.Prev[:]}, nil
}

// taken forgets the staged files that a commit has taken.
func (s *server) taken(p *overlay.Plan) {
	put := map[overlay.Staged]bool{}
	for _, step := range p.Steps {
		if step.Kind == overlay.StepPut {
			put[step.File] = true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, f := range s.staged {
		if put[f.Staged] {
			delete(s.staged, id)
		}
	}
}

func (s *server) HasKey(_ context.Context, q *pb.HasKeyRequest) (*pb.HasKeyResponse, error) {
	key, err := fixed(q.Key)
	if err != nil {
		return nil, err
	}
	b, err := s.state(q.Snapshot)
	return &pb.HasKeyResponse{Has: err == nil && b.HasKey(key)}, nil
}

func (s *server) Entry(q *pb.EntryRequest, stream grpc.ServerStreamingServer[pb.EntryResponse]) error {
	key, err := fixed(q.Key)
	if err != nil {
		return err
	}
	b, err := s.opened()
	var e store.Entry
	var found bool
	if err == nil {
		e, found, err = b.Entry(stream.Context(), key)
	}
	if err != nil {
		return stream.Send(&pb.EntryResponse{Failure: failure(err)})
	}
	if !found {
		return nil
	}
	return sendEntry(e, func(p *pb.EntryPart) error { return stream.Send(&pb.EntryResponse{Part: p}) })
}

func (s *server) Log(q *pb.LogRequest, stream grpc.ServerStreamingServer[pb.LogResponse]) error {
	b, err := s.opened()
	if err != nil {
		return stream.Send(&pb.LogResponse{Failure: failure(err)})
	}
	for e, err := range b.Log(stream.Context(), q.From) {
		if err != nil {
			return stream.Send(&pb.LogResponse{Failure: failure(err)})
		}
		if err := sendEntry(e, func(p *pb.EntryPart) error { return stream.Send(&pb.LogResponse{Part: p}) }); err != nil {
			return err
		}
	}
	return nil
}
