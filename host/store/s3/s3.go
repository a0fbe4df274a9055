// Package s3 keeps a context in an S3 bucket: Amazon's, or that of any server which
// speaks its protocol and honours conditional writes. It is a cas.Remote and little
// else; package cas has what is kept how, and why it is safe.
//
//	s, err := s3.Open(ctx, s3.Config{Endpoint: "https://s3.eu-central-1.amazonaws.com",
//		Region: "eu-central-1", Bucket: "peers", Prefix: "alice/", CredentialsFile: "…"})
//
// # In the bucket
//
//	<prefix>root                          replaced with If-Match, made with If-None-Match
//	<prefix>blobs/<epoch>/<digest>        never replaced by anything else
//	<prefix>probe                         one byte; see below
//
// Several contexts share a bucket under different prefixes, and several workers a
// context. Whoever may write objects under the prefix can destroy the context or put
// an older state back, as whoever may write a directory can; what is not what it was
// is noticed, as far as package cas says. Keep the bucket private, give each host a
// key of its own that may do nothing but s3:GetObject, s3:PutObject, s3:DeleteObject
// and s3:ListBucket there, and switch versioning on for a way back.
//
// # Conditional writes
//
// All safety hangs on one thing: that the bucket refuses to replace the root when it
// is no longer the one that If-Match names. There are servers that ignore the header,
// and proxies that drop it, and with those two workers would take each other's
// commits away. So Open tries: it asks for the object "probe" to be made though it
// exists, and to be replaced though it is not what the condition says. A bucket
// that does either is ErrUnconditional.
//
// # On the way
//
// Off loopback it must be TLS. Every body that is sent is signed with its digest, TLS
// or not, so a byte that changes on the way, in a proxy, or in the server before it
// was checked, is refused there; what comes back is compared by package cas.
package s3

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/cas"
)

// Config is for Open and Dial. Endpoint and Bucket must be set.
type Config struct {
	Endpoint string `toml:"endpoint"` // https://host[:port]; http:// on loopback only
	Region   string `toml:"region"`   // default us-east-1, which most servers other than Amazon's take for theirs
	Bucket   string `toml:"bucket"`   // must be there
	Prefix   string `toml:"prefix"`   // of all names; "" or a path that ends with a slash

	// The keys are those of CredentialsFile; or else AccessKey, with what SecretKeyFile
	// holds (SecretKey is for programs that embed this); or else those in
	// AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN.
	CredentialsFile string `toml:"credentials_file"` // in the form of ~/.aws/credentials
	Profile         string `toml:"profile"`          // in CredentialsFile; default "default"
	AccessKey       string `toml:"access_key"`
	SecretKeyFile   string `toml:"secret_key_file"` // holds the secret key and nothing else; nobody else may read it
	SecretKey       string `toml:"-" json:"-"`

	CAFile string `toml:"ca_file"` // PEM certificates to trust instead of the system's

	Store cas.Config `toml:"-" json:"-"`
}

// ErrUnconditional is the error of a bucket that ignores the conditions of writes.
var ErrUnconditional = errors.New("the bucket ignores the conditions of writes (If-Match, If-None-Match), so two workers would overwrite each other's commits: use a server that honours them, and no proxy that drops them")

