package host

import (
	"cmp"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/units"
)

// FS is the name of the backend that keeps a context in its owner's directory:
// where nothing is said, it is this one.
const FS = "fs"

// StoreConfig is [store] in circles.toml: what the backends need to know that
// they cannot find in the directory of a peer. What each of them wants is theirs to
// say, and cmd/circles-host asks them. A secret is never among it, nor on a command
// line, but in a file that is named here and that nobody else may read.
type StoreConfig struct {
	Backend string                  `toml:"backend"` // of peers that are added; "" is FS
	S3      map[string]any          `toml:"s3"`      // host/store/s3.Config
	NATSObj map[string]any          `toml:"natsobj"` // host/store/natsobj.Config
	Plugin  map[string]PluginConfig `toml:"plugin"`  // by name
}

// PluginConfig says which program keeps contexts. It runs as this host does.
type PluginConfig struct {
	Command string   `toml:"command"` // a path, relative to the root, or a name in PATH
	Args    []string `toml:"args"`    // which everybody on this machine can see: no secrets
	Env     []string `toml:"env"`     // names of variables that it gets from the host; no others
	SHA256  string   `toml:"sha256"`  // of the program; another one is not started
	// Settings are what the plugin wants to know. In them {id} is the id of the peer
	// and {dir} the peer's directory: one of the two must be there, or all contexts
	// would be kept in one place.
	Settings map[string]string `toml:"settings"`
}

// Quota bounds one context, so that no number of scripts can fill the machine. A
// zero field means what is said elsewhere: in circles.toml, or by default.
type Quota struct {
	Bytes   units.Size `toml:"bytes"`   // of all its files together
	Entries uint64     `toml:"entries"` // files, directories and links
	Log     units.Size `toml:"log"`     // of its receipts
}

// DefaultQuota is what a context may hold where nobody says otherwise.
var DefaultQuota = Quota{Bytes: 16 << 30, Entries: 1_000_000, Log: 4 << 30}

// Or returns q with what it does not say taken from others, the first first.
func (q Quota) Or(others ...Quota) Quota {
	for _, o := range others {
		q = Quota{Bytes: cmp.Or(q.Bytes, o.Bytes), Entries: cmp.Or(q.Entries, o.Entries), Log: cmp.Or(q.Log, o.Log)}
	}
	return q
}

// Store is q as a store has it.
func (q Quota) Store() store.Quota {
	return store.Quota{Bytes: int64(q.Bytes), Entries: int64(min(q.Entries, 1<<62)), Log: int64(q.Log)}
}

// ContextConfig is what a peer.toml says of how a context is kept.
type ContextConfig struct {
	Store string `toml:"store"` // the name of a backend; "" is FS
	Quota Quota  `toml:"quota"`
}

// ReadContext reads what e's peer.toml says now of how the context is kept.
func ReadContext(e peer.Entry) (ContextConfig, error) {
	var c ContextConfig
	err := e.Settings(&c)
	c.Store = cmp.Or(c.Store, FS)
	return c, err
}
