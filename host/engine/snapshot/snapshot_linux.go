package snapshot

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pageBytes is the kernel's page.
var pageBytes = os.Getpagesize()

// maxDirty is how many pages are copied back; forgetting is cheaper for more.
const maxDirty = 256

// areas counts the areas that this process has mapped for images and memories. A
// process may have some 65,500, and Go's own heap dies when it can have no more.
var areas atomic.Int64

const (
	imageAreas  = 1
	memoryAreas = 2 // the image, and the room after it
)

// maxAreas leaves three quarters of what the kernel allows to others.
var maxAreas = sync.OnceValue(func() int64 {
	b, err := os.ReadFile("/proc/sys/vm/max_map_count")
	n, perr := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil || perr != nil {
		n = 65530
	}
	return n / 4
})

// maxFiles bounds memory files, each of which is a descriptor.
const maxFiles = 1024

var files atomic.Int64

func reserve(n *atomic.Int64, by, limit int64, what string) error {
	if n.Add(by) > limit {
		n.Add(-by)
		return fmt.Errorf("%d %s, where at most %d are made", limit, what, limit)
	}
	return nil
}

// seal makes the image a memory file that nothing can change any more, and maps
// it for reading.
func (im *Image) seal(memory []byte) (err error) {
	if err := reserve(&files, 1, maxFiles, "memory files"); err != nil {
		return err
	}
	if err := reserve(&areas, imageAreas, maxAreas(), "mapped areas"); err != nil {
		files.Add(-1)
		return err
	}
	im.file = -1
	defer func() {
		if err != nil {
			if im.file >= 0 {
				unix.Close(im.file)
			}
			files.Add(-1)
			areas.Add(-imageAreas)
		}
	}()
	if im.file, err = unix.MemfdCreate("circles-image", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING); err != nil {
		return fmt.Errorf("make memory file: %w", err)
	}
	if err := unix.Ftruncate(im.file, int64(len(memory))); err != nil {
		return fmt.Errorf("size memory file: %w", err)
	}
	zeros := make([]byte, pageSize)
	for at := 0; at < len(memory); {
		part := memory[at : at+pageSize]
		if bytes.Equal(part, zeros) { // a hole is as good
			at += pageSize
			continue
		}
		n, err := unix.Pwrite(im.file, part, int64(at))
		if err != nil || n != pageSize {
			return fmt.Errorf("write memory file: %d of %d bytes: %w", n, pageSize, err)
		}
		at += n
	}
	if _, err := unix.FcntlInt(uintptr(im.file), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE|unix.F_SEAL_SEAL); err != nil {
		return fmt.Errorf("seal memory file: %w", err)
	}
	// Not shared: before Linux 6.7 a file that is sealed cannot be, even for reading.
	im.data, err = unix.Mmap(im.file, 0, len(memory), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("map memory file: %w", err)
	}
	return nil
}

func (im *Image) free() {
	_ = unix.Munmap(im.data)
	_ = unix.Close(im.file)
	im.data = nil
	files.Add(-1)
	areas.Add(-imageAreas)
}

// mapImage maps the image privately, and after it room that is zero.
func (m *Memory) mapImage() error {
	if err := reserve(&areas, memoryAreas, maxAreas(), "mapped areas"); err != nil {
		return err
	}
	n := len(m.im.data)
	all, err := mmap(nil, n+room, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE, -1)
	if err == nil {
		m.buf = unsafe.Slice((*byte)(all), n+room)
		_, err = mmap(all, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_FIXED|unix.MAP_NORESERVE, m.im.file)
		if err == nil {
			m.mapped = true
			return nil
		}
		munmap(m.buf)
		m.buf = nil
	}
	areas.Add(-memoryAreas)
	return err
}

func (m *Memory) unmap() {
	munmap(m.buf)
	m.buf, m.grown = nil, nil
	areas.Add(-memoryAreas)
}

// restore brings the memory back to the image. Without success it must not be
// used again.
func (m *Memory) restore() bool {
	high := min(m.high, len(m.buf)) // the rest was in grown
	m.grown, m.high = nil, 0
	if m.im.way == scanned && m.copyBack(high) {
		return true
	}
	return unix.Madvise(m.buf[:max(high, len(m.im.data))], unix.MADV_DONTNEED) == nil
}

// The ioctl PAGEMAP_SCAN, of linux/fs.h.
const (
	pagemapScan = 0xc0606610 // _IOWR('f', 16, struct pm_scan_arg)

	pageIsFile    = 1 << 2
	pageIsPresent = 1 << 3
	pageIsSwapped = 1 << 4
	pageIsZero    = 1 << 5 // the kernel's one page of zeros
)

