//go:build wasip1

package circles

import (
	"strings"
	"sync"
	"unicode/utf8"
	"unsafe"
)

// This file is the guest's side of the Canonical ABI for wit/deps/circles-host
// and wit/script.wit
// (https://github.com/WebAssembly/component-model/blob/main/design/mvp/CanonicalABI.md).
//
// Three rules keep it sound under Go's runtime:
//
//   - No //go:noescape, so that every return area is on the heap. A host function
//     calls cabi_realloc before it fills the return area in; that may grow or shrink
//     the stack of the goroutine that waits, which moves what is on it, and the
//     host would write where it was.
//   - What cabi_realloc hands out stays in pinned until it is lifted: meanwhile
//     only the host has its address, and the collector cannot see that.
//   - Addresses in linear memory are uint32, never unsafe.Pointer: the runtime
//     throws when it finds 1 or 4, which stand for empty lists, in a pointer.

//go:wasmimport circles:host/contexts@0.1.2 caller
func importCaller() uint32

//go:wasmimport circles:host/contexts@0.1.2 target
func importTarget() uint32

//go:wasmimport circles:host/contexts@0.1.2 [resource-drop]context
func importDrop(self uint32)

//go:wasmimport circles:host/contexts@0.1.2 [method]context.id
func importID(self uint32, ret unsafe.Pointer)

//go:wasmimport circles:host/contexts@0.1.2 [method]context.name
func importName(self uint32, ret unsafe.Pointer)

//go:wasmimport circles:host/contexts@0.1.2 [method]context.read
func importRead(self uint32, path unsafe.Pointer, pathLen uint32, ret unsafe.Pointer)

//go:wasmimport circles:host/contexts@0.1.2 [method]context.read-at
func importReadAt(self uint32, path unsafe.Pointer, pathLen uint32, offset uint64, length uint32, ret unsafe.Pointer)

//go:wasmimport circles:host/contexts@0.1.2 [method]context.write
func importWrite(self uint32, path unsafe.Pointer, pathLen uint32, data unsafe.Pointer, dataLen uint32, ret unsafe.Pointer)

//go:wasmimport circles:host/contexts@0.1.2 [method]context.append
func importAppend(self uint32, path unsafe.Pointer, pathLen uint32, data unsafe.Pointer, dataLen uint32, ret unsafe.Pointer)

//go:wasmimport circles:host/contexts@0.1.2 [method]context.list
func importList(self uint32, path unsafe.Pointer, pathLen uint32, ret unsafe.Pointer)

//go:wasmimport circles:host/contexts@0.1.2 [method]context.stat
func importStat(self uint32, path unsafe.Pointer, pathLen uint32, ret unsafe.Pointer)

//go:wasmimport circles:host/contexts@0.1.2 [method]context.make-directory
func importMkdir(self uint32, path unsafe.Pointer, pathLen uint32, ret unsafe.Pointer)

//go:wasmimport circles:host/contexts@0.1.2 [method]context.remove
func importRemove(self uint32, path unsafe.Pointer, pathLen uint32, ret unsafe.Pointer)

//go:wasmimport circles:host/contexts@0.1.2 [method]context.get-record
func importGetRecord(self uint32, collection unsafe.Pointer, collectionLen uint32, key unsafe.Pointer, keyLen uint32, ret unsafe.Pointer)

//go:wasmimport circles:host/contexts@0.1.2 [method]context.put-record
func importPutRecord(self uint32, collection unsafe.Pointer, collectionLen uint32, key unsafe.Pointer, keyLen uint32, value unsafe.Pointer, valueLen uint32, ret unsafe.Pointer)

//go:wasmimport circles:host/contexts@0.1.2 [method]context.delete-record
func importDeleteRecord(self uint32, collection unsafe.Pointer, collectionLen uint32, key unsafe.Pointer, keyLen uint32, ret unsafe.Pointer)

//go:wasmimport circles:host/contexts@0.1.2 [method]context.list-records
func importListRecords(self uint32, collection unsafe.Pointer, collectionLen uint32, start unsafe.Pointer, startLen uint32, prefix unsafe.Pointer, prefixLen uint32, limit uint32, ret unsafe.Pointer)

//go:wasmimport circles:host/contexts@0.1.2 [method]context.replace-record
func importReplaceRecord(self uint32, collection unsafe.Pointer, collectionLen uint32, key unsafe.Pointer, keyLen uint32, some uint32, expected unsafe.Pointer, expectedLen uint32, value unsafe.Pointer, valueLen uint32, ret unsafe.Pointer)

