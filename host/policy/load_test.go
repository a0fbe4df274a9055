package policy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseSaysWhatIsWrongAndWhere(t *testing.T) {
	const head = `permit(principal, action == Action::"submit", resource)`
	tests := []struct{ name, text, want string }{
		{"effect", `permitt(principal, action, resource);`, "x.cedar:1:1: not a Cedar policy: unexpected effect: permitt (did you mean permit?)"},
		{"comma", "\n permit(principal action, resource);", "x.cedar:2:19: not a Cedar policy: expected ,, not action"},
		{"cut off", `permit(principal, action, resource`, "x.cedar:1:27: not a Cedar policy: expected ), not the end of the file"},
		{"when", head + ` whn { true };`, "expected ;, not whn (did you mean when?)"},
		{"word", head + ` when { foo };`, "x.cedar:1:64: not a Cedar policy: invalid primary"},
		{"method", head + ` when { context.entry.foo() };`, "`foo` is not a method"},
		{"escape", head + ` when { "\q" == "" };`, "x.cedar:1:64: not a Cedar policy: invalid char escape"},
		{"string", head + " when { \"abc\n\" == \"\" };", "x.cedar:1:64: not a Cedar policy: literal not terminated"},
		{"number", head + ` when { 99999999999999999999 == 1 };`, "x.cedar: not a Cedar policy: strconv.ParseInt"},
		{"template", `permit(principal == ?principal, action, resource);`, "x.cedar:1:21: not a Cedar policy: expected ident"},
		{"comment", `permit(principal, action, resource); /*`, "x.cedar:1:38: not a Cedar policy: comment not terminated"},
		{"semicolons", head + `;;`, "x.cedar:1:57: not a Cedar policy: unexpected effect: ;"},

		{"action", `permit(principal, action == Action::"raed", resource);`, "x.cedar:1:37: unrecognized action `Action::\"raed\"` (did you mean read?)"},
		{"action's type", `permit(principal, action == Actoin::"read", resource);`, "x.cedar:1:29: unrecognized action `Actoin::\"read\"` (did you mean Action?)"},
		{"action in a condition", `permit(principal, action, resource) when { action == Action::"wriet" };`, "did you mean write?"},
		{"type", `permit(principal is Per, action, resource);`, "x.cedar:1:21: unrecognized entity type `Per` (did you mean Peer?)"},
		{"type in a condition", head + ` when { principal in Crcle::"x" };`, "unrecognized entity type `Crcle` (did you mean Circle?)"},
		{"attribute", "// ü\n" + head + ` when { context.modul.name == "x" };`, "x.cedar:2:72: attribute `modul` in context for Action::\"submit\" not found (did you mean module?)"},
		{"attribute within", head + ` when { context.module.nam == "x" };`, "did you mean name?"},
		{"optional attribute", head + ` when { principal.name == "x" };`, "attribute `name` on entity type `Peer` may be absent: ask first, as in principal has name && …"},
		{"types", head + ` when { context.params < "x" };`, "unexpected type: expected datetime, or duration, or Long but saw String"},
		{"not a condition", head + ` when { context.params };`, "expected Bool but saw Long"},
		{"never", `permit(principal, action == Action::"submit", resource in Path::"/");`, "can never apply: submit is done to a Context"},
		{"date", head + ` when { context.now < datetime("tomorrow") };`, "failed to parse as a datetime"},

		{"path with a slash", `forbid(principal, action, resource in Path::"/secret/");`, `write Path::"/secret"`},
		{"relative path", `forbid(principal, action, resource in Path::"secret");`, `write Path::"/secret"`},
		{"path with dots", `forbid(principal, action, resource) when { resource in Path::"/a/../b" };`, `write Path::"/b"`},
		{"path in a set", `forbid(principal, action, resource) when { resource in [Path::"/a", Path::"/b/"] };`, `write Path::"/b"`},
		{"empty path", `forbid(principal, action, resource in Path::"");`, "a path is absolute"},
		{"petname for an id", `forbid(principal == Peer::"carol", action, resource);`, `Peer::"carol" matches nothing`},
		{"id of a context", head[:len(head)-1] + ` == Context::"carol");`, `Context::"carol" matches nothing`},

		{"annotation of another version", `@countersigned("twice") ` + head + `;`, "x.cedar:1:2: this host does not know the annotation @countersigned;"},
		{"annotation", `@ids("first") ` + head + `;`, "(did you mean @id?)"},
		{"id with a line break", `@id("a\nb") ` + head + `;`, "@id must be 1 to 128 bytes of printable text"},
		{"id that drives a terminal", `@id("\u{1b}[2J") ` + head + `;`, "@id must be"},
		{"id that reads backwards", `@id("\u{202e}x") ` + head + `;`, "@id must be"},
		{"no id", `@id("") ` + head + `;`, "@id must be"},
		{"long id", `@id("` + strings.Repeat("x", 129) + `") ` + head + `;`, "@id must be"},
		{"the same id", `@id("a") ` + head + `; @id("a") ` + head + `;`, `x.cedar:1:67: the id "a" is taken by the policy at x.cedar:1; give one of them another @id`},
		{"the id of another by position", head + `; @id("x.cedar#1") ` + head + `;`, `the id "x.cedar#1" is taken`},

		{"empty", "", "x.cedar: is empty; delete it, or write a comment into it"},
		{"byte order mark", "\ufeff" + head + ";", "starts with a byte order mark"},
		{"not UTF-8", head + "; // \xff", "is not UTF-8 text"},
		{"NUL", head + "; \x00", "not a Cedar policy"},
		{"too large", strings.Repeat(" ", maxFile+1), "is larger than 1024 KiB; split it"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := Parse([]File{{"x.cedar", tt.text}})
			if err == nil {
				t.Fatalf("parsed: %v", s.Policies())
			}
			if !strings.HasPrefix(err.Error(), "x.cedar:") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v\nwant %s", err, tt.want)
			}
			var problems Problems
			if !errors.As(err, &problems) {
				t.Errorf("%T", err)
			}
		})
	}
}

