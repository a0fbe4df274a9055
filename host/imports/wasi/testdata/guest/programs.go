package main

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unsafe"
)

// program is an ordinary program, on Go's own library.
func program(name string) {
	var err error
	switch name {
	case "ordinary":
		err = ordinary()
	case "deep":
		err = deep()
	case "args":
		var args, env []string
		for _, a := range os.Args {
			args = append(args, strconv.Quote(a))
		}
		for _, e := range os.Environ() {
			env = append(env, strconv.Quote(e))
		}
		os.Stdout.WriteString(strings.Join(args, " ") + "\n" + strings.Join(env, " ") + "\n")
	case "exit":
		code, _ := strconv.Atoi(os.Args[2])
		os.Exit(code)
	case "spin":
		for {
			os.Stat("/") // a loop of nothing but host calls
		}
	case "sleep":
		time.Sleep(time.Hour)
	case "watch":
		for range 20 {
			b, err := os.ReadFile("/d/f")
			if err == nil && string(b) != "inside" {
				println("read", string(b))
				os.Exit(1)
			}
		}
	case "swap":
		n, _ := strconv.Atoi(os.Args[2])
		err = swap(n)
	case "stats":
		n, _ := strconv.Atoi(os.Args[2])
		for range n {
			var b [64]byte
			pathFilestatGet(3, 1, ptr("."), 1, unsafe.Pointer(&b))
		}
	case "bench":
		var took time.Duration
		took, err = bench(os.Args[2])
		os.Stdout.WriteString(strconv.FormatInt(int64(took), 10))
	case "empty":
		err = empty()
	default:
		err = errors.New("no program " + name)
	}
	if err != nil {
		println(err.Error())
		os.Exit(1)
	}
}

// wrong reports a result that is not what was written.
func wrong(what string, err error) error {
	if err == nil {
		err = errors.New("not what it should be")
	}
	return errors.Join(errors.New(what), err)
}

