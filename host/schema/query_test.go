package schema_test

import (
	"cmp"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/circles-host/circles/host/schema"
)

// FuzzKeysAreInOrder: what values are sorted by is in the order of the values, and
// has nothing in it that stands between.
func FuzzKeysAreInOrder(f *testing.F) {
	f.Add(`"a b"`, `"a"`, 1.5, math.Copysign(0, -1))
	f.Add(`"\u0000"`, `" "`, math.MaxFloat64, -1e-300)
	f.Add(`null`, `true`, 9007199254740992.0, 9007199254740991.0)
	key := func(t *testing.T, in string) string {
		v, err := schema.ReadJSON(in)
		if err != nil {
			t.Fatal(err)
		}
		return string(v.AppendKey(nil))
	}
	f.Fuzz(func(t *testing.T, a, b string, x, y float64) {
		if !utf8.ValidString(a) || !utf8.ValidString(b) || len(a) > schema.MaxIndexed || len(b) > schema.MaxIndexed || x-x != 0 || y-y != 0 {
			return
		}
		text := func(v any) string {
			in, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			return string(in)
		}
		// As strings, and as numbers.
		i, j := key(t, text(a)), key(t, text(b))
		if cmp.Compare(i, j) != cmp.Compare(a, b) || cmp.Compare(i+schema.Between+"z", j+schema.Between+"a") != cmp.Or(cmp.Compare(a, b), 1) {
			t.Errorf("%q and %q become %q and %q", a, b, i, j)
		}
		if p, q := key(t, text(x)), key(t, text(y)); cmp.Compare(p, q) != cmp.Compare(x, y) || p >= i {
			t.Errorf("%v and %v become %q and %q", x, y, p, q)
		}
		for _, k := range []string{i, j} {
			if strings.Contains(k, schema.Between) || strings.ContainsFunc(k, func(c rune) bool { return c <= '"' && c != '!' }) {
				t.Errorf("%q has a separator in it", k)
			}
		}
	})
}

// FuzzParseQuery: any text is a query or an error that can be shown, and a query is
// bounded in what it asks.
func FuzzParseQuery(f *testing.F) {
	f.Add(`{"where": {"and": [{"field": "/a", "equals": 1}, {"or": [{"field": "/b/~1", "prefix": "x"}, {"field": "", "above": 2, "to": 5}]}]}, "order": [{"field": "/a", "descending": true}], "limit": 3}`, `{"a": 1, "b": {"/": "xy"}}`)
	f.Add(`{"order": [{"field": ""}]}`, `[]`)
	f.Fuzz(func(t *testing.T, in, value string) {
		q, err := schema.ParseQuery(in)
		if err != nil {
			if !utf8.ValidString(err.Error()) || len(err.Error()) > 1000 {
				t.Errorf("an error that cannot be shown: %q", err)
			}
			return
		}
		all := q.Where.Alternatives()
		if len(all) > 16 || len(q.Order) > schema.MaxFields {
			t.Errorf("%d alternatives, an order by %d fields", len(all), len(q.Order))
		}
		v, err := schema.ReadJSON(value)
		if err != nil {
			return
		}
		// The alternatives say what the condition does, and a value is in the span of
		// each condition that holds of it.
		holds := false
		for _, conds := range all {
			each := true
			for _, c := range conds {
				each = each && c.Holds(&v)
				k := string(c.Field.In(&v).AppendKey(nil)) + schema.Between
				if s := c.Span(); c.Holds(&v) && (k < s.Low || k >= s.High) {
					t.Errorf("%q is not in %q of %s", k, s, in)
				}
			}
			holds = holds || each
		}
		if holds != q.Where.Holds(&v) {
			t.Errorf("%s of %s: %v, and by alternatives %v", in, value, q.Where.Holds(&v), holds)
		}
	})
}
