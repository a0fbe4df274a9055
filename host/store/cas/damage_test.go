package cas_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/cas"
	"github.com/circles-host/circles/host/store/cas/castest"
	"github.com/circles-host/circles/host/store/overlay"
)

// quick does not wait between the tries of what fails for good.
var quick = cas.Config{RetryAfter: 1}

// furnished is a bucket with a context whose tables are trees, and whose files and
// log entries are partly in blobs. It returns what the context holds.
func furnished(t *testing.T) (bucket *castest.Bucket, files map[string]string) {
	bucket, files = &castest.Bucket{}, map[string]string{}
	s := open(t, bucket, quick)
	rnd := rand.New(rand.NewPCG(1, 1))
	for i := range 12 {
		must(t, s.Update(context.Background(), func(tx store.Tx) error {
			for k := range 20 {
				path := fmt.Sprintf("file %d-%d", i, k)
				b := make([]byte, rnd.IntN(1<<(4+rnd.IntN(13))))
				for j := range b {
					b[j] = byte(rnd.IntN(256))
				}
				files[path] = string(b)
				f, err := tx.Files(nil).Open(path, store.FlagWrite|store.FlagCreate)
				if err != nil {
					return err
				}
				if _, err := f.WriteAt(b, 0); err != nil {
					return err
				}
				f.Close()
			}
			return tx.Append(keyOf(0, i), []byte(files[fmt.Sprintf("file %d-0", i)]))
		}))
	}
	return bucket, files
}

// examine reads everything. Right content is right, and other content must be an
// error: it returns how much failed.
func examine(t *testing.T, s *cas.Store, files map[string]string) (failed int) {
	t.Helper()
	for path, want := range files {
		err := s.View(context.Background(), func(tx store.Tx) error {
			got, err := readIn(tx, path)
			if err == nil && got != want {
				t.Errorf("%s holds what was never written", path)
			}
			return err
		})
		if errors.Is(err, store.ErrNotExist) {
			t.Errorf("%s is said not to be there: %v", path, err)
		}
		if err != nil {
			failed++
		}
	}
	n := 0
	for e, err := range s.Log(context.Background(), 1) {
		if err != nil {
			failed++
			break
		}
		n++
		if want := files[fmt.Sprintf("file %d-0", e.Seq-1)]; string(e.Data) != want {
			t.Errorf("log entry %d holds what was never written", e.Seq)
		}
	}
	return failed
}

// each blob of a bucket.
func blobs(t *testing.T, b cas.Remote) (ids []cas.BlobID) {
	for blob, err := range b.ListBlobs(context.Background()) {
		must(t, err)
		ids = append(ids, blob.ID)
	}
	slices.SortFunc(ids, func(a, b cas.BlobID) int { return strings.Compare(a.String(), b.String()) })
	return ids
}

// TestDamagedBlobs: of each blob a bit is flipped, or the end cut off, or it is
// replaced by another one, or missing. What was in it is an error to read, never
// something else, and never as if it were not there; Check names it; and once it is
// as it was, so is everything.
func TestDamagedBlobs(t *testing.T) {
	bucket, files := furnished(t)
	if n := examine(t, open(t, bucket, quick), files); n > 0 {
		t.Fatalf("%d failures before any damage", n)
	}
	ids := blobs(t, bucket)
	if len(ids) < 20 {
		t.Fatalf("only %d blobs", len(ids))
	}
	ctx := context.Background()
	found := 0
	for i, id := range ids {
		good, err := bucket.GetBlob(ctx, id)
		must(t, err)
		bad := bytes.Clone(good)
		switch i % 4 {
		case 0:
			bad[i*7919%len(bad)] ^= 1 << (i % 8)
		case 1:
			bad = bad[:len(bad)/2]
		case 2:
			bad, err = bucket.GetBlob(ctx, ids[(i+1)%len(ids)])
			must(t, err)
		}
		if i%4 == 3 {
			must(t, bucket.DeleteBlob(ctx, id))
		} else {
			must(t, bucket.PutBlob(ctx, id, bad))
		}
		s := open(t, bucket, quick)
		failed := examine(t, s, files)
		var problems []error
		must(t, s.Check(ctx, func(err error) { problems = append(problems, err) }))
		if failed > 0 != (len(problems) > 0) {
			t.Errorf("blob %d: %d failures, and Check finds %v", i, failed, problems)
		}
		for _, err := range problems {
			if damage := (*cas.DamageError)(nil); !errors.As(err, &damage) {
				t.Errorf("Check finds %v", err)
			}
		}
		if failed > 0 {
			found++
			if !strings.Contains(fmt.Sprint(problems), id.String()) {
				t.Errorf("blob %v is damaged, and Check finds %v", id, problems)
			}
		}
		must(t, s.Close())
		must(t, bucket.PutBlob(ctx, id, good))
	}
	if found < len(ids)/3 { // the rest is garbage
		t.Errorf("%d of %d damaged blobs showed", found, len(ids))
	}
	if n := examine(t, open(t, bucket, quick), files); n > 0 {
		t.Errorf("%d failures after the damage was repaired", n)
	}
}

