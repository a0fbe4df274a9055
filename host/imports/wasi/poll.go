package wasi

import (
	"context"
	"encoding/binary"
	"math"
	"time"
)

// Sizes in guest memory, and the kinds of subscription.
//
// https://github.com/WebAssembly/WASI/blob/snapshot-01/phases/snapshot/docs.md#subscription
const (
	maxPolled = 1024 // subscriptions of one call

	subscriptionSize = 48
	eventSize        = 32

	pollClock = 0
	pollRead  = 1
	pollWrite = 2

	clockRealtime  = 0
	clockMonotonic = 1
	clockAbsolute  = 1 // flag
)

// subscription is one thing that a guest waits for.
type subscription struct {
	userdata [8]byte
	kind     byte
	at       time.Duration // a clock: from now on
	refusal  errno         // to be reported in its event
	bytes    uint64        // a descriptor: how many can be read or written
}

// pollOneoff serves poll_oneoff itself: wazero's sleeps through any deadline,
// and waits on the host's own standard input for as long as it takes.
//
// Files never block, and a standard stream is taken to be ready as well: a
// program's input is all there before it starts. So it waits only when it was
// asked for nothing but clocks.
//
// Parameters: in, out, nsubscriptions, result.nevents.
func pollOneoff(c call, p []uint64) errno {
	in, out, n, result := uint32(p[0]), uint32(p[1]), uint32(p[2]), uint32(p[3])
	if n == 0 || n > maxPolled {
		return eInval
	}
	mem := c.mem
	subs, ok := mem.Read(in, n*subscriptionSize)
	if !ok {
		return eFault
	}
	events, ok := mem.Read(out, n*eventSize)
	if !ok || !mem.WriteUint32Le(result, 0) {
		return eFault
	}

	// All is read before anything is written, as the two may overlap.
	all := make([]subscription, n)
	wait := time.Duration(math.MaxInt64)
	for i := range all {
		s, e := c.subscription(subs[i*subscriptionSize:][:subscriptionSize], out)
		if e != 0 {
			return e
		}
		if s.kind != pollClock || s.refusal != 0 {
			s.at = 0
		}
		wait = min(wait, s.at)
		all[i] = s
	}
	switch {
	case wait <= 0:
	case c.timeless():
		c.files.slept += min(wait, math.MaxInt64-c.files.slept)
	default:
		sleep(c.ctx, wait)
	}

	var ready uint32
	for _, s := range all {
		if s.at > wait {
			continue
		}
		e := events[ready*eventSize:][:eventSize]
		clear(e)
		copy(e, s.userdata[:])
		binary.LittleEndian.PutUint16(e[8:], uint16(s.refusal))
		e[10] = s.kind
		if s.kind != pollClock {
			binary.LittleEndian.PutUint64(e[16:], s.bytes)
		}
		ready++
	}
	mem.WriteUint32Le(result, ready)
	return 0
}

// subscription reads one. Scratch is guest memory that may be overwritten.
func (c call) subscription(b []byte, scratch uint32) (s subscription, e errno) {
	s.kind = b[8]
	copy(s.userdata[:], b)
	switch s.kind {
	case pollClock:
		clock, timeout := binary.LittleEndian.Uint32(b[16:]), binary.LittleEndian.Uint64(b[24:])
		switch flags := binary.LittleEndian.Uint16(b[40:]); {
		case flags&^clockAbsolute != 0 || clock > clockMonotonic:
			s.refusal = eInval
			return s, 0
		case flags&clockAbsolute != 0:
			now, e := c.now(clock, scratch)
			if e != 0 {
				return s, e
			}
			timeout -= min(now, timeout)
		}
		s.at = time.Duration(min(timeout, math.MaxInt64))
	case pollRead, pollWrite:
		d, e := c.any(uint64(binary.LittleEndian.Uint32(b[16:])), rightPoll)
		switch {
		case e != 0:
			s.refusal = e
		case d.kind == typeFile && s.kind == pollRead:
			if info, err := d.file.Stat(); err == nil {
				s.bytes = uint64(max(info.Size-d.offset, 0))
			}
		default:
			s.bytes = 1 // at least
		}
	default:
		return s, eInval
	}
	return s, 0
}

// timeless reports whether the guest may not tell the time.
func (c call) timeless() bool {
	s := c.files.senses
	return s != nil && !s.Clock()
}

// still is what a clock shows that stands still. It is never 0, which Go's
// runtime takes for a clock that is broken.
func (c call) still() uint64 {
	return uint64(Still.UnixNano()) + uint64(c.files.slept)
}

// clockTimeGet: id, precision, result.
func clockTimeGet(c call, p []uint64) errno {
	if !c.timeless() {
		return c.forward(p)
	}
	if uint32(p[0]) > clockMonotonic {
		return eInval
	}
	if !c.mem.WriteUint64Le(uint32(p[2]), c.still()) {
		return eFault
	}
	return 0
}

// now reads the clock that the guest reads, which may not be the host's.
func (c call) now(clock, scratch uint32) (uint64, errno) {
	if c.timeless() {
		return c.still(), 0
	}
	keep, ok := c.mem.ReadUint64Le(scratch)
	if !ok {
		return 0, eFault
	}
	p := []uint64{uint64(clock), 0, uint64(scratch)}
	c.clock.Call(c.ctx, c.mod, p)
	now, _ := c.mem.ReadUint64Le(scratch)
	c.mem.WriteUint64Le(scratch, keep) // it may be a part of the subscriptions
	return now, errno(p[0])
}

// sleep waits for d, or until the guest's time is over, which guarded notices.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
