package cas_test

import (
	"strings"
	"testing"

	"github.com/circles-host/circles/host/store/cas"
	"github.com/circles-host/circles/host/store/cas/castest"
)

func TestBucket(t *testing.T) {
	castest.Run(t, func(*testing.T) cas.Remote { return &castest.Bucket{} })
}

func TestBlobIDsHaveOneSpelling(t *testing.T) {
	id := cas.BlobID{Epoch: 0xabc, Digest: [32]byte{1, 0xfe}}
	s := id.String()
	got, err := cas.ParseBlobID(s)
	if err != nil || got != id {
		t.Fatalf("parse %q: %v, %v", s, got, err)
	}
	for _, bad := range []string{"", "/", s + "0", s[1:], strings.ToUpper(s), s + "/", "x" + s, strings.Replace(s, "/", "//", 1), s[:len(s)-1] + "g"} {
		if _, err := cas.ParseBlobID(bad); err == nil {
			t.Errorf("parsed %q", bad)
		}
	}
}