// setBack answers with roots of its own choice.
type setBack struct {
	*castest.Bucket
	root atomic.Pointer[[]byte]
	lies atomic.Int64
}

func (b *setBack) LoadRoot(ctx context.Context, have cas.Version) ([]byte, cas.Version, error) {
	if r := b.root.Load(); r != nil {
		return bytes.Clone(*r), cas.Version(fmt.Sprint("lie ", b.lies.Add(1))), nil
	}
	return b.Bucket.LoadRoot(ctx, have)
}

// TestSetBackBuckets: a root that is older than one that was seen, or does not come
// from it, as when a server took two swaps with one condition, or somebody restored a
// copy under a running worker. Commits were lost, so nothing more is done.
func TestSetBackBuckets(t *testing.T) {
	b := &setBack{Bucket: &castest.Bucket{}}
	s := open(t, b, quick)
	commit := func(s *cas.Store, line string) error {
		return update(s, func(fs store.FS) error { return appendTo(fs, "f", line) })
	}
	must(t, commit(s, "one"))
	first, version, err := b.Bucket.LoadRoot(context.Background(), "")
	must(t, err)
	must(t, commit(s, "two"))
	second, last, err := b.Bucket.LoadRoot(context.Background(), "")
	must(t, err)

	// Another worker, which the server lets begin where the first one began.
	fork := &castest.Bucket{}
	_, err = fork.SwapRoot(context.Background(), first, "")
	must(t, err)
	other := open(t, fork, quick)
	must(t, commit(other, "fork"))
	sameGen, _, err := fork.LoadRoot(context.Background(), "")
	must(t, err)
	must(t, commit(other, "fork"))
	later, _, err := fork.LoadRoot(context.Background(), "")
	must(t, err)

	cut := second[:len(second)-1]
	for name, root := range map[string][]byte{"an older root": first, "another root of the same age": sameGen, "a later one that does not follow": later, "a cut root": cut, "none": {}} {
		b.root.Store(&root)
		err := s.View(context.Background(), func(store.Tx) error { t.Errorf("%s: a script ran", name); return nil })
		if damage := (*cas.DamageError)(nil); !errors.As(err, &damage) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b.root.Store(nil)
	if got := read(t, s, "f"); got != "one\ntwo\n" {
		t.Errorf("then: %q", got)
	}
	if version == last {
		t.Error("two roots of one version")
	}
}

// TestDirectoriesInThemselves: a root that somebody made up.
func TestDirectoriesInThemselves(t *testing.T) {
	var bucket castest.Bucket
	must(t, cas.ForgeLoop(context.Background(), &bucket))
	s := open(t, &bucket, quick)
	err := s.View(context.Background(), func(tx store.Tx) error {
		_, err := tx.Files(nil).Stat("a"+strings.Repeat("/a", 100), true)
		return err
	})
	if damage := (*cas.DamageError)(nil); !errors.As(err, &damage) {
		t.Errorf("a directory in itself: %v", err)
	}
}

// TestCacheIsOnlyACache: whatever becomes of its directory, at any time, what is read
// is right.
func TestCacheIsOnlyACache(t *testing.T) {
	bucket, files := furnished(t)
	dir := filepath.Join(t.TempDir(), "cache")
	config := cas.Config{CacheDir: dir, CacheBytes: 16 << 20}
	asked := &counter{Remote: bucket}
	fill := func() {
		s := open(t, asked, config)
		if n := examine(t, s, files); n > 0 {
			t.Errorf("%d failures", n)
		}
		must(t, s.Close())
	}
	each := func(do func(path string)) {
		n := 0
		must(t, filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
			if err == nil && info.Mode().IsRegular() {
				n++
				do(path)
			}
			return err
		}))
		if n < 10 {
			t.Errorf("%d files are in the cache", n)
		}
	}
	fill()
	asked.gets.Store(0)
	fill()
	if n := asked.gets.Load(); n > 0 {
		t.Errorf("%d blobs were asked for that are in the cache", n)
	}
	each(func(path string) {
		b, err := os.ReadFile(path)
		must(t, err)
		b[len(b)/2]++
		must(t, os.WriteFile(path, b, 0o600))
	})
	fill()
	each(func(path string) { must(t, os.Truncate(path, 3)) })
	fill()
	outside := filepath.Join(t.TempDir(), "outside")
	must(t, os.WriteFile(outside, []byte("x"), 0o600))
	each(func(path string) {
		must(t, os.Remove(path))
		must(t, os.Symlink(outside, path))
	})
	fill()
	each(func(path string) { must(t, os.Rename(path, path+".part")) })
	fill()
	if b, err := os.ReadFile(outside); err != nil || string(b) != "x" {
		t.Errorf("a file outside the cache was changed: %q, %v", b, err)
	}
	must(t, os.RemoveAll(dir))
	fill()
	s := open(t, asked, config) // under our feet
	must(t, os.RemoveAll(dir))
	if n := examine(t, s, files); n > 0 {
		t.Errorf("%d failures", n)
	}
	must(t, s.Close())
	config.CacheBytes = 50_000
	fill()
	size := int64(0)
	must(t, filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			size += info.Size()
		}
		return err
	}))
	if size > 50_000 || size == 0 {
		t.Errorf("the cache has %d bytes, of at most 50,000", size)
	}
}

