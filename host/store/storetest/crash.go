package storetest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mem"
)

// Crasher says how a durable backend is crashed. Place and Open must be there.
type Crasher struct {
	// Place makes an empty place for stores, and returns what Open finds it by: a
	// directory, an address. It runs once, in the process of the test; what it
	// starts outlives the workers that are killed. Nothing should come before the
	// call of Crash that a worker must not do too.
	Place func(t *testing.T) string

	// Open opens the stores of a place, always the same ones in the same order:
	// one, or several that share something, a journal or a bucket. The worker
	// commits to all of them at once. It runs in workers and in the test's
	// process, never in both at the same time.
	Open func(place string) ([]store.Store, error)

	// Workers is how many processes commit to the stores at once; default 1. With
	// more, a commit may fail with store.ErrConflict; it is tried again.
	Workers int
}

// Crash kills processes that commit to stores, with SIGKILL and at random
// moments, as often as CRASH_ROUNDS says (default 100). Every worker says on a
// pipe what it begins and what was acknowledged to it. After each round the
// stores are opened in the test's process and compared with one in memory, to
// which their log is applied:
//
//   - what was acknowledged is in the log, and nothing is that was rolled back;
//   - of each worker at most what it was doing when it died is there besides;
//   - the log is one chain, and what was seen of it once does not change;
//   - the files are exactly what the transactions in the log make of them, so
//     that each is there whole, in order, or not at all.
//
// A worker is the test's binary again, running only the test that called Crash,
// in which Crash does not return.
func Crash(t *testing.T, c Crasher) {
	if os.Getenv(crashTest) == t.Name() {
		crashWorker(c)
	}
	t.Helper()
	rounds := 100
	if s := os.Getenv("CRASH_ROUNDS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			t.Fatalf("CRASH_ROUNDS=%q: must be a number of rounds", s)
		}
		rounds = n
	}
	k := &crasher{T: t, Crasher: c, place: c.Place(t), ended: map[string]bool{}}
	for round := range rounds {
		inFlight := k.kill()
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
		k.check(inFlight, round == rounds-1)
		if t.Failed() {
			t.Fatalf("after round %d", round)
		}
	}
	t.Logf("killed %d times: %d transactions acknowledged, %d in flight were kept, %d were not; %d entries in %d logs",
		rounds, k.acked, k.kept, k.absent, k.entries(), len(k.stores))
	if k.acked < rounds {
		t.Errorf("only %d transactions were acknowledged: the test tests little", k.acked)
	}
}

const (
	crashTest  = "CIRCLES_TEST_CRASH"
	crashPlace = "CIRCLES_TEST_CRASH_PLACE"
)

// A worker's words, a line each, with the store's number and the key.
const (
	wordBegin = "begin" // it will be tried
	wordAcked = "acked" // Update, or View, returned nil
	wordDrop  = "drop"  // it was rolled back on purpose
)

