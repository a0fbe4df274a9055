package host

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/history"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/units"
)

// Root is a directory that holds a host: its key, its modules, and the peers
// whose contexts it keeps.
//
//	<root>/
//	  circles.toml             listeners, limits, petnames and routes of other peers
//	  host.key                 the host's own identity (0600); receipts are signed with it
//	  modules/                 modules shared by all contexts; hot-reloaded
//	  cache/                   compiled code, by digest, and the peers by id: safe to delete
//	  journal/                 commits of contexts in directories, until they are durable in their places
//	  worker.lock              locked while a worker serves the root, and says where; see Claim
//	  peers/<petname>/
//	    peer.toml  peer.key    identity, and how it is stored; the key may live elsewhere
//	    policy/*.cedar         hot-reloaded; circles.toml beside them lists the peer's circles
//	    modules/               the peer's own layer; hot-reloaded
//	    data/                  all that a script can see of the file system
//	    log/                   receipts, hash-chained
//	    tx/                    transactions under way
//	    context.*              what belongs to the context and is not its owner's to edit;
//	                           with another backend than fs, in place of data, log and tx
type Root struct {
	Dir    string
	Peers  *peer.Directory
	Config RootConfig
}

// RootConfig is what circles.toml sets, besides peers.
type RootConfig struct {
	Listen string `toml:"listen"` // HOST:PORT; "" is DefaultListen
	TLS    struct {
		Cert string `toml:"cert"` // PEM files, relative to the root
		Key  string `toml:"key"`
	} `toml:"tls"`
	Limits struct {
		Time      units.Duration `toml:"time"`   // of one script
		Memory    units.Size     `toml:"memory"` // of its linear memory
		Output    units.Size     `toml:"output"`
		Log       units.Size     `toml:"log"`
		HostCalls units.Count    `toml:"host_calls"`
		Fuel      units.Count    `toml:"fuel"`
		Bytes     units.Size     `toml:"bytes"`   // of the files that it writes, together
		File      units.Size     `toml:"file"`    // of each of them
		Entries   units.Count    `toml:"entries"` // names that it makes, removes, moves, or whose files it writes
		Handles   units.Count    `toml:"handles"` // open at once
		Depth     units.Count    `toml:"depth"`   // names in a path
		Sends     units.Count    `toml:"sends"`   // scripts that it sends to others
	} `toml:"limits"`
	Worker struct {
		Memory   units.Size `toml:"memory"`   // that all scripts together may take
		Waiting  int        `toml:"waiting"`  // scripts that may wait for their share of it
		Scripts  int        `toml:"scripts"`  // that run or wait at once
		Received units.Size `toml:"received"` // bytes of scripts that are not done with
		Contexts int        `toml:"contexts"` // that are kept open unused
	} `toml:"worker"`
	Store StoreConfig `toml:"store"`
	Quota Quota       `toml:"quota"` // of each context, where its peer.toml does not say otherwise
	Undo  UndoConfig  `toml:"undo"`

	Modules ModulesConfig `toml:"modules"`
}

// ModulesConfig says what is kept of the past of modules, to go back to.
type ModulesConfig struct {
	Versions units.Count `toml:"versions"` // of each
	Bytes    units.Size  `toml:"bytes"`    // of all of a layer
}

// Keep returns it as a Host takes it; what is not set is its default.
func (c ModulesConfig) Keep() module.Keep {
	return module.Keep{Versions: int(min(c.Versions, 1000)), Bytes: int64(min(c.Bytes, 1<<50))}
}

// UndoConfig says what is kept of each context to undo scripts by.
type UndoConfig struct {
	Keep  units.Age  `toml:"keep"`
	Bytes units.Size `toml:"bytes"`
}

// History returns it as a Host takes it; what is not set is its default.
func (c UndoConfig) History() history.Config {
	return history.Config{Keep: time.Duration(c.Keep), Bytes: int64(c.Bytes)}
}

// DefaultListen is where a worker listens unless it is told otherwise.
const DefaultListen = "127.0.0.1:7070"

const (
	rootFile    = "circles.toml"
	hostKeyFile = "host.key"
)

// Engine returns the limits for an engine; what is not set is its default.
func (c RootConfig) Engine() engine.Limits {
	return engine.Limits{
		Wall: time.Duration(c.Limits.Time), Memory: uint64(c.Limits.Memory), Output: uint64(c.Limits.Output),
		Log: uint64(c.Limits.Log), HostCalls: uint64(c.Limits.HostCalls), Fuel: uint64(c.Limits.Fuel),
	}
}

// Files returns the limits for a script's files; what is not set is the store's.
func (c RootConfig) Files() store.Limits {
	l := c.Limits
	number := func(n units.Count) int { return int(min(n, 1<<30)) }
	return store.Limits{
		Bytes: int64(l.Bytes), FileSize: int64(l.File),
		Entries: number(l.Entries), Handles: number(l.Handles), Depth: number(l.Depth),
	}
}

// Sends returns the limit for scripts that a script sends; 0 if it is not set.
func (c RootConfig) Sends() int { return int(min(c.Limits.Sends, script.MaxSent)) }