type region struct{ start, end, categories uint64 }

type scanArg struct {
	size, flags, start, end, walkEnd, regions, regionsLen, maxPages uint64
	inverted, mask, anyOf, returned                                 uint64
}

// pagemap is a descriptor of this process's page map, or -1.
var pagemap = sync.OnceValue(func() int {
	fd, err := unix.Open("/proc/self/pagemap", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return fd
})

// copyBack copies the image over each page of the first high bytes that is the
// memory's own: written to since it was mapped, in this run or one before. They
// stay the memory's, so that the next run takes no fault for them. It returns
// false, having copied some or none, if there are too many or the kernel does
// not say.
func (m *Memory) copyBack(high int) bool {
	fd := pagemap()
	if fd < 0 {
		return false
	}
	if m.regions == nil {
		m.regions = make([]region, 64)
	}
	base := uint64(uintptr(unsafe.Pointer(&m.buf[0])))
	image := m.im.data
	a := scanArg{
		start: base, end: base + uint64(high),
		regions: uint64(uintptr(unsafe.Pointer(&m.regions[0]))), regionsLen: uint64(len(m.regions)),
		// Present or swapped out, and neither the file's nor the page of zeros.
		inverted: pageIsFile | pageIsZero, mask: pageIsFile | pageIsZero, anyOf: pageIsPresent | pageIsSwapped, returned: pageIsPresent,
	}
	a.size = uint64(unsafe.Sizeof(a))
	for pages := 0; a.start < a.end; a.start = a.walkEnd {
		n, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), pagemapScan, uintptr(unsafe.Pointer(&a)))
		if errno != 0 || a.walkEnd <= a.start || a.walkEnd > a.end || n > uintptr(len(m.regions)) {
			return false
		}
		for _, r := range m.regions[:n] {
			if r.start < base || r.end > a.end || r.start > r.end {
				return false
			}
			from, to := int(r.start-base), int(r.end-base)
			if pages += (to - from) / pageBytes; pages > maxDirty {
				return false
			}
			if from < len(image) {
				from += copy(m.buf[from:to], image[from:])
			}
			clear(m.buf[from:to])
		}
	}
	return true
}

// best is how images of so many bytes are kept here.
func best(size int) way {
	if size <= small {
		return copied
	}
	return works()
}

// works finds out which way of mapping an image restores it here.
var works = sync.OnceValue(func() way {
	for _, w := range []way{scanned, forgotten} {
		if restores(w) {
			return w
		}
	}
	return copied
})

// restores tries whether memories of one image are that image each time, whatever
// was done to the one before. Some kernels answer a scan with no pages at all.
func restores(w way) bool {
	data := bytes.Repeat([]byte("image"), 16*pageSize/5+1)[:16*pageSize]
	clear(data[4*pageSize : 8*pageSize])
	im, err := newImage(data, w)
	if err != nil {
		return false
	}
	defer im.Close()
	if im.way != w {
		return false
	}
	spoil := []func(b []byte){
		func(b []byte) {},
		func(b []byte) { b[0] = 'x'; b[len(b)-1] = 'x' },
		func(b []byte) { // each third page: more regions than one scan returns
			for at := 1; at < len(b); at += 3 * pageBytes {
				b[at]++
			}
		},
		func(b []byte) { clear(b) },
	}
	for i := range 3 * len(spoil) {
		m, err := im.Open()
		if err != nil || !m.mapped {
			return false
		}
		size := len(data) + i%2*4*pageSize
		b := m.Bytes(uint64(size), 1<<32)
		same := bytes.Equal(b[:len(data)], data) && bytes.Equal(b[len(data):], make([]byte, size-len(data)))
		spoil[i%len(spoil)](b)
		if scan := m.high; !same || w == scanned && i%len(spoil) == 1 && !m.copyBack(scan) {
			m.unmap()
			im.unref()
			return false
		}
		m.Close()
	}
	return true
}

func mmap(addr unsafe.Pointer, n, prot, flags, fd int) (unsafe.Pointer, error) {
	p, err := unix.MmapPtr(fd, 0, addr, uintptr(n), prot, flags)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", n, err)
	}
	return p, nil
}

func munmap(b []byte) {
	// Fails for arguments that are no mapping alone.
	_ = unix.MunmapPtr(unsafe.Pointer(&b[0]), uintptr(len(b)))
}
