package wasi

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math"
	"unicode/utf8"

	"github.com/tetratelabs/wazero/api"
)

// The most that one call may ask for.
const (
	maxBuffers   = 1024     // of a scattered read or write, as IOV_MAX in Linux; the rest makes it a short one
	maxTransfer  = 64 << 20 // bytes of a read or write; the rest makes it a short one
	maxDirectory = 64 << 10 // bytes of fd_readdir's buffer; more is refused, as a short answer means the end
	maxPolled    = 1024     // subscriptions of poll_oneoff
	randomChunk  = 1 << 20  // bytes of random_get between two looks at the deadline
)

// call is one call of a function by a guest.
type call struct {
	ctx  context.Context
	mod  api.Module
	fs   *FS // nil if the guest has no files
	name string
	all  map[string]original
}

// forward hands the call to wazero's own function.
func (c call) forward(stack []uint64) errno {
	return c.original(c.name, stack)
}

// original calls one of wazero's functions, which takes its parameters from
// stack and leaves its result in stack[0].
func (c call) original(name string, stack []uint64) errno {
	c.all[name].call.Call(c.ctx, c.mod, stack)
	return errno(stack[0])
}

// file tells whether fd is open, and which of our files it is; nil for the
// standard streams. wazero does not show its table of descriptors, but
// fd_allocate of no bytes at 0 asks the file for its size and is content with
// any, and then our file knows that it was the one.
func (c call) file(fd uint32) (h *file, open bool) {
	if c.fs != nil {
		c.fs.probing, c.fs.probed = true, nil
		defer func() { c.fs.probing, c.fs.probed = false, nil }()
	}
	e := c.original("fd_allocate", []uint64{uint64(fd), 0, 0})
	if c.fs != nil {
		h = c.fs.probed
	}
	return h, e != eBadf
}

// lastStream is the highest descriptor that can be a standard stream. A guest
// can close one and get a file in its place, but cannot move it: wazero
// refuses to renumber what it opened itself.
const lastStream = 2

// stream tells whether fd is a standard stream, which may be a file, a pipe or
// a terminal of the host's own.
func (c call) stream(fd uint32) bool {
	if fd > lastStream {
		return false
	}
	h, open := c.file(fd)
	return open && h == nil
}

// A guard serves a call, by forwarding it or by itself. The parameters are in
// stack, where an i32 may have garbage in its upper half: truncate.
type guard func(c call, stack []uint64) errno

// A check refuses a call, or returns 0.
type check func(c call, stack []uint64) errno

// checked forwards a call that passes each check.
func checked(checks ...check) guard {
	return func(c call, stack []uint64) errno {
		for _, check := range checks {
			if e := check(c, stack); e != 0 {
				return e
			}
		}
		return c.forward(stack)
	}
}

// guards lists every function of wasi_snapshot_preview1.
var guards = map[string]guard{
	"args_get":                call.forward,
	"args_sizes_get":          call.forward,
	"environ_get":             call.forward,
	"environ_sizes_get":       call.forward,
	"clock_res_get":           call.forward,
	"clock_time_get":          call.forward,
	"random_get":              randomGet,
	"sched_yield":             call.forward,
	"proc_exit":               nil, // see guarded
	"proc_raise":              call.forward,
	"poll_oneoff":             pollOneoff,
	"fd_advise":               call.forward,
	"fd_allocate":             fdAllocate,
	"fd_close":                call.forward,
	"fd_datasync":             fdSync,
	"fd_fdstat_get":           call.forward,
	"fd_fdstat_set_flags":     fdFdstatSetFlags,
	"fd_fdstat_set_rights":    call.forward,
	"fd_filestat_get":         call.forward,
	"fd_filestat_set_size":    checked(notStream(eInval)),
	"fd_filestat_set_times":   checked(notStream(eNotsup), timestamps(1)),
	"fd_pread":                fdPread,
	"fd_prestat_get":          checked(notStream(eBadf)), // wazero says that they are directories
	"fd_prestat_dir_name":     fdPrestatDirName,
	"fd_pwrite":               fdPwrite,
	"fd_read":                 fdRead,
	"fd_readdir":              fdReaddir,
	"fd_renumber":             fdRenumber,
	"fd_seek":                 fdSeek,
	"fd_sync":                 fdSync,
	"fd_tell":                 fdTell,
	"fd_write":                fdWrite,
	"path_create_directory":   checked(paths(1)),
	"path_filestat_get":       checked(paths(2)),
	"path_filestat_set_times": checked(paths(2), timestamps(4)),
	"path_link":               checked(paths(2, 5)),
	"path_open":               checked(paths(2)),
	"path_readlink":           checked(paths(1), readlinkBuffer),
	"path_remove_directory":   checked(paths(1), entries(1)),
	"path_rename":             checked(paths(1, 4), entries(1, 4)),
	"path_symlink":            checked(paths(0, 3)),
	"path_unlink_file":        checked(paths(1), entries(1)),
	"sock_accept":             noSocket,
	"sock_recv":               noSocket,
	"sock_send":               noSocket,
	"sock_shutdown":           noSocket,
}

