package storetest

import (
	"fmt"
	"strings"

	"github.com/circles-host/circles/host/store"
)

var linkCases = []testCase{
	{"SymlinkTargets", symlinkTargets},
	{"SymlinkResolution", symlinkResolution},
	{"SymlinkLoops", symlinkLoops},
	{"SymlinkRenamedSoThatItClimbs", symlinkClimbs},
	{"SymlinkBomb", symlinkBomb},
}

// symlinkTargets: what leads out is refused when it is made, for the owner's
// other tools would follow it.
func symlinkTargets(st *stage) {
	st.discard(func(fs *files) {
		fs.mkdir("a", "a/b")
		for _, tc := range []struct {
			target, path string
			want         error
		}{
			{"/etc/passwd", "l", store.ErrEscapes}, {"/", "l", store.ErrEscapes}, {"//x", "l", store.ErrEscapes},
			{"..", "l", store.ErrEscapes}, {"../x", "l", store.ErrEscapes}, {"a/../..", "l", store.ErrEscapes}, {"./..", "l", store.ErrEscapes},
			{"../..", "a/l", store.ErrEscapes}, {"b/../../..", "a/l", store.ErrEscapes}, {"../../../x", "a/b/l", store.ErrEscapes},
			{"", "l", store.ErrNotExist}, {"a\x00b", "l", store.ErrInvalid}, {"\xff", "l", store.ErrInvalid}, {strings.Repeat("x", 4096), "l", store.ErrNameTooLong},
			{"x", "a", store.ErrExists}, {"x", "l/", store.ErrNotExist}, {"x", "none/l", store.ErrNotExist},
			{"a", "ok1", nil}, {"..", "a/ok2", nil}, {"../a/b/..", "a/ok3", nil}, {"dangling/../x", "ok4", nil}, {"../../", "a/b/ok5", nil},
		} {
			err := fs.Symlink(tc.target, tc.path)
			if fs.want(tc.want, err); fs.Failed() {
				fs.Fatalf("link %s -> %s", tc.path, tc.target)
			}
			if err == nil {
				if got, err := fs.Readlink(tc.path); err != nil || got != tc.target {
					fs.Errorf("%s reads %q, %v", tc.path, got, err)
				}
				if i, err := fs.Stat(tc.path, false); err != nil || i.Kind != store.KindLink || i.Size != int64(len(tc.target)) {
					fs.Errorf("%s: %+v, %v", tc.path, i, err)
				}
			}
		}
	})
}

func symlinkResolution(st *stage) {
	both(st, func(fs *files) {
		fs.mkdir("a", "a/b", "c")
		fs.write("a/f", "A")
		fs.write("c/f", "C")
		for path, target := range map[string]string{
			"la": "a", "lf": "la/f", "a/up": "../c", "a/b/upup": "../../c/f", "slash": "a/", "fslash": "a/f/", "dot": ".", "a/dotdot": "..",
			"chain0": "chain1", "chain1": "chain2", "chain2": "a/up/f", "mid": "a/b/../up",
		} {
			fs.must(fs.Symlink(target, path))
		}
	}, func(fs *files) {
		for path, want := range map[string]string{
			"la/f": "A", "lf": "A", "a/up/f": "C", "a/b/upup": "C", "la/b/upup": "C", "slash/f": "A", "dot/dot/a/f": "A", "a/dotdot/c/f": "C",
			"chain0": "C", "mid/f": "C", "la/../c/f": "C", "a/up/../a/f": "A", "a/dotdot/dot/la/dotdot/lf": "A",
		} {
			if got := fs.read(path); got != want {
				fs.Errorf("%s reads %q, want %q", path, got, want)
			}
		}
		for path, want := range map[string]error{
			"fslash": store.ErrNotDir, "lf/": store.ErrNotDir, "lf/x": store.ErrNotDir, "la/../..": store.ErrEscapes, "a/dotdot/..": store.ErrEscapes,
			"a/dotdot/a/dotdot/../x": store.ErrEscapes, "dot/..": store.ErrEscapes, "a/up/../..": store.ErrEscapes, "la/none": store.ErrNotExist,
		} {
			_, err := fs.Stat(path, true)
			if fs.want(want, err); fs.Failed() {
				fs.Fatalf("stat %s", path)
			}
		}
		// Mutations follow links on the way, not the last one.
		fs.write("la/new", "x")
		fs.must(fs.Rename("la/new", "a/up/new"))
		fs.must(fs.Unlink("la"))
		if got := fs.read("c/new") + fs.read("a/f"); got != "xA" {
			fs.Errorf("after renaming through links: %q", got)
		}
	})
}

func symlinkLoops(st *stage) {
	both(st, func(fs *files) {
		fs.must(fs.Symlink("self", "self"))
		fs.must(fs.Symlink("pong", "ping"))
		fs.must(fs.Symlink("ping", "pong"))
		fs.must(fs.Symlink("grow/x", "grow"))
		fs.write("f", "x")
		prev := "f"
		for i := range 41 {
			name := fmt.Sprintf("l%02d", i+1)
			fs.must(fs.Symlink(prev, name))
			prev = name
		}
	}, func(fs *files) {
		for path, want := range map[string]error{
			"self": store.ErrLoop, "self/x": store.ErrLoop, "ping": store.ErrLoop, "ping/x": store.ErrLoop, "grow": store.ErrLoop, "l41": store.ErrLoop, "l40": nil,
		} {
			_, err := fs.Stat(path, true)
			if fs.want(want, err); fs.Failed() {
				fs.Fatalf("stat %s", path)
			}
			_, err = fs.Stat(strings.TrimSuffix(path, "/x"), false)
			fs.want(nil, err)
		}
		_, err := fs.Open("self", store.FlagWrite|store.FlagCreate)
		fs.want(store.ErrLoop, err)
	})
}

// symlinkClimbs: a link that stays inside where it is made climbs out from where
// it, or a directory above it, is moved to.
func symlinkClimbs(st *stage) {
	both(st, func(fs *files) {
		fs.mkdir("a", "a/b", "a/b/c")
		fs.must(fs.Symlink("../../../etc", "a/b/c/l"))
		fs.must(fs.Symlink("../../..", "a/b/c/root"))
	}, func(fs *files) {
		fs.must(fs.Rename("a/b/c/l", "l"))
		_, err := fs.Stat("l", true)
		fs.want(store.ErrEscapes, err)
		_, err = fs.Open("l/passwd", store.FlagRead)
		fs.want(store.ErrEscapes, err)
		fs.want(store.ErrEscapes, fs.Mkdir("l/x"))
		_, err = fs.Stat("a/b/c/root", true)
		fs.want(nil, err)
		fs.must(fs.Rename("a/b/c", "c"))
		_, err = fs.Stat("c/root", true)
		fs.want(store.ErrEscapes, err)
		_, err = fs.Open("c/root/f", store.FlagWrite|store.FlagCreate)
		fs.want(store.ErrEscapes, err)
	})
}

// symlinkBomb: forty links of long targets make a walk of many components; it
// ends early instead.
func symlinkBomb(st *stage) {
	st.discard(func(fs *files) {
		fs.mkdir("d")
		fs.must(fs.Symlink(strings.Repeat("d/../", 800)+"d", "l0"))
		prev := "l0"
		for i := range 35 {
			name := fmt.Sprintf("l%d", i+1)
			fs.must(fs.Symlink(strings.Repeat("d/../", 400)+prev+"/.", name))
			prev = name
		}
		_, err := fs.Stat(prev, true)
		fs.want(store.ErrLoop, err)
	})
}
