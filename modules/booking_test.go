package modules_test

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/circles-host/circles/guest-sdk/sdktest"
	"github.com/circles-host/circles/testdata/build"
)

// expect calls an entry; a want that begins with "error: " is a returned error's
// beginning, or several with | between them of which one will do; any other is the result.
func expect(t *testing.T, g guest, entry, params, want string) {
	t.Helper()
	got, err := g.Call(entry, []byte(params))
	if message, ok := strings.CutPrefix(want, "error: "); ok {
		var failed sdktest.ErrGuest
		begins := func(message string) bool {
			return strings.HasPrefix(place.ReplaceAllString(string(failed), ""), message)
		}
		if !errors.As(err, &failed) || !slices.ContainsFunc(strings.Split(message, "|"), begins) {
			t.Errorf("%s(%s): result %q, error %v; want the error %q", entry, params, got, err, message)
		}
		return
	}
	if err != nil || string(got) != want {
		t.Errorf("%s(%s): %s, %v; want %s", entry, params, got, err, want)
	}
}

// place is where in a text an error comes from.
var place = regexp.MustCompile(`^[0-9]+:[0-9]+: `)

func TestBooking(t *testing.T) {
	h := sdktest.New(t)
	h.Put(t, "target", "/calendar/hours.json", `{"from": "09:00", "to": "12:30"}`)
	g := h.Load(t, build.Go(t, "modules/booking", true))

	expect(t, g, "free", `{"day": "2026-12-01"}`, `{"day":"2026-12-01","free":[{"from":"09:00","to":"12:30"}]}`)
	expect(t, g, "book", `{"slot": "2026-12-01T10:00", "minutes": 30, "what": "tea"}`,
		`{"slot":"2026-12-01T10:00","minutes":30,"what":"tea","by":"did:key:z6MkAlice","name":"alice"}`)
	for slot, want := range map[string]string{
		`"2026-12-01T10:00", "minutes": 30`: "error: book 2026-12-01 10:00–10:30: 10:00–10:30 is taken",
		`"2026-12-01T10:29", "minutes": 1`:  "error: book 2026-12-01 10:29–10:30: 10:00–10:30 is taken",
		`"2026-12-01T09:30", "minutes": 31`: "error: book 2026-12-01 09:30–10:01: 10:00–10:30 is taken",
		`"2026-12-01T09:00", "minutes": 99`: "error: book 2026-12-01 09:00–10:39: 10:00–10:30 is taken",
		`"2026-12-01T08:59", "minutes": 10`: "error: book 2026-12-01 08:59–09:09: bookings are taken from 09:00 to 12:30",
		`"2026-12-01T12:00", "minutes": 31`: "error: book 2026-12-01 12:00–12:31: bookings are taken",
		`"2026-12-01T23:59", "minutes": 2`:  "error: params: the slot goes past midnight",
		`"2026-12-01T10:00", "minutes": 0`:  "error: params: minutes is 0",
		`"2026-12-01T10:00", "minutes": -5`: "error: params: minutes is -5",
		`"2026-02-30T10:00", "minutes": 5`:  `error: params: slot "2026-02-30T10:00" is not a time`,
		`"../../x", "minutes": 5`:           `error: params: slot "../../x" is not a time`,
		`"2026-12-01T9:00", "minutes": 5`:   "error: params: slot",
		`"2026-12-01T10:00Z", "minutes": 5`: "error: params: slot",
	} {
		expect(t, g, "book", `{"slot": `+slot+`}`, want)
	}
	expect(t, g, "book", fmt.Sprintf(`{"slot": "2026-12-01T09:00", "minutes": 5, "what": %q}`, strings.Repeat("x", 201)),
		"error: params: what is 201 bytes long")

	// Slots that touch do not overlap; the other peer's entry `run` is book.
	h.Caller.ID, h.Caller.Name = "did:key:z6MkMallory", ""
	expect(t, g, "run", `{"slot": "2026-12-01T10:30", "minutes": 15, "what": "\u001b[2J\u202eevil\n"}`,
		`{"slot":"2026-12-01T10:30","minutes":15,"what":" [2J evil ","by":"did:key:z6MkMallory"}`)
	expect(t, g, "free", `{"day": "2026-12-01"}`,
		`{"day":"2026-12-01","free":[{"from":"09:00","to":"10:00"},{"from":"10:45","to":"12:30"}]}`)
	expect(t, g, "cancel", `{"slot": "2026-12-01T10:00"}`, "error: cancel 2026-12-01 10:00: somebody else booked it")
	expect(t, g, "cancel", `{"slot": "2026-12-01T10:15"}`, "error: cancel 2026-12-01 10:15: nothing is booked then")

	h.Caller.ID, h.Caller.Name = "did:key:z6MkAlice", "alice"
	expect(t, g, "cancel", `{"slot": "2026-12-01T10:00"}`,
		`{"slot":"2026-12-01T10:00","minutes":30,"what":"tea","by":"did:key:z6MkAlice","name":"alice"}`)
	expect(t, g, "cancel", `{"slot": "2026-12-01T10:00"}`, "error: cancel 2026-12-01 10:00: nothing is booked then")
	if day := h.Get(t, "target", "/calendar/2026-12-01.json"); strings.Contains(day, "tea") || !strings.Contains(day, "Mallory") {
		t.Errorf("the day's file:\n%s", day)
	}
}

func TestBookingOfADamagedDay(t *testing.T) {
	h := sdktest.New(t)
	g := h.Load(t, build.Go(t, "modules/booking", true))
	for _, damage := range []string{`[{"slot": "2026-12-01T23:00", "minutes": 90}]`, `[{"slot": "x"}]`, `{`, ``} {
		h.Put(t, "target", "/calendar/2026-12-01.json", damage)
		for entry, params := range map[string]string{
			"book": `{"slot": "2026-12-01T10:00", "minutes": 30}`, "free": `{"day": "2026-12-01"}`, "cancel": `{"slot": "2026-12-01T23:00"}`,
		} {
			expect(t, g, entry, params, "error: /calendar/2026-12-01.json is damaged")
		}
		if got := h.Get(t, "target", "/calendar/2026-12-01.json"); got != damage {
			t.Errorf("%q became %q", damage, got)
		}
	}
	h.Put(t, "target", "/calendar/hours.json", `{"from": "9", "to": "x"}`)
	expect(t, g, "free", `{"day": "2026-12-02"}`, "error: /calendar/hours.json is damaged")
}

func TestBookingFillsADay(t *testing.T) {
	h := sdktest.New(t)
	g := h.Load(t, build.Go(t, "modules/booking", true))
	for i := range 200 {
		if _, err := g.Call("book", fmt.Appendf(nil, `{"slot": "2026-12-01T%02d:%02d", "minutes": 1}`, i/60, i%60)); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, g, "book", `{"slot": "2026-12-01T23:00", "minutes": 1}`, "error: book 2026-12-01 23:00–23:01: the day has 200 bookings")
	expect(t, g, "free", `{"day": "2026-12-01"}`, `{"day":"2026-12-01","free":[{"from":"03:20","to":"24:00"}]}`)
}
