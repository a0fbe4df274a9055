//go:build wasip1

// suite is the Go guest of guest-sdk/sdktest's suite, which says what each entry
// does.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"

	"github.com/circles-host/circles/guest-sdk/go"
)

func main() {}

//go:wasmexport run
func run(ptr, n uint32) uint32 {
	return circles.Handle(ptr, n, func(params []byte) ([]byte, error) { return params, nil })
}

// of is the target, or the caller if the word is in capitals.
func of(word string) *circles.Context {
	if strings.ToLower(word) != word {
		return circles.Caller()
	}
	return circles.Target()
}

// answer says what an operation came to.
func answer(out []byte, err error, passOn bool) ([]byte, error) {
	var e *circles.Error
	if !errors.As(err, &e) || passOn {
		return out, err
	}
	has := "with"
	if e.Message == "" {
		has = "without"
	}
	out = fmt.Appendf(nil, "code %d, %s a message", e.Code, has)
	for _, v := range circles.Violations(err) {
		out = fmt.Appendf(out, "; %s: %s", v.Path, v.Reason)
	}
	return out, nil
}

func text(b []byte, err error) ([]byte, error) {
	return fmt.Appendf(nil, "%d %s", len(b), b), err
}

//go:wasmexport op
func op(ptr, n uint32) uint32 {
	return circles.Handle(ptr, n, func(params []byte) (out []byte, err error) {
		words := append(strings.SplitN(string(params), " ", 3), "", "")
		c, path, rest := of(words[0]), words[1], words[2]
		switch strings.ToLower(words[0]) {
		case "read":
			out, err = text(c.ReadFile(path))
		case "part":
			offset, _ := strconv.ParseUint(rest, 10, 64)
			out, err = text(c.ReadAt(path, offset, 3))
		case "write":
			err = c.WriteFile(path, []byte(rest))
		case "append":
			err = c.Append(path, []byte(rest))
		case "mkdir":
			err = c.Mkdir(path)
		case "remove":
			err = c.Remove(path)
		case "stat":
			var info fs.FileInfo
			if info, err = c.Stat(path); err == nil {
				out = fmt.Appendf(nil, "kind %d size %d modified %d", kind(info.Mode()), info.Size(), info.ModTime().UnixMilli())
			}
		case "list":
			var list []fs.DirEntry
			list, err = c.ReadDir(path)
			for _, e := range list {
				out = fmt.Appendf(out, "%s:%d ", e.Name(), kind(e.Type()))
			}
		case "who":
			out = []byte(c.ID() + " " + c.Name())
		default:
			return nil, errors.New("params: no such operation")
		}
		return answer(out, err, rest == "pass on")
	})
}

func kind(m fs.FileMode) int {
	switch {
	case m.IsDir():
		return 1
	case m&fs.ModeSymlink != 0:
		return 2
	}
	return 0
}

//go:wasmexport record
func record(ptr, n uint32) uint32 {
	return circles.Handle(ptr, n, func(params []byte) (out []byte, err error) {
		words := append(strings.SplitN(string(params), " ", 4), "", "", "")
		c, key, rest := of(words[0]).Collection(words[1]), words[2], words[3]
		switch strings.ToLower(words[0]) {
		case "get":
			out, err = text(c.Get(key))
		case "put":
			err = c.Put(key, []byte(rest))
		case "delete":
			err = c.Delete(key)
		case "make":
			err = c.Replace(key, nil, []byte(rest))
		case "replace":
			expected, value, _ := strings.Cut(rest, " ")
			err = c.Replace(key, []byte(expected), []byte(value))
		case "list":
			prefix, limit, _ := strings.Cut(rest, " ")
			out, err = shown(c.Page(strings.TrimPrefix(key, "-"), strings.TrimPrefix(prefix, "-"), number(limit)))
		case "query":
			limit, query, _ := strings.Cut(rest, " ")
			out, err = shown(c.QueryPage(query, strings.TrimPrefix(key, "-"), number(limit)))
		}
		return answer(out, err, false)
	})
}

func number(s string) uint32 {
	n, _ := strconv.ParseUint(s, 10, 32)
	return uint32(n)
}

// shown is a page of records.
func shown(page []circles.Record, next string, err error) (out []byte, _ error) {
	for _, r := range page {
		if r.Denied {
			r.Value = []byte("(denied)")
		}
		out = fmt.Appendf(out, "%s=%s ", r.Key, r.Value)
	}
	return append(out, "next:"+next...), err
}

//go:wasmexport others
func others(ptr, n uint32) uint32 {
	return circles.Handle(ptr, n, func(params []byte) (out []byte, err error) {
		words := append(strings.SplitN(string(params), " ", 5), "", "", "", "")
		name, logic, entry := words[1], words[2], strings.TrimPrefix(words[3], "-")
		switch rest := []byte(words[4]); strings.ToLower(words[0]) {
		case "call":
			out, err = text(circles.Call(name, entry, rest))
		case "base":
			out, err = text(circles.Base(entry, rest))
		case "send":
			out, err = text(of(words[0]).Send(name, logic, entry, rest))
		case "entry":
			out = []byte(circles.Entry())
		}
		return answer(out, err, false)
	})
}