// ordinary does to files what programs do, and checks what it sees.
func ordinary() error {
	if err := os.MkdirAll("/notes/old", 0o755); err != nil {
		return err
	}
	if err := os.WriteFile("/notes/a.txt", []byte("first"), 0o644); err != nil {
		return err
	}
	f, err := os.OpenFile("/notes/a.txt", os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(" second"); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	when := time.Date(2020, 2, 3, 4, 5, 6, 789, time.UTC)
	if err := os.Chtimes("/notes/a.txt", when, when); err != nil {
		return err
	}
	if err := os.Rename("/notes/a.txt", "/notes/old/b.txt"); err != nil {
		return err
	}
	if err := os.Symlink("old/b.txt", "/notes/link"); err != nil {
		return err
	}
	if target, err := os.Readlink("/notes/link"); err != nil || target != "old/b.txt" {
		return wrong("readlink", err)
	}
	got, err := os.ReadFile("/notes/link")
	if err != nil || string(got) != "first second" {
		return wrong("read through a link", err)
	}
	info, err := os.Stat("/notes/link")
	if err != nil || info.Size() != 12 || !info.ModTime().Equal(when) || !info.Mode().IsRegular() {
		return wrong("stat", err)
	}
	if info, err := os.Lstat("/notes/link"); err != nil || info.Mode().Type() != fs.ModeSymlink {
		return wrong("lstat", err)
	}
	if err := os.WriteFile("/notes/gone", nil, 0o644); err != nil {
		return err
	}
	if err := os.Remove("/notes/gone"); err != nil {
		return err
	}
	if _, err := os.Stat("/notes/gone"); !errors.Is(err, fs.ErrNotExist) {
		return wrong("stat of what was removed", err)
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	if err := os.WriteFile("/notes/big", big, 0o644); err != nil {
		return err
	}
	f, err = os.OpenFile("/notes/big", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if at, err := f.Seek(-16, io.SeekEnd); err != nil || at != 1<<20-16 {
		return wrong("seek", err)
	}
	if _, err := f.WriteAt([]byte("X"), 1<<20-1); err != nil {
		return err
	}
	tail, err := io.ReadAll(f)
	if err != nil || string(tail) != "0123456789abcdeX" {
		return wrong("read after seek", err)
	}
	if err := f.Truncate(3); err != nil {
		return err
	}
	for i := range 3000 {
		if err := os.WriteFile("/notes/old/many-"+strconv.Itoa(i), nil, 0o644); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir("/notes/old")
	if err != nil || len(entries) != 3001 {
		return wrong("readdir", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "many-") {
			if err := os.Remove("/notes/old/" + e.Name()); err != nil {
				return err
			}
		}
	}
	return filepath.WalkDir("/", func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			os.Stdout.WriteString(path + " " + d.Type().String() + "\n")
		}
		return err
	})
}

// deep makes a directory in a directory until it may not.
func deep() error {
	path := ""
	for i := range 100_000 {
		path += "/d"
		if err := os.Mkdir(path, 0o755); err != nil {
			os.Stdout.WriteString(strconv.Itoa(i) + " " + errors.Unwrap(err).Error() + "\n")
			break
		}
	}
	return os.RemoveAll("/d")
}

// empty removes what is in a directory while it reads it.
func empty() error {
	if err := os.Mkdir("/full", 0o755); err != nil {
		return err
	}
	for i := range 2000 {
		if err := os.WriteFile("/full/"+strconv.Itoa(i), nil, 0o644); err != nil {
			return err
		}
	}
	d, err := os.Open("/full")
	if err != nil {
		return err
	}
	for {
		names, err := d.Readdirnames(100)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		for _, n := range names {
			if err := os.Remove("/full/" + n); err != nil {
				return err
			}
		}
	}
	d.Close()
	return os.Remove("/full")
}

// bench does one kind of work on files, with as little around it as there can be,
// and tells how long that took. BenchmarkGuest does the same in Go.
func bench(what string) (time.Duration, error) {
	kind, size, _ := strings.Cut(what, "-")
	buf := []byte{0}
	if n, err := strconv.Atoi(size); err == nil {
		buf = make([]byte, n)
	}
	for i := range buf {
		buf[i] = byte(i) // so that the memory is there
	}
	vec := []iovec{{address(unsafe.Pointer(&buf[0])), uint32(len(buf))}}
	var n, fd uint32
	open := func(path string, how uint32, rights uint64) error {
		if e := pathOpen(3, 1, ptr(path), uint32(len(path)), how, rights, 0, 0, unsafe.Pointer(&fd)); e != 0 {
			return errors.New("open " + path + ": errno " + strconv.Itoa(int(e)))
		}
		return nil
	}
	failed := func(call string, e uint32) error { return errors.New(call + ": errno " + strconv.Itoa(int(e))) }
	names := make([]string, 1000)
	for i := range names {
		names[i] = "many/" + strconv.Itoa(i)
	}
	start := time.Now()
	switch kind {
	case "read":
		if err := open("big", 0, 1<<1); err != nil {
			return 0, err
		}
		for {
			if e := fdRead(fd, unsafe.Pointer(&vec[0]), 1, unsafe.Pointer(&n)); e != 0 {
				return 0, failed("read", e)
			}
			if n == 0 {
				break
			}
		}
	case "write":
		if err := open("new", 1|8, 1<<6); err != nil {
			return 0, err
		}
		for range 16 << 20 / len(buf) {
			if e := fdWrite(fd, unsafe.Pointer(&vec[0]), 1, unsafe.Pointer(&n)); e != 0 || int(n) != len(buf) {
				return 0, failed("write", e)
			}
		}
	case "open":
		for _, name := range names {
			var stat [64]byte
			if err := open(name, 0, 1<<1|1<<21); err != nil {
				return 0, err
			}
			if e := fdFilestatGet(fd, unsafe.Pointer(&stat)); e != 0 {
				return 0, failed("stat", e)
			}
			fdClose(fd)
		}
		return time.Since(start), nil
	case "list":
		if err := open("many", 2, 1<<14); err != nil {
			return 0, err
		}
		buf := make([]byte, 4096) // as libc
		total, cookie := 0, uint64(0)
		for {
			if e := fdReaddir(fd, unsafe.Pointer(&buf[0]), uint32(len(buf)), cookie, unsafe.Pointer(&n)); e != 0 {
				return 0, failed("readdir", e)
			}
			for p := buf[:n]; len(p) >= 24; {
				l := int(p[16]) | int(p[17])<<8
				if len(p) < 24+l {
					break
				}
				total, cookie = total+1, *(*uint64)(unsafe.Pointer(&p[0]))
				p = p[24+l:]
			}
			if int(n) < len(buf) {
				break
			}
		}
		if total != 10_002 {
			return 0, errors.New(strconv.Itoa(total) + " entries")
		}
	}
	fdClose(fd)
	return time.Since(start), nil
}

// swap puts links that would lead out, if they could, where others look: one move
// a run, so that each of the states in between is there for a while.
func swap(n int) error {
	for _, d := range []string{"/a", "/a/b", "/a/b/c"} {
		if err := os.Mkdir(d, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	for _, link := range [][2]string{
		{"../outside", "/link"}, {"/outside", "/link"}, // refused
		{"../outside", "/a/b/link"}, {"../../outside/f", "/a/b/c/file"}, // good where they are
	} {
		_ = os.Symlink(link[0], link[1])
	}
	moves := [][2]string{
		{"/d", "/aside"}, {"/a/b/link", "/d"}, {"/d", "/a/b/link"}, {"/aside", "/d"},
		{"/d/f", "/aside"}, {"/a/b/c/file", "/d/f"}, {"/d/f", "/a/b/c/file"}, {"/aside", "/d/f"},
	}
	move := moves[n%len(moves)]
	return os.Rename(move[0], move[1])
}
