// Package natsobj keeps a context on NATS: as blobs and a root (package cas) in one
// stream of JetStream. Start with Open.
//
// # Layout
//
// A bucket is the stream circles_BUCKET. Each message of it is the one of its
// subject:
//
//	circles.BUCKET.PREFIX.root                                 the root
//	circles.BUCKET.PREFIX.blob.XX.EPOCH.DIGEST.SIZE            a blob
//
// EPOCH and DIGEST are those of cas.BlobID, XX the digest's first two digits, so
// that blobs can be listed in 256 parts, and SIZE the blob's size in bytes. The
// root is swapped by publishing it with the header
// Nats-Expected-Last-Subject-Sequence: what the key-value store of NATS calls
// revision and compare-and-set. That store and the object store are not used as
// they are: they read from any replica, which may not have the last root yet, and
// the latter puts a blob into several messages, which are not there at once.
//
// The stream is made if it is not there; made before, it must be one that forgets
// nothing by itself and answers from its leader: file storage, one message a
// subject, no age, no direct gets, and "discard new" when it is full.
//
// # What is durable
//
// That is the operator's choice, and a client cannot find it out. By default a
// server of NATS syncs its files every two minutes: after a power cut, or a crash
// of its kernel, up to two minutes of acknowledged commits are gone. (A server
// that is only killed loses nothing.) So that an acknowledged receipt survives,
// set in the server's configuration
//
//	jetstream { sync_interval: always }
//
// A stream with three replicas in places that do not fail together is the next best.
//
// # Trust
//
// The server is believed as little as any Remote: package cas checks what it
// gives. What it sends is bounded before the client library sees it. Without TLS
// only a server on this machine is talked to, and a server's word of where others
// are is not followed. Who restores a stream from a backup stops the hosts that use
// it before: its revisions begin to repeat.
package natsobj

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/cas"
)

// Config says where a context is. Servers and Bucket are required.
type Config struct {
	Servers []string `toml:"servers"` // tls://host[:port]; nats:// on this machine only
	Bucket  string   `toml:"bucket"`  // letters, digits, - and _
	Prefix  string   `toml:"prefix"`  // of this context, within the bucket; likewise; default "context"

	// Replicas of the stream, if it has to be made; default 1.
	Replicas int `toml:"replicas"`

	// Who the host is: one of a file with a JWT and its seed, as nsc makes it, a file
	// with the seed of an nkey, or a user with a password. Nobody else may read them.
	CredentialsFile string `toml:"credentials_file"`
	SeedFile        string `toml:"seed_file"`
	User            string `toml:"user"`
	PasswordFile    string `toml:"password_file"`

	CAFile   string `toml:"ca_file"`   // PEM certificates to trust instead of the system's
	CertFile string `toml:"cert_file"` // and KeyFile: a certificate of the host's own, if the server asks for one
	KeyFile  string `toml:"key_file"`

	Store cas.Config `toml:"-"`
}

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
	nc     *nats.Conn
	stream string
	prefix string // of subjects, with a dot

	mu      sync.Mutex
	waiting map[*waiting]struct{}
}

// waiting is a request that was sent.
type waiting struct {
	subject string
	cancel  context.CancelCauseFunc
}