// counter counts requests.
type counter struct {
	cas.Remote
	gets, puts, loads, swaps, bytes atomic.Int64
}

func (c *counter) GetBlob(ctx context.Context, id cas.BlobID) ([]byte, error) {
	c.gets.Add(1)
	return c.Remote.GetBlob(ctx, id)
}

func (c *counter) PutBlob(ctx context.Context, id cas.BlobID, data []byte) error {
	c.puts.Add(1)
	c.bytes.Add(int64(len(data)))
	return c.Remote.PutBlob(ctx, id, data)
}

func (c *counter) LoadRoot(ctx context.Context, have cas.Version) ([]byte, cas.Version, error) {
	c.loads.Add(1)
	return c.Remote.LoadRoot(ctx, have)
}

func (c *counter) SwapRoot(ctx context.Context, data []byte, base cas.Version) (cas.Version, error) {
	c.swaps.Add(1)
	c.bytes.Add(int64(len(data)))
	return c.Remote.SwapRoot(ctx, data, base)
}

func (c *counter) ListBlobs(ctx context.Context) iter.Seq2[cas.Blob, error] {
	return c.Remote.ListBlobs(ctx)
}

// costs is what f asked a bucket for.
func (c *counter) costs(f func()) (requests, puts, bytes int64) {
	was := []int64{c.gets.Load(), c.puts.Load(), c.loads.Load(), c.swaps.Load(), c.bytes.Load()}
	f()
	puts = c.puts.Load() - was[1]
	return c.gets.Load() - was[0] + puts + c.loads.Load() - was[2] + c.swaps.Load() - was[3], puts, c.bytes.Load() - was[4]
}

