package policy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

// many returns a Set of about n policies. About alice there are two; the rest
// are about others, or, with for all, about everybody.
func many(b *testing.B, n int, all bool) *Set {
	var text strings.Builder
	text.WriteString(`permit(principal in Circle::"friends", action == Action::"submit", resource) when { context.module.name == "guestbook" };
		permit(principal in Circle::"friends", action in Action::"files", resource in Path::"/guestbook") when { context.module.name == "guestbook" };`)
	for i := 2; i < n; i++ {
		principal := "principal"
		if !all {
			principal = fmt.Sprintf("principal in Circle::\"c%d\"", i)
		}
		fmt.Fprintf(&text, "permit(%s, action, resource) when { context.module.name == \"m%d\" };\n", principal, i)
	}
	return parse(b, text.String())
}

func BenchmarkSubmit(b *testing.B) {
	for _, about := range []string{"others", "everybody"} {
		for _, n := range []int{2, 10, 1000} {
			b.Run(fmt.Sprintf("%d about %s", n, about), func(b *testing.B) {
				s, r := many(b, n, about == "everybody"), from(alice)
				b.ReportAllocs()
				for b.Loop() {
					if !s.Submit(r).Permitted {
						b.Fatal("refused")
					}
				}
			})
		}
	}
}

// Submit, the first time that it is asked by somebody with some module.
func BenchmarkSubmitFirst(b *testing.B) {
	for _, about := range []string{"others", "everybody"} {
		b.Run("1000 about "+about, func(b *testing.B) {
			s, r := many(b, 1000, about == "everybody"), from(alice)
			b.ReportAllocs()
			for b.Loop() {
				s.reduced.by = nil
				if !s.Submit(r).Permitted {
					b.Fatal("refused")
				}
			}
		})
	}
}

// Allow, the first time for a path.
func BenchmarkAllow(b *testing.B) {
	for _, about := range []string{"others", "everybody"} {
		for _, n := range []int{2, 10, 1000} {
			b.Run(fmt.Sprintf("%d about %s", n, about), func(b *testing.B) {
				g := many(b, n, about == "everybody").Grants(from(alice))
				paths := make([]string, 4*maxAnswers)
				for i := range paths {
					paths[i] = fmt.Sprintf("/guestbook/%d.txt", i)
				}
				i := 0
				b.ReportAllocs()
				for b.Loop() {
					if err := g.Allow(script.Write, paths[i%len(paths)]); err != nil {
						b.Fatal(err)
					}
					i++
				}
			})
		}
	}
}

// Allow, of a path that the script has asked for before.
func BenchmarkAllowAgain(b *testing.B) {
	g := many(b, 10, false).Grants(from(alice))
	b.ReportAllocs()
	for b.Loop() {
		if err := g.Allow(script.Write, "/guestbook/a.txt"); err != nil {
			b.Fatal(err)
		}
	}
}

// The dearest question: a path as deep as may be, which a condition that looks
// upwards does not find.
func BenchmarkAllowDeep(b *testing.B) {
	g := parse(b, `permit(principal, action, resource is Path) when { resource in Path::"/x" };`).Grants(from(alice))
	paths := make([]string, 2*maxAnswers)
	for i := range paths {
		paths[i] = fmt.Sprintf("/%d%s", i, strings.Repeat("/y", maxDepth-1))
	}
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		if err := g.Allow(script.Read, paths[i%len(paths)]); err == nil {
			b.Fatal("allowed")
		}
		i++
	}
}

func BenchmarkGrants(b *testing.B) {
	s := many(b, 1000, false)
	r := from(peer.Peer{ID: alice.ID, Name: "alice", Circles: []string{"friends", "c7"}})
	b.ReportAllocs()
	for b.Loop() {
		s.Grants(r)
	}
}

func BenchmarkParse(b *testing.B) {
	var text strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&text, "@id(\"p%d\") permit(principal in Circle::\"c%d\", action == Action::\"submit\", resource) when { context.module.name == \"m\" };\n", i, i)
	}
	b.SetBytes(int64(text.Len()))
	for b.Loop() {
		if _, err := Parse([]File{{"x.cedar", text.String()}}); err != nil {
			b.Fatal(err)
		}
	}
}
