//go:build linux || darwin || freebsd

package fs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/circles-host/circles/host/store"
)

// ReadLog yields the entries of the log in dir, oldest first, without opening
// the context: for looking at a log that another process goes on writing. It
// stops before an entry that is being written. It checks frames and encodings;
// that entries follow from each other is for the reader to check, who must not
// take the writer's word for it. An error ends the sequence; damage is a
// *LogDamageError.
func ReadLog(ctx context.Context, dir string) iter.Seq2[store.Entry, error] {
	return func(yield func(store.Entry, error) bool) {
		segments, err := segments(dir)
		if err != nil {
			yield(store.Entry{}, fmt.Errorf("read log: %w", err))
			return
		}
		for i, name := range segments {
			if !readSegment(ctx, filepath.Join(dir, name), i == len(segments)-1, yield) {
				return
			}
		}
	}
}

// segments are the names of the log's files, in order.
func segments(dir string) (segments []string, err error) {
	files, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, f := range files {
		number, ok := strings.CutSuffix(f.Name(), ".log")
		if first, err := strconv.ParseUint(number, 10, 64); ok && err == nil && segName(first) == f.Name() && f.Type().IsRegular() {
			segments = append(segments, f.Name())
		}
	}
	slices.Sort(segments) // numbers of one width
	return segments, nil
}

func readSegment(ctx context.Context, path string, last bool, yield func(store.Entry, error) bool) (more bool) {
	fail := func(err error) bool { yield(store.Entry{}, err); return false }
	f, err := os.Open(path)
	if err != nil {
		return fail(fmt.Errorf("read log: %w", err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fail(fmt.Errorf("read log: %w", err))
	}
	r := bufio.NewReaderSize(io.LimitReader(f, info.Size()), 256<<10)
	head := make([]byte, len(logMagic))
	if n, err := io.ReadFull(r, head); err != nil && last && strings.HasPrefix(logMagic, string(head[:n])) {
		return true // it is being begun
	}
	if string(head) != logMagic {
		return fail(&LogDamageError{File: path, Err: errors.New("it does not begin as a log segment does")})
	}
	for off := int64(len(logMagic)); off < info.Size(); {
		if ctx.Err() != nil {
			return fail(context.Cause(ctx))
		}
		encoded, err := readFrame(r, info.Size()-off)
		if last && errors.Is(err, errTorn) {
			return true // it is being written, or was never finished
		}
		var e store.Entry
		if err == nil {
			err = e.UnmarshalBinary(encoded)
		}
		if err != nil {
			return fail(&LogDamageError{File: path, Offset: off, Err: err})
		}
		if !yield(e, nil) {
			return false
		}
		off += frameHead + int64(len(encoded))
	}
	return true
}
