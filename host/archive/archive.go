// Package archive carries a whole context in one file: what its owner takes to
// another host, or keeps.
//
//	manifest, err := archive.Write(ctx, file, archive.Source{Dir: dir, Peer: id, Name: "bob"}, key)
//
//	a, err := archive.Open(file, archive.Limits{})     // who signed it, and what it claims to hold
//	err = a.Extract(ctx, dir)                          // nothing is in dir that was not signed
//
// # Format
//
// An archive is a tar file (POSIX.1-2001, pax), uncompressed, that any tar can
// read:
//
//	circles-export.json    the Manifest: every member that follows, with its digest
//	circles-export.sig     who signed the manifest
//	peer.toml, policy, …   the members, in the manifest's order
//
// The signature is three lines, each ended by a line feed:
//
//	circles export signature v1
//	did:key:z6Mk…
//	<base64>
//
// the last being Ed25519 over DSSE's pre-authentication encoding
// (https://github.com/secure-systems-lab/dsse/blob/master/protocol.md) of the type
// "application/vnd.circles.export.v1+json" and the manifest's exact bytes.
//
// Members are sorted by path, byte by byte, so a directory stands before what is
// in it. Every byte outside of manifest, signature and contents follows from
// them: headers are those that archive/tar writes for the manifest, with no
// owner, whole seconds and FormatPAX; contents are padded with zeros, two blocks
// of zeros end the file. Open and Extract make the headers themselves and compare,
// so they parse none that a stranger wrote, there is one file for one content,
// and no byte of it can be changed. Paths, links, sparse files, devices and sizes
// that a tar could hold and a manifest cannot say do not exist for them.
//
// # What is in it
//
// peer.toml; policy/, modules/, schema/, data/ and log/ with all that is below;
// peer.key only if Source.WithKey says so. Of these, files, directories and
// symbolic links, with permissions and time of modification; not owners, hard
// links (each is a file of its own), holes or extended attributes. A link is kept
// as a link when it leads nowhere out of its top directory. What cannot be kept
// (FIFOs, sockets, devices, names that are not UTF-8) is left out of data/, and
// Source.Warn is told; anywhere else it is an error, since policies without the
// one that forbids are worse than none.
//
// An archive is the same whatever the context is stored in: one that is not in a
// directory is written as one first, which Source.Kept names, without what its
// peer.toml says of how it is kept. That is for the host that takes it in to say.
//
// Transactions under way (tx/) are not in it: the caller keeps the context
// locked meanwhile, so that there are none.
//
// # Limits
//
// A manifest is at most 128 MiB; Limits bounds members and bytes. What a reader
// writes is never more than what it has read.
package archive

import (
	"archive/tar"
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
)

// ErrInvalid is wrapped by every error about an archive that is not as Write
// writes one, whether by accident or not.
var ErrInvalid = errors.New("not a whole and unchanged archive")

// Limits bound what is written and read. A zero field means the default.
type Limits struct {
	Bytes   int64 // of all contents; default 64 GiB
	Members int   // default 250,000
}

func (l Limits) withDefaults() Limits {
	if l.Bytes <= 0 {
		l.Bytes = 64 << 30
	}
	if l.Members <= 0 {
		l.Members = 250_000
	}
	return l
}

const (
	manifestName  = "circles-export.json"
	signatureName = "circles-export.sig"
	identityFile  = "peer.toml"
	keyFile       = "peer.key"

	version      = 1
	maxManifest  = 128 << 20
	maxSignature = 512
	maxSmall     = 1 << 20 // bytes of peer.toml and peer.key
	maxPath      = 4096    // bytes; of a link's target too
	maxName      = 255     // bytes of one name in it
	maxDepth     = 256     // names in it; removing a deeper tree runs out of descriptors

	signedType = "application/vnd.circles.export.v1+json"
	signedHead = "circles export signature v1\n"
)

// parts are the directories of a context that are exported.
var parts = []string{"data", "log", "modules", "policy", "schema"}

// Manifest says what an archive holds.
type Manifest struct {
	Version int       `json:"version"` // 1
	Peer    peer.ID   `json:"peer"`    // whose context it is
	Name    peer.Name `json:"name"`    // the peer's petname where it was exported
	Time    time.Time `json:"time"`    // of the export, in whole seconds
	Members []Member  `json:"members"`
}

// Member is a file, a directory or a symbolic link.
type Member struct {
	Path   string        `json:"path"` // "data/notes.txt": slashes, clean, relative to the context
	Kind   Kind          `json:"kind"`
	Mode   uint32        `json:"mode,omitempty"`  // permission bits; of files and directories
	Time   time.Time     `json:"time,omitzero"`   // of modification; of files and directories
	Size   int64         `json:"size,omitempty"`  // bytes, of files
	Digest script.Digest `json:"sha256,omitzero"` // of files
	Target string        `json:"target,omitempty"`
}

// Kind tells members apart.
type Kind string

// What a Member is.
const (
	File Kind = "file"
	Dir  Kind = "dir"
	Link Kind = "link"
)

