package abi

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/tetratelabs/wazero/api"
)

// Options bound one CallBytes. A zero field means the default.
type Options struct {
	MaxResult uint64 // bytes of the ok value; default 8 MiB. More is an *OverLimit.
	MaxError  int    // bytes of the error text, the rest is cut; default 4 KiB

	// Through, when set, is an exported function of five i32 parameters and an i32
	// result that calls others: which is its first parameter, and the others are
	// theirs. Calls are those, by name: entries, for each the function named
	// cabi_post_ and it if there is one, and cabi_realloc, all of the right type. A function of the
	// runtime's has a stack of its own, of 10 KiB; so there is one of them to a call,
	// not three.
	Through string
	Calls   map[string]uint32
}

const (
	defaultMaxResult = 8 << 20
	defaultMaxError  = 4 << 10
)

// ErrNoEntry means that a module exports no such entry, or something else under
// its name. The error that wraps it says which.
var ErrNoEntry = errors.New("no such entry")

// OverLimit is a result that is larger than Options.MaxResult. None of it has
// been copied.
type OverLimit struct {
	Size, Limit uint64 // bytes
}

func (e *OverLimit) Error() string {
	return fmt.Sprintf("result of %d bytes is over the limit of %d bytes", e.Size, e.Limit)
}

// IsEntry reports whether a function that is exported under name has the core
// type of an entry, func(list<u8>) -> result<list<u8>, string>, and a name that
// WIT can express. A C library's own (i32, i32) -> i32 functions look the same:
// calling one does no harm outside of its instance.
func IsEntry(name string, d api.FunctionDefinition) bool {
	return isKebab(name) && hasType(d, entryParams, entryResults)
}

var (
	entryParams  = []api.ValueType{i32, i32}
	entryResults = []api.ValueType{i32}
	postParams   = []api.ValueType{i32}
)

const postPrefix = "cabi_post_"

// isKebab reports whether s is a WIT name: words of lower-case or of upper-case
// letters and digits, each beginning with a letter, joined by "-".
func isKebab(s string) bool {
	start, upper := true, false
	for i := range len(s) {
		switch c := s[i]; {
		case c == '-' && !start:
			start = true
			continue
		case 'a' <= c && c <= 'z' && (start || !upper):
			upper = false
		case 'A' <= c && c <= 'Z' && (start || upper):
			upper = true
		case '0' <= c && c <= '9' && !start:
		default:
			return false
		}
		start = false
	}
	return !start
}

// CallBytes calls a reactor's entry, of WIT type func(params: list<u8>) ->
// result<list<u8>, string>, and after it cabi_post_<entry> if the module
// exports that ("canon lift"). It returns either the ok value, or isErr and the
// error's text; both are copies.
//
// err is an error that wraps ErrNoEntry, an *OverLimit, a *Violation, or what
// the guest code that ran ended with: the runtime's error for a trap, an
// *sys.ExitError for an exit.
//
// CallBytes makes its own Instance when ctx is not from Enter. It must run on
// the goroutine that owns mod.
func CallBytes(ctx context.Context, mod api.Module, entry string, params []byte, opt Options) (result []byte, errText string, isErr bool, err error) {
	if opt.MaxResult == 0 {
		opt.MaxResult = defaultMaxResult
	}
	if opt.MaxError == 0 {
		opt.MaxError = defaultMaxError
	}
	inst := instanceOf(ctx)
	if inst == nil {
		ctx, inst = Enter(ctx)
		defer inst.Close()
	}
	result, errText, isErr, err = callBytes(ctx, inst, mod, entry, params, opt)
	if v, ok := err.(*Violation); ok {
		v.Func = entry
	}
	return result, errText, isErr, err
}