// Open opens the context that is kept in a bucket under a prefix; an empty context if
// nothing is there yet.
func Open(ctx context.Context, c Config) (*cas.Store, error) {
	r, err := Dial(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return cas.Open(ctx, r, c.Store)
}

// remote implements cas.Remote.
type remote struct {
	core      minio.Core
	transport *http.Transport
	bucket    string
	prefix    string
}

// Dial makes a cas.Remote of a bucket, after it has tried that: the keys, that it is
// there, and that it keeps to the conditions of writes.
func Dial(ctx context.Context, c Config) (cas.Remote, error) {
	r, err := c.client()
	if err != nil {
		return nil, fmt.Errorf("bucket %s at %s: %w", c.Bucket, c.Endpoint, err)
	}
	if err := r.probe(ctx); err != nil {
		r.Close()
		return nil, fmt.Errorf("bucket %s at %s: %w", c.Bucket, c.Endpoint, err)
	}
	return r, nil
}

// client checks c and makes what it describes, without asking anybody.
func (c Config) client() (*remote, error) {
	u, err := url.Parse(c.Endpoint)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("endpoint %q must be like https://host:port, without a path", c.Endpoint)
	}
	switch {
	case c.Bucket == "":
		return nil, errors.New("no bucket is named")
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, fmt.Errorf("endpoint %q must begin with https://", c.Endpoint)
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return nil, fmt.Errorf("endpoint %q must begin with https://: without TLS everybody on the way could read the files", c.Endpoint)
	case c.Prefix != "" && (!strings.HasSuffix(c.Prefix, "/") || !fs.ValidPath(strings.TrimSuffix(c.Prefix, "/"))):
		return nil, fmt.Errorf("prefix %q must be a path that ends with a slash, and not begin with one", c.Prefix)
	}
	keys, err := c.keys()
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: 16,
		MaxConnsPerHost:     64,
		IdleConnTimeout:     time.Minute,
		DisableCompression:  true,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
		// A server that goes on sending headers is cut off.
		MaxResponseHeaderBytes: 64 << 10,
	}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read ca_file: %w", err)
		}
		transport.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file %s holds no certificate in PEM form", c.CAFile)
		}
	}
	core, err := minio.NewCore(u.Host, &minio.Options{
		Creds:      keys,
		Secure:     u.Scheme == "https",
		Region:     cmp.Or(c.Region, "us-east-1"), // or it would ask the server, which many may not
		Transport:  transport,
		MaxRetries: 1, // package cas tries again, and knows what may be
	})
	if err != nil {
		return nil, err
	}
	return &remote{*core, transport, c.Bucket, c.Prefix}, nil
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func (c Config) keys() (*credentials.Credentials, error) {
	switch {
	case c.CredentialsFile != "":
		if err := private(c.CredentialsFile); err != nil {
			return nil, err
		}
		keys := credentials.NewFileAWSCredentials(c.CredentialsFile, cmp.Or(c.Profile, "default"))
		if v, err := keys.GetWithContext(nil); err != nil || v.AccessKeyID == "" || v.SecretAccessKey == "" {
			return nil, errors.Join(fmt.Errorf("credentials_file %s has no keys under [%s]", c.CredentialsFile, cmp.Or(c.Profile, "default")), err)
		}
		return keys, nil
	case c.AccessKey != "":
		secret := c.SecretKey
		if secret == "" {
			if c.SecretKeyFile == "" {
				return nil, errors.New("there is an access_key but no secret_key_file: name the file that holds the secret key")
			}
			if err := private(c.SecretKeyFile); err != nil {
				return nil, err
			}
			b, err := os.ReadFile(c.SecretKeyFile)
			if err != nil {
				return nil, fmt.Errorf("read secret_key_file: %w", err)
			}
			secret = strings.TrimSpace(string(b))
		}
		return credentials.NewStaticV4(c.AccessKey, secret, ""), nil
	case os.Getenv("AWS_ACCESS_KEY_ID") == "" || os.Getenv("AWS_SECRET_ACCESS_KEY") == "":
		return nil, errors.New("no keys: set credentials_file, or access_key and secret_key_file, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment")
	}
	return credentials.NewStaticV4(os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY"), os.Getenv("AWS_SESSION_TOKEN")), nil
}

// private refuses a file of secrets that others can read.
func private(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return fmt.Errorf("read keys: %w", err)
	}
	if !info.Mode().IsRegular() || othersRead(info) {
		return fmt.Errorf("%s holds secret keys and others can read it, or it is no file: chmod 600 it", file)
	}
	return nil
}

// probe is described in the package's documentation. The first time it makes the
// object; from then on it takes two requests, that write nothing.
func (r *remote) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	name, body := r.prefix+"probe", []byte("1")
	made := false
	for {
		_, err := r.put(ctx, name, body, func(o *minio.PutObjectOptions) { o.SetMatchETagExcept("*") })
		if errors.Is(err, cas.ErrLost) {
			break
		}
		if err != nil {
			return fmt.Errorf("try to write: %w", err)
		}
		if made {
			return ErrUnconditional
		}
		made = true
	}
	// Of no object: an ETag in the usual form, which no content is known for.
	_, err := r.put(ctx, name, body, func(o *minio.PutObjectOptions) { o.SetMatchETag(strings.ToLower(rand.Text() + "000000")) })
	switch {
	case err == nil:
		return ErrUnconditional
	case errors.Is(err, cas.ErrLost):
		return nil
	}
	return fmt.Errorf("try to write: %w", err)
}

