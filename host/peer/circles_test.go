package peer

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestCircles(t *testing.T) {
	alice, carol := key(t, 1).ID(), key(t, 2).ID()
	path := filepath.Join(t.TempDir(), "circles.toml")
	text := fmt.Sprintf(`# who may come in
friends = [
  "bob",   # from school
  %q,
]
"family" = ["carol"]
empty = []
`, string(alice))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	known := func(n Name) bool { return n == "bob" || n == "carol" }
	c, err := ReadCircles(path, known)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Names(); !slices.Equal(got, []string{"empty", "family", "friends"}) {
		t.Errorf("names %v", got)
	}
	for _, test := range []struct {
		id   ID
		name Name
		want []string
	}{
		{alice, "", []string{"friends"}},
		{alice, "bob", []string{"friends"}},
		{alice, "carol", []string{"family", "friends"}},
		{carol, "", nil},
		{carol, "carol", []string{"family"}},
		{carol, "someone", nil},
	} {
		if got := c.Of(test.id, test.name); !slices.Equal(got, test.want) {
			t.Errorf("%s %q is in %v, want %v", test.id.Short(), test.name, got, test.want)
		}
	}
	if c, err := ReadCircles(filepath.Join(t.TempDir(), "absent"), nil); err != nil || len(c.Names()) != 0 || c.Of(alice, "x") != nil {
		t.Errorf("no file is not no circles: %v", err)
	}
}

// Whoever is in a circle is in all that it is in, in whatever order they are
// written, and once.
func TestNestedCircles(t *testing.T) {
	alice := key(t, 1).ID()
	text := fmt.Sprintf(`everybody = ["circle:close", "circle:friends", "dave"]
close = ["circle:family", "circle:friends", "circle:friends"]
friends = ["bob", %q]
family = ["carol"]
empty = ["circle:lonely"]
lonely = []
`, string(alice))
	c, err := ParseCircles("f.toml", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[Name][]string{
		"bob": {"close", "everybody", "friends"}, "carol": {"close", "everybody", "family"}, "dave": {"everybody"}, "mallory": nil,
	} {
		if got := c.Of("", name); !slices.Equal(got, want) {
			t.Errorf("%s is in %v, want %v", name, got, want)
		}
	}
	if got := c.Of(alice, "carol"); !slices.Equal(got, []string{"close", "everybody", "family", "friends"}) {
		t.Errorf("alice, who is called carol, is in %v", got)
	}
	other, err := ParseCircles("f.toml", []byte(strings.Replace(text, `"circle:close", `, "", 1)), nil)
	if err != nil || c.Equal(other) || !c.Equal(c) {
		t.Errorf("circles with others in them are the same: %v", err)
	}
}

// A circle that is in itself, and any number of them in each other, is an error
// that says where, soon and in little memory.
func TestNestedCirclesThatCannotBe(t *testing.T) {
	chain := func(n int, last string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "c%d = [\"circle:c%d\"]\n", i, i+1)
		}
		fmt.Fprintf(&b, "c%d = [%s]\n", n, last)
		return b.String()
	}
	var tangle strings.Builder // each in all that come after
	for i := range 190 {
		fmt.Fprintf(&tangle, "t%d = [", i)
		for j := range i {
			fmt.Fprintf(&tangle, "\"circle:t%d\",", j)
		}
		tangle.WriteString("]\n")
	}
	for _, tc := range []struct{ name, text, want string }{
		{"itself", "a = [\"circle:a\"]", `f.toml:1: circle "a" is in itself, which says nothing (a is in a)`},
		{"by another", "x = []\na = [\"circle:b\"]\nb = [\"bob\", \"circle:a\"]", `f.toml:2: circle "a" is in itself, which says nothing (a is in b is in a)`},
		{"by a thousand", chain(1000, `"circle:c0"`), "f.toml:1: circle"},
		{"none of that name", "a = [\n\"bob\",\n\"circle:frends\"]", `f.toml:3: circle "a": there is no circle "frends" here`},
		{"no name", "a = [\"circle:\"]", `f.toml:1: circle "a": there is no circle ""`},
		{"too many ways", chain(1000, ""), "f.toml:"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := ParseCircles("f.toml", []byte(tc.text), nil)
			if err == nil || !strings.HasPrefix(err.Error(), tc.want) || len(err.Error()) > 400 {
				t.Errorf("%.500v, want %s", err, tc.want)
			}
		})
	}
	if _, err := ParseCircles("f.toml", []byte(tangle.String()), nil); err != nil {
		t.Errorf("many in many: %v", err)
	}
	c, err := ParseCircles("f.toml", []byte(chain(300, `"bob"`)), nil)
	if err != nil || len(c.Of("", "bob")) != 301 {
		t.Errorf("three hundred, one in the other: %v", err)
	}
}

