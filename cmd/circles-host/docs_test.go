package main

import (
	"bufio"
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/modules/build"
	testbuild "github.com/circles-host/circles/testdata/build"
)

// TestDocs does what each guide says, in an empty folder: it writes the files and
// runs the commands, in order, and compares what they print.
//
// In a guide, "```console" is a session: "$ " before a command, then what it
// prints, where "…" stands for anything. After "console" may stand exit=N, the
// exit code of the last command, and terminal=N, for what stays running while
// the guide goes on. "```LANG file=PATH" is a file to write, "same=PATH" one that
// is in the repository, and "shown" is what is not run.
func TestDocs(t *testing.T) {
	guides, err := filepath.Glob("docs/*.md")
	if err != nil || len(guides) < 7 {
		t.Fatalf("there are %d guides: %v", len(guides), err)
	}
	examples, err := filepath.Glob("docs/examples/*.md")
	if err != nil || len(examples) < 5 {
		t.Fatalf("there are %d examples: %v", len(examples), err)
	}
	texts, err := filepath.Glob("docs/languages/*.md")
	if err != nil || len(texts) == 0 {
		t.Fatalf("there is no guide to a language of texts: %v", err)
	}
	dir := t.TempDir()
	built := plain(dir)
	for _, guide := range slices.Concat(guides, examples, texts) {
		t.Run(strings.TrimSuffix(filepath.Base(guide), ".md"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(guide)
			if err != nil {
				t.Fatal(err)
			}
			links(t, guide, string(text))
			var env []string
			if raceDetector && large.Match(text) {
				if err := built(); err != nil {
					t.Fatal(err)
				}
				env = append(env, "PATH="+dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
			}
			perform(t, blocks(t, string(text)), env...)
		})
	}
}

// large are the guides that run large modules, as those of languages are: to compile one
// takes 45 s with the race detector, in each root. The host's own tests do that, once.
var large = regexp.MustCompile(`\.(star|rhai)\b|guestbook/go\b`)

// plain builds circles-host without the race detector into a folder, once.
func plain(dir string) func() error {
	return sync.OnceValue(func() error {
		if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, host.Command), ".").CombinedOutput(); err != nil {
			return fmt.Errorf("build the command: %w\n%s", err, out)
		}
		return nil
	})
}

// TestGuestbookGuides: the guestbook is walked through in several languages, and but for
// the code what is done and shown is the same, so that the guides hold each other to it.
func TestGuestbookGuides(t *testing.T) {
	guides, err := filepath.Glob("docs/examples/guestbook-*.md")
	if err != nil || len(guides) < 3 {
		t.Fatalf("there are %d guides: %v", len(guides), err)
	}
	var first string
	for _, guide := range guides {
		text, err := os.ReadFile(guide)
		if err != nil {
			t.Fatal(err)
		}
		_, after, ok := strings.Cut(string(text), "\n## The policy\n")
		if !ok {
			t.Fatalf("%s has no policy", guide)
		}
		if first == "" {
			first = after
		}
		if after != first {
			t.Errorf("%s goes on otherwise than %s", guide, guides[0])
		}
	}
}

// shown are the blocks that are not run, because they need what a test may not
// have: a C compiler, root, another machine.
var shown = []string{"clang ", "go build ", "go install ", "rustup ", "cargo ", "apt install ", "pip install ", "systemctl", "openssl", "cp -a"}

// block is one fenced block of a guide.
type block struct {
	line    int
	lang    string
	options map[string]string
	text    string
}

func blocks(t *testing.T, text string) (list []block) {
	var b *block
	for i, l := range strings.Split(text, "\n") {
		info, fence := strings.CutPrefix(l, "```")
		switch {
		case fence && b == nil:
			words := strings.Fields(info)
			b = &block{line: i + 1, options: map[string]string{}}
			for n, w := range words {
				k, v, _ := strings.Cut(w, "=")
				if n == 0 {
					b.lang = k
				} else {
					b.options[k] = v
				}
			}
		case fence:
			list = append(list, *b)
			b = nil
		case b != nil:
			b.text += l + "\n"
		case len([]rune(l)) > 112 && !strings.HasPrefix(l, "|"):
			t.Errorf("line %d has %d columns", i+1, len([]rune(l)))
		}
	}
	if b != nil {
		t.Errorf("the block of line %d has no end", b.line)
	}
	return list
}

