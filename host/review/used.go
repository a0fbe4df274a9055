package review

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
)

// Used is what a script used when it was run for the owner to see. Its receipts do not
// tell that, since they are the caller's; budgets count it, also after a restart, and
// when it is decided about and gone. So it is kept beside what is held, for as long as
// budgets look back:
//
//	review/used    a line that says what it is, and then 56 bytes each: the script's id,
//	               milliseconds since 1970, fuel, bytes, as big-endian numbers
type Used struct{ Fuel, Bytes uint64 }

const (
	usedName  = dir + "/used"
	usedMagic = "circles used 1\n"
	usedSize  = 32 + 3*8
	usedFor   = 25 * time.Hour // budgets are of a day at most
	// maxUsed bounds the file, to 56 KiB; those before count as scripts alone.
	maxUsed = 1024
)

// NoteUsed keeps what a script used that Put keeps, in the same transaction.
func NoteUsed(private store.FS, id script.ID, now time.Time, u Used) error {
	all, err := readUsed(private)
	if err != nil {
		return fmt.Errorf("note what script %s used: %w", id.Short(), err)
	}
	kept := []byte(usedMagic)
	all = all[max(0, len(all)-(maxUsed-1)*usedSize):]
	for ; len(all) > 0; all = all[usedSize:] {
		if at := time.UnixMilli(int64(binary.BigEndian.Uint64(all[32:]))); now.Sub(at) < usedFor {
			kept = append(kept, all[:usedSize]...)
		}
	}
	kept = append(kept, id[:]...)
	for _, n := range []uint64{uint64(now.UnixMilli()), u.Fuel, u.Bytes} {
		kept = binary.BigEndian.AppendUint64(kept, n)
	}
	f, err := private.Open(usedName, store.FlagWrite|store.FlagCreate|store.FlagTruncate)
	if err == nil {
		_, err = f.WriteAt(kept, 0)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("note what script %s used: %w", id.Short(), err)
	}
	return nil
}

// AllUsed is what NoteUsed has kept. What is no such file holds nothing.
func AllUsed(private store.FS) (map[script.ID]Used, error) {
	all, err := readUsed(private)
	if err != nil {
		return nil, fmt.Errorf("read what held scripts used: %w", err)
	}
	used := make(map[script.ID]Used, len(all)/usedSize)
	for ; len(all) > 0; all = all[usedSize:] {
		used[script.ID(all[:32])] = Used{binary.BigEndian.Uint64(all[40:]), binary.BigEndian.Uint64(all[48:])}
	}
	return used, nil
}

// readUsed is a whole number of entries, maxUsed at most.
func readUsed(private store.FS) ([]byte, error) {
	f, err := private.Open(usedName, store.FlagRead|store.FlagNoFollow)
	if errors.Is(err, store.ErrNotExist) || errors.Is(err, store.ErrNotDir) || errors.Is(err, store.ErrLoop) || errors.Is(err, store.ErrSpecial) || errors.Is(err, store.ErrIsDir) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, len(usedMagic)+maxUsed*usedSize)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	entries, ok := bytes.CutPrefix(b[:n], []byte(usedMagic))
	if !ok {
		return nil, nil
	}
	return entries[:len(entries)/usedSize*usedSize], nil
}
