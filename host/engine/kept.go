package engine

import (
	"slices"
	"sync"
)

// kept are the programs that were asked for last, each with a reference: a context
// that closes and opens again, and a script that carries its code each time, find
// theirs compiled. Whoever may send modules decides what is kept, and so how soon
// somebody else's has to be brought from the cache again; not what it does.
type kept struct {
	programs int // at most

	mu   sync.Mutex
	all  []*Program // the last one asked for comes last
	size int        // bytes of their modules
	done bool
}

// maxKept bounds the bytes of modules that are kept as programs: each takes up to
// five times as much. Of texts it bounds the images.
const maxKept = 64 << 20

// weight is what p counts for.
func (p *Program) weight() int {
	if p.of != nil {
		return p.info.Size + int(p.info.Image)
	}
	return p.info.Size
}

// find returns the program of a key, with a reference for the caller, or nil.
func (k *kept) find(key [32]byte) *Program {
	k.mu.Lock()
	defer k.mu.Unlock()
	i := slices.IndexFunc(k.all, func(p *Program) bool { return p.key == key })
	if i < 0 || !k.all[i].Retain() {
		return nil
	}
	p := k.all[i]
	k.all = append(slices.Delete(k.all, i, i+1), p)
	return p
}

// add keeps p, and lets go of those that there is no room for any more.
func (k *kept) add(p *Program) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.done || k.programs == 0 || p.weight() > maxKept || !p.Retain() {
		return
	}
	k.all = append(k.all, p)
	k.size += p.weight()
	for len(k.all) > k.programs || k.size > maxKept {
		k.drop()
	}
}

// drop lets go of the one that was not asked for for longest.
func (k *kept) drop() {
	p := k.all[0]
	k.all = slices.Delete(k.all, 0, 1)
	k.size -= p.weight()
	p.Close()
}

// clear lets go of all, and keeps none from now on.
func (k *kept) clear() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.done = true
	for len(k.all) > 0 {
		k.drop()
	}
}