//go:wasmimport circles:host/contexts@0.1.2 [method]context.query-records
func importQueryRecords(self uint32, collection unsafe.Pointer, collectionLen uint32, query unsafe.Pointer, queryLen uint32, start unsafe.Pointer, startLen uint32, limit uint32, ret unsafe.Pointer)

//go:wasmimport circles:host/contexts@0.1.2 [method]context.send
func importSend(self uint32, to unsafe.Pointer, toLen uint32, logic unsafe.Pointer, logicLen uint32, entry unsafe.Pointer, entryLen uint32, params unsafe.Pointer, paramsLen uint32, ret unsafe.Pointer)

//go:wasmimport circles:host/modules@0.1.2 call
func importCall(name unsafe.Pointer, nameLen uint32, entry unsafe.Pointer, entryLen uint32, params unsafe.Pointer, paramsLen uint32, ret unsafe.Pointer)

//go:wasmimport circles:host/modules@0.1.2 base
func importBase(entry unsafe.Pointer, entryLen uint32, params unsafe.Pointer, paramsLen uint32, ret unsafe.Pointer)

//go:wasmimport circles:host/modules@0.1.2 entry
func importEntry(ret unsafe.Pointer)

//go:wasmimport circles:host/log@0.1.2 write
func importLog(level uint32, message unsafe.Pointer, messageLen uint32)

// ---- Memory that the host fills in ----

// pinned has the blocks that the host got from cabi_realloc and that were not
// lifted yet, by address. Words rather than bytes make them 8-aligned, which is
// the most that the ABI asks for.
var pinned = map[uint32][]uint64{}

// early serves cabi_realloc until ready is set. When a module is made into a
// component, the adapter from wasip1 to wasip2 allocates its own stack and state,
// 64 KiB each, inside the first WASI call, which the Go runtime makes before it
// can allocate. An array costs nothing in the file: it is zeroed memory.
var (
	early     [160 << 10]byte
	earlyUsed uint32
	ready     bool
)

func init() { ready = true }

func address(p unsafe.Pointer) uint32 { return uint32(uintptr(p)) }

// cabiRealloc is exported for the host. It never returns nil: out of memory ends
// the instance, as the ABI wants it.
//
//go:wasmexport cabi_realloc
func cabiRealloc(old, oldSize, align, size uint32) uint32 {
	if size == 0 && oldSize == 0 {
		return align // stands for an empty list, and is never read
	}
	if !ready {
		return earlyRealloc(old, oldSize, size)
	}
	block := make([]uint64, max(1, (uint64(size)+7)/8))
	if oldSize > 0 {
		copy(block, blockAt(old, oldSize))
		delete(pinned, old)
	}
	ptr := address(unsafe.Pointer(&block[0]))
	pinned[ptr] = block
	return ptr
}

// earlyRealloc runs on the runtime's own stack before the runtime is up, so it
// must not allocate. Running out of early panics, which there ends the instance.
//
//go:nosplit
func earlyRealloc(old, oldSize, size uint32) uint32 {
	at := (earlyUsed + 7) &^ 7
	block := early[at:][:size]
	if oldSize > 0 {
		copy(block, early[old-address(unsafe.Pointer(&early)):][:oldSize])
	}
	earlyUsed = at + size
	return address(unsafe.Pointer(&early)) + at
}

// lift takes what the host put into a block from cabi_realloc.
func lift(ptr, n uint32) []byte {
	if n == 0 {
		return []byte{}
	}
	block := blockAt(ptr, n)
	delete(pinned, ptr)
	return unsafe.Slice((*byte)(unsafe.Pointer(&block[0])), n)
}

// blockAt finds a pinned block. That the host returns an address that it did not
// get from cabi_realloc would be its fault; to go on would corrupt memory.
func blockAt(ptr, n uint32) []uint64 {
	block := pinned[ptr]
	if uint64(len(block))*8 < uint64(n) {
		panic("circles: the host returned memory that cabi_realloc did not make")
	}
	return block
}

// ---- Host functions ----

// entering lets one goroutine at a time into the host. While the host is in
// cabi_realloc the collector may run other goroutines, and one of those entering
// the host would use pinned in the middle of a change.
var entering sync.Mutex

// handles are got when first needed and dropped after each entry. Getting them at
// init would bake them into a copied instance.
var handles [parties]struct {
	held bool
	self uint32
}

// handle is called with entering locked.
func handle(p party) uint32 {
	h := &handles[p]
	if !h.held {
		if p == caller {
			h.self = importCaller()
		} else {
			h.self = importTarget()
		}
		h.held = true
	}
	return h.self
}

