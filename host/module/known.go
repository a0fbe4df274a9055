package module

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/peer"
)

// What a layer found out about its files is kept beside the compiled code:
//
//	<cache>/layers/<SHA-256 of the directory's path>
//	"circles layer v3 <engine> <SHA-256 of the rest>\n"
//	JSON: {"NAME": {"file": …, "stamp": …, "info": …, "publisher": …}}
//
// A file that looks as it did then, on an engine that is what it was, is not read
// and not compiled when a layer is opened: 50 modules in Go take 5 s to be brought
// from the compilation cache, and to read and digest them takes half a second. It
// is when somebody first runs it; see version.run.
//
// Nothing is run on the word of this file: what is compiled is what has the digest
// that was decided about, and signed by whom it was said. It is safe to delete.
type known map[string]knownFile

type knownFile struct {
	File  string      `json:"file"` // in its folder
	Stamp stamp       `json:"stamp"`
	Info  engine.Info `json:"info"`

	Publisher peer.ID `json:"publisher,omitempty"`
}

const (
	knownDir   = "layers"
	knownMagic = "circles layer v3 "
	maxKnown   = 16 << 20 // bytes that are read
)

// knownPath is where what is known of l is kept; "" if nowhere.
func (l *Layer) knownPath() string {
	cache := l.engine.CacheDir()
	dir, err := filepath.Abs(l.dir)
	if cache == "" || err != nil {
		return ""
	}
	sum := sha256.Sum256([]byte(dir))
	return filepath.Join(cache, knownDir, hex.EncodeToString(sum[:]))
}

// readKnown returns what is known of the files of l, nil if that is nothing, or not
// what was written.
func (l *Layer) readKnown() known {
	path := l.knownPath()
	if path == "" {
		return nil
	}
	f, _, err := openRegular(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxKnown))
	if err != nil {
		return nil
	}
	head, body, _ := bytes.Cut(text, []byte("\n"))
	var files known
	if string(head) != l.knownHead(body) || json.Unmarshal(body, &files) != nil {
		return nil
	}
	return files
}

func (l *Layer) knownHead(body []byte) string {
	return fmt.Sprintf("%s%x %x", knownMagic, l.engine.Fingerprint(), sha256.Sum256(body))
}

// noteKnown writes down what is known now, if that has changed.
func (l *Layer) noteKnown() error {
	path := l.knownPath()
	if path == "" {
		return nil
	}
	files := known{}
	for name, v := range *l.current.Load() {
		if v.stamp.settled() {
			files[name] = knownFile{v.base(), v.stamp, v.info, v.publisher}
		}
	}
	body, err := json.Marshal(files)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	if sum == l.noted || len(files) == 0 && l.noted == [32]byte{} {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "new-") // 0600
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s\n%s", l.knownHead(body), body)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	l.noted = sum
	return nil
}

// settled reports whether a file that looks like s is the one that did.
func (s stamp) settled() bool { return s.Mtime >= 0 && time.Since(time.Unix(0, s.Mtime)) >= settled }
