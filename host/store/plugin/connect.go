package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/circles-host/circles/host/store/overlay"
	pb "github.com/circles-host/circles/host/store/plugin/storagepb"
)

// Version is the version of the protocol. It is raised when an older plugin, or
// an older host, would do something else than is meant; a field that either may
// leave out does not raise it.
const Version = 1

const pluginName = "storage"

// handshake tells a program that it was started by a host, and a host that what
// it has started is a storage plugin. It keeps mistakes apart, not attackers.
var handshake = goplugin.HandshakeConfig{
	ProtocolVersion:  Version,
	MagicCookieKey:   "CIRCLES_STORAGE_PLUGIN",
	MagicCookieValue: "5c8d9f6e-storage-v1",
}

// kind is what go-plugin needs to know of ours.
type kind struct{ server pb.BackendServiceServer }

func (k kind) GRPCServer(_ *goplugin.GRPCBroker, s *grpc.Server) error {
	pb.RegisterBackendServiceServer(s, k.server)
	return nil
}

func (kind) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("the connection is made by connect")
}

// Server and Client refuse the protocol that go-plugin had before gRPC.
func (kind) Server(*goplugin.MuxBroker) (any, error) { return nil, errors.New("gRPC only") }

func (kind) Client(*goplugin.MuxBroker, *rpc.Client) (any, error) {
	return nil, errors.New("gRPC only")
}

// connection is a process with its client.
type connection struct {
	client  *client
	backend overlay.Backend // the client
	process *process
	conn    *grpc.ClientConn
	dir     string
}

// connect starts the plugin and opens the context in it.
//
// go-plugin starts the process, by our own means, shakes hands and makes the
// certificates. The connection is made here: go-plugin's has a channel on which a
// plugin could announce further connections without end, waits for as long as a
// process lives, and is not taken down when it fails.
func connect(ctx context.Context, c Config, h *head) (_ *connection, err error) {
	out := newOutput(c.Log.With("command", c.Command), c.Now)
	defer func() {
		if err != nil {
			if last := out.lastLine(); last != "" {
				err = fmt.Errorf("%w (it said: %s)", err, last)
			}
		}
	}()
	dir, err := os.MkdirTemp("", "circles-plugin-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the storage plugin's socket: %w", err)
	}
	k := &connection{dir: dir, process: newProcess(c)}
	defer func() {
		if err != nil {
			k.end()
		}
	}()
	config := &goplugin.ClientConfig{
		HandshakeConfig:  handshake,
		VersionedPlugins: map[int]goplugin.PluginSet{Version: {pluginName: kind{}}},
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		AutoMTLS:         true,
		SkipHostEnv:      true,
		StartTimeout:     c.StartTimeout,
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: dir},
		Stderr:           out,
		Logger:           hclog.NewNullLogger(), // which would log all that the plugin writes
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, sockets string) (runner.Runner, error) {
			k.process.env, k.process.dir = cmd.Env, sockets
			return k.process, nil
		},
	}
	stop := context.AfterFunc(ctx, k.kill)
	timer := time.AfterFunc(c.StartTimeout, k.kill)
	addr, err := goplugin.NewClient(config).Start()
	inTime := timer.Stop()
	stop()
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil && !inTime:
		return nil, fmt.Errorf("the storage plugin was not ready within %v", c.StartTimeout)
	case err != nil:
		return nil, fmt.Errorf("start the storage plugin: %s", printable(err.Error()))
	case config.TLSConfig == nil || config.TLSConfig.RootCAs == nil:
		return nil, errors.New("start the storage plugin: it has no certificate, so it does not do AutoMTLS")
	}
	k.conn, err = grpc.NewClient("passthrough:///plugin",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, addr.Network(), addr.String())
		}),
		grpc.WithTransportCredentials(credentials.NewTLS(config.TLSConfig)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithMaxHeaderListSize(64<<10),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to the storage plugin: %w", err)
	}
	k.client = newClient(c, k.conn, h, k.kill)
	go func() {
		<-k.process.ended
		_ = k.client.fail(k.process.err)
	}()
	go drain(k.conn, out)
	if k.backend, err = k.client.open(ctx); err != nil {
		return nil, fmt.Errorf("open the context in the storage plugin: %w", err)
	}
	within, cancel := context.WithTimeout(ctx, c.StartTimeout)
	defer cancel()
	_, alone := k.backend.(headed)
	if err := h.still(within, k.client.log, alone); err != nil {
		return nil, err
	}
	return k, nil
}

// drain reads what the plugin writes to os.Stdout and os.Stderr, which go-plugin's
// server sends over a stream of its own, and does not go on without. Its messages
// are a number for which of the two it is, and the bytes.
func drain(conn *grpc.ClientConn, out io.Writer) {
	stream, err := conn.NewStream(context.Background(), &grpc.StreamDesc{ServerStreams: true}, "/plugin.GRPCStdio/StreamStdio")
	if err != nil {
		return
	}
	if stream.SendMsg(&emptypb.Empty{}) != nil || stream.CloseSend() != nil {
		return
	}
	for {
		var m emptypb.Empty // its fields are unknown to us, and kept as they came
		if stream.RecvMsg(&m) != nil {
			return
		}
		for b := m.ProtoReflect().GetUnknown(); len(b) > 0; {
			number, kind, n := protowire.ConsumeTag(b)
			size := protowire.ConsumeFieldValue(number, kind, b[n:])
			if number == 2 && kind == protowire.BytesType {
				data, _ := protowire.ConsumeBytes(b[n:])
				_, _ = out.Write(data)
			}
			b = b[n+size:]
		}
	}
}

func (k *connection) kill() { _ = k.process.Kill(context.Background()) }

// end ends the process, if it does not end by itself, and what is kept for it.
func (k *connection) end() {
	if k.process.ID() != "" {
		if k.client == nil || k.client.gone() {
			k.kill()
		}
		k.process.leave(leaveGrace)
		<-k.process.ended
	}
	if k.conn != nil {
		k.conn.Close()
	}
	os.RemoveAll(k.dir)
}

// leaveGrace is how long a plugin that was closed may take to end.
const leaveGrace = 2 * time.Second
