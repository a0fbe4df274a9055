//go:build wasip1

// sdk is a reactor that puts guest-sdk/go to its tests. Its entries are small and
// do one thing each; what they hold is said in guest-sdk/sdktest.
package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing/fstest"

	"github.com/circles-host/circles/guest-sdk/go"
)

func main() {}

// me is made at init, where no context may be asked for anything.
var me = circles.Target()

//go:wasmexport run
func run(ptr, n uint32) uint32 { return circles.Handle(ptr, n, echo) }

func echo(params []byte) ([]byte, error) { return params, nil }

type greeting struct {
	Name  string `json:"name"`
	Times int    `json:"times"`
}

//go:wasmexport greet
func greet(ptr, n uint32) uint32 {
	return circles.HandleJSON(ptr, n, func(g greeting) (map[string]string, error) {
		if g.Times > 3 {
			return nil, fmt.Errorf("greet %s: %d times is too often", g.Name, g.Times)
		}
		return map[string]string{"text": strings.Repeat("hello, "+g.Name+" ", g.Times)}, nil
	})
}

// fail ends as its params say.
//
//go:wasmexport fail
func fail(ptr, n uint32) uint32 {
	return circles.Handle(ptr, n, func(params []byte) ([]byte, error) {
		switch string(params) {
		case "panic":
			panic("boom")
		case "index":
			return params[:0:0][len(params):][:1], nil
		case "not utf-8":
			return nil, errors.New("bad \xff byte")
		case "empty":
			return nil, nil
		case "exit":
			os.Exit(3)
		}
		return nil, errors.New(string(params))
	})
}

// who says who the peers are.
//
//go:wasmexport who
func who(ptr, n uint32) uint32 {
	return circles.Handle(ptr, n, func([]byte) ([]byte, error) {
		return fmt.Appendf(nil, "%s %s, %s %s", circles.Caller().Name(), circles.Caller().ID(), me.Name(), me.ID()), nil
	})
}

// read reads the file that params name in the caller.
//
//go:wasmexport read
func read(ptr, n uint32) uint32 {
	return circles.Handle(ptr, n, func(params []byte) ([]byte, error) {
		return circles.Caller().ReadFile(string(params))
	})
}

// classify says which errors an operation on the target failed with.
//
//go:wasmexport classify
func classify(ptr, n uint32) uint32 {
	return circles.Handle(ptr, n, func(params []byte) ([]byte, error) {
		op, path, _ := strings.Cut(string(params), " ")
		var err error
		switch op {
		case "read":
			_, err = me.ReadFile(path)
		case "steal":
			_, err = circles.Caller().ReadFile(path)
		case "deface":
			err = circles.Caller().WriteFile(path, []byte("x"))
		case "write":
			err = me.WriteFile(path, []byte("x"))
		case "append":
			err = me.Append(path, []byte("x"))
		case "mkdir":
			err = me.Mkdir(path)
		case "remove":
			err = me.Remove(path)
		case "list":
			_, err = me.ReadDir(path)
		case "stat":
			_, err = me.Stat(path)
		}
		if err == nil {
			return []byte("ok"), nil
		}
		var e *circles.Error
		if !errors.As(err, &e) {
			return nil, fmt.Errorf("%T is not a *circles.Error", err)
		}
		s := e.Code.String()
		for name, is := range map[string]error{
			"ErrNotExist": fs.ErrNotExist, "ErrPermission": fs.ErrPermission, "ErrExist": fs.ErrExist, "ErrInvalid": fs.ErrInvalid,
		} {
			if errors.Is(err, is) {
				s += " " + name
			}
		}
		return []byte(s), nil
	})
}

// records says what an operation on records gives: "get C KEY", "put C KEY VALUE",
// "delete C KEY", "page C START PREFIX LIMIT" with "-" for nothing, "all C PREFIX";
// in capitals, of the caller.
//
//go:wasmexport records
func records(ptr, n uint32) uint32 {
	return circles.Handle(ptr, n, func(params []byte) ([]byte, error) {
		words := append(strings.SplitN(string(params), " ", 5), "", "", "", "")
		for i, w := range words {
			if w == "-" {
				words[i] = ""
			}
		}
		of := me
		if words[0] != strings.ToLower(words[0]) {
			of = circles.Caller()
		}
		c := of.Collection(words[1])
		var out []byte
		var err error
		switch strings.ToLower(words[0]) {
		case "get":
			out, err = c.Get(words[2])
		case "put":
			err = c.Put(words[2], []byte(words[3]))
		case "delete":
			err = c.Delete(words[2])
		case "page":
			limit, _ := strconv.Atoi(words[4])
			var page []circles.Record
			var next string
			page, next, err = c.Page(words[2], words[3], uint32(limit))
			for _, r := range page {
				out = fmt.Appendf(out, "%s=%s:%t ", r.Key, r.Value, r.Denied)
			}
			out = append(out, next...)
		case "all":
			for r, failure := range c.All(words[2]) {
				if err = failure; err == nil {
					out = fmt.Appendf(out, "%s=%s ", r.Key, r.Value)
				}
			}
		}
		var e *circles.Error
		if errors.As(err, &e) {
			return fmt.Appendf(nil, "%v %s %s", e.Code, e.Op, e.Path), nil
		}
		return out, err
	})
}

