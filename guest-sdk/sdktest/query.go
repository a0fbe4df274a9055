package sdktest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/tetratelabs/wazero/api"
)

// offerQueries exports the methods of a context that 0.1.2 has for records.
func (h *Host) offerQueries(export func(name string, f any)) {
	export("[method]context.replace-record", func(ctx context.Context, _ api.Module, self, c, cn, k, kn, some, e, en, v, vn, ret uint32) {
		g := ctx.Value(guestKey{}).(*Guest)
		collection, key, value := g.text(c, cn), g.text(k, kn), string(g.bytes(v, vn))
		if some > 1 {
			panic(fmt.Sprintf("%d is no case of an option", some))
		}
		records, err := h.collection(g, self, collection, true)
		if err == nil {
			is, there := records[key]
			if there != (some == 1) || there && is != string(g.bytes(e, en)) {
				err = &hostError{conflict, "the record is not as it was expected to be"}
			} else {
				err = h.put(records, collection, key, value)
			}
		}
		g.putDone(ctx, ret, err)
	})
	export("[method]context.query-records", func(ctx context.Context, _ api.Module, self, c, cn, q, qn, s, sn, limit, ret uint32) {
		g := ctx.Value(guestKey{}).(*Guest)
		collection, start := g.text(c, cn), g.text(s, sn)
		records, err := h.collection(g, self, collection, false)
		var keys []string
		if err == nil {
			keys, err = query(records, g.text(q, qn), func(key string) bool { return h.seen(collection, key) })
		}
		from := 0
		if err == nil && start != "" {
			if from, err = strconv.Atoi(strings.TrimPrefix(start, "#")); err != nil || from < 0 || from > len(keys) {
				err = &hostError{invalid, "start is not the next of a page of this query"}
			}
		}
		if err != nil {
			g.putError(ctx, ret, 4, err)
			return
		}
		keys, next := keys[from:], ""
		if most := pageOf(limit); len(keys) > most {
			keys, next = keys[:most], "#"+strconv.Itoa(from+most)
		}
		g.putPage(ctx, ret, collection, records, keys, next)
	})
}

// condition is the COND of host.wit.
type condition struct {
	Field  *string         `json:"field"`
	Equals json.RawMessage `json:"equals"`
	Prefix *string         `json:"prefix"`
	Above  json.RawMessage `json:"above"`
	From   json.RawMessage `json:"from"`
	Below  json.RawMessage `json:"below"`
	To     json.RawMessage `json:"to"`
	And    []condition     `json:"and"`
	Or     []condition     `json:"or"`
}

// query returns the keys of what a query is true of, in its order: of what may be got,
// since anything else would be told by asking.
func query(records map[string]string, text string, seen func(key string) bool) ([]string, error) {
	var q struct {
		Where *condition `json:"where"`
		Order []struct {
			Field      string `json:"field"`
			Descending bool   `json:"descending"`
		} `json:"order"`
		Limit int `json:"limit"`
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		return nil, &hostError{invalid, "the query is not one: " + err.Error()}
	}
	if q.Where != nil && !q.Where.whole() {
		return nil, &hostError{invalid, "a condition is of a field, or the and or the or of others"}
	}
	values := map[string]any{}
	for key, value := range records {
		var v any
		isJSON := json.Unmarshal([]byte(value), &v) == nil
		if seen(key) && (q.Where == nil || isJSON && q.Where.holds(v)) {
			values[key] = v
		}
	}
	keys := slices.SortedFunc(maps.Keys(values), func(a, b string) int {
		for _, o := range q.Order {
			x, _ := at(values[a], o.Field)
			y, _ := at(values[b], o.Field)
			n, _ := compare(x, y)
			if o.Field == "" {
				n = cmp.Compare(a, b)
			}
			if o.Descending {
				n = -n
			}
			if n != 0 {
				return n
			}
		}
		return cmp.Compare(a, b)
	})
	if q.Limit > 0 && q.Limit < len(keys) {
		keys = keys[:q.Limit]
	}
	return keys, nil
}

// whole reports whether a condition asks something.
func (c *condition) whole() bool {
	parts := slices.Concat(c.And, c.Or)
	asks := c.Equals != nil || c.Prefix != nil || c.Above != nil || c.From != nil || c.Below != nil || c.To != nil
	return (len(parts) > 0) != (c.Field != nil) && asks == (c.Field != nil) &&
		!slices.ContainsFunc(parts, func(c condition) bool { return !c.whole() })
}

func (c *condition) holds(v any) bool {
	switch {
	case c.And != nil:
		return !slices.ContainsFunc(c.And, func(c condition) bool { return !c.holds(v) })
	case c.Or != nil:
		return slices.ContainsFunc(c.Or, func(c condition) bool { return c.holds(v) })
	}
	x, ok := at(v, *c.Field)
	if !ok {
		return false
	}
	if c.Prefix != nil {
		s, ok := x.(string)
		return ok && strings.HasPrefix(s, *c.Prefix)
	}
	for _, bound := range []struct {
		value json.RawMessage
		holds func(n int) bool
	}{
		{c.Equals, func(n int) bool { return n == 0 }},
		{c.Above, func(n int) bool { return n > 0 }},
		{c.From, func(n int) bool { return n >= 0 }},
		{c.Below, func(n int) bool { return n < 0 }},
		{c.To, func(n int) bool { return n <= 0 }},
	} {
		var y any
		if bound.value == nil {
			continue
		}
		if json.Unmarshal(bound.value, &y) != nil {
			return false
		}
		if n, ok := compare(x, y); !ok || !bound.holds(n) {
			return false
		}
	}
	return true
}

// at follows a JSON Pointer.
func at(v any, pointer string) (any, bool) {
	for part := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		if pointer == "" {
			break
		}
		part = strings.NewReplacer("~1", "/", "~0", "~").Replace(part)
		switch in := v.(type) {
		case map[string]any:
			next, ok := in[part]
			if !ok {
				return nil, false
			}
			v = next
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || i < 0 || i >= len(in) {
				return nil, false
			}
			v = in[i]
		default:
			return nil, false
		}
	}
	return v, true
}

// compare compares numbers and texts; of others it tells whether they are equal.
func compare(x, y any) (n int, ok bool) {
	switch a := x.(type) {
	case float64:
		if b, ok := y.(float64); ok {
			return cmp.Compare(a, b), true
		}
	case string:
		if b, ok := y.(string); ok {
			return cmp.Compare(a, b), true
		}
	}
	a, _ := json.Marshal(x)
	b, _ := json.Marshal(y)
	return bytes.Compare(a, b), bytes.Equal(a, b)
}
