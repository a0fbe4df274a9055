package cas

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"strings"
)

// Remote is where blobs and a root object are kept: a bucket, or what is like
// one. It knows nothing of files and logs, and this package believes nothing
// that it says: every blob is compared with its digest, every object is bounded
// and decoded as if an enemy had written it.
//
// A Remote is safe for concurrent use, and several workers use one bucket at the
// same time, each through a Remote of its own. The bucket must be consistent: what
// was put can be got at once, by everybody, and so can a root that was swapped in.
// Each call ends soon after its ctx. Deadlines, retries and the check of digests
// are the caller's, so an implementation has none of them. (A client library that
// retries by itself must be told not to retry SwapRoot.)
//
// An error is one of ErrNotExist, ErrLost and ErrRefused where one fits, and says
// of anything else nothing at all: the request may have been carried out, may be
// carried out later, or never.
type Remote interface {
	// PutBlob stores data, of at most MaxBlob bytes, under id. It may be called
	// again with the same arguments, also while the first call runs; a part of a
	// blob is never seen under its id. It does not keep data.
	PutBlob(ctx context.Context, id BlobID, data []byte) error

	// GetBlob returns a blob, which is the caller's then. There being none is
	// ErrNotExist. One of more than MaxBlob bytes is an error, and is not read.
	GetBlob(ctx context.Context, id BlobID) ([]byte, error)

	// HasBlob reports whether there is a blob of that id.
	HasBlob(ctx context.Context, id BlobID) (bool, error)

	// ListBlobs yields every blob, in any order; those that are put or deleted
	// meanwhile may be missing. What is in the bucket beside blobs is passed over.
	// It ends after the first error.
	ListBlobs(ctx context.Context) iter.Seq2[Blob, error]

	// DeleteBlob removes a blob. There being none is no error.
	DeleteBlob(ctx context.Context, id BlobID) error

	// LoadRoot returns the root and its version. If the version is still have, data
	// may be nil: a bucket can tell that without sending it. A bucket that has no
	// root gives nil, "" and no error. A root of more than MaxRoot bytes is an
	// error, and is not read.
	LoadRoot(ctx context.Context, have Version) (data []byte, version Version, err error)

	// SwapRoot replaces the root by data, if and only if its version is still base,
	// in one step that no other worker's SwapRoot can come in between of; base ""
	// means: if there is none. It returns the new version.
	//
	// ErrLost means that the version was another: the root is not data, or is data
	// because an earlier call with the same arguments succeeded unheard. After
	// ErrRefused it was not carried out. After any other error, a timeout after the
	// request was sent, say, the outcome is unknown, and the caller finds out: each
	// root holds an id that no other one has, so that who reads it back knows it.
	// An implementation must neither guess nor try again by itself.
	SwapRoot(ctx context.Context, data []byte, base Version) (Version, error)

	// Close gives up what the Remote holds: connections, for the most part.
	Close() error
}

// Version is what a bucket calls one state of the root: an ETag, a revision. Two
// different roots never have the same one.
type Version string

const (
	// MaxBlob is the size of a blob at most, in bytes: what is held in memory at
	// once, what a lying bucket can make us read, and what is sent again when a
	// request failed.
	MaxBlob = 1 << 20
	// MaxRoot is the size of the root at most, in bytes. It is written whole at each
	// commit.
	MaxRoot = 256 << 10
)

var (
	// ErrLost is SwapRoot's: the root was no longer of that version.
	ErrLost = errors.New("the root was swapped by somebody else")

	// ErrRefused marks an error that another try does not cure, and after which
	// nothing was done: wrong credentials, no such bucket.
	ErrRefused = errors.New("refused")
)

// BlobID names a blob: by the digest of its bytes, and by the epoch in which it was
// written. See "Garbage" in the package's documentation for why the digest alone is
// not enough.
type BlobID struct {
	Epoch  uint64
	Digest [sha256.Size]byte
}

// String is the form in which a bucket has it: 16 hexadecimal digits of the epoch,
// a slash, 64 of the digest. Lower case, and one to one.
func (id BlobID) String() string {
	return fmt.Sprintf("%016x/%x", id.Epoch, id.Digest)
}

// ParseBlobID is the inverse of String; what is spelled in any other way is an
// error.
func ParseBlobID(s string) (BlobID, error) {
	var id BlobID
	epoch, digest, _ := strings.Cut(s, "/")
	if e, err := hex.DecodeString(epoch); err == nil && len(e) == 8 {
		id.Epoch = binary.BigEndian.Uint64(e)
	}
	if d, err := hex.DecodeString(digest); err == nil && len(d) == len(id.Digest) {
		id.Digest = [sha256.Size]byte(d)
	}
	if id.String() != s {
		return BlobID{}, fmt.Errorf("%.100q is not the name of a blob", s)
	}
	return id, nil
}

// Blob is one of a list.
type Blob struct {
	ID   BlobID
	Size int64
}
