package sdktest

import (
	"context"
	"fmt"

	"github.com/tetratelabs/wazero/api"
)

// offerModules instantiates circles:host/modules.
func (h *Host) offerModules(ctx context.Context) error {
	m := h.runtime.NewHostModuleBuilder("circles:host/modules@0.1.2")
	export := func(name string, f any) { m.NewFunctionBuilder().WithFunc(f).Export(name) }
	export("call", func(ctx context.Context, _ api.Module, n, nn, e, en, p, pn, ret uint32) {
		g := ctx.Value(guestKey{}).(*Guest)
		name, entry, params := g.text(n, nn), g.text(e, en), g.bytes(p, pn)
		module := h.Modules[name]
		if module == nil {
			g.putError(ctx, ret, 4, &hostError{notFound, "there is no module " + name})
			return
		}
		if entry == "" {
			entry = "run"
		}
		g.putOutcome(ctx, ret, func() ([]byte, error) { return module(entry, params) })
	})
	export("base", func(ctx context.Context, _ api.Module, e, en, p, pn, ret uint32) {
		g := ctx.Value(guestKey{}).(*Guest)
		entry, params := g.text(e, en), g.bytes(p, pn)
		if h.Base == nil {
			g.putError(ctx, ret, 4, &hostError{notFound, "this module stands before no other"})
			return
		}
		if entry == "" {
			entry = g.entry
		}
		g.putOutcome(ctx, ret, func() ([]byte, error) { return h.Base(entry, params) })
	})
	export("entry", func(ctx context.Context, _ api.Module, ret uint32) {
		g := ctx.Value(guestKey{}).(*Guest)
		g.putList(ctx, ret, []byte(g.entry))
	})
	if _, err := m.Instantiate(ctx); err != nil {
		return fmt.Errorf("offer circles:host/modules: %w", err)
	}
	return nil
}

// offerSend exports the method of a context that sends.
func (h *Host) offerSend(export func(name string, f any)) {
	export("[method]context.send", func(ctx context.Context, _ api.Module, self, t, tn, l, ln, e, en, p, pn, ret uint32) {
		g := ctx.Value(guestKey{}).(*Guest)
		to, logic, entry, params := g.text(t, tn), g.text(l, ln), g.text(e, en), g.bytes(p, pn)
		switch {
		case g.party(self) == "caller":
			g.putError(ctx, ret, 4, &hostError{readOnly, "the caller's context sends nothing"})
			return
		case h.Send == nil:
			g.putError(ctx, ret, 4, &hostError{unavailable, "there is nobody to send to"})
			return
		case entry == "":
			entry = "run"
		}
		g.putOutcome(ctx, ret, func() ([]byte, error) { return h.Send(to, logic, entry, params) })
	})
}

// putOutcome lowers a result<list<u8>, error> of what another module did.
func (g *Guest) putOutcome(ctx context.Context, ret uint32, do func() ([]byte, error)) {
	result, err := do()
	if err != nil {
		g.putError(ctx, ret, 4, &hostError{failed, err.Error()})
		return
	}
	g.put8(ret, 0)
	g.putList(ctx, ret+4, result)
}