var token = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`)

// Dial makes a cas.Remote of a bucket. It makes the bucket if there is none.
func Dial(ctx context.Context, c Config) (cas.Remote, error) {
	c.Prefix = cmp.Or(c.Prefix, "context")
	if !token.MatchString(c.Bucket) || !token.MatchString(c.Prefix) {
		return nil, fmt.Errorf("bucket %q and prefix %q must be of letters, digits, - and _", c.Bucket, c.Prefix)
	}
	r := &remote{
		stream: "circles_" + c.Bucket, prefix: "circles." + c.Bucket + "." + c.Prefix + ".", waiting: map[*waiting]struct{}{},
	}
	err := func() (err error) {
		if r.nc, err = c.connect(ctx, r); err != nil {
			return err
		}
		if most := r.nc.MaxPayload(); most < cas.MaxBlob {
			return fmt.Errorf("the server takes messages of %d bytes, and %d are needed: set max_payload in its configuration: %w", most, cas.MaxBlob, cas.ErrRefused)
		}
		return r.prepare(ctx, c)
	}()
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("bucket %s on NATS: %w", c.Bucket, err)
	}
	return r, nil
}

// Close implements cas.Remote.
func (r *remote) Close() error {
	if r.nc != nil {
		r.nc.Close()
	}
	r.interrupt(nats.ErrConnectionClosed)
	return nil
}

// interrupt ends the requests that wait for an answer which will not come.
func (r *remote) interrupt(err error) {
	r.end(fmt.Errorf("the connection was lost: %w", cmp.Or(err, nats.ErrDisconnected)), func(*waiting) bool { return true })
}

// refused ends those that the server does not permit: it says so, and answers
// nothing.
func (r *remote) refused(err error) {
	if errors.Is(err, nats.ErrPermissionViolation) {
		r.end(fmt.Errorf("the server does not permit it: %w: %w", cas.ErrRefused, err), func(w *waiting) bool {
			return strings.Contains(err.Error(), `"`+w.subject+`"`)
		})
	}
}

func (r *remote) end(err error, which func(*waiting) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for w := range r.waiting {
		if which(w) {
			w.cancel(err)
		}
	}
}

// request sends a message and waits for the answer.
func (r *remote) request(ctx context.Context, m *nats.Msg) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	until, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &waiting{m.Subject, cancel}
	r.mu.Lock()
	r.waiting[w] = struct{}{}
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.waiting, w)
		r.mu.Unlock()
	}()
	answer, err := r.nc.RequestMsgWithContext(until, m)
	switch {
	case until.Err() != nil && err != nil:
		return nil, context.Cause(until)
	case errors.Is(err, nats.ErrNoResponders):
		return nil, errNoJetStream
	case err != nil:
		return nil, err
	}
	return answer.Data, nil
}

var errNoJetStream = errors.New("nobody answers for JetStream: it is not enabled on the server or for the account, it is starting, or the stream has no leader just now")

// apiError is how JetStream says no.
type apiError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *apiError) Error() string {
	return fmt.Sprintf("JetStream says: %.200q (%d)", e.Description, e.ErrCode)
}

// Codes of JetStream's errors, of its errors.json.
const (
	codeNoMessage       = 10037
	codeNotEnabled      = 10076
	codeNotEnabledFor   = 10039 // the account
	codeNoStream        = 10059
	codeStreamNameInUse = 10058
	codeWrongLast       = 10071
	codeWrongLastConst  = 10164
	codeStoreFailed     = 10077
)

// refusals are of what was not done, and will not be if it is tried again: limits of
// an account, a server or a stream, first of all.
var refusals = map[int]string{
	codeNotEnabled:    "enable jetstream in the server's configuration",
	codeNotEnabledFor: "enable JetStream for this account",
	codeNoStream:      "the stream was removed; it is made again when the context is opened",
	10002:             "raise the limits of the account, or free some of its space",
	10023:             "raise the limits of the server, or free some of its space",
	10028:             "raise max_mem or max_file of the server, or free some space",
	10047:             "raise max_file of the server, or free some of its space",
	10052:             "",
	10054:             "raise max_msg_size of the stream",
	10074:             "the cluster has fewer servers than the stream is to have replicas",
	10109:             "the stream is sealed",
	10120:             "raise the limits of the account, or free some of its space",
	10122:             "raise max_bytes of the stream: it has a limit that the account does not allow",
}

func (e *apiError) explained() error {
	switch hint, refused := refusals[e.ErrCode]; {
	case e.ErrCode == codeWrongLast || e.ErrCode == codeWrongLastConst:
		return fmt.Errorf("%w: %w", cas.ErrLost, e)
	case e.ErrCode == codeNoMessage:
		return fmt.Errorf("%w: %w", store.ErrNotExist, e)
	case e.ErrCode == codeStoreFailed && strings.HasPrefix(e.Description, "maximum "):
		return fmt.Errorf("the stream is full; raise its max_bytes, or remove contexts from it: %w: %w", cas.ErrRefused, e)
	case refused && hint != "":
		return fmt.Errorf("%s: %w: %w", hint, cas.ErrRefused, e)
	}
	return e
}

// api asks JetStream.
func (r *remote) api(ctx context.Context, what string, question, answer any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return err
	}
	data, err := r.request(ctx, &nats.Msg{Subject: "$JS.API." + what, Data: body})
	if err != nil {
		return err
	}
	return decode(data, answer)
}

func decode(data []byte, answer any) error {
	var failed struct {
		Error *apiError `json:"error"`
	}
	if err := json.Unmarshal(data, &failed); err != nil {
		return fmt.Errorf("the server's answer is not JSON: %w", err)
	}
	if failed.Error != nil {
		return failed.Error.explained()
	}
	if err := json.Unmarshal(data, answer); err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	return nil
}

// streamConfig is what matters of a stream's configuration.
type streamConfig struct {
	Name        string   `json:"name"`
	Subjects    []string `json:"subjects"`
	Retention   string   `json:"retention"`
	Storage     string   `json:"storage"`
	Discard     string   `json:"discard"`
	MaxPer      int64    `json:"max_msgs_per_subject"`
	MaxMsgs     int64    `json:"max_msgs"`
	MaxBytes    int64    `json:"max_bytes"`
	MaxAge      int64    `json:"max_age"`
	MaxMsgSize  int32    `json:"max_msg_size"`
	Replicas    int      `json:"num_replicas"`
	Duplicates  int64    `json:"duplicate_window,omitempty"`
	AllowDirect bool     `json:"allow_direct"`
	DenyPurge   bool     `json:"deny_purge"`
	NoAck       bool     `json:"no_ack,omitempty"`
	Sealed      bool     `json:"sealed"`
	PersistMode string   `json:"persist_mode,omitempty"`
	Description string   `json:"description,omitempty"`

	Transform json.RawMessage `json:"subject_transform,omitempty"`
	Mirror    json.RawMessage `json:"mirror,omitempty"`
	Sources   json.RawMessage `json:"sources,omitempty"`
}

type streamInfo struct {
	Config streamConfig `json:"config"`
	State  struct {
		Subjects map[string]uint64 `json:"subjects"`
	} `json:"state"`
	Total  int `json:"total"`
	Offset int `json:"offset"`
}

// prepare finds the stream, or makes it.
func (r *remote) prepare(ctx context.Context, c Config) error {
	var info streamInfo
	all := "circles." + c.Bucket + ".>"
	err := r.api(ctx, "STREAM.INFO."+r.stream, struct{}{}, &info)
	var no *apiError
	if errors.As(err, &no) && no.ErrCode == codeNoStream {
		err = r.api(ctx, "STREAM.CREATE."+r.stream, streamConfig{
			Name: r.stream, Subjects: []string{all}, Retention: "limits", Storage: "file", Discard: "new",
			MaxPer: 1, MaxMsgs: -1, MaxBytes: -1, MaxMsgSize: -1, Replicas: cmp.Or(c.Replicas, 1),
			Description: "contexts of circles",
		}, &info)
		if errors.As(err, &no) && no.ErrCode == codeStreamNameInUse { // somebody was faster
			err = r.api(ctx, "STREAM.INFO."+r.stream, struct{}{}, &info)
		}
	}
	if err != nil {
		return fmt.Errorf("find or make stream %s: %w", r.stream, err)
	}
	if bad := info.Config.unfit(all); bad != "" {
		return fmt.Errorf("stream %s %s: change that, or let the host make the stream: %w", r.stream, bad, cas.ErrRefused)
	}
	return nil
}

// unfit says why a stream does not keep what it is given.
func (s streamConfig) unfit(all string) string {
	set := func(b json.RawMessage) bool { return len(b) > 0 && string(b) != "null" }
	switch {
	case len(s.Subjects) != 1 || s.Subjects[0] != all:
		return fmt.Sprintf("has other subjects than %s", all)
	case s.Storage != "file":
		return "is kept in memory"
	case s.MaxPer != 1:
		return "does not have max_msgs_per_subject 1"
	case s.Discard != "new":
		return "throws away what is old when it is full (discard must be new)"
	case s.MaxAge != 0:
		return "throws away what is old (max_age)"
	case s.MaxMsgSize > 0 && s.MaxMsgSize < cas.MaxBlob+1024:
		return fmt.Sprintf("takes messages of %d bytes (max_msg_size)", s.MaxMsgSize)
	case s.Retention != "limits":
		return "throws away what was read (retention must be limits)"
	case s.AllowDirect:
		return "answers from replicas that may be behind (allow_direct)"
	case s.DenyPurge || s.Sealed:
		return "does not let blobs be removed (deny_purge, sealed)"
	case s.NoAck:
		return "acknowledges nothing (no_ack)"
	case s.PersistMode == "async":
		return "acknowledges what it has not written (persist_mode)"
	case set(s.Transform) || set(s.Mirror) || set(s.Sources) && string(s.Sources) != "[]":
		return "takes messages from elsewhere, or under other subjects"
	}
	return ""
}

// blob is the subject of a blob; its size is a wildcard where it is not known.
func (r *remote) blob(id cas.BlobID, size string) string {
	digest := hex.EncodeToString(id.Digest[:])
	return fmt.Sprintf("%sblob.%s.%016x.%s.%s", r.prefix, digest[:2], id.Epoch, digest, size)
}

const anySize = "*"

// publish stores a message, and returns its sequence number.
func (r *remote) publish(ctx context.Context, m *nats.Msg) (uint64, error) {
	data, err := r.request(ctx, m)
	if err != nil {
		return 0, err
	}
	var ack struct {
		Stream string `json:"stream"`
		Seq    uint64 `json:"seq"`
	}
	if err := decode(data, &ack); err != nil {
		return 0, err
	}
	if ack.Stream != r.stream || ack.Seq == 0 {
		return 0, fmt.Errorf("the message was taken by stream %.100q as number %d", ack.Stream, ack.Seq)
	}
	return ack.Seq, nil
}

// PutBlob implements cas.Remote.
func (r *remote) PutBlob(ctx context.Context, id cas.BlobID, data []byte) error {
	if len(data) > cas.MaxBlob {
		return fmt.Errorf("put blob of %d bytes: %w", len(data), store.ErrTooBig)
	}
	if _, err := r.publish(ctx, &nats.Msg{Subject: r.blob(id, strconv.Itoa(len(data))), Data: data}); err != nil {
		return fmt.Errorf("put blob %v: %w", id, err)
	}
	return nil
}

type stored struct {
	Message struct {
		Subject string    `json:"subject"`
		Seq     uint64    `json:"seq"`
		Data    []byte    `json:"data"`
		Time    time.Time `json:"time"`
	} `json:"message"`
}

func (r *remote) get(ctx context.Context, subject string, most int) (stored, error) {
	var m stored
	err := r.api(ctx, "STREAM.MSG.GET."+r.stream, map[string]string{"last_by_subj": subject}, &m)
	if err == nil && (m.Message.Seq == 0 || len(m.Message.Data) > most) {
		err = fmt.Errorf("message %d has %d bytes", m.Message.Seq, len(m.Message.Data))
	}
	return m, err
}

// GetBlob implements cas.Remote.
func (r *remote) GetBlob(ctx context.Context, id cas.BlobID) ([]byte, error) {
	m, err := r.get(ctx, r.blob(id, anySize), cas.MaxBlob)
	if err != nil {
		return nil, fmt.Errorf("get blob %v: %w", id, err)
	}
	return m.Message.Data, nil
}

// subjects yields those that match, and are there.
func (r *remote) subjects(ctx context.Context, filter string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for offset := 0; ; {
			var info streamInfo
			if err := r.api(ctx, "STREAM.INFO."+r.stream, map[string]any{"subjects_filter": filter, "offset": offset}, &info); err != nil {
				yield("", err)
				return
			}
			for s := range info.State.Subjects {
				if !yield(s, nil) {
					return
				}
			}
			offset += len(info.State.Subjects)
			if len(info.State.Subjects) == 0 || offset >= info.Total {
				return
			}
			if offset > maxSubjects {
				yield("", fmt.Errorf("the server lists more than %d messages under %s", maxSubjects, filter))
				return
			}
		}
	}
}

// maxSubjects bounds a 256th of the blobs of a context: a server could go on for ever.
const maxSubjects = 1_000_000

// HasBlob implements cas.Remote.
func (r *remote) HasBlob(ctx context.Context, id cas.BlobID) (bool, error) {
	for s, err := range r.subjects(ctx, r.blob(id, anySize)) {
		if err != nil {
			return false, fmt.Errorf("look for blob %v: %w", id, err)
		}
		if b, ok := r.parse(s); ok && b.ID == id {
			return true, nil
		}
	}
	return false, nil
}

// ListBlobs implements cas.Remote.
func (r *remote) ListBlobs(ctx context.Context) iter.Seq2[cas.Blob, error] {
	return func(yield func(cas.Blob, error) bool) {
		for part := range 256 {
			for s, err := range r.subjects(ctx, fmt.Sprintf("%sblob.%02x.>", r.prefix, part)) {
				if err != nil {
					yield(cas.Blob{}, fmt.Errorf("list blobs: %w", err))
					return
				}
				b, ok := r.parse(s)
				if ok && !yield(b, nil) {
					return
				}
			}
		}
	}
}

// parse reads a subject; what is none of a blob is passed over.
func (r *remote) parse(subject string) (cas.Blob, bool) {
	t := strings.Split(subject, ".")
	if len(t) < 3 {
		return cas.Blob{}, false
	}
	n := len(t)
	id, err := cas.ParseBlobID(t[n-3] + "/" + t[n-2])
	if err != nil {
		return cas.Blob{}, false
	}
	size, err := strconv.ParseUint(t[n-1], 10, 31)
	if err != nil || size > cas.MaxBlob || r.blob(id, strconv.FormatUint(size, 10)) != subject {
		return cas.Blob{}, false
	}
	return cas.Blob{ID: id, Size: int64(size)}, true
}

// DeleteBlob implements cas.Remote.
func (r *remote) DeleteBlob(ctx context.Context, id cas.BlobID) error {
	var done struct {
		Success bool `json:"success"`
	}
	if err := r.api(ctx, "STREAM.PURGE."+r.stream, map[string]string{"filter": r.blob(id, anySize)}, &done); err != nil {
		return fmt.Errorf("delete blob %v: %w", id, err)
	}
	if !done.Success {
		return fmt.Errorf("delete blob %v: the server did not", id)
	}
	return nil
}

// version is a revision with a part of a digest: a stream that was removed and made
// again begins to count again.
func version(seq uint64, data []byte) cas.Version {
	digest := sha256.Sum256(data)
	return cas.Version(fmt.Sprintf("%d-%x", seq, digest[:8]))
}

// LoadRoot implements cas.Remote.
func (r *remote) LoadRoot(ctx context.Context, _ cas.Version) ([]byte, cas.Version, error) {
	m, err := r.get(ctx, r.prefix+"root", cas.MaxRoot)
	if errors.Is(err, store.ErrNotExist) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("load root: %w", err)
	}
	return m.Message.Data, version(m.Message.Seq, m.Message.Data), nil
}

// SwapRoot implements cas.Remote.
func (r *remote) SwapRoot(ctx context.Context, data []byte, base cas.Version) (cas.Version, error) {
	var seq uint64
	if base != "" {
		number, _, _ := strings.Cut(string(base), "-")
		var err error
		if seq, err = strconv.ParseUint(number, 10, 64); err != nil || seq == 0 {
			return "", fmt.Errorf("swap root: version %q is none of this bucket's: %w", base, cas.ErrLost)
		}
	}
	m := &nats.Msg{Subject: r.prefix + "root", Data: data, Header: nats.Header{}}
	m.Header.Set("Nats-Expected-Stream", r.stream)
	m.Header.Set("Nats-Expected-Last-Subject-Sequence", strconv.FormatUint(seq, 10))
	now, err := r.publish(ctx, m)
	if err != nil {
		return "", fmt.Errorf("swap root: %w", err)
	}
	return version(now, data), nil
}
