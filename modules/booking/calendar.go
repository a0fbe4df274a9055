package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	maxMinutes = 24 * 60 // of one booking, which stays within one day
	maxWhat    = 200     // bytes
	maxADay    = 200     // bookings, so that nobody fills the owner's disk by the minute
)

// files is what a calendar needs of a context.
type files interface {
	ReadFile(path string) ([]byte, error)
	WriteFile(path string, data []byte) error
	Mkdir(path string) error
}

// calendar is the folder /calendar of a context.
type calendar struct{ files files }

// booking is one slot that is taken.
type booking struct {
	Slot    string `json:"slot"` // its beginning, "2026-12-01T10:00"
	Minutes int    `json:"minutes"`
	What    string `json:"what,omitempty"`
	By      string `json:"by"`             // identity of the peer that booked
	Name    string `json:"name,omitempty"` // what the owner called that peer then
}

// day is a date that exists, "2026-12-01"; only parseDay makes one, which is what
// makes it safe in a path.
type day string

func (d day) path() string { return "/calendar/" + string(d) + ".json" }

// clock is a time of day in minutes, 0 to 24:00 inclusive.
type clock int

func (c clock) String() string { return fmt.Sprintf("%02d:%02d", c/60, c%60) }

func (c clock) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

func (c *clock) UnmarshalText(b []byte) error {
	if string(b) == "24:00" {
		*c = 24 * 60
		return nil
	}
	t, err := time.Parse("15:04", string(b))
	if err != nil || len(b) != 5 {
		return fmt.Errorf("%q is not a time of day like 09:30", b)
	}
	*c = clock(t.Hour()*60 + t.Minute())
	return nil
}

// span is from a time of day up to, and without, another.
type span struct {
	From clock `json:"from"`
	To   clock `json:"to"`
}

func (s span) String() string { return s.From.String() + "–" + s.To.String() }

func (s span) overlaps(o span) bool { return s.From < o.To && o.From < s.To }

func parseDay(s string) (day, error) {
	if _, err := time.Parse(time.DateOnly, s); err != nil {
		return "", fmt.Errorf("params: day %.40q is not a date like 2026-12-01", s)
	}
	return day(s), nil
}

func parseSlot(s string) (day, clock, error) {
	t, err := time.Parse("2006-01-02T15:04", s)
	if err != nil || len(s) != len("2006-01-02T15:04") {
		return "", 0, fmt.Errorf("params: slot %.40q is not a time like 2026-12-01T10:00", s)
	}
	return day(t.Format(time.DateOnly)), clock(t.Hour()*60 + t.Minute()), nil
}

// newBooking checks what a caller asks for.
func newBooking(p bookParams) (booking, error) {
	_, from, err := parseSlot(p.Slot)
	switch {
	case err != nil:
		return booking{}, err
	case p.Minutes < 1 || p.Minutes > maxMinutes:
		return booking{}, fmt.Errorf("params: minutes is %d; want 1 to %d", p.Minutes, maxMinutes)
	case int(from)+p.Minutes > 24*60:
		return booking{}, errors.New("params: the slot goes past midnight; book each day by itself")
	case len(p.What) > maxWhat:
		return booking{}, fmt.Errorf("params: what is %d bytes long; want at most %d", len(p.What), maxWhat)
	}
	return booking{Slot: p.Slot, Minutes: p.Minutes, What: printable(p.What)}, nil
}

// printable replaces what could hide or forge text where the owner reads it:
// control characters and those that change the direction of others.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, s)
}

// span is when a stored booking takes place. The owner may have edited the file,
// so it is checked again.
func (b booking) span() (span, error) {
	_, from, err := parseSlot(b.Slot)
	if err == nil && (b.Minutes < 1 || int(from)+b.Minutes > 24*60) {
		err = fmt.Errorf("%d minutes from %s do not fit into the day", b.Minutes, b.Slot)
	}
	return span{from, from + clock(b.Minutes)}, err
}

// load reads one day. A day without a file is empty.
func (c calendar) load(d day) ([]booking, []span, error) {
	b, err := c.files.ReadFile(d.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	var bookings []booking
	if err := json.Unmarshal(b, &bookings); err != nil {
		return nil, nil, fmt.Errorf("%s is damaged, and its owner has to repair it", d.path())
	}
	spans := make([]span, len(bookings))
	for i, b := range bookings {
		if spans[i], err = b.span(); err != nil {
			return nil, nil, fmt.Errorf("%s is damaged, and its owner has to repair it", d.path())
		}
	}
	return bookings, spans, nil
}

func (c calendar) store(d day, bookings []booking) error {
	slices.SortFunc(bookings, func(a, b booking) int { return strings.Compare(a.Slot, b.Slot) })
	b, err := json.MarshalIndent(bookings, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", d.path(), err)
	}
	return c.files.WriteFile(d.path(), append(b, '\n'))
}

// hours are when the owner takes bookings: all day, unless hours.json says otherwise.
func (c calendar) hours() (span, error) {
	h := span{0, 24 * 60}
	b, err := c.files.ReadFile("/calendar/hours.json")
	if errors.Is(err, fs.ErrNotExist) {
		return h, nil
	}
	if err != nil {
		return h, err
	}
	if err := json.Unmarshal(b, &h); err != nil || h.From >= h.To {
		return h, errors.New(`/calendar/hours.json is damaged; its owner can write {"from": "09:00", "to": "17:00"}`)
	}
	return h, nil
}

// book adds b, or says what is in the way.
func (c calendar) book(b booking) error {
	d, _, err := parseSlot(b.Slot)
	if err != nil {
		return err
	}
	want, err := b.span()
	if err != nil {
		return err
	}
	open, err := c.hours()
	if err != nil {
		return err
	}
	if want.From < open.From || want.To > open.To {
		return fmt.Errorf("book %s %s: bookings are taken from %s to %s", d, want, open.From, open.To)
	}
	bookings, taken, err := c.load(d)
	if err != nil {
		return err
	}
	if len(bookings) >= maxADay {
		return fmt.Errorf("book %s %s: the day has %d bookings and takes no more", d, want, maxADay)
	}
	for _, t := range taken {
		if t.overlaps(want) {
			return fmt.Errorf("book %s %s: %s is taken; the entry free says what is not", d, want, t)
		}
	}
	if err := c.files.Mkdir("/calendar"); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return c.store(d, append(bookings, b))
}

// free returns what is left of the owner's hours on a day, in order.
func (c calendar) free(d day) ([]span, error) {
	open, err := c.hours()
	if err != nil {
		return nil, err
	}
	_, taken, err := c.load(d)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(taken, func(a, b span) int { return int(a.From - b.From) })
	left, at := []span{}, open.From
	for _, t := range taken {
		if t.From > at {
			left = append(left, span{at, min(t.From, open.To)})
		}
		if at = max(at, t.To); at >= open.To {
			return left, nil
		}
	}
	return append(left, span{at, open.To}), nil
}

// cancel removes the booking that begins at from, if it is that peer's.
func (c calendar) cancel(d day, from clock, by string) (booking, error) {
	bookings, spans, err := c.load(d)
	if err != nil {
		return booking{}, err
	}
	i := slices.IndexFunc(spans, func(s span) bool { return s.From == from })
	if i < 0 {
		return booking{}, fmt.Errorf("cancel %s %s: nothing is booked then", d, from)
	}
	b := bookings[i]
	if b.By != by {
		return booking{}, fmt.Errorf("cancel %s %s: somebody else booked it, and only they can cancel it", d, from)
	}
	return b, c.store(d, slices.Delete(bookings, i, i+1))
}
