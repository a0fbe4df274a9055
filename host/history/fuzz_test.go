package history

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/circles-host/circles/host/script"
)

// small makes some of what before makes.
func small(f *files) {
	f.must(f.Mkdir("d"))
	f.must(f.Mkdir("empty"))
	for _, name := range []string{"a", "b", "d/f", "edited"} {
		f.write(name, "content of "+name)
	}
	f.must(f.Symlink("a", "link"))
}

// FuzzManifest undoes scripts by manifests of anybody's making, which the host
// would not even look at, since no receipt speaks of them: that ends in an error,
// or in something within the context, and never touches what else is private.
func FuzzManifest(f *testing.F) {
	id := script.ID{1, 0, 1}
	var seeds [][]byte
	for _, does := range scripts {
		w := newWorld(f, Config{})
		w.by(before)
		w.script(does)
		w.by(func(fs *files) {
			for p := range (&files{w.TB, fs.tx.Private(), fs.tx}).tree() {
				if strings.HasSuffix(p, name(id)) {
					b, err := read(w.Context(), fs.tx.Private(), p, maxManifest)
					if err != nil {
						f.Fatal(err)
					}
					seeds = append(seeds, b)
				}
			}
		})
	}
	if len(seeds) != len(scripts) {
		f.Fatalf("%d seeds of %d scripts", len(seeds), len(scripts))
	}
	for _, b := range seeds {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		w := newWorld(t, Config{})
		w.by(func(fs *files) {
			small(fs)
			p := &files{t, fs.tx.Private(), fs.tx}
			p.must(p.Mkdir(dir))
			p.must(p.Mkdir(dir + "/20260102T030405.000"))
			p.write(dir+"/20260102T030405.000/"+name(id), string(b))
			p.write(dir+"/20260102T030405.000/"+name(id)+".1", "content of edited")
			p.write(dir+"/20260102T030405.000/"+name(script.ID{9}), "another's")
			p.write("other", "the host's")
		})
		then := w.tree()
		_, err := w.undo(id)
		if err != nil && !maps.Equal(w.tree(), then) {
			t.Errorf("something was done in spite of %v", err)
		}
		private := w.private()
		for p, want := range map[string]string{"/other": "the host's", "/" + dir + "/20260102T030405.000/" + name(script.ID{9}): "another's"} {
			if !strings.Contains(private[p], want) {
				t.Errorf("%s is %q", p, private[p])
			}
		}
		if m, err := decode(b, id); err == nil {
			again, err := m.encode()
			if err != nil && !errors.Is(err, errFull) {
				t.Errorf("what was read cannot be written: %v", err)
			}
			if n, err := decode(again, id); len(again) > 0 && (err != nil || fmt.Sprint(n.changes) == "" || !bytes.Equal(n.Script[:], m.Script[:])) {
				t.Errorf("what was written cannot be read: %v", err)
			}
		}
	})
}