func dropHandles() {
	entering.Lock()
	defer entering.Unlock()
	for i := range handles {
		if h := &handles[i]; h.held {
			h.held = false
			importDrop(h.self)
		}
	}
}

// The return areas below are laid out as the ABI says. A tag, a code and a kind
// are one byte; the host leaves the bytes after it as they were.

// listArea is a list<u8> or string.
type listArea struct{ ptr, n uint32 }

// resultArea is a result<list<u8>, error> or result<_, error>. Its three words are
// a list's address and length, or an error's code and message.
type resultArea struct {
	failed bool
	words  [3]uint32
}

// statArea is a result<stat, error>. The error's message lies where the stat has
// padding and the low half of its size.
type statArea struct {
	failed   bool
	_        [7]byte
	kind     uint8 // or the error's code
	ptr      uint32
	size     uint64 // or, in its low half, the message's length
	modified uint64
}

type entryArea struct {
	ptr, n uint32
	kind   uint8
}

// pageArea is a result<page, error>. Its words are the list of items and the next
// key, or an error's code and message.
type pageArea struct {
	failed bool
	words  [4]uint32
}

// itemArea is an item: a key, and an option<list<u8>>.
type itemArea struct {
	key, keyLen uint32
	some        bool
	value       uint32
	valueLen    uint32
}

// The layouts that the ABI gives them; a difference does not compile.
var (
	_ [0]struct{} = [unsafe.Sizeof(resultArea{}) - 16]struct{}{}
	_ [0]struct{} = [unsafe.Sizeof(statArea{}) - 32]struct{}{}
	_ [0]struct{} = [unsafe.Sizeof(entryArea{}) - 12]struct{}{}
	_ [0]struct{} = [unsafe.Sizeof(pageArea{}) - 20]struct{}{}
	_ [0]struct{} = [unsafe.Sizeof(itemArea{}) - 20]struct{}{}
	_ [0]struct{} = [unsafe.Sizeof(returned.area) - 12]struct{}{}
)

// text is a path or other string as the host wants it: valid UTF-8, since the
// host must trap on anything else.
func text(s string) (unsafe.Pointer, uint32, *Error) {
	if !utf8.ValidString(s) {
		return nil, 0, &Error{Code: Invalid, Message: "the path is not valid UTF-8"}
	}
	return unsafe.Pointer(unsafe.StringData(s)), uint32(len(s)), nil
}

func (r *resultArea) err() *Error {
	if !r.failed {
		return nil
	}
	return &Error{Code: Code(uint8(r.words[0])), Message: string(lift(r.words[1], r.words[2]))}
}

func (r *resultArea) list() ([]byte, *Error) {
	if err := r.err(); err != nil {
		return nil, err
	}
	return lift(r.words[0], r.words[1]), nil
}

func hostID(p party) string {
	entering.Lock()
	defer entering.Unlock()
	ret := new(listArea)
	importID(handle(p), unsafe.Pointer(ret))
	return string(lift(ret.ptr, ret.n))
}

func hostName(p party) string {
	entering.Lock()
	defer entering.Unlock()
	ret := new(listArea)
	importName(handle(p), unsafe.Pointer(ret))
	return string(lift(ret.ptr, ret.n))
}

func hostRead(p party, path string) ([]byte, *Error) {
	ptr, n, err := text(path)
	if err != nil {
		return nil, err
	}
	entering.Lock()
	defer entering.Unlock()
	ret := new(resultArea)
	importRead(handle(p), ptr, n, unsafe.Pointer(ret))
	return ret.list()
}

func hostReadAt(p party, path string, offset uint64, length uint32) ([]byte, *Error) {
	ptr, n, err := text(path)
	if err != nil {
		return nil, err
	}
	entering.Lock()
	defer entering.Unlock()
	ret := new(resultArea)
	importReadAt(handle(p), ptr, n, offset, length, unsafe.Pointer(ret))
	return ret.list()
}

func hostWrite(p party, path string, data []byte) *Error {
	ptr, n, err := text(path)
	if err != nil {
		return err
	}
	entering.Lock()
	defer entering.Unlock()
	ret := new(resultArea)
	importWrite(handle(p), ptr, n, unsafe.Pointer(unsafe.SliceData(data)), uint32(len(data)), unsafe.Pointer(ret))
	return ret.err()
}

func hostAppend(p party, path string, data []byte) *Error {
	ptr, n, err := text(path)
	if err != nil {
		return err
	}
	entering.Lock()
	defer entering.Unlock()
	ret := new(resultArea)
	importAppend(handle(p), ptr, n, unsafe.Pointer(unsafe.SliceData(data)), uint32(len(data)), unsafe.Pointer(ret))
	return ret.err()
}