var link = regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)

// links checks that what a guide points to is there.
func links(t *testing.T, guide, text string) {
	for _, m := range link.FindAllStringSubmatch(text, -1) {
		if _, err := os.Stat(filepath.Join(filepath.Dir(guide), m[1])); err != nil {
			t.Errorf("a link leads nowhere: %v", err)
		}
	}
}

// perform does what the blocks say.
func perform(t *testing.T, list []block, env ...string) {
	var s *session
	for _, b := range list {
		_, isShown := b.options["shown"]
		switch {
		case b.options["same"] != "":
			same(t, b)
		case isShown:
			ok := false
			for _, prefix := range shown {
				ok = ok || strings.Contains(b.text, prefix)
			}
			if !ok {
				t.Errorf("line %d: nothing says why this is not run", b.line)
			}
		case b.options["file"] != "":
			if s == nil {
				s = open(t, env...)
			}
			file := filepath.Join(s.folder(), b.options["file"])
			if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(b.text), 0o600); err != nil {
				t.Fatal(err)
			}
		case b.lang == "console":
			if s == nil {
				s = open(t, env...)
			}
			s.play(b)
		case b.lang == "sh" || b.lang == "bash" || b.lang == "shell":
			t.Errorf("line %d: write commands as console, so that they are run", b.line)
		}
	}
}

// same compares a block with a file of the repository.
func same(t *testing.T, b block) {
	text, err := os.ReadFile(filepath.Join("../..", b.options["same"]))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), b.text) {
		t.Errorf("line %d: this is not in %s any more", b.line, b.options["same"])
	}
}

// session is a reader's terminals.
type session struct {
	t      *testing.T
	in     io.Writer
	out    *bufio.Reader
	env    []string
	ports  *strings.Replacer // of the guide, to those that are free here
	back   *strings.Replacer
	behind []*background
}

func open(t *testing.T, env ...string) *session {
	if _, err := exec.LookPath("bash"); err != nil {
		t.Fatal("the guides are for a POSIX shell, and this test needs bash")
	}
	dir := t.TempDir()
	repository, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	cache, err := testbuild.Cache()
	if err != nil {
		t.Fatal(err)
	}
	first, second := freePort(t), freePort(t)
	s := &session{t: t,
		ports: strings.NewReplacer("7070", first, "7071", second),
		back:  strings.NewReplacer(":"+first, ":7070", ":"+second, ":7071"),
		env: append(os.Environ(), "CIRCLES="+repository, "CIRCLES_ROOT=", "CIRCLES_CACHE="+cache, "CIRCLES_LISTEN=127.0.0.1:"+first,
			"HOME="+dir, "XDG_CACHE_HOME=", "TERM=dumb", "GORACE="+race(), "PS1=", "BASH_ENV=", "ENV="),
	}
	s.env = append(s.env, env...)
	if os.Getenv("GOCACHE") == "" { // module build need not compile the standard library anew
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		s.env = append(s.env, "GOCACHE="+filepath.Join(cache, "go-build"))
	}
	shell := exec.Command("bash", "--norc", "--noprofile")
	shell.Dir, shell.Env = dir, s.env
	if s.in, err = shell.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	shell.Stdout, shell.Stderr = w, w
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	s.out = bufio.NewReader(out)
	t.Cleanup(func() {
		for _, b := range s.behind {
			b.stop()
		}
		s.in.(io.Closer).Close()
		out.Close()
		_ = shell.Wait()
	})
	return s
}

