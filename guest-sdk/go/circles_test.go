//go:build !wasip1

package circles_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/circles-host/circles/guest-sdk/go"
)

// What needs a host is tested in guest-sdk/sdktest, which the main module runs.
// Here is what a guest's author meets on their own machine.

// TestWithoutHost: guests compile and their tests run anywhere, and what needs a
// host says so.
func TestWithoutHost(t *testing.T) {
	c := circles.Target()
	_, send := c.Send("bob", "module", "", nil)
	_, call := circles.Call("module", "", nil)
	_, below := circles.Base("", nil)
	_, _, query := c.Collection("c").QueryPage("{}", "", 0)
	_, read := c.ReadFile("/a")
	_, readAt := c.ReadAt("/a", 0, 1)
	_, list := c.ReadDir("/a")
	_, stat := c.Stat("/a")
	_, open := c.FS().Open("a")
	for op, err := range map[string]error{
		"read": read, "read at": readAt, "list": list, "stat": stat, "open": open,
		"write": c.WriteFile("/a", nil), "append": c.Append("/a", nil), "mkdir": c.Mkdir("/a"), "remove": c.Remove("/a"),
		"send": send, "call": call, "base": below, "query": query, "replace": c.Collection("c").Replace("a", nil, nil),
	} {
		var e *circles.Error
		if !errors.As(err, &e) || e.Code != circles.Unavailable || !strings.Contains(err.Error(), "GOOS=wasip1 GOARCH=wasm") {
			t.Errorf("%s: %v", op, err)
		}
	}
	if id, name, entry := c.ID(), c.Name(), circles.Entry(); id != "" || name != "" || entry != "" {
		t.Errorf("a peer without a host: %q, %q, %q", id, name, entry)
	}
	circles.Log(0, "dropped")

	defer func() {
		if v, _ := recover().(string); !strings.Contains(v, "call the handler itself") {
			t.Errorf("Handle without a host: %q", v)
		}
	}()
	circles.Handle(0, 0, nil)
}

func TestErrorIs(t *testing.T) {
	for code, want := range map[circles.Code]error{
		circles.NotFound: fs.ErrNotExist,
		circles.Denied:   fs.ErrPermission,
		circles.ReadOnly: fs.ErrPermission,
		circles.Exists:   fs.ErrExist,
		circles.NotEmpty: fs.ErrExist,
		circles.Invalid:  fs.ErrInvalid,
		circles.Violates: fs.ErrInvalid,
	} {
		err := error(&circles.Error{Op: "read", Path: "/a", Code: code})
		for _, is := range []error{fs.ErrNotExist, fs.ErrPermission, fs.ErrExist, fs.ErrInvalid, fs.ErrClosed} {
			if errors.Is(err, is) != (is == want) {
				t.Errorf("%v is %v: %v", err, is, is != want)
			}
		}
	}
	for err, want := range map[*circles.Error]string{
		{Op: "read", Path: "/a", Code: circles.Denied, Message: "bob lent it to nobody"}:                 "read /a: bob lent it to nobody",
		{Op: "read", Path: "/a", Code: circles.Denied, Message: "cannot read /a: bob lent it to nobody"}: "cannot read /a: bob lent it to nobody",
		{Op: "read", Path: "/a", Code: circles.TooLarge}:                                                 "read /a: too large",
		{Code: circles.IO}: "input/output error",
		{Code: 200}:        "code 200",
	} {
		if err.Error() != want {
			t.Errorf("%q, want %q", err.Error(), want)
		}
	}
}

func TestViolations(t *testing.T) {
	e := &circles.Error{Op: "put", Path: "c/k", Code: circles.Violates, Message: "cannot put record c/k:\n/seats: not a number: \"two\"\n: no object\nno pointer: said"}
	want := "[{/seats not a number: \"two\"} { no object}]"
	if got := fmt.Sprint(circles.Violations(fmt.Errorf("sign: %w", e))); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	e.Code = circles.Invalid
	if got := circles.Violations(e); got != nil {
		t.Errorf("of another error: %v", got)
	}
}

// TestQuery: what a host gets is the JSON of circles:host.
func TestQuery(t *testing.T) {
	n := circles.Field("/a~1b")
	from := n.From("x")
	for _, tc := range []struct {
		query circles.Query
		want  string
	}{
		{circles.Query{}, `{}`},
		{circles.Query{Where: circles.And()}, `{"where":{"and":[]}}`},
		{circles.Query{Where: n.Equals(nil), Limit: 3}, `{"where":{"equals":null,"field":"/a~1b"},"limit":3}`},
		{circles.Query{Where: circles.Or(from.Below("y"), from.To(1.5), n.Above(1), n.Prefix("p")), Order: []circles.Order{{Field: "/n"}, {Field: "", Descending: true}}},
			`{"where":{"or":[{"below":"y","field":"/a~1b","from":"x"},{"field":"/a~1b","from":"x","to":1.5},{"above":1,"field":"/a~1b"},{"field":"/a~1b","prefix":"p"}]},"order":[{"field":"/n"},{"field":"","descending":true}]}`},
	} {
		got, err := json.Marshal(tc.query)
		if err != nil || string(got) != tc.want {
			t.Errorf("%s, %v; want %s", got, err, tc.want)
		}
	}
	for _, err := range circles.Target().Collection("c").Query(circles.Query{Where: n.Equals(func() {})}) {
		if err == nil || !strings.Contains(err.Error(), "encode query") {
			t.Errorf("a value that is no JSON: %v", err)
		}
	}
}
