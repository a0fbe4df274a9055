// Guest is what the tests of package wasi run. It does what its standard input
// says, one call of WASI a line, and prints how each ended. So the attacks
// stand in the tests, in one piece with what must come of them, and are yet
// made by real guest code: nothing is between it and the functions.
//
// With an argument it is one of the programs in programs.go.
package main

import (
	"bufio"
	"encoding/binary"
	"os"
	"strconv"
	"strings"
	"unsafe"
)

func main() {
	if len(os.Args) > 1 {
		program(os.Args[1])
		return
	}
	in := bufio.NewReader(os.Stdin)
	var lines [][]string
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			break
		}
		var words []string
		for _, q := range strings.Split(strings.TrimSuffix(line, "\n"), "\t") {
			w, err := strconv.Unquote(q)
			if err != nil {
				panic(err)
			}
			words = append(words, w)
		}
		lines = append(lines, words)
	}
	out := bufio.NewWriter(os.Stdout)
	g := guest{fds: map[string]uint32{"stdin": 0, "stdout": 1, "stderr": 2, "/": 3}}
	for _, words := range lines {
		errno, detail := g.run(words)
		out.WriteString(decimal(errno) + "\t" + strconv.Quote(detail) + "\n")
		out.Flush()
	}
}

type guest struct{ fds map[string]uint32 }