const newConfig = `# A circles host. What is commented out shows the default.

# listen = "127.0.0.1:7070"   # any other address than loopback needs [tls]

# [tls]
# cert = "cert.pem"
# key = "key.pem"

# [limits]                    # of each script
# time = "5s"
# memory = "64MiB"
# output = "8MiB"
# log = "64KiB"
# bytes = "4GiB"              # of the files that it writes, together
# file = "2GiB"               # of each of them
# entries = 100000            # names that it makes, removes, moves, or whose files it writes
# handles = 256               # open at once
# depth = 128                 # names in a path
# sends = 16                  # scripts that it sends to other peers

# [store]
# backend = "fs"              # of peers that are added: fs, sqlite, s3, natsobj or plugin:NAME

# [quota]                     # of each context; peer.toml may have a [quota] of its own
# bytes = "16GiB"
# entries = 1000000
# log = "4GiB"

# [undo]                      # what undoes scripts, of each context
# keep = "7d"                 # for how long; "0" keeps nothing
# bytes = "1GiB"              # or a quarter of its quota, if that is less

# [modules]                   # of each layer: the host's, and each peer's
# versions = 5                # of each module that are kept, to go back to
# bytes = "256MiB"            # that all of them take, at most

# [worker]                    # all scripts together
# memory = "4GiB"             # that they may take, each by its limit
# waiting = 1024              # that may wait for it, a quarter of them one caller's
# scripts = 64                # that run or wait at once, of which one caller alone has half
# received = "256MiB"
# contexts = 1000             # that are kept open unused

# Peers whose contexts are elsewhere: circles-host peer add NAME --id DID --url URL
`

// InitRoot makes a root in dir, which may be empty or not there yet, or
// completes one. It reports whether it made a new one.
func InitRoot(dir string) (r *Root, made bool, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, false, err
	}
	for _, d := range []string{dir, filepath.Join(dir, "modules"), filepath.Join(dir, "peers"), filepath.Join(dir, "cache")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, false, fmt.Errorf("make root: %w", err)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, hostKeyFile)); errors.Is(err, fs.ErrNotExist) {
		key, err := peer.GenerateKey()
		if err != nil {
			return nil, false, err
		}
		if err := peer.WriteKeyFile(filepath.Join(dir, hostKeyFile), key); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, false, fmt.Errorf("make root: %w", err)
		}
		made = true
	}
	config, err := os.OpenFile(filepath.Join(dir, rootFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		_, err = config.WriteString(newConfig)
		err = errors.Join(err, config.Close())
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, false, fmt.Errorf("make root: %w", err)
	}
	r, err = OpenRoot(dir)
	return r, made, err
}

// ErrNoRoot is wrapped by the error about a directory that holds no host.
var ErrNoRoot = errors.New("not a circles root")

// OpenRoot opens the root in dir.
func OpenRoot(dir string) (*Root, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if _, err := os.Lstat(filepath.Join(dir, hostKeyFile)); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open %s: %w, it has no %s; make one with: %s init --root %s", dir, ErrNoRoot, hostKeyFile, Command, shell([]string{dir}))
	}
	r := &Root{Dir: dir}
	if r.Config, err = readRootConfig(filepath.Join(dir, rootFile)); err != nil {
		return nil, err
	}
	if r.Peers, err = peer.OpenDirectory(dir); err != nil {
		return nil, fmt.Errorf("open root: %w", err)
	}
	return r, nil
}

func readRootConfig(path string) (c RootConfig, err error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	var all struct {
		RootConfig
		Peers map[string]any `toml:"peers"` // host/peer reads these
	}
	d := toml.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields() // a limit that is misspelt is a limit that is not there
	if err := d.Decode(&all); err != nil {
		var strict *toml.StrictMissingError
		var decode *toml.DecodeError
		switch {
		case errors.As(err, &strict) && len(strict.Errors) > 0:
			line, _ := strict.Errors[0].Position()
			return c, fmt.Errorf("%s:%d: there is no setting %q", path, line, strings.Join(strict.Errors[0].Key(), "."))
		case errors.As(err, &decode):
			line, column := decode.Position()
			return c, fmt.Errorf("%s:%d:%d: %s", path, line, column, decode.Error())
		}
		return c, fmt.Errorf("%s: %w", path, err)
	}
	return all.RootConfig, nil
}

// URL is where this root's own worker listens, as circles.toml has it.
func (r *Root) URL() string {
	listen, scheme := r.Config.Listen, "http://"
	if listen == "" {
		listen = DefaultListen
	}
	if r.Config.TLS.Cert != "" {
		scheme = "https://"
	}
	return scheme + listen
}

// Key reads the host's key.
func (r *Root) Key() (*peer.Key, error) { return peer.ReadKeyFile(filepath.Join(r.Dir, hostKeyFile)) }

// AddPeer makes the context of a new peer, stored as Config.Store.Backend says:
// with a key of its own when id is "", or for a peer whose key is kept elsewhere. It may run nothing and be run by
// nobody until its owner writes policies.
func (r *Root) AddPeer(name peer.Name, id peer.ID) (peer.Entry, error) {
	var key *peer.Key
	if id == "" {
		var err error
		if key, err = peer.GenerateKey(); err != nil {
			return peer.Entry{}, err
		}
		id = key.ID()
	}
	store := r.Config.Store.Backend
	if store == FS {
		store = "" // what is not said
	}
	e, err := r.Peers.Hold(name, id, key, store)
	if err != nil {
		return peer.Entry{}, err
	}
	starter := filepath.Join(e.Dir, "policy", "starter.cedar")
	f, err := os.OpenFile(starter, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return e, nil
	}
	if err == nil {
		_, err = f.WriteString(policy.Starter)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return e, fmt.Errorf("write the first policy of %s: %w", name, err)
	}
	return e, nil
}
