package sdktest_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero/sys"

	"github.com/circles-host/circles/guest-sdk/sdktest"
	"github.com/circles-host/circles/testdata/build"
)

// TestGuestsDoAsTheySay holds that the guests that other tests rely on do what
// their comments say, on a host without policy or limits. Those that never end
// are for hosts that have them.
func TestGuestsDoAsTheySay(t *testing.T) {
	h := sdktest.New(t)
	run := func(guest, stdin string) (*sdktest.Guest, error) {
		t.Helper()
		return h.Command(t, build.Go(t, "testdata/guests/"+guest, false), sdktest.Options{Stdin: stdin})
	}
	if g, err := run("hello", "bob"); exitCode(t, err) != 0 || g.Stdout.String() != "hello, bob" || g.Stderr.String() != "greeting \"bob\"\n" {
		t.Errorf("hello: %v, %q, %q", err, g.Stdout.String(), g.Stderr.String())
	}
	for stdin, want := range map[string]uint32{"": 3, "0": 0, "77": 77} {
		if g, err := run("exit", stdin); exitCode(t, err) != want || g.Stdout.String() != "output before the exit" {
			t.Errorf("exit %q: %v, %q", stdin, err, g.Stdout.String())
		}
	}
	h.Get(t, "target", "/exit.txt")
	if _, err := run("trap", ""); err == nil || errors.As(err, new(*sys.ExitError)) || !strings.Contains(err.Error(), "unreachable") {
		t.Errorf("trap: %v", err)
	}
	h.Get(t, "target", "/trap.txt")

	g, err := run("files", `write /a.txt hello there
append /a.txt !
read /a.txt
mkdir /dir
rename /a.txt /dir/b.txt
symlink b.txt /dir/link
readlink /dir/link
stat /dir/link
stat /dir/b.txt
list /dir
remove /dir
remove /dir/link
read /none
dance`)
	want := `ok
ok
"hello there!"
ok
ok
ok
b.txt
L--------- 5
---------- 12
b.txt link
error: remove /dir: Directory not empty
ok
error: open /none: No such file or directory
error: no operation "dance"
`
	if exitCode(t, err) != 0 || g.Stdout.String() != want {
		t.Errorf("files: %v\n%s", err, g.Stdout.String())
	}
}
