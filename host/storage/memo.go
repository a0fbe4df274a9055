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

const maxMemo = 4 << 10

func (m memo) Load() ([]byte, error) {
	if info, err := os.Lstat(string(m)); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, errNoMemo)
	}
	f, err := os.Open(string(m))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxMemo))
}

var errNoMemo = errors.New("nothing is noted")

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
