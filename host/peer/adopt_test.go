package peer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAdopt(t *testing.T) {
	root := t.TempDir()
	d, err := OpenDirectory(root)
	if err != nil {
		t.Fatal(err)
	}
	keys := make([]*Key, 3)
	for i := range keys {
		if keys[i], err = GenerateKey(); err != nil {
			t.Fatal(err)
		}
	}
	bob, carol := keys[0].ID(), keys[1].ID()
	fill := func(id ID, key *Key) func(string) error {
		return func(dir string) error {
			if key != nil {
				if err := WriteKeyFile(filepath.Join(dir, keyFile), key); err != nil {
					return err
				}
			}
			return os.WriteFile(filepath.Join(dir, identityFile), fmt.Appendf(nil, "id = %q\n", id), 0o600)
		}
	}
	if err := d.SetRoute("bob", Route{ID: bob}); err != nil {
		t.Fatal(err)
	}
	if err := d.SetRoute("karl", Route{ID: keys[2].ID()}); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	var seen []string
	for _, tt := range []struct {
		what string
		name Name
		id   ID
		fill func(string) error
		want string
	}{
		{"no name", "../x", bob, fill(bob, nil), "petname"},
		{"half of it", "bob", bob, func(dir string) error {
			seen = append(seen, dir)
			return errors.Join(os.WriteFile(filepath.Join(dir, "x"), nil, 0o600), broken)
		}, "broken"},
		{"nothing in it", "bob", bob, func(string) error { return nil }, "no such file"},
		{"somebody else's", "bob", bob, fill(carol, nil), "says that it is the context of"},
		{"another's key", "bob", bob, fill(bob, keys[1]), "belongs to another peer"},
		{"another's name", "bob", carol, fill(carol, nil), "the name is that of"},
		{"another name", "robert", bob, fill(bob, nil), "is known as bob already"},
		{"well", "bob", bob, fill(bob, keys[0]), ""},
		{"twice", "bob", bob, fill(bob, nil), "the name is that of"},
		{"twice, under another name", "robert", bob, fill(bob, nil), "is here already, and is called bob"},
		{"without a key", "carol", carol, fill(carol, nil), ""},
		{"added meanwhile", "dora", keys[2].ID(), nil, "known as karl"},
	} {
		e, err := d.Adopt(tt.name, tt.id, tt.fill)
		if tt.want == "" {
			if got, ok := d.ByID(tt.id); err != nil || !ok || got != e || !e.Held() {
				t.Errorf("%s: %+v, %v", tt.what, e, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %q", tt.what, err, tt.want)
		}
	}
	if key, err := d.All()[0].Key(); err != nil || key.ID() != bob {
		t.Errorf("bob's key: %v", err)
	}
	// While it is being filled somebody else adds the peer.
	other, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.Adopt("eve", other.ID(), func(dir string) error {
		if _, err := d.Hold("eva", other.ID(), other, ""); err != nil {
			return err
		}
		return fill(other.ID(), nil)(dir)
	})
	if err == nil || !strings.Contains(err.Error(), "is called eva") {
		t.Errorf("a race: %v", err)
	}
	left, err := os.ReadDir(filepath.Join(root, peersDir))
	if err != nil || len(left) != 3 || len(seen) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if p := d.Problems(); len(p) > 0 {
		t.Errorf("problems: %v", p)
	}
}
