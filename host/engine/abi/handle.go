package abi

// MaxHandles bounds the live handles of one instance. A guest that needs more
// at a time leaks them.
const MaxHandles = 1000

// Kind is a resource type. Kinds are compared by identity: each NewKind is a
// type of its own, whatever its name.
type Kind struct {
	name string
	drop func(any)
}

// NewKind makes a resource type named as in WIT. drop, if not nil, is called
// once for each value whose handle is dropped, by the guest or at the end of
// the run.
func NewKind(name string, drop func(value any)) *Kind {
	return &Kind{name: name, drop: drop}
}

// Table holds the handles of one instance ("Resource State"): an index is all
// that a guest ever sees of a resource. Index 0 is never a handle, and a dropped
// index is the first to be used again, so that a guest's use of a stale handle
// soon shows. The zero value is an empty table.
//
// Every handle here owns its resource: a borrow passed to a host function ends
// with the call, so it needs no entry of its own, only the count of lends that
// keeps its owner from being dropped meanwhile.
type Table struct {
	entries []handle // entries[i-1] is index i
	free    []uint32
}

type handle struct {
	kind  *Kind // nil: not in use
	value any
	lent  uint32 // calls that borrow it at present
}

// Live returns how many handles there are.
func (t *Table) Live() int { return len(t.entries) - len(t.free) }

// insert makes an own handle.
func (t *Table) insert(k *Kind, value any) (uint32, error) {
	if t.Live() >= MaxHandles {
		return 0, violation("more than %d handles at a time: drop those that are no longer used", MaxHandles)
	}
	h := handle{kind: k, value: value}
	if n := len(t.free); n > 0 {
		i := t.free[n-1]
		t.free = t.free[:n-1]
		t.entries[i-1] = h
		return i, nil
	}
	t.entries = append(t.entries, h)
	return uint32(len(t.entries)), nil
}

// get returns handle i, which must be live and of kind k.
func (t *Table) get(i uint32, k *Kind) (*handle, error) {
	if i == 0 || uint64(i) > uint64(len(t.entries)) {
		return nil, violation("there is no handle %d", i)
	}
	h := &t.entries[i-1]
	switch {
	case h.kind == nil:
		return nil, violation("handle %d was dropped", i)
	case h.kind != k:
		return nil, violation("handle %d is a %s, want a %s", i, h.kind.name, k.name)
	}
	return h, nil
}

// remove ends handle i and its resource ("canon resource.drop").
func (t *Table) remove(i uint32, k *Kind) error {
	h, err := t.get(i, k)
	if err != nil {
		return err
	}
	if h.lent != 0 {
		return violation("handle %d is dropped while a call borrows it", i)
	}
	value := h.value
	*h = handle{}
	t.free = append(t.free, i)
	if k.drop != nil {
		k.drop(value)
	}
	return nil
}

// close drops what is left, in the order of the indices.
func (t *Table) close() {
	entries := t.entries
	*t = Table{}
	for _, h := range entries {
		if h.kind != nil && h.kind.drop != nil {
			h.kind.drop(h.value)
		}
	}
}
