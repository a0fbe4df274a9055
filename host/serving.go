package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/circles-host/circles/host/peer"
)

// workerFile says who serves a root, or one peer of it. It is locked for as long
// as that is so; what lies in it unlocked was left behind by one that is gone.
const workerFile = "worker.lock"

// ErrServed is wrapped by the error of Claim when another worker is there.
var ErrServed = errors.New("another worker serves it already")

// served is the content of a workerFile.
type served struct {
	PID int    `json:"pid"`
	URL string `json:"url"`
}

// Claim is this process's right to serve a root, or peers of it.
type Claim struct{ own, shared []*os.File }

// Claim makes this process the worker of the root, until Release is called or
// the process ends, however it ends. With only, it serves those peers and leaves
// the others to other workers. Two workers for the same peer would find its
// context locked only when a script arrives, which is too late to tell an
// operator: the second Claim fails, with ErrServed.
func (r *Root) Claim(only ...peer.Entry) (*Claim, error) {
	c := &Claim{}
	err := c.take(r.Dir, len(only) > 0)
	for _, e := range only {
		if err == nil {
			err = c.take(e.Dir, false)
		}
	}
	if err != nil {
		c.Release()
		return nil, fmt.Errorf("serve %w", err)
	}
	return c, nil
}

// take locks the file of one directory. Shared means that others may too: who
// serves some peers only keeps away those who would serve them all.
func (c *Claim) take(dir string, shared bool) error {
	f, err := os.OpenFile(filepath.Join(dir, workerFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	// What a worker that was killed left behind is not where anybody is.
	if shared && tryLock(f, false) == nil {
		_ = f.Truncate(0)
	}
	// Whoever asks, in Worker, holds the lock for a moment, and is no worker.
	for range 20 {
		if err = tryLock(f, shared); !errors.Is(err, ErrServed) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if errors.Is(err, ErrServed) {
		defer f.Close()
		if by := readServed(f); by.URL != "" {
			return fmt.Errorf("%s: %w, process %d at %q: stop that one first", dir, err, by.PID, by.URL)
		}
		return fmt.Errorf("%s: %w, or some of its peers: stop that one first", dir, err)
	}
	if err == nil && !shared {
		err = f.Truncate(0)
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	if shared {
		c.shared = append(c.shared, f)
	} else {
		c.own = append(c.own, f)
	}
	return nil
}

// Announce says where the worker can be reached from this machine.
func (c *Claim) Announce(url string) error {
	text, err := json.Marshal(served{os.Getpid(), url})
	if err != nil {
		return err
	}
	for _, f := range c.own {
		if _, err := f.WriteAt(text, 0); err != nil {
			return fmt.Errorf("announce %s: %w", url, err)
		}
	}
	return nil
}

// Release lets others serve it.
func (c *Claim) Release() {
	for _, f := range c.own {
		_ = f.Truncate(0)
	}
	for _, f := range append(c.own, c.shared...) {
		f.Close() // which gives up the lock
	}
	*c = Claim{}
}

// readServed reads what is in f; nothing when that makes no sense.
func readServed(f *os.File) (s served) {
	text, err := io.ReadAll(io.NewSectionReader(f, 0, 4<<10))
	if err != nil || json.Unmarshal(text, &s) != nil {
		return served{}
	}
	return s
}

// Worker returns the URL of the worker that serves a peer of the root now, and
// "" if there is none. It is where to try first: a file says so, and only the
// receipt proves who answered. A worker that is just starting is waited for.
func (r *Root) Worker(ctx context.Context, e peer.Entry) (url string) {
	dirs := []string{r.Dir}
	if e.Held() {
		dirs = append(dirs, e.Dir)
	}
	for start := time.Now(); time.Since(start) < startTime && ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		there := false
		for _, dir := range dirs {
			url, locked := worker(dir)
			if url != "" {
				return url
			}
			there = there || locked
		}
		if !there {
			break
		}
	}
	return ""
}

// startTime is how long a worker may take from its claim to its announcement; it
// compiles what is not in the cache.
const startTime = 10 * time.Second

func worker(dir string) (url string, locked bool) {
	f, err := os.Open(filepath.Join(dir, workerFile))
	if err != nil {
		return "", false
	}
	defer f.Close()
	if !errors.Is(tryLock(f, true), ErrServed) {
		return "", false
	}
	return readServed(f).URL, true
}