// run does one call: "[repeat N] [NAME=] FUNCTION PARAMETER…".
func (g guest) run(words []string) (errno uint32, detail string) {
	if words[0] == "repeat" {
		n := number(words[1])
		for i := range n {
			if errno, _ := g.run(words[2:]); errno != 0 {
				return errno, strconv.FormatUint(i, 10)
			}
		}
		return 0, strconv.FormatUint(n, 10)
	}
	name := ""
	if strings.HasSuffix(words[0], "=") {
		name, words = strings.TrimSuffix(words[0], "="), words[1:]
	}
	do, w := words[0], words[1:]
	fd := func(i int) uint32 {
		if v, ok := g.fds[w[i]]; ok {
			return v
		}
		if n, err := strconv.ParseInt(w[i], 0, 64); err == nil {
			return uint32(n)
		}
		return ^uint32(0) // it was not opened
	}
	var result uint64
	switch do {
	case "open": // FLAGS PATH [FD]
		at := uint32(3)
		if len(w) > 2 {
			at = fd(2)
		}
		var oflags, fdflags, lookup uint32 = 0, 0, 1
		// Those that libc asks for, of which 'r' and 'w' take their own away.
		rights := uint64(allRights &^ (readRights | writeRights))
		for _, c := range w[0] {
			switch c {
			case 'r':
				rights |= readRights
			case 'w':
				rights |= writeRights
			case 'c':
				oflags |= 1
			case 'd':
				oflags |= 2
			case 'x':
				oflags |= 4
			case 't':
				oflags |= 8
			case 'a':
				fdflags |= 1
			case 'n':
				lookup = 0
			}
		}
		var opened uint32
		errno = pathOpen(at, lookup, ptr(w[1]), size(w[1]), oflags, rights, allRights, fdflags, unsafe.Pointer(&opened))
		if errno == 0 && name != "" {
			g.fds[name] = opened
		}
		return errno, ""
	case "open-as": // FLAGS PATH FD BASE INHERITING: with these rights
		var oflags, fdflags, lookup uint32 = 0, 0, 1
		for _, c := range w[0] {
			switch c {
			case 'c':
				oflags |= 1
			case 'd':
				oflags |= 2
			case 'x':
				oflags |= 4
			case 't':
				oflags |= 8
			case 'a':
				fdflags |= 1
			case 'k':
				fdflags |= 4
			case 's':
				fdflags |= 16
			case 'n':
				lookup = 0
			}
		}
		var opened uint32
		errno = pathOpen(fd(2), lookup, ptr(w[1]), size(w[1]), oflags, number(w[3]), number(w[4]), fdflags, unsafe.Pointer(&opened))
		if errno == 0 && name != "" {
			g.fds[name] = opened
		}
		return errno, ""
	case "rights": // FD: prints base and inheriting
		var b [24]byte
		if errno = fdFdstatGet(fd(0), unsafe.Pointer(&b)); errno == 0 {
			detail = decimal(binary.LittleEndian.Uint64(b[8:])) + " " + decimal(binary.LittleEndian.Uint64(b[16:]))
		}
		return errno, detail
	case "set-rights": // FD BASE INHERITING
		return fdFdstatSetRights(fd(0), number(w[1]), number(w[2])), ""
	case "same-file": // FD FD, or FD PATH FD: whether device and inode are the same
		var a, b [64]byte
		if errno = fdFilestatGet(fd(0), unsafe.Pointer(&a)); errno != 0 {
			return errno, ""
		}
		if len(w) > 2 {
			errno = pathFilestatGet(fd(2), 1, ptr(w[1]), size(w[1]), unsafe.Pointer(&b))
		} else {
			errno = fdFilestatGet(fd(1), unsafe.Pointer(&b))
		}
		return errno, strconv.FormatBool(string(a[:16]) == string(b[:16])) + " " + decimal(binary.LittleEndian.Uint64(a[24:]))
	case "ids": // PATH: prints device and inode
		var b [64]byte
		if errno = pathFilestatGet(3, 0, ptr(w[0]), size(w[0]), unsafe.Pointer(&b)); errno != 0 {
			return errno, ""
		}
		return 0, decimal(binary.LittleEndian.Uint64(b[:])) + " " + decimal(binary.LittleEndian.Uint64(b[8:]))
	case "dirents": // FD: prints "name type", and whether the inode is that of the name
		b := make([]byte, 4096)
		var used uint32
		if errno = fdReaddir(fd(0), unsafe.Pointer(&b[0]), uint32(len(b)), 0, unsafe.Pointer(&used)); errno != 0 {
			return errno, ""
		}
		for p := b[:used]; len(p) >= 24; {
			n := binary.LittleEndian.Uint32(p[16:])
			name := string(p[24 : 24+n])
			var s [64]byte
			if name != ".." {
				errno = pathFilestatGet(fd(0), 0, ptr(name), size(name), unsafe.Pointer(&s))
			}
			detail += name + " " + decimal(p[20]) + " " + strconv.FormatBool(string(p[8:16]) == string(s[8:16])) + "; "
			p = p[24+n:]
		}
		return errno, detail
	case "close":
		return fdClose(fd(0)), ""
	case "renumber":
		return fdRenumber(fd(0), fd(1)), ""
	case "seek": // FD OFFSET WHENCE
		errno = fdSeek(fd(0), int64(number(w[1])), uint32(number(w[2])), unsafe.Pointer(&result))
	case "tell":
		errno = fdTell(fd(0), unsafe.Pointer(&result))
	case "advise": // FD [ADVICE]
		advice := uint32(0)
		if len(w) > 1 {
			advice = uint32(number(w[1]))
		}
		return fdAdvise(fd(0), 0, 0, advice), ""
	case "allocate":
		return fdAllocate(fd(0), number(w[1]), number(w[2])), ""
	case "truncate":
		return fdFilestatSetSize(fd(0), number(w[1])), ""
	case "sync":
		return fdSync(fd(0)), ""
	case "datasync":
		return fdDatasync(fd(0)), ""
	case "clock": // prints whether two readings are in order, and the resolution is one
		var a, b, res uint64
		id := uint32(number(w[0]))
		if errno = clockTimeGet(id, 1, unsafe.Pointer(&a)); errno == 0 {
			if errno = clockTimeGet(id, 0, unsafe.Pointer(&b)); errno == 0 {
				errno = clockResGet(id, unsafe.Pointer(&res))
			}
		}
		return errno, strconv.FormatBool(0 < a && a <= b && res > 0)
	case "now": // CLOCK
		var now uint64
		errno = clockTimeGet(uint32(number(w[0])), 0, unsafe.Pointer(&now))
		return errno, decimal(now)
	case "yield":
		return schedYield(), ""
	case "futimes": // FD ATIME MTIME FLAGS
		return fdFilestatSetTimes(fd(0), number(w[1]), number(w[2]), uint32(number(w[3]))), ""
	case "utimes", "lutimes": // PATH ATIME MTIME FLAGS [FD]
		at, lookup := uint32(3), uint32(1)
		if len(w) > 4 {
			at = fd(4)
		}
		if do == "lutimes" {
			lookup = 0
		}
		return pathFilestatSetTimes(at, lookup, ptr(w[0]), size(w[0]), number(w[1]), number(w[2]), uint32(number(w[3]))), ""
	case "setflags":
		return fdFdstatSetFlags(fd(0), uint32(number(w[1]))), ""
	case "fdstat": // prints type and flags
		var b [24]byte
		if errno = fdFdstatGet(fd(0), unsafe.Pointer(&b)); errno == 0 {
			detail = decimal(b[0]) + " " + decimal(binary.LittleEndian.Uint16(b[2:]))
		}
		return errno, detail
	case "fstat", "stat", "lstat": // FD, or PATH [FD]: prints type, size, mtime
		var b [64]byte
		at := uint32(3)
		if len(w) > 1 {
			at = fd(1)
		}
		switch do {
		case "fstat":
			errno = fdFilestatGet(fd(0), unsafe.Pointer(&b))
		case "stat":
			errno = pathFilestatGet(at, 1, ptr(w[0]), size(w[0]), unsafe.Pointer(&b))
		case "lstat":
			errno = pathFilestatGet(at, 0, ptr(w[0]), size(w[0]), unsafe.Pointer(&b))
		}
		if errno == 0 {
			detail = decimal(b[16]) + " " + decimal(binary.LittleEndian.Uint64(b[32:])) + " " + decimal(binary.LittleEndian.Uint64(b[48:]))
		}
		return errno, detail
	case "mkdir", "rmdir", "unlink": // PATH [FD]
		at := uint32(3)
		if len(w) > 1 {
			at = fd(1)
		}
		switch do {
		case "mkdir":
			errno = pathCreateDirectory(at, ptr(w[0]), size(w[0]))
		case "rmdir":
			errno = pathRemoveDirectory(at, ptr(w[0]), size(w[0]))
		case "unlink":
			errno = pathUnlinkFile(at, ptr(w[0]), size(w[0]))
		}
		return errno, ""
	case "rename", "link": // FROM TO [FD FD]
		a, b := uint32(3), uint32(3)
		if len(w) > 3 {
			a, b = fd(2), fd(3)
		}
		if do == "link" {
			return pathLink(a, 0, ptr(w[0]), size(w[0]), b, ptr(w[1]), size(w[1])), ""
		}
		return pathRename(a, ptr(w[0]), size(w[0]), b, ptr(w[1]), size(w[1])), ""
	case "symlink": // TARGET PATH [FD]
		at := uint32(3)
		if len(w) > 2 {
			at = fd(2)
		}
		return pathSymlink(ptr(w[0]), size(w[0]), at, ptr(w[1]), size(w[1])), ""
	case "symlink-and-scribble": // the same, and then writes over the target's memory
		b := []byte(w[0])
		errno = pathSymlink(unsafe.Pointer(&b[0]), uint32(len(b)), 3, ptr(w[1]), size(w[1]))
		copy(b, "../../../../../../../etc/passwd")
		return errno, ""
	case "readlink": // PATH SIZE [FD]
		at := uint32(3)
		if len(w) > 2 {
			at = fd(2)
		}
		b := make([]byte, number(w[1])+1)
		var n uint32
		errno = pathReadlink(at, ptr(w[0]), size(w[0]), unsafe.Pointer(&b[0]), uint32(len(b)-1), unsafe.Pointer(&n))
		return errno, string(b[:n])
	case "read", "pread": // FD SIZE [OFFSET]
		b := make([]byte, number(w[1])+1)
		v := []iovec{{address(unsafe.Pointer(&b[0])), uint32(len(b) - 1)}}
		var n uint32
		if do == "read" {
			errno = fdRead(fd(0), unsafe.Pointer(&v[0]), 1, unsafe.Pointer(&n))
		} else {
			errno = fdPread(fd(0), unsafe.Pointer(&v[0]), 1, number(w[2]), unsafe.Pointer(&n))
		}
		return errno, string(b[:n])
	case "write", "pwrite": // FD TEXT [OFFSET]
		v := []iovec{{address(ptr(w[1])), size(w[1])}}
		var n uint32
		if do == "write" {
			errno = fdWrite(fd(0), unsafe.Pointer(&v[0]), 1, unsafe.Pointer(&n))
		} else {
			errno = fdPwrite(fd(0), unsafe.Pointer(&v[0]), 1, number(w[2]), unsafe.Pointer(&n))
		}
		return errno, strconv.FormatUint(uint64(n), 10)
	case "readv", "writev": // FD COUNT SIZE: COUNT times the same buffer of SIZE
		v, n := g.aliases(number(w[1]), number(w[2])), uint32(0)
		if do == "readv" {
			errno = fdRead(fd(0), unsafe.Pointer(&v[0]), uint32(len(v)), unsafe.Pointer(&n))
		} else {
			errno = fdWrite(fd(0), unsafe.Pointer(&v[0]), uint32(len(v)), unsafe.Pointer(&n))
		}
		for _, e := range v {
			if e.n != uint32(number(w[2])) {
				return errno, "the entries have changed"
			}
		}
		return errno, strconv.FormatUint(uint64(n), 10)
	case "writev-raw": // FD COUNT: a count, with one entry behind it
		v, n := make([]iovec, 2048), uint32(0)
		v[0] = iovec{address(unsafe.Pointer(&buffer[0])), 1}
		errno = fdWrite(fd(0), unsafe.Pointer(&v[0]), uint32(number(w[1])), unsafe.Pointer(&n))
		return errno, strconv.FormatUint(uint64(n), 10)
	case "readv-over-itself": // FD: the first buffer is the entries themselves
		v, n := make([]iovec, 4), uint32(0)
		for i := range v {
			v[i] = iovec{address(unsafe.Pointer(&v[0])), 32}
		}
		errno = fdRead(fd(0), unsafe.Pointer(&v[0]), uint32(len(v)), unsafe.Pointer(&n))
		return errno, ""
	case "write-at": // FD POINTER SIZE: a buffer anywhere
		v, n := []iovec{{uint32(number(w[1])), uint32(number(w[2]))}}, uint32(0)
		errno = fdWrite(fd(0), unsafe.Pointer(&v[0]), 1, unsafe.Pointer(&n))
		return errno, ""
	case "write-vec": // FD POINTER COUNT: entries anywhere
		errno = fdWriteAnywhere(fd(0), uint32(number(w[1])), uint32(number(w[2])), unsafe.Pointer(&result))
		return errno, ""
	case "readdir": // FD SIZE COOKIE: prints "used: name …"
		n := number(w[1])
		b := make([]byte, min(n, 1<<20)+1)
		var used uint32
		errno = fdReaddir(fd(0), unsafe.Pointer(&b[0]), uint32(n), number(w[2]), unsafe.Pointer(&used))
		return errno, strconv.FormatUint(uint64(used), 10) + ":" + names(b[:used])
	case "readdir-all": // FD SIZE: follows the cookies, prints how many
		total, cookie := 0, uint64(0)
		b := make([]byte, number(w[1]))
		for {
			var used uint32
			if errno = fdReaddir(fd(0), unsafe.Pointer(&b[0]), uint32(len(b)), cookie, unsafe.Pointer(&used)); errno != 0 {
				return errno, ""
			}
			n := 0
			for p := b[:used]; len(p) >= 24; n++ {
				l := int(binary.LittleEndian.Uint32(p[16:]))
				if len(p) < 24+l {
					break
				}
				cookie = binary.LittleEndian.Uint64(p)
				p = p[24+l:]
			}
			total += n
			if used < uint32(len(b)) || n == 0 {
				return 0, strconv.Itoa(total)
			}
		}
	case "poll-sleep": // NANOSECONDS
		s := make([]byte, 48)
		binary.LittleEndian.PutUint64(s[24:], number(w[0]))
		return g.poll(s)
	case "poll-until": // NANOSECONDS from now, as a moment
		var now uint64
		clockTimeGet(1, 0, unsafe.Pointer(&now))
		s := make([]byte, 48)
		binary.LittleEndian.PutUint32(s[16:], 1)
		binary.LittleEndian.PutUint64(s[24:], now+number(w[0]))
		s[40] = 1
		return g.poll(s)
	case "poll": // KIND FD …: prints an errno for each event
		var s []byte
		for i := 0; i < len(w); i += 2 {
			var e [48]byte
			e[0], e[8] = byte(i/2), byte(number(w[i]))
			binary.LittleEndian.PutUint32(e[16:], fd(i+1))
			s = append(s, e[:]...)
		}
		return g.poll(s)
	case "poll-with-clock": // NANOSECONDS KIND FD
		s := make([]byte, 2*48)
		binary.LittleEndian.PutUint64(s[24:], number(w[0]))
		s[48], s[48+8] = 1, byte(number(w[1]))
		binary.LittleEndian.PutUint32(s[48+16:], fd(2))
		return g.poll(s)
	case "many", "many-directories", "many-links": // COUNT FD: makes so many files, directories, links
		for i := range number(w[0]) {
			name := do + "." + decimal(i)
			switch do {
			case "many":
				if errno, _ = g.run([]string{"t=", "open", "cw", name, w[1]}); errno == 0 {
					errno = fdClose(g.fds["t"])
				}
			case "many-directories":
				errno = pathCreateDirectory(fd(1), ptr(name), size(name))
			case "many-links":
				errno = pathSymlink(ptr("target"), size("target"), fd(1), ptr(name), size(name))
			}
			if errno != 0 {
				return errno, decimal(i)
			}
		}
		return 0, w[0]
	case "poll-count": // COUNT
		n := number(w[0])
		s := make([]byte, min(n, 2048)*48+1)
		errno = pollOneoff(unsafe.Pointer(&s[0]), unsafe.Pointer(&s[0]), uint32(n), unsafe.Pointer(&result))
		return errno, ""
	case "prestat": // FD SIZE
		b := make([]byte, number(w[1])+1)
		errno = fdPrestatDirName(fd(0), unsafe.Pointer(&b[0]), uint32(len(b)-1))
		return errno, strings.TrimRight(string(b), "\x00")
	case "prestat-get":
		errno = fdPrestatGet(fd(0), unsafe.Pointer(&result))
	case "random":
		b := make([]byte, number(w[0])+1)
		errno = randomGet(unsafe.Pointer(&b[0]), uint32(len(b)-1))
		return errno, strconv.FormatBool(b[len(b)-1] == 0)
	case "random-at": // POINTER SIZE
		return randomGetAnywhere(uint32(number(w[0])), uint32(number(w[1]))), ""
	case "sock":
		switch w[0] {
		case "accept":
			return sockAccept(fd(1), 0, unsafe.Pointer(&result)), ""
		case "recv":
			return sockRecv(fd(1), unsafe.Pointer(&result), 1, 0, unsafe.Pointer(&result), unsafe.Pointer(&result)), ""
		case "send":
			return sockSend(fd(1), unsafe.Pointer(&result), 1, 0, unsafe.Pointer(&result)), ""
		case "shutdown":
			return sockShutdown(fd(1), 3), ""
		}
	case "raise":
		return procRaise(uint32(number(w[0]))), ""
	default:
		panic("guest: unknown call " + do)
	}
	return errno, strconv.FormatUint(result, 10)
}