// HasKey reports whether the peer's private key is in the archive.
func (m *Manifest) HasKey() bool {
	return slices.ContainsFunc(m.Members, func(m Member) bool { return m.Path == keyFile })
}

// Files counts the files and their bytes.
func (m *Manifest) Files() (n int, bytes int64) {
	for _, f := range m.Members {
		if f.Kind == File {
			n++
			bytes += f.Size
		}
	}
	return n, bytes
}

// parseManifest reads a manifest and refuses one that Write would not write.
// Members are checked one by one as they are decoded, so that a text of many
// empty ones does not grow fiftyfold in memory.
func parseManifest(text []byte, l Limits) (*Manifest, error) {
	var raw struct {
		Version int             `json:"version"`
		Peer    string          `json:"peer"`
		Name    string          `json:"name"`
		Time    time.Time       `json:"time"`
		Members json.RawMessage `json:"members"`
	}
	if err := decode(text, &raw); err != nil {
		return nil, fmt.Errorf("%s: %w", manifestName, err)
	}
	if raw.Version != version {
		return nil, fmt.Errorf("it has version %d, and this program reads version %d: use a newer one", raw.Version, version)
	}
	m := &Manifest{Version: raw.Version, Time: raw.Time}
	var err error
	if m.Peer, err = peer.ParseID(raw.Peer); err != nil {
		return nil, fmt.Errorf("%s: peer: %w", manifestName, err)
	}
	if m.Name, err = peer.ParseName(raw.Name); err != nil {
		return nil, fmt.Errorf("%s: name: %w", manifestName, err)
	}
	d := json.NewDecoder(bytes.NewReader(raw.Members))
	d.DisallowUnknownFields()
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return nil, fmt.Errorf("%s: members are no list", manifestName)
	}
	c := checker{limits: l, dirs: map[string]bool{}}
	for d.More() {
		var member Member
		if err := d.Decode(&member); err != nil {
			return nil, fmt.Errorf("%s: %w", manifestName, err)
		}
		if err := c.add(member); err != nil {
			return nil, err
		}
		m.Members = append(m.Members, member)
	}
	if !c.identity {
		return nil, fmt.Errorf("it has no %s", identityFile)
	}
	return m, nil
}

// decode reads one JSON value that has no fields of others.
func decode(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows its end")
	}
	return nil
}

// checker checks the members of an archive, in their order.
type checker struct {
	limits   Limits
	last     string
	n        int
	bytes    int64
	dirs     map[string]bool
	identity bool
}

func (c *checker) add(m Member) error {
	fail := func(format string, a ...any) error {
		return fmt.Errorf("member %.200q: %s", m.Path, fmt.Sprintf(format, a...))
	}
	if c.n++; c.n > c.limits.Members {
		return fmt.Errorf("it has more than %d members", c.limits.Members)
	}
	if wrong := pathProblem(m.Path); wrong != "" {
		return fail("%s", wrong)
	}
	if m.Path <= c.last {
		return fail("it stands after %.200q: members are sorted, and each is there once", c.last)
	}
	c.last = m.Path
	part, below, inside := strings.Cut(m.Path, "/")
	if inside && !c.dirs[path.Dir(m.Path)] {
		return fail("it lies in what is not a directory of the archive") // but perhaps a link
	}
	switch m.Kind {
	case Dir:
		if m.Size != 0 || !m.Digest.IsZero() || m.Target != "" {
			return fail("a directory has no size, digest or target")
		}
		c.dirs[m.Path] = true
	case Link:
		if m.Size != 0 || !m.Digest.IsZero() || m.Mode != 0 || !m.Time.IsZero() {
			return fail("a link has a target and nothing else")
		}
		if wrong := linkProblem(m.Path, m.Target); wrong != "" {
			return fail("%s", wrong)
		}
	case File:
		if m.Size < 0 || m.Digest.IsZero() || m.Target != "" {
			return fail("a file has a size and a digest, and no target")
		}
		// Not a sum first, which could overflow.
		if m.Size > c.limits.Bytes-c.bytes {
			return fmt.Errorf("its files have more than %d bytes together", c.limits.Bytes)
		}
		c.bytes += m.Size
	default:
		return fail("there is no kind %.40q", string(m.Kind))
	}
	if m.Mode&^uint32(fs.ModePerm) != 0 {
		return fail("its mode has more than permissions")
	}
	switch {
	case m.Path == identityFile || m.Path == keyFile:
		if m.Kind != File || m.Size > maxSmall {
			return fail("it must be a small file")
		}
		c.identity = c.identity || m.Path == identityFile
	case !slices.Contains(parts, part):
		return fail("it is no part of a context")
	case below == "" && m.Kind != Dir:
		return fail("it must be a directory")
	case part == "log" && m.Kind == Link:
		return fail("a log has no links")
	}
	return nil
}