// crashWorker commits until it is killed, or its standard input ends: then it
// closes the stores. That also ends it when the test's process dies.
func crashWorker(c Crasher) {
	out := os.NewFile(3, "acknowledgements")
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, "crash worker:", err)
		os.Exit(1)
	}
	stores, err := c.Open(os.Getenv(crashPlace))
	if err != nil {
		fail(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	var wg sync.WaitGroup
	for i, s := range stores {
		wg.Go(func() {
			say := func(word string, key store.Key) {
				// One write: a line is there whole, or not.
				if _, err := fmt.Fprintf(out, "%s %s\n", word, named(i, key)); err != nil {
					fail(err)
				}
			}
			for ctx.Err() == nil {
				var key store.Key
				rand.Read(key[:])
				say(wordBegin, key)
				committed, err := Transact(s, key)
				for errors.Is(err, store.ErrConflict) && c.Workers > 1 {
					committed, err = Transact(s, key)
				}
				switch {
				case err != nil:
					fail(fmt.Errorf("commit to store %d: %w", i, err))
				case committed:
					say(wordAcked, key)
				default:
					say(wordDrop, key)
				}
			}
		})
	}
	wg.Wait()
	for _, s := range stores {
		if err := s.Close(); err != nil {
			fail(err)
		}
	}
	os.Exit(0)
}

var errRolledBack = errors.New("rolled back on purpose")

// random is what the transaction of a key does: all of it follows from the key
// and from the state that the transaction meets.
func random(key store.Key) *mathrand.Rand { return mathrand.New(mathrand.NewChaCha8(key)) }

// entryData is what the transaction of a key logs.
func entryData(rnd *mathrand.Rand) []byte { return randomBytes(rnd, 1+rnd.IntN(2000)) }

func randomBytes(rnd *mathrand.Rand, n int) []byte {
	b := make([]byte, 0, n+8)
	for len(b) < n {
		b = binary.LittleEndian.AppendUint64(b, rnd.Uint64())
	}
	return b[:n]
}

// Transact runs the transaction of a key: a log entry, and random operations on
// files and directories of few names, all of which follow from the key and from
// the state that it meets. So the same keys in the same order make the same of any
// store. Some transactions are rolled back on purpose: then committed is false.
func Transact(s store.Store, key store.Key) (committed bool, err error) {
	rnd := random(key)
	data := entryData(rnd)
	begin, rollBack := s.Update, false
	switch rnd.IntN(10) {
	case 0:
		begin = s.View // which may append to the log, and nothing else
	case 1:
		rollBack = true
	}
	err = begin(context.Background(), func(tx store.Tx) error {
		if err := tx.Append(key, data); err != nil {
			return err
		}
		if err := mutate(rnd, tx.Files(nil)); err != nil && !errors.Is(err, store.ErrReadOnly) {
			return err
		}
		if rollBack {
			return errRolledBack
		}
		return nil
	})
	if rollBack && errors.Is(err, errRolledBack) {
		return false, nil
	}
	return err == nil, err
}

// Compare reports each path at which two stores differ.
func Compare(t *testing.T, want, got store.Store) {
	t.Helper()
	w, g := dump(t, want), dump(t, got)
	paths := maps.Clone(w)
	maps.Copy(paths, g)
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		if g[path] != w[path] {
			t.Errorf("%s is %.40q (%d bytes), want %.40q (%d bytes)", path, g[path], len(g[path]), w[path], len(w[path]))
		}
	}
}

func dump(t *testing.T, s store.Store) (tree map[string]string) {
	t.Helper()
	if err := s.View(context.Background(), func(tx store.Tx) error {
		tree = (&files{t, tx.Files(nil), tx}).dump()
		return nil
	}); err != nil {
		t.Fatalf("read files: %v", err)
	}
	return tree
}

// refusals are what an operation may fail with that a random one met the wrong
// state for.
var refusals = []error{
	store.ErrNotExist, store.ErrExists, store.ErrNotDir, store.ErrIsDir, store.ErrNotEmpty, store.ErrInvalid, store.ErrLoop, store.ErrEscapes,
}

// mutate does some random operations, on few names, so that they meet often.
func mutate(rnd *mathrand.Rand, fs store.FS) error {
	for range 1 + rnd.IntN(5) {
		err := mutateOnce(rnd, fs)
		if err != nil && !slices.ContainsFunc(refusals, func(r error) bool { return errors.Is(err, r) }) {
			return err
		}
	}
	return nil
}

func mutateOnce(rnd *mathrand.Rand, fs store.FS) error {
	path := func() string {
		p := string(rune('a' + rnd.IntN(5)))
		for rnd.IntN(2) == 0 {
			p += "/" + string(rune('a'+rnd.IntN(5)))
		}
		return p
	}
	size := func() int {
		if rnd.IntN(8) == 0 {
			return rnd.IntN(200_000)
		}
		return rnd.IntN(3000)
	}
	p := path()
	switch rnd.IntN(12) {
	case 0, 1:
		return change(fs, p, store.FlagCreate|store.FlagTruncate, 0, randomBytes(rnd, size()))
	case 2, 3:
		return change(fs, p, store.FlagCreate|store.FlagAppend, 0, randomBytes(rnd, size()))
	case 4:
		return change(fs, p, 0, int64(rnd.IntN(10_000)), randomBytes(rnd, size()))
	case 5:
		return cut(fs, p, int64(size()))
	case 6:
		return fs.Mkdir(p)
	case 7:
		return fs.Rmdir(p)
	case 8:
		return fs.Unlink(p)
	case 9:
		return fs.Symlink(path(), p)
	}
	return fs.Rename(p, path())
}

