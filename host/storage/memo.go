package storage

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const memoFile = "context.usage"

// memo is a store.Memo in a file: what the context held when it was closed. It may
// be removed at any time, and is believed only where the log agrees.
type memo string

const maxNote = 4 << 10

func (m memo) Load() ([]byte, error) { return readNote(string(m)) }

// readNote reads a small file of ours. What somebody has put in its place (a FIFO
// would block, a link lead elsewhere) is not read.
func readNote(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file: move it away", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxNote))
}

func (m memo) Save(text []byte) error {
	if text == nil {
		if err := os.Remove(string(m)); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(string(m)), ".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("note what the context holds: %w", err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), string(m))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("note what the context holds: %w", err), os.Remove(f.Name()))
	}
	return nil
}