// testfs runs the standard library's own test of an fs.FS, on the target's.
//
//go:wasmexport testfs
func testfs(ptr, n uint32) uint32 {
	return circles.Handle(ptr, n, func(params []byte) ([]byte, error) {
		return nil, fstest.TestFS(me.FS(), strings.Fields(string(params))...)
	})
}

// stream reads a file of the target in parts of 1,000 bytes and counts them.
//
//go:wasmexport stream
func stream(ptr, n uint32) uint32 {
	return circles.Handle(ptr, n, func(params []byte) ([]byte, error) {
		f, err := me.FS().Open(string(params))
		if err != nil {
			return nil, err
		}
		defer f.Close()
		buf, total, parts := make([]byte, 1000), 0, 0
		for {
			n, err := f.Read(buf)
			for _, b := range buf[:n] {
				if b != byte(total) {
					return nil, fmt.Errorf("byte %d is %d", total, b)
				}
				total++
			}
			if n > 0 {
				parts++
			}
			if err == io.EOF {
				return fmt.Appendf(nil, "%d bytes in %d parts", total, parts), nil
			}
			if err != nil {
				return nil, err
			}
		}
	})
}

//go:wasmexport log
func log(ptr, n uint32) uint32 {
	return circles.Handle(ptr, n, func([]byte) ([]byte, error) {
		circles.Log(slog.LevelDebug, "plain \xff")
		l := slog.New(circles.LogHandler(nil)).With("who", "alice")
		l.Debug("below the level")
		l.Info("signed the book", "entry", 3)
		l.WithGroup("g").Error("failed", "why", "no pen")
		return nil, nil
	})
}

// deep grows its stack before each of 200 reads and lets go of it, so that a
// collection during the read shrinks the stack under the waiting call.
//
//go:wasmexport deep
func deep(ptr, n uint32) uint32 {
	return circles.Handle(ptr, n, func(params []byte) ([]byte, error) {
		bad := 0
		for range 200 {
			recurse(400)
			b, err := circles.Caller().ReadFile(string(params))
			if err != nil || len(b) != 19 || string(b) != "hello from the host" {
				bad++
			}
			recurse(400)
			if s, err := circles.Caller().Stat(string(params)); err != nil || s.Size() != 19 {
				bad++
			}
		}
		return fmt.Appendf(nil, "%d bad", bad), nil
	})
}

//go:noinline
func recurse(n int) int {
	var a [256]int
	for i := range a {
		a[i] = n + i
	}
	if n == 0 {
		return a[3]
	}
	return recurse(n-1) + a[n%256]
}

// names lists the root of the target and checks each name against its number.
//
//go:wasmexport names
func names(ptr, n uint32) uint32 {
	return circles.Handle(ptr, n, func([]byte) ([]byte, error) {
		list, err := me.ReadDir("/")
		if err != nil {
			return nil, err
		}
		for i, e := range list {
			if want := fmt.Sprintf("file-%03d-%s", i, strings.Repeat("x", i%40)); e.Name() != want {
				return nil, fmt.Errorf("entry %d is %q, want %q", i, e.Name(), want)
			}
		}
		return fmt.Appendf(nil, "%d names", len(list)), nil
	})
}

var litter [][]byte

// collect collects garbage, and overwrites what was freed. It is not an entry:
// the test host calls it inside cabi_realloc's callers.
//
//go:wasmexport collect
func collect() {
	runtime.GC()
	runtime.GC()
	litter = nil
	for size := 8; size <= 4096; size *= 2 {
		for range 16 {
			b := make([]byte, size)
			for i := range b {
				b[i] = 0xEE
			}
			litter = append(litter, b)
		}
	}
}

// race lets several goroutines use the host at once.
//
//go:wasmexport race
func race(ptr, n uint32) uint32 {
	return circles.Handle(ptr, n, func(params []byte) ([]byte, error) {
		errs := make(chan error)
		for range 8 {
			go func() {
				for range 50 {
					b, err := circles.Caller().ReadFile(string(params))
					if err != nil || string(b) != "hello from the host" {
						errs <- fmt.Errorf("read %q: %v", b, err)
						return
					}
					runtime.Gosched()
				}
				errs <- nil
			}()
		}
		var all []error
		for range 8 {
			all = append(all, <-errs)
		}
		return nil, errors.Join(all...)
	})
}

// heap says how much memory is in use after a collection, in bytes.
//
//go:wasmexport heap
func heap(ptr, n uint32) uint32 {
	return circles.Handle(ptr, n, func([]byte) ([]byte, error) {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return fmt.Appendf(nil, "%d", m.HeapAlloc), nil
	})
}