func (g guest) poll(subs []byte) (errno uint32, detail string) {
	events, n := make([]byte, len(subs)/48*32), uint32(0)
	if errno = pollOneoff(unsafe.Pointer(&subs[0]), unsafe.Pointer(&events[0]), uint32(len(subs)/48), unsafe.Pointer(&n)); errno != 0 {
		return errno, ""
	}
	for i := range n {
		e := events[i*32:]
		detail += decimal(e[0]) + ":" + decimal(binary.LittleEndian.Uint16(e[8:])) + " "
	}
	return 0, strings.TrimSpace(detail)
}

func (g guest) aliases(count, size uint64) []iovec {
	if uint64(len(buffer)) < size {
		buffer = make([]byte, size)
	}
	v := make([]iovec, count)
	for i := range v {
		v[i] = iovec{address(unsafe.Pointer(&buffer[0])), uint32(size)}
	}
	return v
}

var buffer = make([]byte, 1<<16)

func names(b []byte) (s string) {
	for len(b) >= 24 {
		n := int(binary.LittleEndian.Uint32(b[16:]))
		s += " " + string(b[24:min(24+n, len(b))])
		b = b[min(24+n, len(b)):]
	}
	return s
}

func decimal[N uint8 | uint16 | uint32 | uint64](n N) string {
	return strconv.FormatUint(uint64(n), 10)
}

func number(s string) uint64 {
	if n, err := strconv.ParseInt(s, 0, 64); err == nil {
		return uint64(n)
	}
	n, err := strconv.ParseUint(s, 0, 64)
	if err != nil {
		panic(err)
	}
	return n
}

const (
	allRights   = 1<<30 - 1
	readRights  = 1<<1 | 1<<14
	writeRights = 1<<0 | 1<<6 | 1<<8 | 1<<22
)

type iovec struct{ ptr, n uint32 }

func ptr(s string) unsafe.Pointer     { return unsafe.Pointer(unsafe.StringData(s)) }
func size(s string) uint32            { return uint32(len(s)) }
func address(p unsafe.Pointer) uint32 { return uint32(uintptr(p)) }
