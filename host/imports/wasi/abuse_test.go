package wasi

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mem"
	"github.com/circles-host/circles/host/store/overlay"
)

// Each test is named after what a guest tries.

var (
	maxInt64 = strconv.FormatInt(math.MaxInt64, 10)
	twoTo63  = strconv.FormatUint(1<<63, 10)
)

func TestLinkOutOfTheContext(t *testing.T) {
	(&world{}).steps(t,
		do("mkdir", "a"), do("mkdir", "a/b"), do("mkdir", "a/b/c"),
		do("symlink", "../../../etc/passwd", "leak").is("NOTCAPABLE"),
		do("symlink", "/etc/passwd", "leak").is("NOTCAPABLE"),
		do("symlink", "a/../../etc/passwd", "leak").is("NOTCAPABLE"),
		do("symlink", "../../../../etc", "a/b/c/leak").is("NOTCAPABLE"),
		do("symlink", "..", "leak").is("NOTCAPABLE"),
		do("lstat", "leak").is("NOENT"),
		do("open", "r", "leak").is("NOENT"),

		// What stays inside is allowed.
		do("symlink", "../..", "a/b/up"),
		do("open", "cw", "a/b/up/inside"),
		do("stat", "inside").is("OK 4 0 *"),
	)
}

func TestLinkMovedUntilItLeadsOut(t *testing.T) {
	(&world{}).steps(t,
		do("mkdir", "a"), do("mkdir", "a/b"), do("mkdir", "a/b/c"),
		do("symlink", "../../secret", "a/b/c/link"),
		do("stat", "a/b/c/link").is("NOENT"),
		do("rename", "a/b/c/link", "link"),
		do("stat", "link").is("NOTCAPABLE"),
		do("open", "r", "link").is("NOTCAPABLE"),
		do("open", "cw", "link").is("NOTCAPABLE"),
		do("mkdir", "link/x").is("NOTCAPABLE"),
		do("utimes", "link", "1", "1", "5").is("NOTCAPABLE"),
		do("lstat", "link").is("OK 7 *"),

		// The same by moving a directory above it.
		do("symlink", "../..", "a/b/up"),
		do("rename", "a/b", "b"),
		do("stat", "b/up").is("NOTCAPABLE"),
		do("open", "r", "b/up/etc/passwd").is("NOTCAPABLE"),

		// And by links that lead to links.
		do("symlink", "b/up", "one"), do("symlink", "one", "two"),
		do("open", "r", "two/etc/passwd").is("NOTCAPABLE"),
	)
}

// A directory that is held open is that directory wherever it goes, and nothing
// above it is reached through it.
func TestDirectoryRenamedToClimb(t *testing.T) {
	(&world{}).steps(t,
		do("mkdir", "a"), do("mkdir", "a/b"), do("mkdir", "a/b/c"), do("open", "cw", "secret"), do("open", "cw", "a/b/c/f"),
		do("c=", "open", "rd", "a/b/c"),
		do("rename", "a/b/c", "c"), // up
		do("open", "r", "f", "c"),
		do("open", "r", "../secret", "c").is("NOTCAPABLE"),
		do("open", "r", "../../secret", "c").is("NOTCAPABLE"),
		do("mkdir", "a/b/c"),
		do("rename", "c", "a/b/c"), // and down, over another
		do("open", "r", "f", "c"),
		do("open", "r", "../../../secret", "c").is("NOTCAPABLE"),
		do("rename", "f", "../f", "c", "c").is("NOTCAPABLE"),
		do("rename", "a", "a/b/c/a").is("INVAL"), // into itself, which would be nowhere
		do("b=", "open", "rd", "a/b"),
		do("rename", "a", "deep", "/", "b").is("INVAL"),
	)
}

func TestLinksInALoop(t *testing.T) {
	(&world{}).steps(t,
		do("symlink", "b", "a"), do("symlink", "a", "b"), do("symlink", "self", "self"),
		do("open", "r", "a").is("LOOP"),
		do("stat", "self/x").is("LOOP"),
		do("open", "cw", "b/x").is("LOOP"),
		do("open", "rn", "a").is("LOOP"),
		do("lstat", "a").is("OK 7 *"),
		do("unlink", "a"),
	)
}

func TestLinkWhoseTargetChangesInMemory(t *testing.T) {
	(&world{}).steps(t,
		do("symlink-and-scribble", "innocent", "link"),
		do("readlink", "link", "100").is("OK innocent"),
	)
}

func TestLinkIntoAShortBuffer(t *testing.T) {
	(&world{}).steps(t,
		do("symlink", "innocent", "link"),
		do("readlink", "link", "4").is("OK inno"),
		do("readlink", "link", "0").is("INVAL"),
		do("readlink", "link/", "4").is("NOENT"),
		do("mkdir", "dir"),
		do("readlink", "dir", "4").is("INVAL"),
	)
}