// paths checks the paths at these parameters, each a pointer and a length.
// The length comes first: a million components would be copied and cleaned.
func paths(params ...int) check {
	return func(c call, stack []uint64) errno {
		for _, i := range params {
			ptr, n := uint32(stack[i]), uint32(stack[i+1])
			if n == 0 {
				return eNoent
			}
			if n > maxPath {
				return eNametoolong
			}
			p, ok := c.mod.Memory().Read(ptr, n)
			switch {
			case !ok:
				return eFault
			case bytes.IndexByte(p, 0) >= 0:
				return eInval
			case !utf8.Valid(p):
				return eIlseq
			}
		}
		return 0
	}
}

// entries refuses "." and ".." at the end of paths that name an entry to be
// removed or moved, after paths. wazero would take "d/." for "d".
func entries(params ...int) check {
	return func(c call, stack []uint64) errno {
		for _, i := range params {
			p, _ := c.mod.Memory().Read(uint32(stack[i]), uint32(stack[i+1]))
			p = bytes.TrimRight(p, "/")
			if last := p[bytes.LastIndexByte(p, '/')+1:]; string(last) == "." || string(last) == ".." {
				return eInval
			}
		}
		return 0
	}
}

// readlinkBuffer has the target cut to the guest's buffer, as POSIX asks;
// wazero fails instead.
func readlinkBuffer(c call, stack []uint64) errno {
	if c.fs != nil {
		c.fs.readlinkMax = int(min(uint32(stack[4]), maxPath))
	}
	return 0
}

// timestamps checks two times and the flags that follow them. Those of 2^63
// nanoseconds and more would turn negative, and one of them into "leave it".
func timestamps(i int) check {
	const atim, mtim, all = 1, 4, 15
	return func(c call, stack []uint64) errno {
		flags := uint16(stack[i+2])
		if flags&^all != 0 ||
			flags&atim != 0 && stack[i] > math.MaxInt64 ||
			flags&mtim != 0 && stack[i+1] > math.MaxInt64 {
			return eInval
		}
		return 0
	}
}

// notStream refuses to do to a standard stream what is for files. wazero would
// panic (the times of a stream belong to no file system), or do it to the
// host's own file where the engine was given one.
func notStream(refusal errno) check {
	return func(c call, stack []uint64) errno {
		if c.stream(uint32(stack[0])) {
			return refusal
		}
		return 0
	}
}

// noSocket serves all that is for sockets: there are none.
func noSocket(c call, stack []uint64) errno {
	if _, open := c.file(uint32(stack[0])); !open {
		return eBadf
	}
	return eNotsock
}

// fdSync succeeds and does nothing. What a transaction has staged is made
// durable when it commits, all at once, and not at all if it does not: a sync
// before that would promise nothing, and would cost every neighbour on the
// disk (a loop of fsync makes theirs ten times slower).
func fdSync(c call, stack []uint64) errno {
	if _, open := c.file(uint32(stack[0])); !open {
		return eBadf
	}
	return 0
}

// fdSeek serves fd_seek itself: a standard stream may be a file of the host's
// own, whose offset it shares with the shell that opened it.
func fdSeek(c call, stack []uint64) errno {
	return c.seek(uint32(stack[0]), int64(stack[1]), uint32(stack[2]), uint32(stack[3]))
}

// fdTell serves fd_tell, which is fd_seek by nothing.
func fdTell(c call, stack []uint64) errno {
	return c.seek(uint32(stack[0]), 0, io.SeekCurrent, uint32(stack[1]))
}

func (c call) seek(fd uint32, offset int64, whence, result uint32) errno {
	h, open := c.file(fd)
	switch {
	case !open:
		return eBadf
	case h == nil:
		return eSpipe
	}
	if _, ok := c.mod.Memory().ReadUint64Le(result); !ok {
		return eFault
	}
	now, err := h.seek(offset, whence)
	if err != nil {
		return c.fs.failed(err)
	}
	c.mod.Memory().WriteUint64Le(result, uint64(now))
	return 0
}

