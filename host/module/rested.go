package module

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// rest is for how long a file is left alone before it is read: who writes it in place
// makes it empty first, and an empty one decides nothing.
const rest = 50 * time.Millisecond

var errNotRegular = errors.New("not a regular file")

// openRegular opens a file and looks at it. It waits for no pipe; the error about what is
// no regular file wraps errNotRegular.
func openRegular(path string) (*os.File, fs.FileInfo, error) {
	f, err := openNonblock(path)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is %w", path, errNotRegular)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// readRested reads a file that its owner writes, when nobody has for a moment: most
// bytes and one more, which says that there are too many.
func readRested(path string, most int64) ([]byte, error) {
	f, info, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for range 10 {
		age := time.Since(info.ModTime())
		if age < 0 || age >= rest {
			break
		}
		time.Sleep(rest - age)
		if info, err = f.Stat(); err != nil {
			return nil, err
		}
	}
	return io.ReadAll(io.LimitReader(f, most+1))
}
