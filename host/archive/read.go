package archive

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

// Archive is an archive whose manifest is in form and signed; only Open makes
// one. What the contents are is known when Extract has returned nil. It is used
// by one goroutine, once.
type Archive struct {
	r        *bufio.Reader
	manifest *Manifest
	signer   peer.ID
	read     bool
}

// Open reads an archive up to its first member and checks manifest and
// signature. The error wraps ErrInvalid, unless r failed.
//
// Anybody can sign an archive of anybody's context: whether Signer is one to
// believe is for the caller to say.
func Open(r io.Reader, l Limits) (*Archive, error) {
	a := &Archive{r: bufio.NewReaderSize(r, 1<<16)}
	if err := a.open(l.withDefaults()); err != nil {
		return nil, fmt.Errorf("open archive: %w", err)
	}
	return a, nil
}

func (a *Archive) open(l Limits) error {
	text, err := a.named(manifestName, maxManifest)
	if err != nil {
		return err
	}
	signature, err := a.named(signatureName, maxSignature)
	if err != nil {
		return err
	}
	if a.signer, err = verify(text, signature); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if a.manifest, err = parseManifest(text, l); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

// Manifest is what the archive holds, as its signer says. It is not to be changed.
func (a *Archive) Manifest() *Manifest { return a.manifest }

// Signer is who signed the archive: the peer itself, or a host that held it.
func (a *Archive) Signer() peer.ID { return a.signer }

// named reads the manifest or the signature. Only their size is not known
// beforehand; it is read from where tar has it, and the header made from it must
// be the one that is there.
func (a *Archive) named(name string, limit int64) ([]byte, error) {
	first, err := a.r.Peek(block)
	if err != nil {
		return nil, a.ended(err)
	}
	size, err := strconv.ParseInt(strings.TrimRight(string(first[124:136]), "\x00"), 8, 64)
	if err != nil || size < 0 || size > limit || !bytes.HasPrefix(first, append([]byte(name), 0)) {
		return nil, fmt.Errorf("%w: there is no %s of at most %d bytes where it belongs", ErrInvalid, name, limit)
	}
	h, err := head(name, int(size))
	if err != nil {
		return nil, err
	}
	if err := a.expect(h, "the header of "+name); err != nil {
		return nil, err
	}
	// Grows with what is there, not with what is claimed.
	var b bytes.Buffer
	if _, err := io.CopyN(&b, a.r, size); err != nil {
		return nil, a.ended(err)
	}
	return b.Bytes(), a.expect(padding(size), "what follows "+name)
}

// expect reads what must come next.
func (a *Archive) expect(want []byte, what string) error {
	got := make([]byte, len(want))
	if _, err := io.ReadFull(a.r, got); err != nil {
		return a.ended(err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%w: %s is not what was signed", ErrInvalid, what)
	}
	return nil
}

// ended says that the end came too soon, if that is what happened.
func (a *Archive) ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it is cut off", ErrInvalid)
	}
	return err
}

// each reads all members and checks them. Visit reads the content of a file,
// which is not known to be what was signed before each returns nil.
func (a *Archive) each(ctx context.Context, visit func(m Member, content io.Reader) error) error {
	if a.read {
		return errors.New("the archive has been read already: open it again")
	}
	a.read = true
	for _, m := range a.manifest.Members {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		h, err := m.header()
		if err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		if err := a.expect(h, fmt.Sprintf("the header of %.200q", m.Path)); err != nil {
			return err
		}
		hash := sha256.New()
		left := &io.LimitedReader{R: a.r, N: m.Size}
		if err := visit(m, io.TeeReader(left, hash)); err != nil {
			return err
		}
		if left.N > 0 {
			return a.ended(io.EOF)
		}
		if m.Kind == File && script.Digest(hash.Sum(nil)) != m.Digest {
			return fmt.Errorf("%w: the content of %.200q is not what was signed", ErrInvalid, m.Path)
		}
		if err := a.expect(padding(m.Size), fmt.Sprintf("what follows %.200q", m.Path)); err != nil {
			return err
		}
	}
	if err := a.expect(zeros[:], "the end"); err != nil {
		return err
	}
	if _, err := a.r.ReadByte(); !errors.Is(err, io.EOF) {
		if err != nil {
			return err
		}
		return fmt.Errorf("%w: something follows its end", ErrInvalid)
	}
	return nil
}

// Extract writes the members into dir, which must be there and empty, and has
// them on disk when it returns. An error wraps ErrInvalid if the archive is at
// fault; dir then holds what cannot be trusted, and is to be removed.
func (a *Archive) Extract(ctx context.Context, dir string) error {
	if err := a.extract(ctx, dir); err != nil {
		return fmt.Errorf("extract archive: %w", err)
	}
	return nil
}

func (a *Archive) extract(ctx context.Context, dir string) error {
	root, err := os.OpenRoot(dir) // should a check of ours be missing, the kernel has one
	if err != nil {
		return err
	}
	defer root.Close()
	if there, err := fs.ReadDir(root.FS(), "."); err != nil || len(there) > 0 {
		return errors.Join(err, fmt.Errorf("%s is not empty", dir))
	}
	err = a.each(ctx, func(m Member, content io.Reader) error {
		name := filepath.FromSlash(m.Path)
		switch m.Kind {
		case Dir:
			return root.Mkdir(name, 0o700)
		case Link:
			return root.Symlink(filepath.FromSlash(m.Target), name)
		}
		return a.file(root, name, m, content)
	})
	if err != nil {
		return err
	}
	for _, part := range parts {
		if err := root.Mkdir(part, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	// From the inside out, since to fill a directory changes its time, and one
	// that nobody may write cannot be filled.
	for _, m := range slices.Backward(a.manifest.Members) {
		if m.Kind != Dir {
			continue
		}
		name := filepath.FromSlash(m.Path)
		if err := syncDir(root, name); err != nil {
			return err
		}
		if !strings.Contains(m.Path, "/") {
			continue // a part: 0700
		}
		if err := root.Chmod(name, fs.FileMode(m.Mode)|0o700); err != nil {
			return err
		}
		if !m.Time.IsZero() {
			if err := root.Chtimes(name, m.Time, m.Time); err != nil {
				return err
			}
		}
	}
	return syncDir(root, ".")
}

func (a *Archive) file(root *os.Root, name string, m Member, content io.Reader) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	mode := fs.FileMode(m.Mode)
	if m.Path == keyFile {
		mode = 0o600 // whatever is said of it
	}
	if err := errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	if m.Time.IsZero() {
		return nil
	}
	return root.Chtimes(name, m.Time, m.Time)
}

// syncDir makes the names in a directory durable, where that can be asked for.
func syncDir(root *os.Root, name string) error {
	d, err := root.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}