// change writes to a file; one that has grown large it replaces.
func change(fs store.FS, path string, flag store.Flag, off int64, data []byte) error {
	f, err := fs.Open(path, store.FlagWrite|flag)
	if err != nil {
		return err
	}
	defer f.Close()
	if i, err := f.Stat(); err != nil {
		return err
	} else if i.Size > 400_000 {
		if err := f.Truncate(0); err != nil {
			return err
		}
	}
	_, err = f.WriteAt(data, off)
	return err
}

func cut(fs store.FS, path string, size int64) error {
	f, err := fs.Open(path, store.FlagWrite)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Truncate(size)
}

// crasher is a test with what it knows of the stores.
type crasher struct {
	*testing.T
	Crasher
	place  string
	stores []crashedStore
	ended  map[string]bool // by store and key: acknowledged or, if false, rolled back

	acked, kept, absent int
}

// crashedStore is what was seen of one store.
type crashedStore struct {
	model  store.Store // in memory, to which the log was applied
	hashes [][32]byte  // of the log's entries
}

func (k *crasher) entries() (n int) {
	for _, s := range k.stores {
		n += len(s.hashes)
	}
	return n
}

// named is a transaction's name in what workers say, and in maps.
func named(i int, key store.Key) string { return fmt.Sprintf("%d %x", i, key) }

// worker is a running process.
type worker struct {
	cmd     *exec.Cmd
	stdin   io.Closer
	said    chan struct{} // closed when all that it said was read
	output  bytes.Buffer
	pending map[string]bool // what it began, and said nothing of since
}

// kill runs one round: it starts workers, kills them, and returns what was begun
// and of which nothing was said since.
func (k *crasher) kill() (inFlight map[string]bool) {
	k.Helper()
	var mu sync.Mutex
	first := make(chan struct{}) // closed by the first acknowledgement
	acknowledged := sync.OnceFunc(func() { close(first) })
	var workers []*worker
	name := strings.Split(k.Name(), "/")
	for i := range name {
		name[i] = "^" + regexp.QuoteMeta(name[i]) + "$"
	}
	for range max(1, k.Workers) {
		w := &worker{cmd: exec.Command(os.Args[0], "-test.run="+strings.Join(name, "/")), said: make(chan struct{}), pending: map[string]bool{}}
		r, out, err := os.Pipe()
		if err != nil {
			k.Fatal(err)
		}
		w.cmd.Env = append(os.Environ(), crashTest+"="+k.Name(), crashPlace+"="+k.place)
		w.cmd.Stdout, w.cmd.Stderr = &w.output, &w.output
		w.cmd.ExtraFiles = []*os.File{out}
		if w.stdin, err = w.cmd.StdinPipe(); err != nil {
			k.Fatal(err)
		}
		if err := w.cmd.Start(); err != nil {
			k.Fatal(err)
		}
		out.Close()
		workers = append(workers, w)
		go func() {
			defer close(w.said)
			defer r.Close()
			for lines := bufio.NewScanner(r); lines.Scan(); {
				word, tx, _ := strings.Cut(lines.Text(), " ")
				mu.Lock()
				switch word {
				case wordBegin:
					w.pending[tx] = true
				case wordAcked:
					delete(w.pending, tx)
					k.ended[tx] = true
					k.acked++
					acknowledged()
				case wordDrop:
					delete(w.pending, tx)
					k.ended[tx] = false
				default:
					k.Errorf("a worker says %q", lines.Text())
				}
				mu.Unlock()
			}
			acknowledged() // nothing more will come
		}()
	}
	mode := mathrand.IntN(8)
	if mode > 0 {
		select {
		case <-first:
		case <-time.After(2 * time.Minute):
			k.Error("no worker commits anything")
		}
	}
	time.Sleep(time.Duration(mathrand.IntN(20_000)) * time.Microsecond)
	if mode == 1 { // while it closes the stores
		for _, w := range workers {
			w.stdin.Close()
		}
		time.Sleep(time.Duration(mathrand.IntN(5_000)) * time.Microsecond)
	}
	for _, w := range workers {
		_ = w.cmd.Process.Kill() // it may have ended by itself
	}
	inFlight = map[string]bool{}
	for _, w := range workers {
		if err := w.cmd.Wait(); w.cmd.ProcessState.Exited() && err != nil {
			k.Errorf("a worker gave up: %v\n%s", err, &w.output)
		}
		<-w.said
		maps.Copy(inFlight, w.pending)
	}
	return inFlight
}