// TestGuestDocs does the same with the guides to the languages, each of which needs its
// compiler: where that is missing, or CIRCLES_REBUILD does not name the language, the
// guide is skipped, by name. Compilers keep what they made where they do otherwise,
// since making it again takes minutes.
func TestGuestDocs(t *testing.T) {
	guides, err := filepath.Glob("docs/guests/*.md")
	if err != nil || len(guides) == 0 {
		t.Fatalf("there are %d guides: %v", len(guides), err)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	for name, at := range map[string]string{"XDG_CACHE_HOME": cache, "CARGO_HOME": filepath.Join(home, ".cargo"), "RUSTUP_HOME": filepath.Join(home, ".rustup")} {
		if os.Getenv(name) == "" {
			t.Setenv(name, at)
		}
	}
	for _, guide := range guides {
		language := strings.TrimSuffix(filepath.Base(guide), ".md")
		t.Run(language, func(t *testing.T) {
			text, err := os.ReadFile(guide)
			if err != nil {
				t.Fatal(err)
			}
			links(t, guide, string(text))
			list := blocks(t, string(text))
			l, ok := build.Find(language)
			if !ok {
				t.Fatalf("nobody builds %s", language)
			}
			if needs := l.Install != ""; needs && !strings.Contains(" "+os.Getenv("CIRCLES_REBUILD")+" ", " "+language+" ") {
				t.Skipf("%s: the guide was not followed, since CIRCLES_REBUILD does not name it; .ci/run sdk-%s does", l.Title, language)
			}
			if _, err := l.Toolchain(t.Context()); err != nil {
				t.Skipf("%s: %v", l.Title, err)
			}
			perform(t, list, "XDG_CACHE_HOME="+os.Getenv("XDG_CACHE_HOME"))
		})
	}
}

func freePort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// run has the shell run a command, and returns what it printed and its exit code.
func (s *session) run(command string) (out string, code int) {
	fmt.Fprintf(s.in, "%s\nprintf '\\036%%d\\036' $?\n", command)
	out, err := s.out.ReadString('\x1e')
	if err == nil {
		var end string
		if end, err = s.out.ReadString('\x1e'); err == nil {
			code, err = strconv.Atoi(strings.TrimSuffix(end, "\x1e"))
		}
	}
	if err != nil {
		s.t.Fatalf("%s: the shell ended: %v\n%s", command, err, out)
	}
	return strings.TrimSuffix(out, "\x1e"), code
}

func (s *session) folder() string {
	dir, _ := s.run("pwd")
	return strings.TrimSpace(dir)
}

// play runs the commands of a block.
func (s *session) play(b block) {
	var commands []string
	var wants [][]string
	lines := strings.Split(strings.TrimSuffix(b.text, "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		command, ok := strings.CutPrefix(lines[i], "$ ")
		if !ok {
			if len(commands) == 0 {
				s.t.Fatalf("line %d: what prints this? A command starts with \"$ \"", b.line+1)
			}
			wants[len(wants)-1] = append(wants[len(wants)-1], lines[i])
			continue
		}
		for strings.HasSuffix(command, "\\") && i+1 < len(lines) {
			i++
			command += "\n" + lines[i]
		}
		commands, wants = append(commands, s.ports.Replace(command)), append(wants, nil)
	}
	for i, command := range commands {
		if b.options["terminal"] != "" {
			s.behind = append(s.behind, start(s, b, command, wants[i]))
			continue
		}
		out, code := s.run(command)
		want := 0
		if i == len(commands)-1 && b.options["exit"] != "" {
			want, _ = strconv.Atoi(b.options["exit"])
		}
		if code != want {
			s.t.Fatalf("line %d: %s\nexit code %d, want %d\n%s", b.line, command, code, want, out)
		}
		if wants[i] != nil && !matches(wants[i], s.back.Replace(out)) {
			s.t.Errorf("line %d: %s\nprinted:\n%s\nwant:\n%s", b.line, command, s.back.Replace(out), strings.Join(wants[i], "\n"))
		}
	}
}

// matches compares what was printed with what a guide shows, in which "…" is
// anything, and alone on a line any lines.
func matches(want []string, got string) bool {
	var re strings.Builder
	for _, l := range want {
		if strings.TrimSpace(l) == "…" {
			re.WriteString(`(.*\n)*`)
			continue
		}
		re.WriteString(strings.ReplaceAll(regexp.QuoteMeta(strings.TrimRight(l, " ")), "…", ".*") + ` *\n`)
	}
	if !strings.HasSuffix(got, "\n") {
		got += "\n"
	}
	return regexp.MustCompile("^" + re.String() + "$").MatchString(got)
}

// background is a command that stays.
type background struct {
	s    *session
	line int
	cmd  *exec.Cmd
	mu   sync.Mutex
	out  bytes.Buffer
}

func (b *background) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out.Write(p)
}

func (b *background) printed() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.s.back.Replace(b.out.String())
}