func TestParseFindsAllMistakes(t *testing.T) {
	_, err := Parse([]File{
		{"b.cedar", "permit(principal, action, resource) when { context.foo };\nforbid(principal, action == Action::\"x\", resource);"},
		{"a.cedar", `permit(`},
		{"c\n.cedar", `//`},
	})
	var problems Problems
	errors.As(err, &problems)
	var at []string
	for _, p := range problems {
		at = append(at, fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column))
	}
	if want := []string{"a.cedar:1:7", "b.cedar:1:52", "b.cedar:2:37", "c\n.cedar:0:0"}; !slices.Equal(at, want) {
		t.Errorf("%v, want %v", at, want)
	}
	if source := problems[2].Source; source != `forbid(principal, action == Action::"x", resource);` {
		t.Error(source)
	}
}

// Policy text reaches terminals through messages.
func TestMessagesDoNotDriveTerminals(t *testing.T) {
	_, err := Parse([]File{{"x.cedar", "permit(principal, action, resource) when { \x1b[2J }; // \x1b]0;owned\x07"}, {"\x1b.cedar", "//"},
		{"y.cedar", "permit(principal == Peer::\"\x1b[2J\", action, resource);"}})
	if err == nil || strings.ContainsAny(err.Error(), "\x1b\x07") {
		t.Errorf("%q", err)
	}
}