// check opens the stores and compares them with what is known.
func (k *crasher) check(inFlight map[string]bool, all bool) {
	k.Helper()
	stores, err := k.Open(k.place)
	if err != nil {
		k.Fatalf("open after a crash: %v", err)
	}
	if k.stores == nil {
		k.stores = make([]crashedStore, len(stores))
		for i := range k.stores {
			k.stores[i].model = mem.New(mem.Config{})
			k.Cleanup(func() { k.stores[i].model.Close() })
		}
	}
	begun := len(inFlight)
	for i, s := range stores {
		// A store that cannot go on after a crash is of no use; and what a dead
		// worker left under way at a server, this commit decides.
		var key store.Key
		for rand.Read(key[:]); ; {
			committed, err := Transact(s, key)
			if err != nil && !errors.Is(err, store.ErrConflict) {
				k.Fatalf("commit after a crash: %v", err)
			}
			if committed {
				k.ended[named(i, key)] = true
				break
			}
			if err == nil {
				rand.Read(key[:])
			}
		}
		k.checkStore(i, s, inFlight, all)
		if err := s.Close(); err != nil {
			k.Errorf("close: %v", err)
		}
	}
	for tx, acked := range k.ended {
		if acked {
			k.Errorf("transaction %.16s… was acknowledged, and is lost", tx)
		}
	}
	clear(k.ended) // what was dropped can no longer come back: its process is dead
	k.absent += len(inFlight)
	k.kept += begun - len(inFlight)
}

// checkStore compares a store with its model: what its log has that was not seen
// before, or all of it.
func (k *crasher) checkStore(i int, s store.Store, inFlight map[string]bool, all bool) {
	k.Helper()
	known := &k.stores[i]
	from := len(known.hashes)
	if all {
		from = 0
	}
	var prev [32]byte
	if from > 0 {
		prev = known.hashes[from-1]
	}
	seq := from
	for e, err := range s.Log(context.Background(), uint64(from)+1) {
		if err != nil {
			k.Fatalf("store %d: read log: %v", i, err)
		}
		if seq++; e.Seq != uint64(seq) || e.Prev != prev {
			k.Fatalf("store %d: entry %d, read where %d should be, breaks the chain", i, e.Seq, seq)
		}
		prev = e.Hash()
		if seq <= len(known.hashes) {
			if prev != known.hashes[seq-1] {
				k.Fatalf("store %d: entry %d is not what it was", i, seq)
			}
			continue
		}
		known.hashes = append(known.hashes, prev)
		tx := named(i, e.Key)
		if acked, ended := k.ended[tx]; ended && !acked {
			k.Fatalf("store %d: entry %d is of a transaction that was rolled back", i, seq)
		} else if !ended && !inFlight[tx] {
			k.Fatalf("store %d: entry %d is of a transaction that nobody was at", i, seq)
		}
		delete(k.ended, tx)
		delete(inFlight, tx)
		if !bytes.Equal(e.Data, entryData(random(e.Key))) {
			k.Fatalf("store %d: entry %d does not hold what was appended", i, seq)
		}
		if got, ok, err := s.Entry(context.Background(), e.Key); err != nil || !ok || got.Hash() != prev {
			k.Fatalf("store %d: entry %d by its key: %v, %v", i, seq, ok, err)
		}
		if _, err := Transact(known.model, e.Key); err != nil {
			k.Fatalf("store %d: do in memory what entry %d did: %v", i, seq, err)
		}
	}
	if seq < len(known.hashes) {
		k.Fatalf("store %d: the log ends at entry %d, and had %d", i, seq, len(known.hashes))
	}
	Compare(k.T, known.model, s)
	if k.Failed() {
		k.Fatalf("store %d, after entry %d", i, seq)
	}
}
