package policy

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/circles-host/circles/host/script"
)

// Whatever the text, Parse answers; what it accepts can be decided by, and
// tokenize and cedar-go agree where its policies start.
func FuzzParse(f *testing.F) {
	f.Add(Starter)
	f.Add(filled(`@id("x") forbid(principal in Circle::"y", action in [Action::"read"], resource in Path::"/a") unless { context.module.name like "a*" };`))
	f.Add(filled(`permit(principal is Peer in Circle::"y", action == Action::"submit", resource == Context::"bob") when { if context.lent then principal has name else [1, 2].contains(context.params + 1) };`))
	f.Add(`permit(principal, action, resource) when { context.now < datetime("2026-01-01") && {"a": 1}.a == -1 }; /* ; */ // ;`)
	f.Add("permit(principal, action, resource) when { \"\\u{41}\\\"\\*\" == \"//\" };\n\t;")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse([]File{{"x.cedar", text}})
		if err != nil {
			if s != nil || err.Error() == "" || !utf8.ValidString(err.Error()) || strings.ContainsRune(err.Error(), '\x1b') {
				t.Errorf("%v, %q", s, err)
			}
			return
		}
		for _, r := range s.rules {
			pos := r.policy.Position()
			if r.line != pos.Line || r.column != pos.Column {
				t.Errorf("policy %s starts at %d:%d, and in cedar-go at %d:%d", r.id, r.line, r.column, pos.Line, pos.Column)
			}
		}
		s.Submit(from(alice))
		s.Submit(from(mallory))
		s.Explain(from(alice), Need{script.Read, "/"}, Need{script.Write, "/a/b"}, Need{script.Get, "c/k"}, Need{script.Query, "c"})
	})
}

// Whatever the path, what Allow allows is clean and below what was permitted.
func FuzzAllow(f *testing.F) {
	for _, p := range []string{"/", "/a", "/a/b", "/ab", "/a/../b", "/a/", "a", "", "/a\x00", "/a/.", "//", "/a/\xff"} {
		f.Add(p)
	}
	s := parse(f, `permit(principal, action == Action::"read", resource in Path::"/a");
		permit(principal, action == Action::"list", resource) when { resource in Path::"/a" };
		permit(principal, action in Action::"records", resource in Collection::"a");`)
	for _, p := range []string{"a/b/../c", "a//", "b/a", "a-b/k", "A/k", "a/\n"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, path string) {
		g := s.Grants(from(alice))
		for _, action := range []script.Action{script.Get, script.Put, script.Query, script.Delete} {
			allowed := g.Allow(action, path) == nil
			key, in := strings.CutPrefix(path, "a/")
			if record := in && script.CheckKey(key) == nil && action != script.Query; allowed && path != "a" && !record {
				t.Errorf("%s of %q is allowed", action, path)
			}
		}
		for _, action := range []script.Action{script.Read, script.List} {
			allowed := g.Allow(action, path) == nil
			if below := path == "/a" || strings.HasPrefix(path, "/a/"); allowed && !below {
				t.Errorf("%s of %q is allowed", action, path)
			}
			for _, part := range strings.Split(path, "/")[1:] {
				if allowed && (part == ".." || part == "." || part == "" || strings.Contains(part, "\x00")) {
					t.Errorf("%s of %q is allowed", action, path)
				}
			}
		}
	})
}

// Whatever the names, a permit that can be written permits its peer alone.
func FuzzPermit(f *testing.F) {
	f.Add("guestbook", "sign", "/guestbook")
	f.Add(`" || true || "`, "\n};permit(principal,action,resource);", `/"`)
	f.Fuzz(func(t *testing.T, module, entry, path string) {
		p := Permit{Peer: alice.ID, Module: module, Entries: []string{entry}, Read: []string{path}}
		text, err := p.Format()
		if err != nil {
			return
		}
		s, err := Parse([]File{{"x.cedar", text}})
		if err != nil || s.Len() != 2 {
			t.Fatalf("%v\n%s", err, text)
		}
		r := p.example()
		if !s.Submit(r).Permitted || s.Grants(r).Allow(script.Read, path) != nil {
			t.Errorf("permits nothing:\n%s", text)
		}
		r.Parties.Caller = mallory
		if s.Submit(r).Permitted || s.Grants(r).Allow(script.Read, path) == nil {
			t.Errorf("permits mallory:\n%s", text)
		}
	})
}