func callBytes(ctx context.Context, inst *Instance, mod api.Module, entry string, params []byte, opt Options) ([]byte, string, bool, error) {
	which, through := opt.Calls[entry]
	var f api.Function
	if through {
		f = mod.ExportedFunction(opt.Through)
		inst.through, inst.calls = f, opt.Calls
	} else {
		f = mod.ExportedFunction(entry)
		if f == nil {
			return nil, "", false, fmt.Errorf("%w: the module exports no function %q", ErrNoEntry, entry)
		}
		if !IsEntry(entry, f.Definition()) {
			return nil, "", false, fmt.Errorf("%w: the module's %q is not a func(list<u8>) -> result<list<u8>, string>", ErrNoEntry, entry)
		}
	}
	var g guest
	if err := g.init(ctx, inst, mod); err != nil {
		return nil, "", false, err
	}
	n, err := size32(len(params), 1)
	if err != nil {
		return nil, "", false, err
	}
	ptr, err := g.alloc(1, n)
	if err != nil {
		return nil, "", false, err
	}
	g.mem.Write(ptr, params) // alloc has checked the region

	// Two results, so the guest returns a pointer to them ("Flattening",
	// MAX_FLAT_RESULTS): result's discriminant, then a list's or string's
	// pointer and length at the payload's alignment.
	stack := &inst.entryStack
	if *stack = [5]uint64{uint64(ptr), uint64(n)}; through {
		*stack = [5]uint64{uint64(which), uint64(ptr), uint64(n)}
	}
	inst.inThrough = through
	err = f.CallWithStack(ctx, stack[:])
	inst.inThrough = false
	if err != nil {
		return nil, "", false, guestError(entry, err)
	}
	ret := uint32(stack[0])
	if err := g.check("result", ret, 12, 4); err != nil {
		return nil, "", false, err
	}
	area, err := g.view("result", ret, 12)
	if err != nil {
		return nil, "", false, err
	}
	disc := area[0]
	at, size := binary.LittleEndian.Uint32(area[4:]), binary.LittleEndian.Uint32(area[8:])

	var result []byte
	var errText string
	switch disc {
	case Ok:
		// Bounds first: a length that memory does not hold is a violation, not
		// a large result.
		b, err := g.view("result's list", at, size)
		if err != nil {
			return nil, "", false, err
		}
		if uint64(size) > opt.MaxResult {
			return nil, "", false, &OverLimit{Size: uint64(size), Limit: opt.MaxResult}
		}
		result = append(make([]byte, 0, size), b...)
	case Err:
		b, err := g.view("error's string", at, size)
		if err != nil {
			return nil, "", false, err
		}
		b, whole := prefix(b, opt.MaxError)
		if !utf8.Valid(b) {
			return nil, "", false, violation("error's string is not UTF-8")
		}
		errText = string(b)
		if !whole {
			errText += "…"
		}
	default:
		return nil, "", false, violation("result has discriminant %d, want 0 (ok) or 1 (err)", disc)
	}

	if through {
		var name [64]byte
		which, ok := opt.Calls[string(append(append(name[:0], postPrefix...), entry...))] // allocates nothing
		if !ok {
			return result, errText, disc == Err, nil
		}
		*stack = [5]uint64{uint64(which), uint64(ret)}
		inst.inThrough = true
		err := f.CallWithStack(ctx, stack[:])
		inst.inThrough = false
		if err != nil {
			return nil, "", false, guestError(postPrefix+entry, err)
		}
	} else if post := mod.ExportedFunction(postPrefix + entry); post != nil {
		if !hasType(post.Definition(), postParams, nil) {
			return nil, "", false, violation("the module's cabi_post_%s is not of type (i32) -> ()", entry)
		}
		stack[0] = uint64(ret)
		if err := post.CallWithStack(ctx, stack[:1]); err != nil {
			return nil, "", false, guestError("cabi_post_"+entry, err)
		}
	}
	return result, errText, disc == Err, nil
}

// prefix returns b, or as much of its beginning as fits into limit without
// cutting a UTF-8 sequence in two, and whether that is all of b.
func prefix(b []byte, limit int) ([]byte, bool) {
	if len(b) <= limit {
		return b, true
	}
	n := limit
	for n > 0 && n > limit-utf8.UTFMax && !utf8.RuneStart(b[n]) {
		n--
	}
	return b[:n], false
}

// The cases of a result.
const (
	Ok  = 0
	Err = 1
)
