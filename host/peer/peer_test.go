package peer

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mr-tron/base58"
)

func key(t testing.TB, seed byte) *Key {
	t.Helper()
	k, err := NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// did encodes 32 bytes as a did:key, whatever they are.
func did(public []byte) string {
	return scheme + base58.Encode(append([]byte{codec0, codec1}, public...))
}

// From the did:key specification's test vectors, seeds 0 to 4.
// https://w3c-ccg.github.io/did-key-spec/#ed25519-x25519
func TestIDOfSpecificationVectors(t *testing.T) {
	for seed, want := range []string{
		"did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp",
		"did:key:z6MkjchhfUsD6mmvni8mCdXHw216Xrm9bQe2mBH1P5RDjVJG",
		"did:key:z6MknGc3ocHs3zdPiJbnaaqDi58NGb4pk1Sp9WxWufuXSdxf",
	} {
		var s [32]byte
		s[31] = byte(seed)
		k, err := NewKeyFromSeed(s[:])
		if err != nil {
			t.Fatal(err)
		}
		if string(k.ID()) != want {
			t.Errorf("seed %d: %s, want %s", seed, k.ID(), want)
		}
		public, err := k.ID().PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		if !ed25519.Verify(public, []byte("m"), k.Sign([]byte("m"))) {
			t.Errorf("seed %d: what the key signs does not verify with the key of its id", seed)
		}
	}
}

func TestParseIDTakesEveryGeneratedKey(t *testing.T) {
	for range 300 {
		k, err := GenerateKey()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseID(string(k.ID())); err != nil {
			t.Fatal(err)
		}
		if len(k.ID()) != idLen {
			t.Fatalf("%s is %d long", k.ID(), len(k.ID()))
		}
	}
}

func TestParseIDRefuses(t *testing.T) {
	good := string(key(t, 1).ID())
	public, _ := ID(good).PublicKey()
	small := func(i int, sign byte) string {
		y := smallOrder[i]
		y[31] |= sign
		return did(y[:])
	}
	p := bytes.Repeat([]byte{0xff}, 32)
	p[0], p[31] = 0xed+1, 0x7f // y = p + 1, another way to write y = 1
	tests := []struct{ name, id, hint string }{
		{"empty", "", "starts with did:key:z6Mk"},
		{"petname", "alice", "starts with did:key:z6Mk"},
		{"no scheme", strings.TrimPrefix(good, "did:key:"), "put did:key: before it"},
		{"upper-case scheme", "DID:KEY:" + strings.TrimPrefix(good, "did:key:"), "lower case"},
		{"space before", " " + good, "spaces or quotes"},
		{"newline after", good + "\n", "spaces or quotes"},
		{"quoted", `"` + good + `"`, "spaces or quotes"},
		{"other method", "did:web:example.com", "only did:key"},
		{"with fragment", good + "#" + strings.TrimPrefix(good, "did:key:"), "leave out everything"},
		{"base16", "did:key:f" + hex.EncodeToString(append([]byte{codec0, codec1}, public...)), "base58btc"},
		{"X25519", "did:key:z6LSbysY2xFMRpGMhb7tFTLMpeuPRaqaWM1yECx2AtzE3KCc", "not an Ed25519 key"},
		{"secp256k1", "did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme", "not an Ed25519 key"},
		{"one short", good[:len(good)-1], "copied whole"},
		{"one long", good + "1", "copied whole"},
		{"very long", good + strings.Repeat("1", 1<<20), "copied whole"},
		{"zero for o", good[:len(good)-1] + "0", "not base58"},
		{"not ASCII", good[:len(good)-2] + "é", "not base58"},
		{"leading 1 (a zero byte)", scheme + "1" + good[len(scheme):len(good)-1], "not an Ed25519 key"},
		{"small order 1", small(0, 0), "anybody can sign"},
		{"small order 1, odd x", small(0, 0x80), "anybody can sign"},
		{"small order 2", small(1, 0), "anybody can sign"},
		{"small order 4", small(2, 0x80), "anybody can sign"},
		{"small order 8", small(3, 0), "anybody can sign"},
		{"small order 8, the other", small(4, 0x80), "anybody can sign"},
		{"y not reduced", did(p), "canonical curve point"},
		{"no point", did(append([]byte{2}, make([]byte, 31)...)), "not a point"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			id, err := ParseID(test.id)
			if err == nil {
				t.Fatalf("taken as %s", id)
			}
			if !strings.Contains(err.Error(), test.hint) {
				t.Errorf("%q does not say %q", err, test.hint)
			}
			if len(err.Error()) > 300 {
				t.Errorf("the error is %d bytes long", len(err.Error()))
			}
			if _, err := ID(test.id).PublicKey(); err == nil {
				t.Error("PublicKey takes it")
			}
		})
	}
}