// TestCosts holds what the package's documentation says of requests.
func TestCosts(t *testing.T) {
	c := &counter{Remote: &castest.Bucket{}}
	s := open(t, c, cas.Config{Limits: overlay.Limits{FileSize: 2 << 30, StagedBytes: 2 << 30}, StageDir: t.TempDir()})
	n := 0
	receipt := make([]byte, 900)
	commit := func(f func(fs store.FS) error) func() {
		return func() {
			t.Helper()
			n++
			must(t, s.Update(context.Background(), func(tx store.Tx) error {
				if err := f(tx.Files(nil)); err != nil {
					return err
				}
				return tx.Append(keyOf(n>>16, n), receipt)
			}))
		}
	}
	small := commit(func(fs store.FS) error { return appendTo(fs, "small", "a line") })
	small()
	total, bytes := int64(0), int64(0)
	const rounds = 500
	for range rounds {
		r, _, b := c.costs(small)
		total, bytes = total+r, bytes+b
	}
	// A look at the root, and its swap; now and then pages.
	if total > rounds*3 || bytes > rounds*48_000 {
		t.Errorf("%d small commits took %d requests and %d bytes", rounds, total, bytes)
	}

	// A file of 1 GiB, which the bucket has to keep only where something was written,
	// and a line at its end: what is sent is the line.
	big := commit(func(fs store.FS) error {
		f, err := fs.Open("big", store.FlagWrite|store.FlagCreate)
		if err != nil {
			return err
		}
		defer f.Close()
		for i := range int64(64) {
			if _, err := f.WriteAt(receipt, i<<24+12345); err != nil {
				return err
			}
		}
		return f.Truncate(1 << 30)
	})
	if _, _, b := c.costs(big); b > 1<<20 {
		t.Errorf("a file of holes took %d bytes", b)
	}
	worst := int64(0)
	for range 50 {
		r, _, b := c.costs(commit(func(fs store.FS) error { return appendTo(fs, "big", "a line") }))
		worst = max(worst, b)
		if r > 12 {
			t.Errorf("an appended line took %d requests", r)
		}
	}
	if worst > 400_000 {
		t.Errorf("a line that was appended to 1 GiB took up to %d bytes", worst)
	}

	// 1,000 small files are a few blobs.
	many := commit(func(fs store.FS) error {
		for i := range 1000 {
			if err := appendTo(fs, fmt.Sprint("f", i), fmt.Sprint(i)+strings.Repeat("x", 3000)); err != nil {
				return err
			}
		}
		return nil
	})
	if r, _, b := c.costs(many); r > 30 || b > 3_600_000 {
		t.Errorf("1,000 files of 3 kB took %d requests and %d bytes", r, b)
	}

	// Moving a directory moves one entry.
	commit(func(fs store.FS) error {
		if err := fs.Mkdir("d"); err != nil {
			return err
		}
		for i := range 1000 {
			if err := fs.Rename(fmt.Sprint("f", i), fmt.Sprint("d/f", i)); err != nil {
				return err
			}
		}
		return nil
	})()
	if r, p, _ := c.costs(commit(func(fs store.FS) error { return fs.Rename("d", "e") })); p > 4 {
		t.Errorf("moving a directory of 1,000 files took %d requests, %d of them to put blobs", r, p)
	}
	sound(t, s)
}

