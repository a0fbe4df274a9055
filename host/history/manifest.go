package history

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
)

// Manifest is what is kept of one script: what it changed, and how to undo that.
type Manifest struct {
	// Digest of the manifest as it is written. Whoever undoes the script compares
	// it with the receipt first.
	Digest script.Digest
	Script script.ID
	Key    store.Key // of the script's entry in the log
	Time   time.Time // when it ran
	Why    string    // it cannot be undone; "" if it can

	changes []change
	records []record
	bucket  *bucket
}

// written is a manifest as it lies there, in JSON.
type written struct {
	Version int       `json:"version"`
	Salt    []byte    `json:"salt"` // against guessing, by the receipt, what is in here
	Script  script.ID `json:"script"`
	Key     []byte    `json:"key"`
	Time    time.Time `json:"time"`
	Why     string    `json:"why,omitempty"`
	Changes []change  `json:"changes,omitempty"`
	Records []record  `json:"records,omitempty"`
}

const manifestVersion = 1

// change is a Change in a manifest.
type change struct {
	Path  string           `json:"path"`
	Kind  store.ChangeKind `json:"kind"`
	How   how              `json:"how,omitempty"`
	N     int              `json:"n,omitempty"` // the number of what is kept
	Link  string           `json:"link,omitempty"`
	From  string           `json:"from,omitempty"`
	Old   *script.Blob     `json:"old,omitempty"`
	New   *script.Blob     `json:"new,omitempty"`
	End   *script.End      `json:"end,omitempty"`
	Cut   int64            `json:"cut,omitempty"` // of howCut and howEnd: to how many bytes
	Was   was              `json:"was,omitzero"`
	Times *times           `json:"times,omitempty"` // that it left: of a file, and where only they changed
}

type was struct {
	Kind store.Kind `json:"kind,omitempty"`
	Link string     `json:"link,omitempty"`
	times
}

type times struct {
	Atime stamp `json:"atime,omitzero"`
	Mtime stamp `json:"mtime,omitzero"`
}

// stamp is a time in seconds since 1970 and nanoseconds: a script may set one
// that has no other text.
type stamp [2]int64

func stampOf(t time.Time) stamp { return stamp{t.Unix(), int64(t.Nanosecond())} }

func (s stamp) time() time.Time {
	if s == (stamp{}) {
		return time.Time{}
	}
	return time.Unix(s[0], s[1])
}

func (m *Manifest) encode() ([]byte, error) {
	salt := make([]byte, 16)
	rand.Read(salt)
	b, err := json.Marshal(written{
		Version: manifestVersion, Salt: salt, Script: m.Script, Key: m.Key[:], Time: m.Time.UTC(), Why: m.Why, Changes: m.changes, Records: m.records,
	})
	if err != nil {
		return nil, fmt.Errorf("write down what script %s changed: %w", m.Script.Short(), err)
	}
	if len(b) > maxManifest {
		return nil, errFull
	}
	m.Digest = script.DigestOf(b)
	return b, nil
}

// decode reads a manifest that may be anybody's.
func decode(b []byte, id script.ID) (*Manifest, error) {
	var w written
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&w); err != nil {
		return nil, fmt.Errorf("it does not read as one: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something follows it")
	}
	m := &Manifest{Digest: script.DigestOf(b), Script: w.Script, Time: w.Time, Why: w.Why, changes: w.Changes, records: w.Records}
	switch {
	case w.Version != manifestVersion:
		return nil, fmt.Errorf("it has format %d, and this program knows %d", w.Version, manifestVersion)
	case w.Script != id:
		return nil, fmt.Errorf("it is of script %s", w.Script.Short())
	case len(w.Key) != len(m.Key):
		return nil, errors.New("its key is none")
	case len(w.Changes) > maxChanges:
		return nil, fmt.Errorf("it has more than %d changes", maxChanges)
	case len(w.Records) > maxRecords:
		return nil, fmt.Errorf("it has more than %d records", maxRecords)
	}
	m.Key = store.Key(w.Key)
	for i := range m.changes {
		if err := m.changes[i].check(); err != nil {
			return nil, fmt.Errorf("change %d: %w", i+1, err)
		}
	}
	for i := range m.records {
		if err := m.records[i].check(); err != nil {
			return nil, fmt.Errorf("record %d: %w", i+1, err)
		}
	}
	return m, nil
}

func (c *change) check() error {
	blobs := []*script.Blob{c.Old, c.New}
	if c.End != nil {
		blobs = append(blobs, &c.End.Before, &c.End.After)
		if c.End.At <= 0 {
			return errors.New("its end begins nowhere")
		}
	}
	for _, b := range blobs {
		if b != nil && b.Size < 0 {
			return errors.New("it has a negative size")
		}
	}
	cuts := c.How == howCut || c.How == howEnd
	switch {
	case !plain(c.Path) && !(c.Path == "/" && c.Kind == store.ChangeTimes):
		return fmt.Errorf("%.80q is no path", c.Path)
	case c.From != "" && !plain(c.From):
		return fmt.Errorf("%.80q is no path", c.From)
	case c.Kind < store.ChangeCreate || c.Kind > store.ChangeTimes, c.How > howWhole, c.Was.Kind > store.KindLink:
		return errors.New("it is of no kind that there is")
	case c.N < 0 || c.N > maxChanges || (c.N > 0) != (c.How == howEnd || c.How == howWhole):
		return errors.New("what it keeps has no number, or nothing that is kept has one")
	case c.How != howNot && c.Was.Kind != store.KindFile, cuts && c.Kind != store.ChangeModify:
		return errors.New("it brings back what was no file")
	case c.Cut < 0 || !cuts && c.Cut != 0 || c.How == howEnd && (c.End == nil || c.Cut != c.End.At):
		return errors.New("it cuts nothing, or not where it should")
	case c.Kind == store.ChangeSymlink && c.Link == "", c.Was.Kind == store.KindLink && c.Was.Link == "":
		return errors.New("its link leads nowhere")
	case c.Kind == store.ChangeTimes && c.Times == nil:
		return errors.New("it does not say which times it left")
	case (c.Kind == store.ChangeCreate || c.Kind == store.ChangeModify) && c.New == nil && c.End == nil,
		c.How == howWhole && c.Old == nil:
		return errors.New("it does not say what it is about")
	}
	return nil
}

// plain reports whether p is a path of Files that nothing has to be resolved of.
func plain(p string) bool {
	return len(p) > 1 && p[0] == '/' && path.Clean(p) == p && utf8.ValidString(p) && strings.IndexByte(p, 0) < 0 &&
		p != "/"+store.PrivateName && !strings.HasPrefix(p, "/"+store.PrivateName+"/")
}
