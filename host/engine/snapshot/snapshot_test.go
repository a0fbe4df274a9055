package snapshot

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"
)

// picture is a memory with something on some of its pages.
func picture(size int, seed uint64) []byte {
	rnd := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, size)
	for at := 0; at < size; at += 4096 {
		if rnd.IntN(3) > 0 {
			for i := range 64 {
				b[at+rnd.IntN(4096)] = byte(i)
			}
		}
	}
	return b
}

// TestMemoryIsTheImage opens memories by the thousand, from several goroutines,
// and compares each with the image after whatever was done to the ones before:
// writes in all places, growth within the room and beyond it, each page
// written.
func TestMemoryIsTheImage(t *testing.T) {
	for _, size := range []int{pageSize, small, small + pageSize, 1 << 20} {
		for _, w := range ways(t) {
			data := picture(size, uint64(size))
			im, err := newImage(data, w)
			if err != nil {
				t.Fatal(err)
			}
			if im.way != w {
				t.Fatalf("an image of %d bytes is %v, not %v", size, im.way, w)
			}
			var wg sync.WaitGroup
			for g := range 3 {
				wg.Go(func() {
					rnd := rand.New(rand.NewPCG(uint64(g), uint64(size)))
					for i := range 30 {
						m, err := im.Open()
						if err != nil {
							t.Error(err)
							return
						}
						b := m.Bytes(0, 1<<32)
						if !bytes.Equal(b, data) {
							t.Errorf("%v: memory %d of goroutine %d is not the image of %d bytes", w, i, g, size)
						}
						spoil(t, rnd, m, b, g == 0 && i == 7)
						m.Close()
					}
				})
			}
			wg.Wait()
			if !bytes.Equal(im.Bytes(), data) {
				t.Errorf("%v: the image of %d bytes changed", w, size)
			}
			im.Close()
		}
	}
}

// spoil does to a memory what runs do.
func spoil(t *testing.T, rnd *rand.Rand, m *Memory, b []byte, far bool) {
	for range rnd.IntN(50) {
		at := rnd.IntN(len(b))
		copy(b[at:], "spoilt by a run that is over")
	}
	what := rnd.IntN(12)
	if far {
		what = 2
	}
	switch what {
	case 0:
		for at := 0; at < len(b); at += 100 {
			b[at] = ^b[at]
		}
	case 1:
		clear(b)
	case 2, 3, 4, 5:
		grow := 1 << rnd.IntN(7) * pageSize
		if far {
			grow += room
		}
		before := bytes.Clone(b)
		b = m.Bytes(uint64(len(b)+grow), 1<<32)
		if !bytes.Equal(b[:len(before)], before) {
			t.Error("memory changed as it grew")
		}
		if len(b) != len(before)+grow || !bytes.Equal(b[len(before):], make([]byte, grow)) {
			t.Errorf("grown by %d bytes, they are not zero, or %d", grow, len(b)-len(before))
		}
		for range 1 + rnd.IntN(300) {
			b[len(before)+rnd.IntN(grow)] = 0xee
		}
	}
}

func TestLimit(t *testing.T) {
	for _, w := range ways(t) {
		im, err := newImage(picture(4*pageSize, 1), w)
		if err != nil {
			t.Fatal(err)
		}
		m, err := im.Open()
		if err != nil {
			t.Fatal(err)
		}
		for _, tc := range []struct{ size, limit, want int }{
			{1, 4, 4}, {4, 4, 4}, {4, 3, 0}, {5, 4, 0}, {5, 5, 5}, {2000, 1999, 0}, {2000, 2000, 2000},
		} {
			if got := len(m.Bytes(uint64(tc.size*pageSize), uint64(tc.limit*pageSize))); got != tc.want*pageSize {
				t.Errorf("%v: %d pages of at most %d are %d", w, tc.size, tc.limit, got/pageSize)
			}
		}
		m.Close()
		im.Close()
	}
	if _, err := New(make([]byte, 5)); err == nil {
		t.Error("an image of 5 bytes was made")
	}
}

// TestMemoriesOutliveTheirOwner closes an image while its memories are in use.
func TestMemoriesOutliveTheirOwner(t *testing.T) {
	for _, w := range ways(t) {
		data := picture(8*pageSize, 3)
		im, err := newImage(data, w)
		if err != nil {
			t.Fatal(err)
		}
		var open []*Memory
		for range 3 {
			m, err := im.Open()
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, m)
		}
		open[0].Close()
		im.Close()
		for _, m := range open[1:] {
			if b := m.Bytes(0, 1<<30); !bytes.Equal(b, data) {
				t.Errorf("%v: the memory of a closed image is not the image", w)
			}
			m.Close()
		}
		if _, err := im.Open(); err == nil {
			t.Errorf("%v: a memory of an image that is gone was opened", w)
		}
	}
}
