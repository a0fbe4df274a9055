package peer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Adopt makes the context of a peer of what fill puts into an empty directory: one
// that was exported elsewhere, with peer.toml and perhaps peer.key, which must be
// those of id. It is there as a whole when Adopt returns, or not at all; fill has
// to see that what it writes is on disk. A peer that is known so far by a route
// of the same name is held here from now on.
func (d *Directory) Adopt(name Name, id ID, fill func(dir string) error) (Entry, error) {
	if _, err := ParseName(string(name)); err != nil {
		return Entry{}, fmt.Errorf("import peer: %w", err)
	}
	if err := d.adopt(name, id, fill); err != nil {
		return Entry{}, fmt.Errorf("import peer %s: %w", name, err)
	}
	return Entry{ID: id, Name: name, Dir: d.dir(name)}, nil
}

func (d *Directory) adopt(name Name, id ID, fill func(dir string) error) (err error) {
	final := d.dir(name)
	free := func() error {
		if other, ok := d.ByName(name); ok && (other.Held() || other.ID != id) {
			return fmt.Errorf("the name is that of %s already: choose another", other.ID)
		}
		if other, ok := d.ByID(id); ok && other.Held() {
			return fmt.Errorf("the context of %s is here already, and is called %s: if this one is to take its place, move %s away first", id, other.Name, other.Dir)
		} else if ok && other.Name != name {
			return fmt.Errorf("%s is known as %s already: import it under that name", id, other.Name)
		}
		if err := d.index.taken(id); err != nil {
			return err
		}
		if isThere(final) {
			return fmt.Errorf("%s is there already: move it away, or choose another name", final)
		}
		return nil
	}
	// Asked before, so that nothing large is written in vain, and again below,
	// where nobody else can add a peer.
	if err := d.change(func() (edit, error) { return edit{}, free() }); err != nil {
		return err
	}
	peers := filepath.Dir(final)
	if err := os.MkdirAll(peers, 0o700); err != nil {
		return err
	}
	making, err := os.MkdirTemp(peers, ".import-"+string(name)+"-") // mode 0700; hidden, so that nobody sees half of it
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(making))
		}
	}()
	if err := fill(making); err != nil {
		return err
	}
	text, err := readConfig(filepath.Join(making, identityFile))
	if err != nil {
		return err
	}
	is, err := parseIdentity(identityFile, text)
	if err != nil {
		return err
	}
	if is != id {
		return fmt.Errorf("its %s says that it is the context of %s, not of %s", identityFile, is, id)
	}
	_, err = Entry{ID: id, Name: name, Dir: making}.Key()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return d.change(func() (edit, error) {
		if err := free(); err != nil {
			return edit{}, err
		}
		if err := os.Rename(making, final); err != nil {
			return edit{}, err
		}
		return edit{id: id, name: name}, syncDir(peers)
	})
}