func TestCirclesErrorsSayWhere(t *testing.T) {
	known := func(n Name) bool { return n == "bob" }
	many := strings.Repeat(`"bob",`, maxMembers+1)
	for _, test := range []struct{ name, text, line, hint string }{
		{"unknown petname", "a = [\"bob\"]\n\nb = [\n\"bob\",\n\"bbo\"]\n", ":5:", "no peer is called"},
		{"near miss of an id", "a = [\"did:key:z6Mkx\"]", ":1:", "copied whole"},
		{"bad petname", "a = [\"Bob\"]", ":1:", "only a-z"},
		{"number", "\na = [7]", ":2:", "in quotes"},
		{"nested", "a = [[\"bob\"]]", ":1:", "in quotes"},
		{"string for list", "a = \"bob\"", ":1:", "must be a list"},
		{"table", "[a]\nx = []", ":1:", "a table"},
		{"array of tables", "[[a]]", ":1:", "a table"},
		{"dotted", "a.b = []", ":1:", "has a dot"},
		{"bad name", "\"My Friends\" = []", ":1:", "name of a circle"},
		{"twice", "a = []\na = []", ":2:", "twice"},
		{"syntax", "a = [\"bob\"]\nb = [\"bob\"\n", ":", ""},
		{"not text", "\x00\xff", ":1:", ""},
		{"too many members", "a = [" + many + "]", ":1:", "more than"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := ParseCircles("f.toml", []byte(test.text), known)
			if err == nil {
				t.Fatal("taken")
			}
			if s := err.Error(); !strings.HasPrefix(s, "f.toml"+test.line) || !strings.Contains(s, test.hint) {
				t.Errorf("%q: want f.toml%s … %s", s, test.line, test.hint)
			}
		})
	}
	var b strings.Builder
	for i := range maxCircles + 1 {
		fmt.Fprintf(&b, "a%d = []\n", i)
	}
	if _, err := ParseCircles("f.toml", []byte(b.String()), nil); err == nil {
		t.Error("any number of circles is taken")
	}
}

// A file of nothing but brackets, as large as is read, is an error like others.
func TestCirclesNestedDeep(t *testing.T) {
	if _, err := ParseCircles("f", []byte("a = "+strings.Repeat("[", maxConfigFile-4)), nil); err == nil {
		t.Error("taken")
	}
	if _, err := parseRoutes("f", []byte("a = "+strings.Repeat("[", maxConfigFile-4))); err == nil {
		t.Error("taken")
	}
}

func TestConfigFilesAreBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "circles.toml")
	if err := os.WriteFile(path, []byte(strings.Repeat("#", maxConfigFile+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadCircles(path, nil); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("a file over the limit: %v", err)
	}
}

func FuzzParseCircles(f *testing.F) {
	f.Add([]byte("friends = [\"bob\", \"did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp\"]\n"))
	f.Add([]byte("a = [ # c\n 'bob' ]\n[x]\n"))
	f.Add([]byte("a = [[1], {b = 2}]"))
	f.Add([]byte("a = ['bob', 'circle:b']\nb = ['circle:c']\nc = []"))
	f.Add([]byte("a = ['circle:b']\nb = ['circle:a']"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := ParseCircles("f.toml", text, func(n Name) bool { return n == "bob" })
		if err != nil {
			if !strings.HasPrefix(err.Error(), "f.toml:") {
				t.Fatalf("%q does not say where", err)
			}
			return
		}
		for id, in := range c.byID {
			if _, err := ParseID(string(id)); err != nil || len(in) == 0 {
				t.Fatal(id, err)
			}
		}
		for name := range c.byName {
			if name != "bob" {
				t.Fatalf("unknown %q", name)
			}
		}
	})
}
