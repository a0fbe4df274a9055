//go:build !wasip1

package circles_test

import (
	"errors"
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
	_, read := c.ReadFile("/a")
	_, readAt := c.ReadAt("/a", 0, 1)
	_, list := c.ReadDir("/a")
	_, stat := c.Stat("/a")
	_, open := c.FS().Open("a")
	for op, err := range map[string]error{
		"read": read, "read at": readAt, "list": list, "stat": stat, "open": open,
		"write": c.WriteFile("/a", nil), "append": c.Append("/a", nil), "mkdir": c.Mkdir("/a"), "remove": c.Remove("/a"),
	} {
		var e *circles.Error
		if !errors.As(err, &e) || e.Code != circles.Unavailable || !strings.Contains(err.Error(), "GOOS=wasip1 GOARCH=wasm") {
			t.Errorf("%s: %v", op, err)
		}
	}
	if id, name := c.ID(), c.Name(); id != "" || name != "" {
		t.Errorf("a peer without a host: %q, %q", id, name)
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