// TestLargeTransactions: more than is staged in memory, and what is written here and
// there.
func TestLargeTransactions(t *testing.T) {
	dir := t.TempDir()
	var bucket castest.Bucket
	s := open(t, &bucket, cas.Config{StageDir: dir})
	const size = 10 << 20
	want := make([]byte, size)
	rnd := rand.New(rand.NewPCG(3, 3))
	for i := range want {
		want[i] = byte(rnd.Uint32())
	}
	write := func(at func(f store.File) error) {
		must(t, update(s, func(fs store.FS) error {
			f, err := fs.Open("f", store.FlagWrite|store.FlagCreate)
			if err != nil {
				return err
			}
			defer f.Close()
			return at(f)
		}))
	}
	write(func(f store.File) error { _, err := f.WriteAt(want, 0); return err })
	write(func(f store.File) error { // splinters
		for range 500 {
			at := rnd.IntN(size - 100)
			for i := range 1 + rnd.IntN(99) {
				want[at+i]++
				if _, err := f.WriteAt(want[at+i:at+i+1], int64(at+i)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	for range 5 { // cut, and longer again
		cut := int64(rnd.IntN(size))
		clear(want[cut:])
		write(func(f store.File) error {
			if err := f.Truncate(cut); err != nil {
				return err
			}
			return f.Truncate(size)
		})
		at := rnd.IntN(size - 5000)
		copy(want[at:], bytes.Repeat([]byte("x"), 5000))
		write(func(f store.File) error { _, err := f.WriteAt(want[at:at+5000], int64(at)); return err })
	}
	if got := read(t, open(t, &bucket, cas.Config{}), "f"); got != string(want) {
		t.Error("the file is not what was written")
	}
	sound(t, s)
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%d staged files are left, %v", len(left), err)
	}
}

// TestCollectLeavesWhatIsUsed: and nothing else.
func TestCollectLeavesWhatIsUsed(t *testing.T) {
	bucket, files := furnished(t)
	s := open(t, bucket, quick)
	must(t, bucket.PutBlob(context.Background(), cas.BlobID{Epoch: 1}, []byte("of a commit that was never completed")))
	for path := range files {
		if strings.HasPrefix(path, "file 3") {
			must(t, update(s, func(fs store.FS) error { return fs.Unlink(path) }))
			delete(files, path)
		}
	}
	before := len(blobs(t, bucket))
	c, err := s.Collect(context.Background(), 0)
	must(t, err)
	if c.Deleted < 5 || c.Deleted+c.Kept != before || len(blobs(t, bucket)) != c.Kept {
		t.Errorf("of %d blobs %+v; %d are left", before, c, len(blobs(t, bucket)))
	}
	if again, err := s.Collect(context.Background(), 0); err != nil || again.Deleted > 0 || again.Kept != c.Kept {
		t.Errorf("again: %+v, %v", again, err)
	}
	if got := len(files); got != 220 {
		t.Fatalf("%d files", got)
	}
	fresh := open(t, bucket, quick)
	for path, want := range files {
		if got := read(t, fresh, path); got != want {
			t.Errorf("%s is not what it was", path)
		}
	}
	sound(t, fresh)
}

// TestCollectUnderAView: who still reads what was replaced meanwhile is told to run
// again, and not that the context is damaged, or that a file is not there.
func TestCollectUnderAView(t *testing.T) {
	bucket, files := furnished(t)
	s, other := open(t, bucket, quick), open(t, bucket, quick)
	err := s.View(context.Background(), func(tx store.Tx) error {
		for path := range files {
			must(t, update(other, func(fs store.FS) error { return fs.Unlink(path) }))
		}
		_, err := other.Collect(context.Background(), 0)
		must(t, err)
		for path := range files {
			if _, err := readIn(tx, path); err != nil {
				return err
			}
		}
		return nil
	})
	if !errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// TestCollectUnderAnUpdate: what it has put so far may be deleted before it commits,
// so it must begin again.
func TestCollectUnderAnUpdate(t *testing.T) {
	var bucket castest.Bucket
	s, other := open(t, &bucket, quick), open(t, &bucket, quick)
	must(t, update(other, func(fs store.FS) error { return appendTo(fs, "f", "x") }))
	long := strings.Repeat("-", 100_000)
	err := update(s, func(fs store.FS) error {
		must(t, appendTo(fs, "f", long))
		_, err := other.Collect(context.Background(), 0)
		return err
	})
	if !errors.Is(err, store.ErrConflict) {
		t.Errorf("got %v", err)
	}
	must(t, update(s, func(fs store.FS) error { return appendTo(fs, "f", long) }))
	if got := read(t, other, "f"); got != "x\n"+long+"\n" {
		t.Errorf("%d bytes", len(got))
	}
}

// TestCollectStopsAtDamage: what cannot be read might refer to anything.
func TestCollectStopsAtDamage(t *testing.T) {
	bucket, _ := furnished(t)
	s := open(t, bucket, quick)
	_, err := s.Collect(context.Background(), 0)
	must(t, err)
	ids := blobs(t, bucket)
	for _, id := range ids {
		data, err := bucket.GetBlob(context.Background(), id)
		must(t, err)
		if data[0] == 'P'|128 { // a page
			must(t, bucket.DeleteBlob(context.Background(), id))
			break
		}
	}
	must(t, bucket.PutBlob(context.Background(), cas.BlobID{Epoch: 1}, nil))
	left := len(blobs(t, bucket))
	if _, err := open(t, bucket, quick).Collect(context.Background(), 0); err == nil || len(blobs(t, bucket)) != left {
		t.Errorf("collected in a damaged bucket: %v, %d blobs of %d are left", err, len(blobs(t, bucket)), left)
	}
}
