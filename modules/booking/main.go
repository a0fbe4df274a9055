// booking lets others book slots in the calendar of the peer that it runs at.
//
//	book    {"slot": "2026-12-01T10:00", "minutes": 30, "what": "tea"}
//	free    {"day": "2026-12-01"}      what is still free; says nothing of bookings
//	cancel  {"slot": "2026-12-01T10:00"}      by whoever booked it
//	run     is book
//
// The calendar is one file a day, /calendar/2026-12-01.json, which its owner may
// read and edit. Times are the owner's own; there are no zones. The owner's hours
// may be said in /calendar/hours.json: {"from": "09:00", "to": "17:00"}.
package main

import "github.com/circles-host/circles/guest-sdk/go"

func main() {}

// bob is whose calendar it is; alice is who asks. A host may copy an instance
// that has run its init functions, so nothing is asked of them here.
var (
	bob   = calendar{circles.Target()}
	alice = circles.Caller()
)

//go:wasmexport run
func run(ptr, n uint32) uint32 { return circles.HandleJSON(ptr, n, book) }

//go:wasmexport book
func bookEntry(ptr, n uint32) uint32 { return circles.HandleJSON(ptr, n, book) }

//go:wasmexport free
func freeEntry(ptr, n uint32) uint32 { return circles.HandleJSON(ptr, n, free) }

//go:wasmexport cancel
func cancelEntry(ptr, n uint32) uint32 { return circles.HandleJSON(ptr, n, cancel) }

type bookParams struct {
	Slot    string `json:"slot"`
	Minutes int    `json:"minutes"`
	What    string `json:"what"`
}

func book(p bookParams) (booking, error) {
	b, err := newBooking(p)
	if err != nil {
		return booking{}, err
	}
	b.By, b.Name = alice.ID(), alice.Name()
	return b, bob.book(b)
}

type freeParams struct {
	Day string `json:"day"`
}

type freeResult struct {
	Day  string `json:"day"`
	Free []span `json:"free"`
}

func free(p freeParams) (freeResult, error) {
	d, err := parseDay(p.Day)
	if err != nil {
		return freeResult{}, err
	}
	spans, err := bob.free(d)
	return freeResult{string(d), spans}, err
}

type cancelParams struct {
	Slot string `json:"slot"`
}

func cancel(p cancelParams) (booking, error) {
	d, from, err := parseSlot(p.Slot)
	if err != nil {
		return booking{}, err
	}
	return bob.cancel(d, from, alice.ID())
}
