package module_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/modules"
)

// side is a module as a command would compare it.
func side(t *testing.T, wasm []byte, manifest string) module.Side {
	t.Helper()
	if manifest != "" {
		var err error
		if wasm, err = modules.WithManifest(wasm, []byte(manifest)); err != nil {
			t.Fatal(err)
		}
	}
	info, err := engine.Inspect(wasm)
	if err != nil {
		t.Fatal(err)
	}
	return module.Side{Info: info}
}

// TestCompare: what an owner wants to know of a version before it runs.
func TestCompare(t *testing.T) {
	a := side(t, says("a", "run", "sign"), `{"description": "old", "entries": {"run": {"types": {"n": "number"}}}, "needs": [{"action": "read", "path": "/a"}], "lends": [{"action": "get", "path": "cards"}]}`)
	b := side(t, says("longer", "run", "more"), `{"description": "new", "entries": {"run": {"types": {"n": "string"}}}, "needs": [{"action": "read", "path": "/a"}, {"action": "write", "path": "/"}]}`)
	b.Publisher = "did:key:z6Mk"
	a.Source = []module.SourceFile{{Name: "gone.go", Text: []byte("x\n")}, {Name: "main.go", Text: []byte("one\ntwo\n")}, {Name: "same.go", Text: []byte("s")}}
	b.Source = []module.SourceFile{{Name: "main.go", Text: []byte("one\nthree\n")}, {Name: "photo", Text: []byte{0, 1}}, {Name: "same.go", Text: []byte("s")}}
	d := module.Compare(a, b)
	var values []string
	for _, v := range d.Values {
		values = append(values, v.What)
	}
	if want := []string{"digest", "size", "publisher", "description"}; !slices.Equal(values, want) {
		t.Errorf("values %v, want %v", values, want)
	}
	if want := []module.ListDifference{
		{What: "entries", Gone: []string{"sign"}, New: []string{"more"}},
		{What: "types", Gone: []string{"run: n number"}, New: []string{"run: n string"}},
		{What: "needs", New: []string{"write /"}},
		{What: "lends", Gone: []string{"get cards"}},
	}; !reflect.DeepEqual(d.Lists, want) {
		t.Errorf("lists %+v", d.Lists)
	}
	var files []string
	for _, f := range d.Source {
		files = append(files, f.Name+" "+f.Kind)
	}
	if want := []string{"gone.go gone", "main.go changed", "photo new"}; !slices.Equal(files, want) || !strings.Contains(d.Source[1].Diff, "-two\n+three\n") || d.Source[2].Diff != "" {
		t.Errorf("source %+v", d.Source)
	}
	if !module.Compare(a, a).Same() || d.Same() {
		t.Error("which are the same?")
	}
	b.Source = nil
	if d := module.Compare(a, b); d.NoSource != "after" || d.Source != nil {
		t.Errorf("%+v", d)
	}
}

// TestSourcesThatTakeLongToCompare: what a stranger puts into two modules is compared
// within bounds, however little they have in common.
func TestSourcesThatTakeLongToCompare(t *testing.T) {
	files := func(seed int) (list []module.SourceFile) {
		for n := range 32 {
			var b strings.Builder
			for i := 0; b.Len() < 250<<10; i++ {
				fmt.Fprintln(&b, (i*7919+seed*104729)%9973%(50+n))
			}
			list = append(list, module.SourceFile{Name: fmt.Sprintf("f%02d", n), Text: []byte(b.String())})
		}
		return list
	}
	a, b := side(t, says("a"), ""), side(t, says("b"), "")
	a.Source, b.Source = files(1), files(2)
	size := 0
	for _, f := range module.Compare(a, b).Source {
		size += len(f.Diff)
	}
	if size == 0 || size > 2<<20 {
		t.Errorf("%d bytes of diffs", size)
	}
}