// pathProblem says what is wrong with p as the path of a member, or "".
func pathProblem(p string) string {
	switch {
	case len(p) > maxPath:
		return fmt.Sprintf("its path is longer than %d bytes", maxPath)
	case !utf8.ValidString(p):
		return "its name is not UTF-8"
	case strings.IndexByte(p, 0) >= 0:
		return "its name has a NUL in it"
	case p == "." || !fs.ValidPath(p):
		return "its path is absolute, or not clean"
	case !filepath.IsLocal(filepath.FromSlash(p)): // the names of devices, on Windows
		return "its name cannot be a file's here"
	}
	depth := 0
	for name := range strings.SplitSeq(p, "/") {
		depth++
		if len(name) > maxName {
			return fmt.Sprintf("a name in it is longer than %d bytes", maxName)
		}
	}
	if depth > maxDepth {
		return fmt.Sprintf("it lies more than %d directories deep", maxDepth)
	}
	return ""
}

// linkProblem says why a link at p must not lead to target, or "". A target goes
// up first, if at all, and only down from there: since what is above a member
// are directories, never links, it then cannot leave its part however the links
// of an archive are combined.
func linkProblem(p, target string) string {
	part, _, _ := strings.Cut(p, "/")
	switch {
	case target == "" || len(target) > maxPath || !utf8.ValidString(target) || strings.IndexByte(target, 0) >= 0:
		return "the target of the link is none"
	case path.IsAbs(target) || filepath.IsAbs(target) || filepath.VolumeName(target) != "":
		return "the link leads to an absolute path"
	}
	down := false
	for name := range strings.SplitSeq(target, "/") {
		if name == ".." && down {
			return "the link goes up after it went down"
		}
		down = down || name != ".." && name != "." && name != ""
	}
	if to := path.Join(path.Dir(p), target); to != part && !strings.HasPrefix(to, part+"/") {
		return "the link leads out of " + part + "/"
	}
	return ""
}

// header returns the bytes that stand before the contents of a member.
func (m Member) header() ([]byte, error) {
	h := &tar.Header{Name: m.Path, Mode: int64(m.Mode), Size: m.Size, Linkname: m.Target, Typeflag: tar.TypeReg, Format: tar.FormatPAX}
	if !m.Time.IsZero() {
		h.ModTime = time.Unix(max(m.Time.Unix(), 0), 0)
	}
	switch m.Kind {
	case Dir:
		h.Typeflag = tar.TypeDir
		h.Name += "/"
	case Link:
		h.Typeflag = tar.TypeSymlink
		h.Mode = 0o777
	}
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(h); err != nil {
		return nil, fmt.Errorf("member %.200q: %w", m.Path, err)
	}
	return b.Bytes(), nil
}

// head is the header of the manifest or the signature.
func head(name string, size int) ([]byte, error) {
	return Member{Path: name, Kind: File, Mode: 0o600, Size: int64(size)}.header()
}

const block = 512 // of a tar file

var zeros [2 * block]byte

// padding is what fills the last block of size bytes.
func padding(size int64) []byte { return zeros[:(block-size%block)%block] }

// pae is DSSE's pre-authentication encoding.
func pae(payload []byte) []byte {
	b := append([]byte("DSSEv1 "), strconv.Itoa(len(signedType))+" "+signedType+" "...)
	b = append(strconv.AppendInt(b, int64(len(payload)), 10), ' ')
	return append(b, payload...)
}

func sign(manifest []byte, key *peer.Key) []byte {
	return []byte(signedHead + string(key.ID()) + "\n" + base64.StdEncoding.EncodeToString(key.Sign(pae(manifest))) + "\n")
}

// verify returns who signed the manifest.
func verify(manifest, signature []byte) (peer.ID, error) {
	rest, ok := strings.CutPrefix(string(signature), signedHead)
	who, rest, ok2 := strings.Cut(rest, "\n")
	text, rest, ok3 := strings.Cut(rest, "\n")
	if !ok || !ok2 || !ok3 || rest != "" {
		return "", fmt.Errorf("%s is not a signature", signatureName)
	}
	signer, err := peer.ParseID(who)
	if err != nil {
		return "", fmt.Errorf("signer: %w", err)
	}
	public, err := signer.PublicKey()
	if err != nil {
		return "", fmt.Errorf("signer: %w", err)
	}
	// The decoder skips line breaks; whatever does not encode to the same text is
	// another spelling of it.
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || base64.StdEncoding.EncodeToString(b) != text || !ed25519.Verify(public, pae(manifest), b) {
		return "", fmt.Errorf("the signature is not that of %s over this manifest", signer)
	}
	return signer, nil
}

// CheckLog checks that the entries of a log follow from each other, from the
// first, and returns how many there are and the hash of the last. What the
// entries say, and who signed them, is not looked at.
func CheckLog(log iter.Seq2[store.Entry, error]) (n uint64, head script.Digest, err error) {
	for e, err := range log {
		if err != nil {
			return 0, script.Digest{}, err
		}
		if n++; e.Seq != n {
			return 0, script.Digest{}, fmt.Errorf("%w: the log has entry %d where entry %d belongs", ErrInvalid, e.Seq, n)
		}
		if e.Prev != head {
			return 0, script.Digest{}, fmt.Errorf("%w: entry %d of the log does not follow from the one before it", ErrInvalid, n)
		}
		head = e.Hash()
	}
	return n, head, nil
}