// Cedar-go recurses over what it is given, and grows a goroutine's stack until
// the process dies, which nothing can recover from. With the least stack that Go
// takes seriously, and little time, each of these must be an answer.
func TestHostilePolicyTextIsBounded(t *testing.T) {
	defer debug.SetMaxStack(debug.SetMaxStack(4 << 20))
	const n = 20_000
	in := func(expression string) string {
		return `permit(principal, action, resource) when { ` + expression + ` };`
	}
	tests := map[string]string{
		"parentheses":        in(strings.Repeat("(", n) + "true" + strings.Repeat(")", n)),
		"open parentheses":   strings.Repeat("(", maxFile),
		"sets":               in(strings.Repeat("[", n) + strings.Repeat("]", n) + ".isEmpty()"),
		"records":            in(strings.Repeat("{a:", n) + "1" + strings.Repeat("}", n) + "== 1"),
		"not":                in(strings.Repeat("!", n) + "true"),
		"minus":              in(strings.Repeat("-", n) + "1 == 1"),
		"and":                in(strings.Repeat("true && ", n) + "true"),
		"or":                 in(strings.Repeat("true || ", n) + "true"),
		"plus":               in(strings.Repeat("1 + ", n) + "1 == 1"),
		"times":              in(strings.Repeat("1 * ", n) + "1 == 1"),
		"if":                 in(strings.Repeat("if true then true else ", n/3) + "true"),
		"if in if":           in(strings.Repeat("if ", n) + "true" + strings.Repeat(" then true else true", n/5)),
		"attributes":         in("context" + strings.Repeat(".a", n)),
		"quoted attributes":  in("context" + strings.Repeat(`["a"]`, n)),
		"has":                in("context has a" + strings.Repeat(".a", n)),
		"calls":              in(strings.Repeat("ip(", n)),
		"method calls":       in("context" + strings.Repeat(".contains(1)", n/2)),
		"conditions":         `permit(principal, action, resource) ` + strings.Repeat("when { true } ", n/2) + ";",
		"namespaces":         `permit(principal is ` + strings.Repeat("a::", n) + `a, action, resource);`,
		"annotations":        strings.Repeat("@id ", n) + `permit(principal, action, resource);`,
		"different":          manyAnnotations(n) + `permit(principal, action, resource);`,
		"elements":           in("[" + strings.Repeat("1,", n) + "1].contains(1)"),
		"keys":               in("{" + keys(n) + "} == {}"),
		"equal sets":         in("[" + strings.Repeat("[1,2],", n) + "[1]].contains([1])"),
		"policies":           strings.Repeat("permit(principal,action,resource);", maxFile/34),
		"quotes":             in(strings.Repeat(`"`, n)),
		"strings":            strings.Repeat(`"a"`, n),
		"unfinished string":  `permit(principal, action, resource) when { "` + strings.Repeat(`\`, n),
		"comments":           strings.Repeat("/*", n),
		"comment, unclosed":  "/*" + strings.Repeat(";", n),
		"comments hide":      strings.Repeat("//(\n", n) + "/* (((( */" + strings.Repeat("(", n),
		"strings hide":       in(`"//" == ` + strings.Repeat("(", n)),
		"closed more often":  strings.Repeat(")", n) + strings.Repeat("(", n),
		"semicolons":         strings.Repeat(";", n),
		"semicolons within":  in(strings.Repeat("(;", n)),
		"lines":              strings.Repeat("\n", maxFile),
		"long line":          strings.Repeat("é", maxFile/4) + strings.Repeat("(", 100),
		"long word":          strings.Repeat("a", maxFile),
		"likes":              in(strings.Repeat(`context.entry like "*a*a*a*a*" && `, 400) + "true"),
		"capabilities":       in(strings.Repeat("principal has name && ", 400) + "principal.name == \"x\""),
		"errors":             in(strings.Repeat("context.foo && ", 450) + "context.bar"),
		"errors of types":    in(strings.Repeat(`"a" + `, 900) + "1"),
		"errors in branches": in(strings.Repeat("if context.a then ", 60) + "1" + strings.Repeat(" else context.b", 60)),
		"named parts":        in("[" + strings.Repeat(`Peer::"x",`, 9000) + `Peer::"y"].contains(principal)`),
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			text = text[:min(len(text), maxFile)]
			start := time.Now()
			s, err := Parse([]File{{"x.cedar", text}})
			if err == nil {
				s.Submit(from(alice))
				s.Explain(from(alice), Need{"read", "/a/b"})
			} else if len(err.Error()) > 10_000 {
				t.Errorf("a message of %d bytes", len(err.Error()))
			}
			// The slowest takes about 0.1 s; cubic time would take hours.
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func manyAnnotations(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "@a%d ", i)
	}
	return b.String()
}

func keys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "a%d:1,", i)
	}
	return b.String()
}

// What people write must not meet the bounds.
func TestLargePoliciesLoad(t *testing.T) {
	var digests []string
	for i := range 2000 {
		digests = append(digests, fmt.Sprintf(`"sha256:%064x"`, i))
	}
	parse(t, `permit(principal, action, resource) when { [`+strings.Join(digests, ",\n")+`].contains(context.module.digest) };`,
		strings.Repeat(`permit(principal, action, resource) when { context.module.name == "guestbook" };`+"\n", 2000))
}

func put(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(filled(text)), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	put(t, dir+"/b.cedar", `permit(principal, action, resource);`)
	put(t, dir+"/a.cedar", `@id("first") permit(principal, action, resource);`)
	put(t, dir+"/.#a.cedar", `an editor's`)
	put(t, dir+"/a.cedar~", `an editor's`)
	put(t, dir+"/circles.toml", `another's`)
	put(t, dir+"/sub/c.cedar", `nobody's`)
	s, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Policies(); !slices.Equal(got, []string{"b.cedar#1", "first"}) {
		t.Error(got)
	}
	again, _ := Load(dir)
	put(t, dir+"/b.cedar", `permit(principal, action, resource); //`)
	changed, _ := Load(dir)
	if again.Version() != s.Version() || changed.Version() == s.Version() {
		t.Error("versions do not tell what changed")
	}

	if s, err := Load(dir + "/absent"); err != nil || s.Len() != 0 || s.Submit(from(alice)).Permitted {
		t.Errorf("without a directory: %v", err)
	}
	if _, err := Load(dir + "/a.cedar"); err == nil {
		t.Error("a file was loaded as a directory")
	}
}

func TestStarterLoads(t *testing.T) {
	dir := t.TempDir()
	put(t, dir+"/starter.cedar", Starter)
	s, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Policies(); !slices.Equal(got, []string{"lent"}) {
		t.Errorf("it permits more than it says: %v", got)
	}
	// Its examples, uncommented, load too.
	var b strings.Builder
	for line := range strings.Lines(Starter) {
		b.WriteString(strings.TrimPrefix(line, "//   "))
	}
	put(t, dir+"/starter.cedar", b.String())
	if s, err = Load(dir); err != nil || s.Len() != 3 {
		t.Errorf("the examples in it: %v %v", s, err)
	}
}