// start starts a command and waits for it to print what the guide shows.
func start(s *session, from block, command string, want []string) *background {
	b := &background{s: s, line: from.line, cmd: exec.Command("bash", "-c", "exec "+command)}
	b.cmd.Dir, b.cmd.Env = s.folder(), s.env
	b.cmd.Stdout, b.cmd.Stderr = b, b
	if err := b.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for end := time.Now().Add(patience); !matches(want, b.printed()); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			_ = b.cmd.Process.Kill()
			_ = b.cmd.Wait()
			s.t.Fatalf("line %d: %s\nprinted:\n%s\nwant:\n%s", b.line, command, b.printed(), strings.Join(want, "\n"))
		}
	}
	return b
}

// stop is Ctrl-C.
func (b *background) stop() {
	if err := b.cmd.Process.Signal(os.Interrupt); err != nil {
		b.s.t.Errorf("line %d: it did not stay: %v\n%s", b.line, err, b.printed())
	}
	if err := b.cmd.Wait(); err != nil {
		b.s.t.Errorf("line %d: Ctrl-C: %v\n%s", b.line, err, b.printed())
	}
}

// TestExitCodes: the table in docs/exit-codes.md has every exit code of the
// source, and no other.
func TestExitCodes(t *testing.T) {
	constants := map[string]string{}
	for _, name := range []string{"app.go", "exec.go"} {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			v, ok := n.(*ast.ValueSpec)
			if !ok || len(v.Names) != 1 || len(v.Values) != 1 {
				return true
			}
			value, isNumber := v.Values[0].(*ast.BasicLit)
			if isNumber && value.Kind == token.INT && (strings.HasPrefix(v.Names[0].Name, "exit") || strings.HasPrefix(v.Names[0].Name, "exec")) {
				constants[value.Value] = v.Names[0].Name
			}
			return true
		})
	}
	if constants["3"] != "exitRefused" || len(constants) < 12 {
		t.Fatalf("these are not all: %v", constants)
	}
	text, err := os.ReadFile("docs/exit-codes.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\| (\d+) \|`).FindAllStringSubmatch(string(text), -1) {
		if documented[m[1]] {
			t.Errorf("exit code %s is there twice", m[1])
		}
		documented[m[1]] = true
		if constants[m[1]] == "" {
			t.Errorf("exit code %s is documented, and no command has it", m[1])
		}
	}
	for code, name := range constants {
		if !documented[code] {
			t.Errorf("exit code %s, %s, is not documented", code, name)
		}
	}
}

// TestIndex: the index names every guide, and the help of every command is
// reachable from it.
func TestIndex(t *testing.T) {
	text, err := os.ReadFile("docs/index.md")
	if err != nil {
		t.Fatal(err)
	}
	guides, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	examples, err := filepath.Glob("docs/examples/*.md")
	if err != nil {
		t.Fatal(err)
	}
	texts, err := filepath.Glob("docs/languages/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range append(examples, texts...) {
		if !strings.Contains(string(text), "("+strings.TrimPrefix(filepath.ToSlash(g), "docs/")+")") {
			t.Errorf("%s is not in the index", g)
		}
	}
	for _, g := range guides {
		if name := filepath.Base(g); name != "index.md" && !strings.Contains(string(text), "("+name+")") {
			t.Errorf("%s is not in the index", name)
		}
	}
	for _, c := range all(newApp().Commands) {
		if len(c.Subcommands) == 0 && !strings.Contains(string(text), host.Command+" "+nameOfCommand(c)) {
			t.Errorf("%s is not in the index", nameOfCommand(c))
		}
	}
}

// TestReadme: the demo prints what README's first screen shows of it, but for how
// long things took.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "$ go run ./cmd/circles-host run --demo --once\n")
	session, _, ended := strings.Cut(rest, "$ go test ./...\n")
	if !ok || !ended {
		t.Fatal("README does not begin with the demo any more")
	}
	demo := exec.Command(host.Command, "run", "--demo", "--once")
	demo.Env = append(os.Environ(), "GORACE="+race())
	out, err := demo.Output()
	if err != nil {
		t.Fatalf("demo: %v\n%s", err, out)
	}
	same := func(s string) string {
		return regexp.MustCompile(`[0-9][0-9.,]* (ms|µs|s|fuel)\b`).ReplaceAllString(s, "N $1")
	}
	if !matches(strings.Split(same(strings.TrimSuffix(session, "\n")), "\n"), same(string(out))) {
		t.Errorf("the demo prints:\n%s\nREADME shows:\n%s", out, session)
	}
}