// Half of all y belong to a point; a check that takes all or none would not.
func TestCheckPointTellsHalf(t *testing.T) {
	on, off := 0, 0
	for i := range 2000 {
		var y [32]byte
		y[0], y[1], y[5] = byte(i), byte(i>>8), 7
		if checkPoint(y[:]) == nil {
			on++
		} else {
			off++
		}
	}
	// Half of all y are on the curve; 2000 fair coins stay within 200 of 1000.
	if on < 800 || off < 800 {
		t.Errorf("%d on the curve, %d off", on, off)
	}
}

// Any one character mistyped: never the same key, and half of the time an error.
func TestParseIDFindsTypingErrors(t *testing.T) {
	good := []byte(key(t, 2).ID())
	found, all := 0, 0
	for i := len(scheme + lead); i < len(good); i++ {
		for _, c := range []byte("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz") {
			if c == good[i] {
				continue
			}
			bad := bytes.Clone(good)
			bad[i] = c
			all++
			if id, err := ParseID(string(bad)); err != nil {
				found++
			} else if public, _ := id.PublicKey(); IDOf(public) != id {
				t.Fatalf("%s is a second spelling", bad)
			}
		}
	}
	if found*3 < all {
		t.Errorf("%d of %d found, expected about half", found, all)
	}
}

func FuzzParseID(f *testing.F) {
	f.Add(string(key(f, 1).ID()))
	f.Add("did:key:z6Mk")
	f.Add("did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp#1")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseID(s)
		if err != nil {
			return
		}
		public, err := id.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		if string(IDOf(public)) != s {
			t.Fatalf("%q is a second spelling of %s", s, IDOf(public))
		}
	})
}