func (r *remote) put(ctx context.Context, name string, data []byte, with func(*minio.PutObjectOptions)) (cas.Version, error) {
	// DisableContentSha256 is of the library's own way to sign a body, in parts as it
	// is sent, which it does wrongly for an empty one; we sign the whole, below.
	o := minio.PutObjectOptions{ContentType: "application/octet-stream", DisableContentSha256: true}
	if with != nil {
		with(&o)
	}
	digest := sha256.Sum256(data)
	info, err := r.core.PutObject(ctx, r.bucket, name, bytes.NewReader(data), int64(len(data)), "", hex.EncodeToString(digest[:]), o)
	if err != nil {
		return "", r.explain(err)
	}
	if info.ETag == "" {
		return "", errors.New("the server does not say which ETag the object has")
	}
	return cas.Version(info.ETag), nil
}

// get reads an object of at most limit bytes.
func (r *remote) get(ctx context.Context, name string, limit int64, o minio.GetObjectOptions) ([]byte, cas.Version, error) {
	body, info, _, err := r.core.GetObject(ctx, r.bucket, name, o)
	if err != nil {
		return nil, "", r.explain(err)
	}
	defer body.Close()
	if info.Size > limit {
		return nil, "", fmt.Errorf("%s has %d bytes, and at most %d were written", name, info.Size, limit)
	}
	// As many as were promised: one more would be a lie, and a way to fill our memory.
	data, err := io.ReadAll(io.LimitReader(body, limit+1))
	if err != nil {
		return nil, "", fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(data)) != info.Size {
		return nil, "", fmt.Errorf("read %s: %d bytes of %d came", name, len(data), info.Size)
	}
	return data, cas.Version(info.ETag), nil
}

func (r *remote) blob(id cas.BlobID) string { return r.prefix + "blobs/" + id.String() }

// PutBlob implements cas.Remote.
func (r *remote) PutBlob(ctx context.Context, id cas.BlobID, data []byte) error {
	_, err := r.put(ctx, r.blob(id), data, nil)
	return err
}

// GetBlob implements cas.Remote.
func (r *remote) GetBlob(ctx context.Context, id cas.BlobID) ([]byte, error) {
	data, _, err := r.get(ctx, r.blob(id), cas.MaxBlob, minio.GetObjectOptions{})
	return data, err
}