//go:wasmexport log-lines
func logLines(ptr, n uint32) uint32 {
	return circles.Handle(ptr, n, func(params []byte) ([]byte, error) {
		for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
			circles.Log(l, string(params))
		}
		return nil, nil
	})
}

//go:wasmexport fail
func fail(ptr, n uint32) uint32 {
	return circles.Handle(ptr, n, func(params []byte) ([]byte, error) {
		if string(params) == "trap" {
			panic("as it was told to")
		}
		return nil, errors.New(string(params))
	})
}

//go:wasmexport large
func large(ptr, n uint32) uint32 {
	return circles.Handle(ptr, n, func(params []byte) ([]byte, error) {
		const part = 16 << 20
		parts, err := strconv.Atoi(string(params))
		if err != nil {
			return nil, err
		}
		at := func(n, i int) byte { return byte(i*7 + i/251 + n) }
		b := make([]byte, part)
		put := circles.Target().WriteFile
		for n := range parts {
			for i := range b {
				b[i] = at(n, i)
			}
			if err := put("/large", b); err != nil {
				return nil, err
			}
			put = circles.Target().Append
		}
		total := 0
		for n := range parts {
			got, err := circles.Target().ReadAt("/large", uint64(n*part), part)
			if err != nil {
				return nil, err
			}
			for i, b := range got {
				if b != at(n, i) {
					return nil, fmt.Errorf("byte %d of part %d is another", i, n)
				}
			}
			total += len(got)
		}
		return strconv.AppendInt(nil, int64(total), 10), nil
	})
}

//go:wasmexport habits
func habits(ptr, n uint32) uint32 {
	return circles.Handle(ptr, n, func([]byte) ([]byte, error) {
		if _, err := fs.ReadFile(circles.Target().FS(), "none"); !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("a file that is not there: %v", err)
		}
		f, err := circles.Target().FS().Open("dir/file")
		if err != nil {
			return nil, err
		}
		defer f.Close()
		if word, err := bufio.NewReader(f).ReadString('d'); word != "abcd" {
			return nil, fmt.Errorf("read %q: %v", word, err)
		}
		many, sum := circles.Target().Collection("many"), 0
		for i := range 25 {
			if err := many.Put(fmt.Sprintf("%02d", i), fmt.Append(nil, i)); err != nil {
				return nil, err
			}
		}
		for r, err := range many.All("1") {
			if err != nil {
				return nil, err
			}
			i, _ := strconv.Atoi(string(r.Value))
			sum += i
		}
		if sum != 145 {
			return nil, fmt.Errorf("the sum is %d", sum)
		}
		return []byte("ok"), nil
	})
}

//go:wasmexport queries
func queries(ptr, n uint32) uint32 {
	return circles.Handle(ptr, n, func([]byte) ([]byte, error) {
		all := circles.Target().Collection("found")
		for i := range 25 {
			if err := all.Put(fmt.Sprintf("%02d", i), fmt.Appendf(nil, `{"n":%d}`, i)); err != nil {
				return nil, err
			}
		}
		n := circles.Field("/n")
		for _, tc := range []struct {
			query circles.Query
			want  string
		}{
			{circles.Query{Limit: 12}, "00 01 02 03 04 05 06 07 08 09 10 11"},
			{circles.Query{Where: circles.And(n.From(5).Below(20), circles.Or(n.Above(8), n.Equals(6))), Order: []circles.Order{{Field: "/n", Descending: true}}, Limit: 12},
				"19 18 17 16 15 14 13 12 11 10 09 06"},
			{circles.Query{Where: n.To(1)}, "00 01"},
			{circles.Query{Where: n.Prefix("1")}, ""},
		} {
			var found []string
			for r, err := range all.Query(tc.query) {
				if err != nil {
					return nil, err
				}
				found = append(found, r.Key)
			}
			if got := strings.Join(found, " "); got != tc.want {
				return nil, fmt.Errorf("the query finds %s, want %s", got, tc.want)
			}
		}
		return []byte("ok"), nil
	})
}

//go:wasmimport circles:host/contexts@0.1.2 [method]context.read
func rawRead(self, path, n, ret uint32)

//go:wasmimport circles:host/contexts@0.1.2 [method]context.list-records
func rawList(self, name, n, start, startLen, prefix, prefixLen, limit, ret uint32)

//go:wasmimport circles:host/contexts@0.1.2 [resource-drop]context
func rawDrop(self uint32)

//go:wasmimport circles:host/contexts@0.1.2 target
func rawTarget() uint32

//go:wasmimport circles:host/log@0.1.2 write
func rawLog(level, message, n uint32)

//go:wasmexport raw
func raw(ptr, n uint32) uint32 {
	return circles.Handle(ptr, n, func(params []byte) ([]byte, error) {
		words := strings.Fields(string(params))
		var v [9]uint32
		for i, w := range words[1:] {
			n, err := strconv.ParseUint(w, 10, 32)
			if err != nil {
				return nil, err
			}
			v[i] = uint32(n)
		}
		switch words[0] {
		case "read":
			rawRead(v[0], v[1], v[2], v[3])
		case "list":
			rawList(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8])
		case "drop":
			rawDrop(v[0])
		case "log":
			rawLog(v[0], v[1], v[2])
		case "open":
			for range v[0] {
				rawTarget()
			}
		default:
			return nil, errors.New("params: no such function")
		}
		return nil, nil
	})
}
