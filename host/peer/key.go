package peer

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
)

// Key is a peer's private key. It signs and says whose it is; it never prints
// itself. The zero value is of no use: get one from GenerateKey or ReadKeyFile.
// It is immutable and safe for concurrent use.
type Key struct {
	// A function, because package fmt prints the unexported fields of a struct
	// that holds a Key without asking Format, and follows pointers too when the
	// verb is one that it finds odd; of a function it prints the address.
	secret func() ed25519.PrivateKey
	id     ID
}

const (
	redacted   = "peer.Key(redacted)"
	pemType    = "PRIVATE KEY"
	maxKeyFile = 4 << 10
)

// GenerateKey makes a new key from the system's randomness.
func GenerateKey() (*Key, error) {
	_, secret, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return newKey(secret), nil
}

// NewKeyFromSeed returns the key of a 32 byte seed (RFC 8032, section 5.1.5):
// for keys that are derived or kept elsewhere, and for tests that need the same
// key each time.
func NewKeyFromSeed(seed []byte) (*Key, error) {
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("make key: the seed is %d bytes long, must be %d", len(seed), ed25519.SeedSize)
	}
	return newKey(ed25519.NewKeyFromSeed(seed)), nil
}

func newKey(secret ed25519.PrivateKey) *Key {
	return &Key{secret: func() ed25519.PrivateKey { return secret }, id: IDOf(secret.Public().(ed25519.PublicKey))}
}

// ID is the peer that the key belongs to.
func (k *Key) ID() ID { return k.id }

// Sign returns the 64 byte Ed25519 signature of message. What is signed must
// say what it is for: package envelope prefixes its type.
func (k *Key) Sign(message []byte) []byte { return ed25519.Sign(k.secret(), message) }

// String, GoString, Format, LogValue, MarshalText and the like give away nothing.
func (Key) String() string               { return redacted }
func (Key) GoString() string             { return redacted }
func (Key) Format(f fmt.State, _ rune)   { _, _ = io.WriteString(f, redacted) }
func (Key) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// ReadKeyFile reads a key that WriteKeyFile wrote, or
// "openssl genpkey -algorithm ed25519". The file must be a regular file, not a
// symbolic link, that belongs to the user who runs this process and that nobody
// else can read (mode 0600 or less); the error says how to make it so. Where
// files have no such modes (Windows), only its kind is checked.
func ReadKeyFile(path string) (*Key, error) {
	f, err := openRegular(path)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	defer f.Close()
	// Checked on the open file: the path may name another one by now.
	if err := checkPrivate(f); err != nil {
		return nil, fmt.Errorf("read key %s: %w", path, err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	defer clear(text)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	if len(text) > maxKeyFile {
		return nil, fmt.Errorf("read key %s: longer than %d bytes, so not a key file", path, maxKeyFile)
	}
	key, err := parseKey(text)
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", path, err)
	}
	return key, nil
}

func parseKey(text []byte) (*Key, error) {
	block, rest := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM block in it: expected -----BEGIN PRIVATE KEY-----")
	}
	defer clear(block.Bytes)
	switch block.Type {
	case pemType:
	case "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("the key is encrypted: decrypt it with openssl pkey")
	case "OPENSSH PRIVATE KEY":
		return nil, errors.New("an OpenSSH key: expected PKCS#8 (openssl genpkey -algorithm ed25519)")
	default:
		return nil, fmt.Errorf("holds a %.40q: expected a %q in PKCS#8", block.Type, pemType)
	}
	if extra, _ := pem.Decode(rest); extra != nil {
		return nil, errors.New("holds more than one PEM block: leave only the private key")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		// The parser's text may quote what it read; say no more than this.
		return nil, errors.New("not a PKCS#8 private key")
	}
	secret, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("holds a %T: expected an Ed25519 key", parsed)
	}
	return newKey(secret), nil
}

// WriteKeyFile writes key to a new file at path, mode 0600, as PKCS#8 in PEM,
// and has reached the disk when it returns. A file that is already there is
// never overwritten: a key that is lost cannot be made again.
func WriteKeyFile(path string, key *Key) (err error) {
	der, err := x509.MarshalPKCS8PrivateKey(key.secret())
	if err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	defer clear(der)
	text := pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})
	defer clear(text)
	// O_EXCL also refuses a symbolic link, dangling or not.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		if errors.Is(err, os.ErrExist) {
			return fmt.Errorf("write key: %w; move it away first if it is really no longer needed", err)
		}
		return fmt.Errorf("write key: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(path) // half a key file is worse than none
		}
	}()
	if _, err := f.Write(text); err != nil {
		_ = f.Close()
		return fmt.Errorf("write key: %w", err)
	}
	if err := f.Sync(); err != nil {
		_ = f.Close()
		return fmt.Errorf("write key: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	return nil
}
