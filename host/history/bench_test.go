package history_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/circles-host/circles/host/history"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/fs"
	"github.com/circles-host/circles/host/store/sqlite"
)

// BenchmarkKeep replaces a file of 4 KiB, and appends to it, with and without
// keeping what undoes that.
func BenchmarkKeep(b *testing.B) {
	for name, open := range map[string]func() (store.Store, error){
		"fs": func() (store.Store, error) {
			dir := b.TempDir()
			return fs.Open(fs.Config{Data: filepath.Join(dir, "data"), Log: filepath.Join(dir, "log"), Tx: filepath.Join(dir, "tx")})
		},
		"sqlite": func() (store.Store, error) {
			return sqlite.Open(sqlite.Config{Path: filepath.Join(b.TempDir(), "db")})
		},
	} {
		for how, off := range map[string]int64{"replace": 0, "append": 4096} {
			for kept, c := range map[string]history.Config{"kept": {}, "not kept": {Keep: -1}} {
				b.Run(fmt.Sprint(name, "/", how, "/", kept), func(b *testing.B) {
					s, err := open()
					if err != nil {
						b.Fatal(err)
					}
					defer s.Close()
					h := history.New(c)
					data := make([]byte, 4096)
					i := 0
					for b.Loop() {
						i++
						data[0], data[1], data[2] = byte(i), byte(i>>8), byte(i>>16)
						if err := s.Update(b.Context(), func(tx store.Tx) error {
							f, err := tx.Files(nil).Open("f", store.FlagWrite|store.FlagCreate)
							if err != nil {
								return err
							}
							at := off
							if off > 0 {
								info, err := f.Stat()
								if err != nil {
									return err
								}
								at = info.Size
							}
							if _, err := f.WriteAt(data, at); err != nil {
								return err
							}
							f.Close()
							cs, err := h.Changes(b.Context(), tx, func(string) bool { return true })
							if err != nil {
								return err
							}
							id := script.ID{1, byte(i), byte(i >> 8), byte(i >> 16)}
							kept, err := h.Keep(b.Context(), tx, id, store.Key(id), cs)
							if err != nil {
								return err
							}
							defer kept.Committed()
							return tx.Append(store.Key(id), make([]byte, 500))
						}); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		}
	}
}
