package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// program is an ordinary program, on Go's own library.
func program(name string) {
	var err error
	switch name {
	case "ordinary":
		err = ordinary()
	case "deep":
		err = deep()
	case "spin":
		for {
			os.Stat("/") // a loop of nothing but host calls
		}
	case "sleep":
		time.Sleep(time.Hour)
	case "empty":
		err = empty()
	default:
		err = fmt.Errorf("no program %s", name)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
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
		return fmt.Errorf("readlink: %q, %v", target, err)
	}
	got, err := os.ReadFile("/notes/link")
	if err != nil || string(got) != "first second" {
		return fmt.Errorf("read through a link: %q, %v", got, err)
	}
	info, err := os.Stat("/notes/link")
	if err != nil || info.Size() != 12 || !info.ModTime().Equal(when) || !info.Mode().IsRegular() {
		return fmt.Errorf("stat: %v, %v", info, err)
	}
	if info, err := os.Lstat("/notes/link"); err != nil || info.Mode().Type() != fs.ModeSymlink {
		return fmt.Errorf("lstat: %v, %v", info, err)
	}
	if err := os.WriteFile("/notes/gone", nil, 0o644); err != nil {
		return err
	}
	if err := os.Remove("/notes/gone"); err != nil {
		return err
	}
	if _, err := os.Stat("/notes/gone"); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("stat of what was removed: %v", err)
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
		return fmt.Errorf("seek: %d, %v", at, err)
	}
	if _, err := f.WriteAt([]byte("X"), 1<<20-1); err != nil {
		return err
	}
	tail, err := io.ReadAll(f)
	if err != nil || string(tail) != "0123456789abcdeX" {
		return fmt.Errorf("read after seek: %q, %v", tail, err)
	}
	if err := f.Truncate(3); err != nil {
		return err
	}
	for i := range 3000 {
		if err := os.WriteFile(fmt.Sprintf("/notes/old/many-%04d", i), nil, 0o644); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir("/notes/old")
	if err != nil || len(entries) != 3001 {
		return fmt.Errorf("readdir: %d, %v", len(entries), err)
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
			fmt.Println(path, d.Type())
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
			fmt.Println(i, errors.Unwrap(err))
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
		if err := os.WriteFile(fmt.Sprintf("/full/%04d", i), nil, 0o644); err != nil {
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