// No path leads above the directory that it is looked up in, "/" or any other.
func TestDotDot(t *testing.T) {
	(&world{}).steps(t,
		do("mkdir", "a"), do("open", "cw", "inside"),
		do("open", "r", "../etc/passwd").is("NOTCAPABLE"),
		do("open", "r", "a/../../etc/passwd").is("NOTCAPABLE"),
		do("open", "r", "/etc/passwd").is("NOTCAPABLE"),
		do("open", "r", "/").is("NOTCAPABLE"),
		do("open", "r", "a/../inside"),
		do("d=", "open", "rd", "a"),
		do("open", "r", "../inside", "d").is("NOTCAPABLE"),
		do("open", "r", "..", "d").is("NOTCAPABLE"),
		do("rename", "inside", "../outside").is("NOTCAPABLE"),
		do("mkdir", "../outside").is("NOTCAPABLE"),

		// By way of a link: it leads out of d, and not of the context.
		do("symlink", "../inside", "a/link"),
		do("open", "r", "a/link"),
		do("open", "r", "link", "d").is("NOTCAPABLE"),
		do("open", "r", "a/../a/link"),
	)
}

func TestNamesThatAreNone(t *testing.T) {
	million := strings.Repeat("a/", 1_000_000)
	for _, bad := range []struct{ name, path, want string }{
		{"empty", "", "NOENT"},
		{"NUL", "a\x00b", "INVAL"},
		{"NUL at the end", "a\x00", "INVAL"},
		{"not UTF-8", "a\xffb", "ILSEQ"},
		{"a surrogate", "\xed\xa0\x80", "ILSEQ"},
		{"a long name", strings.Repeat("n", 256), "NAMETOOLONG"},
		{"a long path", strings.Repeat("a/", 2048) + "a", "NAMETOOLONG"},
		{"a million components", million, "NAMETOOLONG"},
	} {
		t.Run(bad.name, func(t *testing.T) {
			link := bad.want
			if bad.name == "a long name" {
				link = "OK" // to point at one that cannot exist is no harm
			}
			(&world{}).steps(t,
				do("open", "cw", "good"),
				do("open", "cw", bad.path).is(bad.want),
				do("mkdir", bad.path).is(bad.want),
				do("symlink", "good", bad.path).is(bad.want),
				do("symlink", bad.path, "link").is(link),
				do("rename", "good", bad.path).is(bad.want),
			)
		})
	}
}

func TestNameOfADirectoryItself(t *testing.T) {
	(&world{}).steps(t,
		do("mkdir", "d"),
		do("rmdir", ".").is("INVAL"),
		do("rmdir", "d/.").is("INVAL"),
		do("rmdir", "d/./").is("INVAL"),
		do("unlink", ".").is("INVAL"),
		do("unlink", "d/..").is("INVAL"),
		do("rename", ".", "e").is("INVAL"),
		do("rename", "d/./", "e").is("INVAL"),
		do("rename", "d", ".").is("INVAL"),
		do("rename", "d", "d/e").is("INVAL"),
		do("mkdir", ".").is("EXIST"),
		do("symlink", "d", ".").is("EXIST"),
		do("at=", "open", "rd", "d"),
		do("rmdir", ".", "at").is("INVAL"),
		do("stat", "d").is("OK 3 0 *"),
	)
}

func TestRenumberToAHugeDescriptor(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	(&world{}).steps(t,
		do("f=", "open", "cw", "f"), do("g=", "open", "cw", "g"),
		do("renumber", "f", "0x7fffffff").is("BADF"), // 45 s and 17 GB in wazero
		do("renumber", "f", "1000").is("BADF"),
		do("renumber", "f", "-1").is("BADF"),
		do("renumber", "-1", "f").is("BADF"),
		do("renumber", "1000", "f").is("BADF"),
		do("renumber", "0x7fffffff", "0x7fffffff").is("BADF"),
		do("renumber", "f", "f"),
		do("write", "f", "still open").is("OK 10"),
		do("renumber", "f", "g"),
		do("write", "g", "moved").is("OK 5"),
		do("write", "f", "gone").is("BADF"),
		do("stat", "f").is("OK 4 15 *"),
	)
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<30 {
		t.Errorf("allocated %d bytes", n)
	}
}