// fdRenumber closes `to` and gives its number to `fd`. wazero makes room for
// any number: 0x7fffffff took 45 s and 17 GB. It refuses the descriptors that
// it opened itself, and closes a file that is renumbered to its own number.
func fdRenumber(c call, stack []uint64) errno {
	from, to := uint32(stack[0]), uint32(stack[1])
	h, open := c.file(from)
	if !open {
		return eBadf
	}
	if from == to && h != nil && h.charge > 0 {
		return 0
	}
	if _, open := c.file(to); !open {
		return eBadf
	}
	return c.forward(stack)
}

// fdAllocate checks what wazero adds up without a look at the overflow.
func fdAllocate(c call, stack []uint64) errno {
	offset, n := stack[1], stack[2]
	switch {
	case c.stream(uint32(stack[0])):
		return eSpipe
	case offset > math.MaxInt64 || n > math.MaxInt64:
		return eInval
	case offset+n > math.MaxInt64:
		return eFbig
	}
	return c.forward(stack)
}

// fdFdstatSetFlags keeps a guest from making the host's own standard input
// non-blocking, for the host and for the shell that started it.
func fdFdstatSetFlags(c call, stack []uint64) errno {
	const appends = 1
	if !c.stream(uint32(stack[0])) {
		return c.forward(stack)
	}
	if uint16(stack[1])&^appends != 0 {
		return eNotsup
	}
	return 0
}

// fdPrestatDirName accepts a buffer longer than the name, which is legal, and
// refuses none at all. The one directory that is preopened is "/".
func fdPrestatDirName(c call, stack []uint64) errno {
	const name = uint32(len("/"))
	if c.stream(uint32(stack[0])) {
		return eBadf
	}
	n := uint32(stack[2])
	stack[2] = uint64(min(n, name))
	if e := c.forward(stack); e != 0 {
		return e
	}
	if n < name {
		return eNametoolong
	}
	return 0
}

// randomGet fills the buffer a part at a time: gigabytes take seconds, and a
// deadline may fall into them.
func randomGet(c call, stack []uint64) errno {
	ptr, n := uint32(stack[0]), uint32(stack[1])
	if _, ok := c.mod.Memory().Read(ptr, n); !ok {
		return eFault
	}
	for n > 0 {
		stop(c.ctx)
		part := min(n, randomChunk)
		if e := c.original(c.name, []uint64{uint64(ptr), uint64(part)}); e != 0 {
			return e
		}
		ptr, n = ptr+part, n-part
	}
	return 0
}

func fdPread(c call, stack []uint64) errno {
	if c.stream(uint32(stack[0])) {
		return eSpipe
	}
	return transfer(c, stack, true)
}

func fdPwrite(c call, stack []uint64) errno {
	if c.stream(uint32(stack[0])) {
		return eSpipe
	}
	return transfer(c, stack, false)
}

func fdRead(c call, stack []uint64) errno  { return transfer(c, stack, true) }
func fdWrite(c call, stack []uint64) errno { return transfer(c, stack, false) }

// transfer forwards a scattered read or write of the first maxBuffers buffers
// and the first maxTransfer bytes in them; the guest sees a short one, which
// any program must expect. wazero itself goes by what the guest says: a count
// whose eightfold wraps, sizes whose sum does, or one buffer 65,536 times
// over, gigabytes in a call that no deadline interrupts.
func transfer(c call, stack []uint64, read bool) errno {
	const entry = 8 // a pointer and a length, 32 bits each
	vec, count := uint32(stack[1]), min(uint32(stack[2]), maxBuffers)
	stack[2] = uint64(count)
	buffers, ok := c.mod.Memory().Read(vec, count*entry)
	if !ok {
		return eFault
	}
	var total uint32
	for i := range count {
		b := buffers[i*entry:]
		ptr, n := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
		if _, ok := c.mod.Memory().Read(ptr, n); !ok {
			return eFault
		}
		if read && n > 0 && uint64(ptr) < uint64(vec)+uint64(count)*entry && uint64(vec) < uint64(ptr)+uint64(n) {
			// wazero looks at each entry after it has filled the one before:
			// a file's contents could rewrite the entries checked here.
			return eInval
		}
		if n > maxTransfer-total {
			// The entry is cut in place for the time of the call, in which the
			// guest does not run.
			binary.LittleEndian.PutUint32(b[4:], maxTransfer-total)
			defer binary.LittleEndian.PutUint32(b[4:], n)
			stack[2] = uint64(i + 1)
			break
		}
		total += n
	}
	return c.forward(stack)
}
