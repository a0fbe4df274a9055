package circles_test

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"testing/fstest"

	"github.com/circles-host/circles/guest-sdk/go"
)

type titlesParams struct {
	Dir string `json:"dir"`
}

// titles is an entry's handler, a function of its params and of an fs.FS, so that
// a test can call it with any. In a host its entry is
//
//	//go:wasmexport titles
//	func titlesEntry(ptr, n uint32) uint32 {
//		return circles.HandleJSON(ptr, n, func(p titlesParams) ([]string, error) {
//			return titles(circles.Target().FS(), p)
//		})
//	}
func titles(fsys fs.FS, p titlesParams) ([]string, error) {
	files, err := fs.Glob(fsys, path.Join(p.Dir, "*.txt"))
	if err != nil {
		return nil, err
	}
	for i, f := range files {
		files[i] = path.Base(f)
	}
	return files, nil
}

func Example() {
	list, err := titles(fstest.MapFS{
		"notes/b.txt": {}, "notes/a.txt": {}, "notes/c.jpg": {},
	}, titlesParams{"notes"})
	fmt.Println(list, err)
	// Output: [a.txt b.txt] <nil>
}

func ExampleHandle() {
	handler := func(params []byte) ([]byte, error) {
		card, err := circles.Caller().ReadFile("/card.txt")
		if err != nil {
			return nil, err
		}
		return append([]byte("hello, "), card...), nil
	}
	// In package main of the guest, with //go:wasmexport run above it:
	run := func(ptr, n uint32) uint32 { return circles.Handle(ptr, n, handler) }
	_ = run
}

// soon are the bookings of a room from a day on, the first of them first.
func soon(room, day string) circles.Query {
	return circles.Query{
		Where: circles.And(circles.Field("/room").Equals(room), circles.Field("/day").From(day)),
		Order: []circles.Order{{Field: "/day"}},
		Limit: 10,
	}
}

func ExampleCollection_Query() {
	for record, err := range circles.Target().Collection("bookings").Query(soon("blue", "2026-11-23")) {
		if err != nil {
			fmt.Println(errors.Is(err, fs.ErrNotExist), err != nil) // there is no host here
			return
		}
		fmt.Println(record.Key)
	}
	// Output: false true
}

func ExampleViolations() {
	// What Put returns of a value that is not as the schema of bookings says.
	err := error(&circles.Error{Code: circles.Violates, Message: "cannot put record bookings/7:\n/day: is missing\n/seats: is -1, and must be at least 1"})
	for _, v := range circles.Violations(err) {
		fmt.Printf("%s %s\n", v.Path, v.Reason)
	}
	// Output:
	// /day is missing
	// /seats is -1, and must be at least 1
}