func TestRenumberThePreopened(t *testing.T) {
	(&world{}).steps(t,
		do("mkdir", "d"), do("open", "cw", "d/inside"), do("open", "cw", "outside"),
		do("renumber", "/", "/"),
		do("open", "r", "outside"),

		// A directory in its place is that directory, and no more.
		do("d=", "open", "rd", "d"),
		do("renumber", "d", "/"),
		do("open", "r", "inside"),
		do("open", "r", "outside").is("NOENT"),
		do("open", "r", "../outside").is("NOTCAPABLE"),
		do("prestat", "/", "10").is("BADF"),
	)
	(&world{}).steps(t,
		do("f=", "open", "crw", "f"), do("g=", "open", "crw", "g"),
		do("renumber", "/", "g"), // it keeps its name
		do("prestat", "g", "10").is("OK /"),
		do("open", "r", "f", "g"),
		do("renumber", "f", "stderr"),
		do("write", "stderr", "to the file").is("OK 11"),
		do("seek", "stderr", "0", "0"),
		do("renumber", "stderr", "stdin"),
		do("read", "stdin", "6").is("OK to the"),
		do("stat", "f", "g").is("OK 4 11 *"),
		do("close", "stdin"), do("close", "g"),
		do("read", "stdin", "6").is("BADF"),
	)
}

func TestFilesAndDirectoriesConfused(t *testing.T) {
	(&world{}).steps(t,
		do("mkdir", "d"), do("mkdir", "full"), do("mkdir", "full/d"),
		do("w=", "open", "cw", "f"), do("write", "w", "text").is("OK 4"), do("r=", "open", "r", "f"),
		do("d=", "open", "r", "d"), // opened as if it were a file
		do("read", "d", "10").is("ISDIR"),
		do("pread", "d", "10", "0").is("ISDIR"),
		do("write", "d", "x").is("ISDIR"),
		do("pwrite", "d", "x", "0").is("ISDIR"),
		do("truncate", "d", "0").is("ISDIR"),
		do("allocate", "d", "0", "1").is("ISDIR"),
		do("seek", "d", "0", "0").is("ISDIR"),
		do("tell", "d").is("ISDIR"),
		do("fdstat", "d").is("OK 3 0"),
		do("readdir", "w", "4096", "0").is("BADF"),
		do("open", "r", "x", "w").is("NOTDIR"),
		do("open", "w", "d").is("ISDIR"),
		do("open", "rd", "f").is("NOTDIR"),
		do("open", "r", "f/").is("NOTDIR"),
		do("open", "cw", "new/").is("ISDIR"),
		do("symlink", "f", "new/").is("NOENT"),
		do("symlink", "f", "d/").is("EXIST"),
		do("open", "r", "f/x").is("NOTDIR"),
		do("stat", "f/").is("NOTDIR"),
		do("unlink", "d").is("ISDIR"),
		do("unlink", "f/").is("NOTDIR"),
		do("rmdir", "f").is("NOTDIR"),
		do("rmdir", "full").is("NOTEMPTY"),
		do("rename", "f/", "g").is("NOTDIR"),
		do("rename", "f", "g/").is("NOTDIR"),
		do("rename", "d", "f").is("NOTDIR"),
		do("rename", "f", "d").is("ISDIR"),
		do("rename", "d", "full").is("NOTEMPTY"),
		do("link", "f", "hard").is("NOTSUP"),
		do("read", "w", "10").is("BADF"),
		do("write", "r", "x").is("BADF"),
		do("truncate", "r", "0").is("INVAL"),
		do("open", "cxw", "f").is("EXIST"),
		do("close", "w"), do("close", "w").is("BADF"),
		do("write", "w", "x").is("BADF"),
		do("fstat", "w").is("BADF"),
		do("read", "-1", "1").is("BADF"),
		do("stat", "f").is("OK 4 4 *"),
	)
}

func TestManyAliasesOfOneBuffer(t *testing.T) {
	w := &world{limits: engine.Limits{Wall: time.Minute, Memory: 256 << 20}}
	w.steps(t,
		do("f=", "open", "crw", "f"),
		// 65,536 times 64 KiB: 4 GiB, and the sum wraps to nothing.
		do("writev", "f", "65536", "65536").is("OK 67108864"),
		// 128 times 40 MiB, where the limit falls into a buffer.
		do("seek", "f", "0", "0"),
		do("writev", "f", "128", "41943040").is("OK 67108864"),
		do("stat", "f").is("OK 4 67108864 *"),
		do("seek", "f", "0", "0"),
		do("readv", "f", "65536", "65536").is("OK 67108864"),
		do("seek", "f", "0", "0"),
		do("readv", "f", "1", "80000000").is("OK 67108864"),
		do("truncate", "f", "0"),
	)
}

