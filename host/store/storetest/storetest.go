// Package storetest is the suite that every backend of package store passes. A
// backend's test is one line:
//
//	storetest.Run(t, func(t *testing.T) store.Store { … an empty store … })
//
// and for one that keeps what it is given, RunDurable, which also closes and
// opens it again, and Crash, which kills it.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/circles-host/circles/host/store"
)

// Run runs the suite. open makes an empty store; the suite closes it.
func Run(t *testing.T, open func(*testing.T) store.Store) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := open(t)
			t.Cleanup(func() { s.Close() })
			c.run(&stage{T: t, s: s})
		})
	}
}

// RunDurable runs the suite, and what a store must keep across Close. open makes
// an empty store, and a function that opens the same one again after it was
// closed.
func RunDurable(t *testing.T, open func(*testing.T) (store.Store, func() store.Store)) {
	Run(t, func(t *testing.T) store.Store {
		s, _ := open(t)
		return s
	})
	for _, c := range durableCases {
		t.Run(c.name, func(t *testing.T) {
			s, again := open(t)
			st := &stage{T: t, s: s}
			st.reopen = func() {
				t.Helper()
				if err := st.s.Close(); err != nil {
					t.Fatalf("close: %v", err)
				}
				st.s = again()
			}
			t.Cleanup(func() { st.s.Close() })
			c.run(st)
		})
	}
}

type testCase struct {
	name string
	run  func(*stage)
}

var cases = slices.Concat(fileCases, belowCases, guardCases, linkCases, txCases, keepCases, privateCases, modelCases)

var durableCases = slices.Concat(keptCases, keptPrivateCases, keptModelCases)

// stage is a store under test, with words for what is done to it.
type stage struct {
	*testing.T
	s      store.Store
	reopen func()
}

// update runs f in a transaction that must commit.
func (st *stage) update(f func(fs *files)) {
	st.Helper()
	if err := st.s.Update(context.Background(), func(tx store.Tx) error {
		f(&files{st.T, tx.Files(nil), tx})
		return nil
	}); err != nil {
		st.Fatalf("update: %v", err)
	}
}

// view runs f in a view.
func (st *stage) view(f func(fs *files)) {
	st.Helper()
	if err := st.s.View(context.Background(), func(tx store.Tx) error {
		f(&files{st.T, tx.Files(nil), tx})
		return nil
	}); err != nil {
		st.Fatalf("view: %v", err)
	}
}

// discard runs f in a transaction that is rolled back.
func (st *stage) discard(f func(fs *files)) {
	st.Helper()
	stop := errors.New("stop")
	if err := st.s.Update(context.Background(), func(tx store.Tx) error {
		f(&files{st.T, tx.Files(nil), tx})
		return stop
	}); !errors.Is(err, stop) {
		st.Fatalf("update: %v, want the function's error", err)
	}
}

// files is a file system whose must-methods end the test when they fail.
type files struct {
	*testing.T
	store.FS
	tx store.Tx
}

// as is the same file system under a guard.
func (f *files) as(g store.Guard) *files { return &files{f.T, f.tx.Files(g), f.tx} }

// private is the host's own file system in the same transaction.
func (f *files) private() *files { return &files{f.T, f.tx.Private(), f.tx} }

func (f *files) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatalf("unexpected: %v", err)
	}
}

// want fails the test unless err is target.
func (f *files) want(target, err error) {
	f.Helper()
	if !errors.Is(err, target) || target == nil && err != nil {
		f.Errorf("got error %v, want %v", err, target)
	}
}

func (f *files) open(path string, flag store.Flag) store.File {
	f.Helper()
	h, err := f.Open(path, flag)
	f.must(err)
	return h
}

// write makes path hold exactly content.
func (f *files) write(path, content string) {
	f.Helper()
	h := f.open(path, store.FlagWrite|store.FlagCreate|store.FlagTruncate)
	n, err := h.WriteAt([]byte(content), 0)
	f.must(err)
	if n != len(content) {
		f.Fatalf("wrote %d bytes of %d", n, len(content))
	}
	f.must(h.Close())
}

func (f *files) read(path string) string {
	f.Helper()
	h := f.open(path, store.FlagRead)
	defer h.Close()
	return f.all(h)
}

func (f *files) all(h store.File) string {
	f.Helper()
	b, err := io.ReadAll(io.NewSectionReader(h, 0, 1<<40))
	f.must(err)
	return string(b)
}

func (f *files) mkdir(paths ...string) {
	f.Helper()
	for _, p := range paths {
		f.must(f.Mkdir(p))
	}
}

func (f *files) names(path string) []string {
	f.Helper()
	h := f.open(path, store.FlagRead|store.FlagDirectory)
	defer h.Close()
	list, err := h.ReadDir(0, 1<<30)
	f.must(err)
	var names []string
	for _, e := range list {
		names = append(names, e.Name)
	}
	return names
}

// tree is everything below the root, a line each.
func (f *files) tree() string {
	f.Helper()
	var b strings.Builder
	var walk func(dir string)
	walk = func(dir string) {
		h := f.open(dir+"/", store.FlagRead|store.FlagDirectory)
		list, err := h.ReadDir(0, 1<<30)
		f.must(err)
		f.must(h.Close())
		for _, e := range list {
			p := dir + "/" + e.Name
			switch e.Kind {
			case store.KindDir:
				fmt.Fprintf(&b, "%s/\n", p)
				walk(p)
			case store.KindLink:
				target, err := f.Readlink(p)
				f.must(err)
				fmt.Fprintf(&b, "%s -> %s\n", p, target)
			case store.KindFile:
				fmt.Fprintf(&b, "%s = %q\n", p, f.read(p))
			default:
				fmt.Fprintf(&b, "%s ?\n", p)
			}
		}
	}
	walk("")
	return b.String()
}

// wantTree compares tree with lines.
func (f *files) wantTree(lines ...string) {
	f.Helper()
	if got, want := strings.TrimSpace(f.tree()), strings.Join(lines, "\n"); got != want {
		f.Errorf("tree is\n%s\nwant\n%s", got, want)
	}
}