func hostMkdir(p party, path string) *Error {
	ptr, n, err := text(path)
	if err != nil {
		return err
	}
	entering.Lock()
	defer entering.Unlock()
	ret := new(resultArea)
	importMkdir(handle(p), ptr, n, unsafe.Pointer(ret))
	return ret.err()
}

func hostRemove(p party, path string) *Error {
	ptr, n, err := text(path)
	if err != nil {
		return err
	}
	entering.Lock()
	defer entering.Unlock()
	ret := new(resultArea)
	importRemove(handle(p), ptr, n, unsafe.Pointer(ret))
	return ret.err()
}

func hostList(p party, path string) ([]entry, *Error) {
	ptr, n, err := text(path)
	if err != nil {
		return nil, err
	}
	entering.Lock()
	defer entering.Unlock()
	ret := new(resultArea)
	importList(handle(p), ptr, n, unsafe.Pointer(ret))
	if err := ret.err(); err != nil {
		return nil, err
	}
	at, count := ret.words[0], ret.words[1]
	if count == 0 {
		return nil, nil
	}
	const size = uint32(unsafe.Sizeof(entryArea{}))
	block := blockAt(at, count*size)
	delete(pinned, at)
	list := make([]entry, count)
	for i, e := range unsafe.Slice((*entryArea)(unsafe.Pointer(&block[0])), count) {
		list[i] = entry{string(lift(e.ptr, e.n)), kind(e.kind)}
	}
	return list, nil
}

func hostStat(p party, path string) (stat, *Error) {
	ptr, n, err := text(path)
	if err != nil {
		return stat{}, err
	}
	entering.Lock()
	defer entering.Unlock()
	ret := new(statArea)
	importStat(handle(p), ptr, n, unsafe.Pointer(ret))
	if ret.failed {
		return stat{}, &Error{Code: Code(ret.kind), Message: string(lift(ret.ptr, uint32(ret.size)))}
	}
	return stat{kind(ret.kind), ret.size, ret.modified}, nil
}

// texts are strings as the host wants them.
func texts(all ...string) *Error {
	for _, s := range all {
		if !utf8.ValidString(s) {
			return &Error{Code: Invalid, Message: "a name or query is not valid UTF-8"}
		}
	}
	return nil
}

func data(s string) (unsafe.Pointer, uint32) {
	return unsafe.Pointer(unsafe.StringData(s)), uint32(len(s))
}

func hostGetRecord(p party, collection, key string) ([]byte, *Error) {
	if err := texts(collection, key); err != nil {
		return nil, err
	}
	c, cn := data(collection)
	k, kn := data(key)
	entering.Lock()
	defer entering.Unlock()
	ret := new(resultArea)
	importGetRecord(handle(p), c, cn, k, kn, unsafe.Pointer(ret))
	return ret.list()
}

func hostPutRecord(p party, collection, key string, value []byte) *Error {
	if err := texts(collection, key); err != nil {
		return err
	}
	c, cn := data(collection)
	k, kn := data(key)
	entering.Lock()
	defer entering.Unlock()
	ret := new(resultArea)
	importPutRecord(handle(p), c, cn, k, kn, unsafe.Pointer(unsafe.SliceData(value)), uint32(len(value)), unsafe.Pointer(ret))
	return ret.err()
}

func hostDeleteRecord(p party, collection, key string) *Error {
	if err := texts(collection, key); err != nil {
		return err
	}
	c, cn := data(collection)
	k, kn := data(key)
	entering.Lock()
	defer entering.Unlock()
	ret := new(resultArea)
	importDeleteRecord(handle(p), c, cn, k, kn, unsafe.Pointer(ret))
	return ret.err()
}

func hostListRecords(p party, collection, start, prefix string, limit uint32) ([]Record, string, *Error) {
	if err := texts(collection, start, prefix); err != nil {
		return nil, "", err
	}
	c, cn := data(collection)
	f, fn := data(start)
	x, xn := data(prefix)
	entering.Lock()
	defer entering.Unlock()
	ret := new(pageArea)
	importListRecords(handle(p), c, cn, f, fn, x, xn, limit, unsafe.Pointer(ret))
	return ret.page()
}