func TestBufferCountThatWraps(t *testing.T) {
	(&world{}).steps(t,
		do("f=", "open", "cw", "f"),
		do("writev-raw", "f", "0x20000001").is("OK 1"), // eightfold, it is 8
		do("writev-raw", "f", "0x20000000").is("OK 1"), // eightfold, it is 0
		do("writev-raw", "f", "0xffffffff").is("OK 1"),
		do("write-vec", "f", "0xfffffff8", "1000").is("FAULT"),
		do("write-vec", "f", "0xffffffff", "1").is("FAULT"),
		do("write-at", "f", "0xfffffff0", "0x20").is("FAULT"),
		do("write-at", "f", "0", "0xffffffff").is("FAULT"),
		do("stat", "f").is("OK 4 3 *"),
	)
}

func TestReadThatRewritesItsOwnBuffers(t *testing.T) {
	(&world{}).steps(t,
		do("f=", "open", "crw", "f"),
		do("write", "f", strings.Repeat("\xff", 128)),
		do("seek", "f", "0", "0"),
		do("readv-over-itself", "f"), // by the list that there was
		do("tell", "f").is("OK 128"),
		// A stream reads one buffer at a time.
		do("readv-over-itself", "stdin"),
	)
}

func TestForgedDirectoryCookies(t *testing.T) {
	(&world{}).steps(t,
		do("mkdir", "d"), do("open", "cw", "d/a"), do("open", "cw", "d/b"),
		do("d=", "open", "rd", "d"),
		do("readdir", "d", "4096", "3").is("OK 25: b"), // before any beginning
		do("readdir", "d", "4096", "0").is("OK 101: . .. a b"),
		do("readdir", "d", "4096", "1").is("OK 76: .. a b"), // back
		do("readdir", "d", "4096", "4").is("OK 0:"),
		do("readdir", "d", "4096", "1000000").is("OK 0:"),
		do("readdir", "d", "4096", "0x7fffffff").is("OK 0:"),
		do("readdir", "d", "4096", "0x80000000").is("INVAL"),
		do("readdir", "d", "4096", twoTo63).is("INVAL"),
		do("readdir", "d", "4096", "-1").is("INVAL"),
		do("readdir", "d", "65537", "0").is("INVAL"),
		do("readdir", "d", "0xffffffff", "0").is("INVAL"),
		do("readdir", "d", "23", "0").is("INVAL"),
		do("readdir", "d", "24", "2").is("OK 24: "), // the head of one, to tell how long it is
		do("readdir", "d", "30", "2").is("OK 30: a"),
		do("readdir-all", "d", "26").is("OK 4"),
		do("readdir-all", "d", "100").is("OK 4"),
		do("readdir-all", "/", "4096").is("OK 3"),
	)
}