// HasBlob implements cas.Remote.
func (r *remote) HasBlob(ctx context.Context, id cas.BlobID) (bool, error) {
	_, err := r.core.StatObject(ctx, r.bucket, r.blob(id), minio.StatObjectOptions{})
	if err = r.explain(err); errors.Is(err, store.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// ListBlobs implements cas.Remote.
func (r *remote) ListBlobs(ctx context.Context) iter.Seq2[cas.Blob, error] {
	return func(yield func(cas.Blob, error) bool) {
		under := r.prefix + "blobs/"
		for o := range r.core.ListObjectsIter(ctx, r.bucket, minio.ListObjectsOptions{Prefix: under, Recursive: true}) {
			if o.Err != nil {
				yield(cas.Blob{}, fmt.Errorf("list blobs: %w", r.explain(o.Err)))
				return
			}
			name, ok := strings.CutPrefix(o.Key, under)
			id, err := cas.ParseBlobID(name)
			if !ok || err != nil {
				continue
			}
			if !yield(cas.Blob{ID: id, Size: o.Size}, nil) {
				return
			}
		}
		if ctx.Err() != nil { // which the library takes for the end
			yield(cas.Blob{}, fmt.Errorf("list blobs: %w", context.Cause(ctx)))
		}
	}
}

// DeleteBlob implements cas.Remote.
func (r *remote) DeleteBlob(ctx context.Context, id cas.BlobID) error {
	err := r.explain(r.core.RemoveObject(ctx, r.bucket, r.blob(id), minio.RemoveObjectOptions{}))
	if errors.Is(err, store.ErrNotExist) {
		return nil
	}
	return err
}

// LoadRoot implements cas.Remote.
func (r *remote) LoadRoot(ctx context.Context, have cas.Version) ([]byte, cas.Version, error) {
	var o minio.GetObjectOptions
	if have != "" {
		o.Set("If-None-Match", `"`+string(have)+`"`)
	}
	data, version, err := r.get(ctx, r.prefix+"root", cas.MaxRoot, o)
	switch {
	case errors.Is(err, errNotModified):
		return nil, have, nil
	case errors.Is(err, store.ErrNotExist):
		return nil, "", r.absent(ctx)
	case err == nil && version == "":
		return nil, "", errors.New("the server does not say which ETag the root has")
	}
	return data, version, err
}

// absent asks in another way whether there is no root. A "404" may be some proxy's,
// and a context that is taken for empty would be a bad answer to that.
func (r *remote) absent(ctx context.Context) error {
	for o := range r.core.ListObjectsIter(ctx, r.bucket, minio.ListObjectsOptions{Prefix: r.prefix + "root", MaxKeys: 1}) {
		if o.Err != nil {
			return fmt.Errorf("see whether there is a root: %w", r.explain(o.Err))
		}
		if o.Key == r.prefix+"root" {
			return errors.New("the server lists the root, but says when asked for it that there is none")
		}
	}
	return ctx.Err()
}

// SwapRoot implements cas.Remote.
func (r *remote) SwapRoot(ctx context.Context, data []byte, base cas.Version) (cas.Version, error) {
	version, err := r.put(ctx, r.prefix+"root", data, func(o *minio.PutObjectOptions) {
		if base == "" {
			o.SetMatchETagExcept("*")
		} else {
			o.SetMatchETag(string(base))
		}
	})
	if errors.Is(err, store.ErrNotExist) { // what If-Match named is gone altogether
		err = fmt.Errorf("%w: %v", cas.ErrLost, err)
	}
	return version, err
}

// Close implements cas.Remote.
func (r *remote) Close() error {
	r.transport.CloseIdleConnections()
	return nil
}

var errNotModified = errors.New("not modified")

// explain puts what the server said into words of cas, and of people.
func (r *remote) explain(err error) error {
	if err == nil {
		return nil
	}
	var said minio.ErrorResponse
	if !errors.As(err, &said) {
		return err // of the network, or of ctx
	}
	switch said.Code {
	case "NoSuchKey":
		return fmt.Errorf("%w: %v", store.ErrNotExist, err)
	case "PreconditionFailed":
		return fmt.Errorf("%w: %v", cas.ErrLost, err)
	case "NoSuchBucket":
		return fmt.Errorf("%w: there is no such bucket; make it, or name another (%v)", cas.ErrRefused, err)
	case "SignatureDoesNotMatch", "XAmzContentSHA256Mismatch":
		// Or a byte was changed on the way: another try may help.
		return fmt.Errorf("the server does not take the signature: the secret key is wrong, or what was sent changed on its way (%w)", err)
	case "InvalidAccessKeyId", "InvalidToken", "ExpiredToken", "AuthorizationHeaderMalformed":
		return fmt.Errorf("%w: the server does not take the access key with its secret key, or is in another region (%v)", cas.ErrRefused, err)
	case "AccessDenied":
		return fmt.Errorf("%w: the access key may not do that; it needs to get, put, delete and list objects (%v)", cas.ErrRefused, err)
	case "RequestTimeTooSkewed":
		return fmt.Errorf("%w: the clocks of this machine and of the server differ too much; set this one (%v)", cas.ErrRefused, err)
	case "NotImplemented":
		return fmt.Errorf("%w: the server cannot do that (%v)", cas.ErrRefused, err)
	}
	switch said.StatusCode {
	case http.StatusNotModified:
		return errNotModified
	case http.StatusPreconditionFailed:
		return fmt.Errorf("%w: %v", cas.ErrLost, err)
	case http.StatusNotFound: // of a HEAD request, which has no body to say more in
		return fmt.Errorf("%w: %v", store.ErrNotExist, err)
	case http.StatusForbidden, http.StatusUnauthorized:
		return fmt.Errorf("%w: the access key may not do that, or is not what the server knows (%v)", cas.ErrRefused, err)
	}
	return err
}