// page is called with entering locked.
func (ret *pageArea) page() ([]Record, string, *Error) {
	if ret.failed {
		return nil, "", &Error{Code: Code(uint8(ret.words[0])), Message: string(lift(ret.words[1], ret.words[2]))}
	}
	at, count := ret.words[0], ret.words[1]
	next := string(lift(ret.words[2], ret.words[3]))
	if count == 0 {
		return nil, next, nil
	}
	const size = uint32(unsafe.Sizeof(itemArea{}))
	block := blockAt(at, count*size)
	delete(pinned, at)
	list := make([]Record, count)
	for i, e := range unsafe.Slice((*itemArea)(unsafe.Pointer(&block[0])), count) {
		list[i] = Record{Key: string(lift(e.key, e.keyLen)), Denied: !e.some}
		if e.some {
			list[i].Value = lift(e.value, e.valueLen)
		}
	}
	return list, next, nil
}

func hostReplaceRecord(p party, collection, key string, expected, value []byte) *Error {
	if err := texts(collection, key); err != nil {
		return err
	}
	some := uint32(0)
	if expected != nil {
		some = 1
	}
	c, cn := data(collection)
	k, kn := data(key)
	entering.Lock()
	defer entering.Unlock()
	ret := new(resultArea)
	importReplaceRecord(handle(p), c, cn, k, kn, some, unsafe.Pointer(unsafe.SliceData(expected)), uint32(len(expected)),
		unsafe.Pointer(unsafe.SliceData(value)), uint32(len(value)), unsafe.Pointer(ret))
	return ret.err()
}

func hostQueryRecords(p party, collection, query, start string, limit uint32) ([]Record, string, *Error) {
	if err := texts(collection, query, start); err != nil {
		return nil, "", err
	}
	c, cn := data(collection)
	q, qn := data(query)
	f, fn := data(start)
	entering.Lock()
	defer entering.Unlock()
	ret := new(pageArea)
	importQueryRecords(handle(p), c, cn, q, qn, f, fn, limit, unsafe.Pointer(ret))
	return ret.page()
}

func hostSend(p party, to, logic, entry string, params []byte) ([]byte, *Error) {
	if err := texts(to, logic, entry); err != nil {
		return nil, err
	}
	t, tn := data(to)
	l, ln := data(logic)
	e, en := data(entry)
	entering.Lock()
	defer entering.Unlock()
	ret := new(resultArea)
	importSend(handle(p), t, tn, l, ln, e, en, unsafe.Pointer(unsafe.SliceData(params)), uint32(len(params)), unsafe.Pointer(ret))
	return ret.list()
}

func hostCall(name, entry string, params []byte) ([]byte, *Error) {
	if err := texts(name, entry); err != nil {
		return nil, err
	}
	m, mn := data(name)
	e, en := data(entry)
	entering.Lock()
	defer entering.Unlock()
	ret := new(resultArea)
	importCall(m, mn, e, en, unsafe.Pointer(unsafe.SliceData(params)), uint32(len(params)), unsafe.Pointer(ret))
	return ret.list()
}

func hostBase(entry string, params []byte) ([]byte, *Error) {
	if err := texts(entry); err != nil {
		return nil, err
	}
	e, en := data(entry)
	entering.Lock()
	defer entering.Unlock()
	ret := new(resultArea)
	importBase(e, en, unsafe.Pointer(unsafe.SliceData(params)), uint32(len(params)), unsafe.Pointer(ret))
	return ret.list()
}

func hostEntry() string {
	entering.Lock()
	defer entering.Unlock()
	ret := new(listArea)
	importEntry(unsafe.Pointer(ret))
	return string(lift(ret.ptr, ret.n))
}

func hostLog(level uint32, message string) {
	entering.Lock()
	defer entering.Unlock()
	importLog(level, unsafe.Pointer(unsafe.StringData(message)), uint32(len(message)))
}

// ---- Entries ----

// returned is result<list<u8>, string>, and keeps what it points at reachable. One
// is enough, and there is no cabi_post_ to free it: an instance runs one entry at
// a time, and the host has read the result before it calls the next.
var returned struct {
	area struct {
		failed bool
		ptr, n uint32
	}
	bytes []byte
}

func liftParams(ptr, n uint32) []byte {
	returned.bytes = nil
	return lift(ptr, n)
}

func lowerResult(b []byte) uint32 {
	returned.bytes = b
	returned.area.failed = false
	returned.area.ptr = address(unsafe.Pointer(unsafe.SliceData(b)))
	returned.area.n = uint32(len(b))
	return address(unsafe.Pointer(&returned.area))
}

func lowerError(message string) uint32 {
	ret := lowerResult([]byte(strings.ToValidUTF8(message, "\uFFFD")))
	returned.area.failed = true
	return ret
}