func TestDirectoriesHeldOpenByHundreds(t *testing.T) {
	const entries, handles = 2000, 200
	w := &world{
		store:  mem.New(mem.Config{Limits: overlay.Limits{Listed: 200_000}}),
		limits: engine.Limits{Wall: time.Minute},
	}
	err := w.store.Update(context.Background(), func(tx store.Tx) error {
		files := tx.Files(nil)
		if err := files.Mkdir("d"); err != nil {
			return err
		}
		for i := range entries {
			f, err := files.Open(fmt.Sprintf("d/%0200d", i), store.FlagWrite|store.FlagCreate)
			if err != nil {
				return err
			}
			f.Close()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	steps := []step{do("repeat", strconv.Itoa(handles), "open", "rd", "d")}
	for fd := range handles {
		s := do("readdir-all", strconv.Itoa(4+fd), "65536").is("OK " + strconv.Itoa(entries+2))
		if fd >= 100 { // 200,000 entries, held by the store
			s = s.is("DQUOT")
		}
		steps = append(steps, s)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	steps = append(steps, do("close", "4"), do("readdir-all", "200", "65536").is("OK "+strconv.Itoa(entries+2)))
	w.steps(t, steps...)
	runtime.ReadMemStats(&after)
	if grown := int64(after.Sys) - int64(before.Sys); grown > 512<<20 {
		t.Errorf("the process grew by %d MiB", grown>>20)
	}
}

func TestUnlinkedFileGoesOn(t *testing.T) {
	w := &world{}
	w.steps(t,
		do("f=", "open", "crw", "f"), do("write", "f", "ghost").is("OK 5"),
		do("unlink", "f"),
		do("stat", "f").is("NOENT"),
		do("fstat", "f").is("OK 4 5 *"),
		do("pread", "f", "10", "0").is("OK ghost"),
		do("write", "f", "!").is("OK 1"),
		do("truncate", "f", "2"),
		do("fstat", "f").is("OK 4 2 *"),
		do("mkdir", "d"), do("d=", "open", "rd", "d"), do("rmdir", "d"),
		do("open", "cw", "x", "d").is("NOENT"),
		do("readdir", "d", "4096", "0").is("OK 51: . .."),
	)
	w.steps(t, do("readdir", "/", "4096", "0").is("OK 51: . .."))
}

func TestUnlinkedFileThatGoesOnGrowing(t *testing.T) {
	w := &world{store: mem.New(mem.Config{Limits: overlay.Limits{StagedBytes: 1000, Entries: 2, FileSize: 800}})}
	w.steps(t,
		do("f=", "open", "cw", "f"), do("unlink", "f"), // no name leads to it
		do("truncate", "f", "801").is("FBIG"),
		do("allocate", "f", "0", "801").is("FBIG"),
		do("truncate", "f", "800"),
		do("g=", "open", "cw", "g"), do("unlink", "g"),
		do("truncate", "g", "201").is("DQUOT"),
		do("allocate", "g", "0", "201").is("DQUOT"),
		do("pwrite", "g", "x", "200").is("DQUOT"),
		do("truncate", "g", "200"),
		do("open", "cw", "h").is("DQUOT"), // nor is it forgotten
		do("close", "f"),
		do("truncate", "g", "800"), // its room is free when nobody has it open
		do("h=", "open", "cw", "h"), do("truncate", "h", "200"),
	)
}

func TestThirtyThousandFilesDirectoriesAndLinks(t *testing.T) {
	w := &world{limits: engine.Limits{Wall: time.Minute}}
	w.steps(t,
		do("mkdir", "d"), do("d=", "open", "rd", "d"),
		do("many", "30000", "d").is("OK 30000"),
		do("many-directories", "30000", "d").is("OK 30000"),
		do("many-links", "30000", "d").is("OK 30000"),
		do("readdir-all", "d", "65536").is("OK 90002"),
		do("many-directories", "30000", "/").is("DQUOT 9999"), // 100,000 names in one transaction, d among them
		do("unlink", "many.0", "d"),
	)
	err := w.store.Update(context.Background(), func(tx store.Tx) error {
		tx.Limit(store.Limits{Entries: 50})
		w := &world{store: w.store, limits: w.limits, dirs: func(store.Tx) []Preopened { return []Preopened{{"/", tx.Files(nil)}} }, within: true}
		w.steps(t,
			do("mkdir", "e"), do("e=", "open", "rd", "e"),
			do("many", "30000", "e").is("DQUOT 49"),
			do("many-directories", "30000", "e").is("DQUOT 0"),
			do("many-links", "30000", "e").is("DQUOT 0"),
		)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestFileOfTheLargestSize(t *testing.T) {
	(&world{}).steps(t,
		do("f=", "open", "crw", "f"),
		do("truncate", "f", maxInt64).is("FBIG"),
		do("truncate", "f", twoTo63).is("INVAL"),
		do("truncate", "f", "-1").is("INVAL"),
		do("allocate", "f", "0", maxInt64).is("FBIG"),
		do("allocate", "f", maxInt64, maxInt64).is("FBIG"),
		do("allocate", "f", twoTo63, twoTo63).is("INVAL"), // the sum wraps to 0
		do("allocate", "f", "-1", "1").is("INVAL"),
		do("pwrite", "f", "x", maxInt64).is("FBIG"),
		do("pwrite", "f", "x", "0x7ffffffffffffffe").is("FBIG"),
		do("pwrite", "f", "x", "-1").is("INVAL"),
		do("pread", "f", "1", "-1").is("INVAL"),
		do("pread", "f", "1", maxInt64).is("OK "),
		do("seek", "f", maxInt64, "0").is("OK "+maxInt64),
		do("write", "f", "x").is("FBIG"),
		do("read", "f", "1").is("OK "),
		do("seek", "f", "1", "1").is("INVAL"), // overflows
		do("seek", "f", "-1", "0").is("INVAL"),
		do("seek", "f", "0", "3").is("INVAL"),
		do("seek", "f", "0", "0xffffffff").is("INVAL"),
		do("fstat", "f").is("OK 4 0 *"),
	)
}

func TestHandleFlood(t *testing.T) {
	w := &world{limits: engine.Limits{Wall: time.Minute}}
	files := w.steps(t,
		do("f=", "open", "cw", "f"), do("mkdir", "d"),
		do("repeat", "30000", "open", "r", "f").is("MFILE 255"),
		do("open", "rd", "d").is("MFILE"),
		do("open", "rd", ".").is("MFILE"),
		do("close", "f"),
		do("repeat", "30000", "open", "rd", ".").is("MFILE 1"),
		do("stat", "f").is("OK 4 0 *"),
	)
	if n := files.Open(); n != 0 {
		t.Errorf("%d handles are left after the run", n)
	}
	w.config.Handles = 3
	w.steps(t,
		do("repeat", "30000", "open", "rd", ".").is("MFILE 3"),
		do("lutimes", "f", "1000", "1000", "5"), // needs none
	)
}

func TestSleepBeyondTheDeadline(t *testing.T) {
	for name, call := range map[string]engine.Call{
		"a sleep":                 {Args: []string{"sleep"}},
		"the longest poll_oneoff": {Params: []byte(`"poll-sleep"` + "\t" + `"` + maxInt64 + `"` + "\n")},
		"longer than the longest": {Params: []byte(`"poll-sleep"` + "\t" + `"-1"` + "\n")},
		"a moment":                {Params: []byte(`"poll-until"` + "\t" + `"1000000000000000"` + "\n")},
		"a loop of host calls":    {Args: []string{"spin"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{limits: engine.Limits{Wall: 200 * time.Millisecond, HostCalls: math.MaxUint64}}
			start := time.Now()
			_, files, err := w.run(t, call)
			var failed *engine.Failure
			if !errors.As(err, &failed) || failed.Kind != engine.DeadlineHit {
				t.Errorf("ended with %v, not at the deadline", err)
			}
			if d := time.Since(start); d > 20*time.Second {
				t.Errorf("ended after %v", d)
			}
			if n := files.Open(); n != 0 {
				t.Errorf("%d handles are left", n)
			}
		})
	}
}

func TestSleepThatIsCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(50*time.Millisecond, cancel)
	w := &world{ctx: ctx, limits: engine.Limits{Wall: time.Minute}}
	_, _, err := w.run(t, engine.Call{Args: []string{"sleep"}})
	var failed *engine.Failure
	if !errors.As(err, &failed) || failed.Kind != engine.Cancelled {
		t.Errorf("ended with %v, not cancelled", err)
	}
}

func TestPoll(t *testing.T) {
	(&world{}).steps(t,
		do("f=", "open", "crw", "f"),
		do("poll-sleep", "1000000").is("OK 0:0"),
		do("poll-until", "1000000").is("OK 0:0"),
		do("poll-until", "-1000000000").is("OK 0:0"), // gone by
		do("poll", "1", "f", "2", "f", "1", "stdin", "2", "stdout", "1", "99").is("OK 0:0 1:0 2:0 3:0 4:8"),
		do("poll", "0", "77").is("OK 0:28"), // no such clock
		do("poll", "3", "f").is("INVAL"),
		do("poll-count", "0").is("INVAL"),
		do("poll-count", "1025").is("INVAL"),
		do("poll-count", "0xffffffff").is("INVAL"),
		do("poll-count", "0x05555556").is("INVAL"), // times 48, it is 32
	)
}

func TestStandardStreamsMisused(t *testing.T) {
	w := &world{}
	w.steps(t,
		do("write", "stdin", "x").is("BADF"),
		do("read", "stdout", "1").is("BADF"),
		do("read", "stderr", "1").is("BADF"),
		do("futimes", "stdin", "1", "1", "5").is("NOTSUP"), // a nil dereference in wazero
		do("futimes", "stdout", "1", "1", "5").is("NOTSUP"),
		do("futimes", "stderr", "0", "0", "10").is("NOTSUP"),
		do("truncate", "stdout", "0").is("INVAL"),
		do("allocate", "stdout", "0", "10").is("SPIPE"),
		do("seek", "stdin", "0", "0").is("SPIPE"),
		do("tell", "stdout").is("SPIPE"),
		do("pread", "stdin", "1", "0").is("SPIPE"),
		do("pwrite", "stdout", "x", "0").is("SPIPE"),
		do("setflags", "stdin", "4").is("NOTSUP"), // would be the shell's as well
		do("setflags", "stdout", "0"),
		do("sync", "stdout"),
		do("readdir", "stdin", "4096", "0").is("BADF"),
		do("open", "r", "x", "stdin").is("NOTDIR"),
		do("prestat", "stdin", "10").is("BADF"),
		// Its number may be given to a file, which then is one.
		do("close", "stdin"),
		do("f=", "open", "crw", "f"),
		do("write", "0", "text").is("OK 4"),
		do("seek", "0", "1", "0").is("OK 1"),
		do("read", "0", "10").is("OK ext"),
		do("futimes", "0", "1000", "2000", "5"),
		do("fstat", "0").is("OK 4 4 2000"),
		do("close", "stderr"), do("write", "stderr", "x").is("BADF"),
	)
}

func TestPreopenedDirectoryClosed(t *testing.T) {
	(&world{}).steps(t,
		do("mkdir", "d"), do("d=", "open", "rd", "d"),
		do("close", "/"),
		do("open", "r", "d").is("BADF"),
		do("stat", "d").is("BADF"),
		do("mkdir", "e").is("BADF"),
		do("prestat", "/", "10").is("BADF"),
		do("f=", "open", "cw", "x", "d"), // takes its number
		do("prestat", "3", "10").is("BADF"),
		do("write", "3", "x").is("OK 1"),
		do("open", "r", "d", "3").is("NOTDIR"),
		do("close", "/"), do("close", "/").is("BADF"),
	)
}

func TestPreopenedName(t *testing.T) {
	(&world{}).steps(t,
		do("prestat", "/", "1").is("OK /"),
		do("prestat", "/", "100").is("OK /"),
		do("prestat", "/", "0").is("NAMETOOLONG"),
		do("prestat", "4", "0").is("BADF"),
		do("prestat-get", "/").is("OK 4294967296"), // a directory, with a name of 1
		do("prestat-get", "4").is("BADF"),
		do("prestat-get", "stdin").is("BADF"),
		do("prestat-get", "stdout").is("BADF"),
	)
}

// rules is a guard by path.
type rules map[string]error

func (r rules) Allow(op store.Op, path string) error {
	if err, ok := r[path]; ok && (op != store.OpStat || errors.Is(err, store.ErrHidden)) {
		return err
	}
	return nil
}

func TestDeniedAndHidden(t *testing.T) {
	no := errors.New("policy owner-only")
	w := &world{}
	w.steps(t, do("mkdir", "d"), do("open", "cw", "d/open"), do("open", "cw", "d/denied"), do("open", "cw", "d/hidden"))
	w.guard = rules{"/": no, "/d/denied": no, "/d/hidden": store.ErrHidden}
	w.steps(t,
		do("open", "r", "d/denied").is("ACCES"),
		do("open", "w", "d/denied").is("ACCES"),
		do("open", "rt", "d/denied").is("ACCES"),
		do("unlink", "d/denied").is("ACCES"),
		do("open", "r", "d/hidden").is("NOENT"),
		do("stat", "d/hidden").is("NOENT"),
		do("symlink", "denied", "d/link"), do("open", "r", "d/link").is("ACCES"),
		// The root cannot be listed, and what is below it can be reached.
		do("open", "r", "d/open"),
		do("readdir", "/", "4096", "0").is("ACCES"),
		do("fdstat", "/").is("OK 3 0"),
		do("stat", "d/open").is("OK 4 *"),
	)
}

// rootDenied is a guard that refuses everything about the root.
type rootDenied struct{}

func (rootDenied) Allow(_ store.Op, path string) error {
	if path == "/" {
		return errors.New("nothing here")
	}
	return nil
}

// A C library asks what the preopened directory is before it opens anything
// below it: a refusal there would take away what a policy allows.
func TestRootThatMayNotBeSeen(t *testing.T) {
	w := &world{}
	w.steps(t, do("mkdir", "d"), do("f=", "open", "cw", "d/f"), do("write", "f", "text"))
	w.guard = rootDenied{}
	w.steps(t,
		do("fdstat", "/").is("OK 3 0"),
		do("fstat", "/").is("OK 3 0 0"),
		do("f=", "open", "r", "d/f"), do("read", "f", "10").is("OK text"),
		do("r=", "open", "rd", "."), do("fstat", "r").is("OK 3 0 0"),
		do("readdir", "r", "4096", "0").is("ACCES"),
	)
}

// writesDenied is a guard that allows to read.
type writesDenied struct{}

func (writesDenied) Allow(op store.Op, _ string) error {
	if op == store.OpWrite || op == store.OpRemove {
		return errors.New("read only")
	}
	return nil
}

// wazero says O_RDONLY|O_TRUNC for rights to read and a wish to truncate.
func TestTruncateUnderTheRightToRead(t *testing.T) {
	w := &world{}
	w.steps(t, do("f=", "open", "cw", "f"), do("write", "f", "precious"))
	w.guard = writesDenied{}
	w.steps(t,
		do("open", "rt", "f").is("ACCES"),
		do("open", "t", "f").is("ACCES"),
		do("open", "wa", "f").is("ACCES"),
		do("open", "rc", "g").is("ACCES"),
		do("f=", "open", "r", "f"),
		do("truncate", "f", "0").is("INVAL"),
		do("futimes", "f", "1", "1", "5").is("ACCES"),
		do("read", "f", "100").is("OK precious"),
	)
}

func TestWriteInAReadOnlyTransaction(t *testing.T) {
	w := &world{}
	w.steps(t, do("f=", "open", "cw", "f"), do("write", "f", "x"))
	w.view = true
	w.steps(t,
		do("open", "w", "f").is("ROFS"),
		do("open", "cw", "g").is("ROFS"),
		do("mkdir", "d").is("ROFS"),
		do("unlink", "f").is("ROFS"),
		do("rename", "f", "g").is("ROFS"),
		do("symlink", "f", "g").is("ROFS"),
		do("utimes", "f", "1", "1", "5").is("ROFS"),
		do("f=", "open", "r", "f"), do("read", "f", "10").is("OK x"),
	)
}

func TestQuota(t *testing.T) {
	w := &world{store: mem.New(mem.Config{Limits: overlay.Limits{StagedBytes: 100, FileSize: 90}})}
	w.steps(t,
		do("f=", "open", "cw", "f"),
		do("truncate", "f", "91").is("FBIG"),
		do("pwrite", "f", "x", "90").is("FBIG"),
		do("truncate", "f", "80"),
		do("g=", "open", "cw", "g"),
		do("truncate", "g", "30").is("DQUOT"),
		do("write", "g", strings.Repeat("x", 30)).is("DQUOT"),
		do("write", "g", "fits").is("OK 4"),
	)
}

func TestTimes(t *testing.T) {
	(&world{}).steps(t,
		do("f=", "open", "cw", "f"), do("symlink", "f", "link"),
		do("utimes", "f", "1000", "2000", "5"), do("stat", "f").is("OK 4 0 2000"),
		do("utimes", "f", "0", "0", "5"), do("stat", "f").is("OK 4 0 0"),
		do("futimes", "f", "1000", "3000", "5"), do("stat", "f").is("OK 4 0 3000"),
		do("futimes", "f", "9", "9", "1"), do("stat", "f").is("OK 4 0 3000"), // mtime omitted
		do("utimes", "link", "0", "4000", "4"), do("stat", "f").is("OK 4 0 4000"),
		do("lutimes", "link", "0", "5000", "4"), do("stat", "f").is("OK 4 0 4000"),
		do("lstat", "link").is("OK 7 1 5000"),
		do("utimes", "f", twoTo63, "1", "5").is("INVAL"),
		do("utimes", "f", "1", "-1", "5").is("INVAL"),
		do("futimes", "f", twoTo63, "1", "5").is("INVAL"),
		do("futimes", "f", "1", "1", "3").is("INVAL"), // this moment, and another
		do("futimes", "f", "1", "1", "16").is("INVAL"),
		do("lutimes", "none", "1", "1", "5").is("NOENT"),
		do("stat", "f").is("OK 4 0 4000"),
	)
}

func TestAppendSwitchedOnAndOff(t *testing.T) {
	(&world{}).steps(t,
		do("f=", "open", "crwa", "f"), do("fdstat", "f").is("OK 4 1"),
		do("write", "f", "ab").is("OK 2"), do("seek", "f", "0", "0"), do("write", "f", "cd").is("OK 2"),
		do("tell", "f").is("OK 4"),
		do("setflags", "f", "0"), do("seek", "f", "0", "0"), do("write", "f", "X").is("OK 1"),
		do("setflags", "f", "1"), do("write", "f", "e").is("OK 1"),
		do("setflags", "f", "5"),  // non-blocking means nothing here
		do("setflags", "f", "26"), // nor do the three kinds of syncing
		do("setflags", "f", "32").is("INVAL"),
		do("pread", "f", "10", "0").is("OK Xbcde"),
	)
}

func TestRandom(t *testing.T) {
	(&world{}).steps(t,
		do("random", "3000000").is("OK true"),
		do("random", "0").is("OK true"),
		do("random-at", "0xffffff00", "0x1000").is("FAULT"),
		do("random-at", "0", "0xffffffff").is("FAULT"),
		do("raise", "9").is("NOSYS"),
	)
}

func TestSocketsThatAreNone(t *testing.T) {
	var steps []step
	for _, f := range []string{"accept", "recv", "send", "shutdown"} {
		steps = append(steps, do("sock", f, "stdin").is("NOTSOCK"), do("sock", f, "/").is("NOTSOCK"),
			do("sock", f, "99").is("BADF"), do("sock", f, "-1").is("BADF"))
	}
	(&world{}).steps(t, steps...)
}

func TestSyncLoopCostsTheNeighboursNothing(t *testing.T) {
	(&world{}).steps(t,
		do("f=", "open", "cw", "f"), do("repeat", "1000", "sync", "f").is("OK 1000"),
		do("sync", "/"), do("sync", "99").is("BADF"),
	)
}

func TestDirectoryEmptiedWhileItIsRead(t *testing.T) {
	if _, _, err := (&world{}).run(t, engine.Call{Args: []string{"empty"}}); err != nil {
		t.Error(err)
	}
}

func TestDirectoriesNestedWithoutEnd(t *testing.T) {
	w := &world{limits: engine.Limits{Wall: time.Minute}}
	out, _, err := w.run(t, engine.Call{Args: []string{"deep"}})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out.Result), "name too long") {
		t.Errorf("it ended with %q", out.Result)
	}
}
