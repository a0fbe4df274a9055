package sdktest

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/tetratelabs/wazero/api"
)

// offerRecords exports the methods of a context that are about records. Limits are
// the smallest that a test can see: ten records in a page.
func (h *Host) offerRecords(export func(name string, f any)) {
	export("[method]context.get-record", func(ctx context.Context, _ api.Module, self, c, cn, k, kn, ret uint32) {
		g := ctx.Value(guestKey{}).(*Guest)
		collection, key := g.text(c, cn), g.text(k, kn)
		records, err := h.collection(g, self, collection, false)
		value, ok := records[key]
		if err == nil && !h.seen(collection, key) {
			err = &hostError{denied, "the policy does not allow it"}
		} else if err == nil && !ok {
			err = &hostError{notFound, "there is no such record"}
		}
		if err != nil {
			g.putError(ctx, ret, 4, err)
			return
		}
		g.put8(ret, 0)
		g.putList(ctx, ret+4, []byte(value))
	})
	export("[method]context.put-record", func(ctx context.Context, _ api.Module, self, c, cn, k, kn, v, vn, ret uint32) {
		g := ctx.Value(guestKey{}).(*Guest)
		records, err := h.collection(g, self, g.text(c, cn), true)
		if err != nil {
			g.putError(ctx, ret, 4, err)
			return
		}
		g.putDone(ctx, ret, h.put(records, g.text(c, cn), g.text(k, kn), string(g.bytes(v, vn))))
	})
	export("[method]context.delete-record", func(ctx context.Context, _ api.Module, self, c, cn, k, kn, ret uint32) {
		g := ctx.Value(guestKey{}).(*Guest)
		records, err := h.collection(g, self, g.text(c, cn), true)
		if _, ok := records[g.text(k, kn)]; err == nil && !ok {
			err = &hostError{notFound, "there is no such record"}
		}
		if err != nil {
			g.putError(ctx, ret, 4, err)
			return
		}
		delete(records, g.text(k, kn))
		g.put8(ret, 0)
	})
	export("[method]context.list-records", func(ctx context.Context, _ api.Module, self, c, cn, s, sn, p, pn, limit, ret uint32) {
		g := ctx.Value(guestKey{}).(*Guest)
		collection, start, prefix := g.text(c, cn), g.text(s, sn), g.text(p, pn)
		records, err := h.collection(g, self, collection, false)
		if err != nil {
			g.putError(ctx, ret, 4, err)
			return
		}
		keys := slices.DeleteFunc(slices.Sorted(maps.Keys(records)), func(k string) bool { return k < start || !strings.HasPrefix(k, prefix) })
		next := ""
		if most := pageOf(limit); len(keys) > most {
			keys, next = keys[:most], keys[most]
		}
		g.putPage(ctx, ret, collection, records, keys, next)
	})
}

// pageOf is how many records a guest gets that asks for limit.
func pageOf(limit uint32) int {
	const most = 10
	if limit == 0 || limit > most {
		return most
	}
	return int(limit)
}

// collection finds the records of a collection, which is made if it is to be changed.
func (h *Host) collection(g *Guest, self uint32, name string, change bool) (map[string]string, error) {
	party, who := &h.Target, g.party(self)
	if who == "caller" {
		party = &h.Caller
	}
	switch {
	case name != strings.ToLower(name):
		return nil, &hostError{invalid, "a collection is named in lower case"}
	case change && (who == "caller" || h.ReadOnly):
		return nil, &hostError{readOnly, "the records cannot be changed"}
	}
	if change && party.Records[name] == nil {
		if party.Records == nil {
			party.Records = map[string]map[string]string{}
		}
		party.Records[name] = map[string]string{}
	}
	return party.Records[name], nil
}

func (h *Host) seen(collection, key string) bool { return h.Seen == nil || h.Seen(collection, key) }

// put is a change as the collection's schema allows it.
func (h *Host) put(records map[string]string, collection, key, value string) error {
	if h.Check != nil {
		if wrong := h.Check(collection, value); wrong != "" {
			return &hostError{violates, "cannot put record " + collection + "/" + key + ":\n" + wrong}
		}
	}
	records[key] = value
	return nil
}

// putDone lowers a result<_, error>.
func (g *Guest) putDone(ctx context.Context, ret uint32, err error) {
	if err != nil {
		g.putError(ctx, ret, 4, err)
		return
	}
	g.put8(ret, 0)
}

// putPage lowers a result<page, error>.
func (g *Guest) putPage(ctx context.Context, ret uint32, collection string, records map[string]string, keys []string, next string) {
	at := g.must(g.realloc(ctx, 4, 20*len(keys)))
	for i, k := range keys {
		item := at + uint32(20*i)
		g.putList(ctx, item, []byte(k))
		if g.host.seen(collection, k) {
			g.put8(item+8, 1)
			g.putList(ctx, item+12, []byte(records[k]))
		} else {
			g.put8(item+8, 0)
		}
	}
	g.put8(ret, 0)
	g.put32(ret+4, at)
	g.put32(ret+8, uint32(len(keys)))
	g.putList(ctx, ret+12, []byte(next))
}