func TestParseName(t *testing.T) {
	for _, good := range []string{"a", "alice", "bob-2", "0", "a--b", strings.Repeat("a", MaxName)} {
		if name, err := ParseName(good); err != nil || string(name) != good {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "-", "-a", "a-", "Alice", "a_b", "a b", "..", ".", "a.b", "a/b", `a\b`, "é", "a\x00", "a\n",
		strings.Repeat("a", MaxName+1),
	} {
		if _, err := ParseName(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestShortIsForEveryID(t *testing.T) {
	for _, id := range []ID{"", "x", "did:key:z6Mk", key(t, 1).ID()} {
		if s := id.Short(); len(s) > 20 {
			t.Errorf("%q: %q is not short", id, s)
		}
	}
}

// No way that we know of to print or encode a key shows any of it.
func TestKeyNeverPrintsItself(t *testing.T) {
	k := key(t, 7)
	type holder struct {
		Public  *Key
		private *Key
		value   Key
	}
	h := holder{k, k, *k}
	var logged bytes.Buffer
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("m", "key", k, "value", *k, "holder", h)
	slog.New(slog.NewTextHandler(&logged, nil)).Info("m", "key", k, "value", *k, "holder", h)
	asJSON, _ := json.Marshal(map[string]any{"k": k, "v": *k, "h": h})
	shown := []string{logged.String(), string(asJSON)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%08d", "%U", "%c", "%T %[1]v"} {
		for _, v := range []any{k, *k, &h, h, []*Key{k}, []Key{*k}, map[string]Key{"k": *k}, struct{ k Key }{*k}, fmt.Errorf("e: %v", k)} {
			shown = append(shown, fmt.Sprintf(verb, v))
		}
	}
	seed := bytes.Repeat([]byte{7}, 3)
	public := k.secret()[32:35]
	for _, s := range shown {
		for _, part := range [][]byte{seed, public} {
			for _, form := range []string{
				string(part), hex.EncodeToString(part), strings.ToUpper(hex.EncodeToString(part)),
				strings.Trim(fmt.Sprint(part), "[]"), strings.Trim(fmt.Sprintf("%#v", part), "[]byte{}"),
				strings.Trim(fmt.Sprintf("%o", part), "[]"), strings.Trim(fmt.Sprintf("%b", part), "[]"),
			} {
				if strings.Contains(s, form) {
					t.Errorf("%q shows %q of the key", s, form)
				}
			}
		}
	}
}

func TestKeyFileRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "peer.key")
	k := key(t, 3)
	if err := WriteKeyFile(path, k); err != nil {
		t.Fatal(err)
	}
	if err := WriteKeyFile(path, key(t, 4)); err == nil || !strings.Contains(err.Error(), "move it away") {
		t.Errorf("a key file was overwritten, or without a hint: %v", err)
	}
	got, err := ReadKeyFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.ID() != k.ID() || !bytes.Equal(got.Sign([]byte("m")), k.Sign([]byte("m"))) {
		t.Error("another key came back")
	}
}

// Where openssl is at hand it reads our files, and we its.
func TestKeyFileIsOpenSSLs(t *testing.T) {
	dir := t.TempDir()
	ours, theirs := filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
	if err := WriteKeyFile(ours, key(t, 5)); err != nil {
		t.Fatal(err)
	}
	// The form itself, without asking anybody: RFC 8410, section 7.
	text, err := os.ReadFile(ours)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	want := append(append([]byte{}, 0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20), bytes.Repeat([]byte{5}, 32)...)
	if block == nil || !bytes.Equal(block.Bytes, want) {
		t.Fatalf("not RFC 8410's form: %s", text)
	}
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		return
	}
	public, _ := key(t, 5).ID().PublicKey()
	der, err := exec.Command(openssl, "pkey", "-in", ours, "-pubout", "-outform", "DER").Output()
	if err != nil {
		t.Fatalf("openssl does not read our key: %v", err)
	}
	if got, err := x509.ParsePKIXPublicKey(der); err != nil || !bytes.Equal(got.(ed25519.PublicKey), public) {
		t.Fatalf("openssl read another key: %v", err)
	}
	if err := exec.Command(openssl, "genpkey", "-algorithm", "ed25519", "-out", theirs).Run(); err != nil {
		t.Fatalf("openssl made no key: %v", err)
	}
	if err := os.Chmod(theirs, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadKeyFile(theirs); err != nil {
		t.Fatalf("openssl's key: %v", err)
	}
}

func TestReadKeyFileRefusesOtherContents(t *testing.T) {
	dir := t.TempDir()
	k := key(t, 6)
	der, _ := x509.MarshalPKCS8PrivateKey(k.secret())
	good := pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})
	for name, text := range map[string][]byte{
		"empty":      nil,
		"text":       []byte("hello"),
		"huge":       bytes.Repeat([]byte("a"), 1<<20),
		"two":        append(bytes.Clone(good), good...),
		"openssh":    pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: der}),
		"encrypted":  pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der}),
		"public":     pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
		"cut":        pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der[:20]}),
		"other type": pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: nil}),
	} {
		path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := ReadKeyFile(path)
		if err == nil {
			t.Errorf("%s: taken", name)
			continue
		}
		if !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %q does not name the file", name, err)
		}
		if len(err.Error()) > 400 {
			t.Errorf("%s: the error shows the contents: %q", name, err)
		}
	}
}

func BenchmarkParseID(b *testing.B) {
	s := string(key(b, 1).ID())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseID(s); err != nil {
			b.Fatal(err)
		}
	}
}
