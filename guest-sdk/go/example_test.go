package circles_test

import (
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
