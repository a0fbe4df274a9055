package plugin

import (
	"context"
	"errors"
	"fmt"
	"net/rpc"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

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

func (kind) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return conn, nil
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
	plugin  *goplugin.Client
	dir     string
}

// connect starts the plugin and opens the context in it.
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
	k.plugin = goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig:  handshake,
		VersionedPlugins: map[int]goplugin.PluginSet{Version: {pluginName: kind{}}},
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		AutoMTLS:         true,
		SkipHostEnv:      true,
		StartTimeout:     c.StartTimeout,
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: dir},
		Stderr:           out,
		SyncStdout:       out,
		SyncStderr:       out,
		Logger:           hclog.NewNullLogger(), // which would log all that the plugin writes
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, sockets string) (runner.Runner, error) {
			k.process.env, k.process.dir = cmd.Env, sockets
			return k.process, nil
		},
		GRPCDialOptions: []grpc.DialOption{
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
			grpc.WithMaxHeaderListSize(64 << 10),
			grpc.WithDisableServiceConfig(),
			grpc.WithDisableRetry(),
			grpc.WithChainStreamInterceptor(noBroker),
		},
	})
	// go-plugin waits for as long as the process lives, for some things.
	stop := context.AfterFunc(ctx, k.kill)
	timer := time.AfterFunc(c.StartTimeout, k.kill)
	protocol, err := k.plugin.Client()
	inTime := timer.Stop()
	stop()
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil && !inTime:
		return nil, fmt.Errorf("the storage plugin was not ready within %v", c.StartTimeout)
	case err != nil:
		return nil, fmt.Errorf("start the storage plugin: %s", printable(err.Error()))
	}
	raw, err := protocol.Dispense(pluginName)
	if err != nil {
		return nil, fmt.Errorf("start the storage plugin: %w", err)
	}
	k.client = newClient(c, raw.(*grpc.ClientConn), h, k.kill)
	go func() {
		<-k.process.ended
		_ = k.client.fail(k.process.err)
	}()
	if k.backend, err = k.client.open(ctx); err != nil {
		return nil, fmt.Errorf("open the context in the storage plugin: %w", err)
	}
	if err := h.still(ctx, k.client.log); err != nil {
		return nil, err
	}
	return k, nil
}

// noBroker refuses go-plugin's channel for further connections: nobody uses it,
// and a plugin could fill the host's memory with announcements of such.
func noBroker(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if strings.HasPrefix(method, "/plugin.GRPCBroker/") {
		return nil, status.Error(codes.Unimplemented, "not used")
	}
	return streamer(ctx, desc, cc, method, opts...)
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
	k.plugin.Kill() // the process is gone, so this waits for nothing
	os.RemoveAll(k.dir)
}

// leaveGrace is how long a plugin that was closed may take to end.
const leaveGrace = 2 * time.Second
