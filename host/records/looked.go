package records

import (
	"sync"
	"time"
)

// rest is how long indexes are believed: an edit of the owner's in a large collection
// is in the results of queries after that.
const rest = time.Second

// maxLooked bounds the collections that are remembered.
const maxLooked = 1000

// Looked remembers when the indexes of a context's collections were last seen to be
// right. The zero value is ready, and safe for concurrent use.
type Looked struct {
	mu sync.Mutex
	at map[string]time.Time
}

func (l *Looked) now(collection string) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.at == nil || len(l.at) >= maxLooked {
		l.at = map[string]time.Time{}
	}
	l.at[collection] = time.Now()
}

func (l *Looked) recently(collection string) bool {
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	at, ok := l.at[collection]
	return ok && time.Since(at) < rest
}
