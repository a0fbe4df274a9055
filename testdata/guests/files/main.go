// files does to its files what the lines on stdin tell it, through package os and
// so through WASI, and answers each with a line: "ok", what was asked for, or
// "error: …".
//
//	write PATH TEXT     make or replace a file
//	append PATH TEXT    add to the end of one
//	read PATH           its contents, quoted
//	list PATH           the names in a directory
//	stat PATH           mode and size, not following a link at the end
//	mkdir PATH, remove PATH, rename FROM TO, symlink TARGET PATH, readlink PATH
package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if answer, err := do(lines.Text()); err != nil {
			fmt.Println("error:", err)
		} else {
			fmt.Println(answer)
		}
	}
	if err := lines.Err(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func do(line string) (string, error) {
	op, rest, _ := strings.Cut(line, " ")
	path, text, _ := strings.Cut(rest, " ")
	switch op {
	case "write":
		return "ok", os.WriteFile(path, []byte(text), 0o644)
	case "append":
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
		if err != nil {
			return "", err
		}
		if _, err := f.WriteString(text); err != nil {
			f.Close()
			return "", err
		}
		return "ok", f.Close()
	case "read":
		b, err := os.ReadFile(path)
		return fmt.Sprintf("%q", b), err
	case "list":
		entries, err := os.ReadDir(path)
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return strings.Join(names, " "), err
	case "stat":
		info, err := os.Lstat(path)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%s %d", info.Mode().Type(), info.Size()), nil
	case "mkdir":
		return "ok", os.Mkdir(path, 0o755)
	case "remove":
		return "ok", os.Remove(path)
	case "rename":
		return "ok", os.Rename(path, text)
	case "symlink":
		return "ok", os.Symlink(path, text)
	case "readlink":
		return os.Readlink(path)
	}
	return "", fmt.Errorf("no operation %q", op)
}
