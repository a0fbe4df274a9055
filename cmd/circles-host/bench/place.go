package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

// place is a root with peers who let anybody run anything, and perhaps a host that
// serves it.
type place struct {
	run    *run
	root   *host.Root
	ids    []peer.ID
	host   *host.Host
	closed func() error
}

const permitAll = "@id(\"all\") permit (principal, action, resource);\n"

// newPlace makes a root. Its peers are written by hand, and not made durable one by
// one as peer add does: it would take an hour for 100,000.
func (r *run) newPlace(peers int) (*place, error) {
	r.count++
	dir := filepath.Join(r.dir, fmt.Sprintf("root-%d", r.count))
	root, _, err := host.InitRoot(dir)
	if err != nil {
		return nil, err
	}
	p := &place{run: r, root: root}
	if _, err := module.Add(filepath.Join(dir, "modules"), "wordcount", r.guest("C").wasm); err != nil {
		return nil, err
	}
	for i := range peers {
		if err := r.ctx.Err(); err != nil {
			return nil, context.Cause(r.ctx)
		}
		key, err := peer.GenerateKey()
		if err != nil {
			return nil, err
		}
		at := filepath.Join(dir, "peers", fmt.Sprintf("peer-%d", i))
		err = errors.Join(
			os.MkdirAll(filepath.Join(at, "policy"), 0o700),
			os.WriteFile(filepath.Join(at, "policy", "all.cedar"), []byte(permitAll), 0o600),
			os.WriteFile(filepath.Join(at, "peer.toml"), fmt.Appendf(nil, "id = %q\n", key.ID()), 0o600),
		)
		if err != nil {
			return nil, err
		}
		p.ids = append(p.ids, key.ID())
		if (i+1)%1000 == 0 {
			r.Progress(fmt.Sprintf("making peers: %d of %d", i+1, peers))
		}
	}
	return p, nil
}

// open has a host serve the root.
func (p *place) open(c host.Config) error {
	root, err := host.OpenRoot(p.root.Dir)
	if err != nil {
		return err
	}
	if c.OpenStore == nil {
		c.OpenStore, p.closed = p.run.Stores(root)
	}
	c.CacheDir = p.run.cache
	c.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	if p.host, err = host.Open(p.run.ctx, root, c); err != nil {
		return err
	}
	return p.host.Problem()
}

// close ends the host, if there is one, and leaves the root.
func (p *place) close() error {
	if p.host == nil {
		return nil
	}
	err := p.host.Close()
	if p.closed != nil {
		err = errors.Join(err, p.closed())
	}
	p.host, p.closed = nil, nil
	return err
}

func (p *place) remove() error { return errors.Join(p.close(), os.RemoveAll(p.root.Dir)) }

// work is the script that is sent unless another is measured: a small one, in C.
func work(target peer.ID) script.Script {
	return script.Script{Target: target, Logic: script.Logic{Name: "wordcount"}, Params: someWords}
}

// deliver seals a script, hands it to the host, and says how long that took, from
// its arrival to the sealed receipt. A script that did not do its work is an error.
func (p *place) deliver(s script.Script, key *peer.Key) (time.Duration, error) {
	s.Caller = key.ID()
	sealed, id, err := envelope.SealScript(s, key)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	back, err := p.host.Deliver(p.run.ctx, sealed, nil)
	took := time.Since(began)
	if err != nil {
		return took, err
	}
	receipt, _, err := envelope.OpenReceiptOf(id, back, p.host.ID())
	if err == nil && receipt.Code != script.Done {
		err = fmt.Errorf("the script was %v: %s", receipt.Code, receipt.Message)
	}
	return took, err
}
