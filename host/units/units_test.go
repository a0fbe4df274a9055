package units_test

import (
	"encoding"
	"testing"
	"time"

	"github.com/circles-host/circles/host/units"
)

func TestText(t *testing.T) {
	var (
		d units.Duration
		s units.Size
		c units.Count
	)
	read := func(to encoding.TextUnmarshaler, text string) bool {
		d, s, c = 0, 0, 0
		return to.UnmarshalText([]byte(text)) == nil
	}
	if !read(&d, "1m30s") || time.Duration(d) != 90*time.Second {
		t.Error(d)
	}
	for text, want := range map[string]units.Size{"1": 1, "7B": 7, "3KiB": 3 << 10, "64MiB": 64 << 20, "2GiB": 2 << 30} {
		if !read(&s, text) || s != want {
			t.Errorf("%s is %d", text, s)
		}
		if again := s.String(); !read(&s, again) || s != want {
			t.Errorf("%s is written %s, which is %d", text, again, s)
		}
	}
	for text, want := range map[string]units.Count{"1": 1, "1234": 1234, "200k": 200_000, "50M": 50_000_000, "3G": 3_000_000_000} {
		if !read(&c, text) || c != want || c.String() != text {
			t.Errorf("%s is %d, written %s", text, c, c)
		}
	}
	for _, bad := range []string{"", "0", "-1", "x", "1.5", "1e3", "99999999999999999999", "9999999999G", "1K", " 1", "1 M", "0x10"} {
		if read(&c, bad) {
			t.Errorf("count %q is %d", bad, c)
		}
	}
	for _, bad := range []string{"", "0", "0MiB", "-1", "1MB", "1 MiB", "8589934592GiB", "18446744073709551616", "MiB"} {
		if read(&s, bad) {
			t.Errorf("size %q is %d", bad, s)
		}
	}
	for _, bad := range []string{"", "0s", "-1s", "5", "1d", "99999999999h"} {
		if read(&d, bad) {
			t.Errorf("duration %q is %d", bad, d)
		}
	}
}

func TestAge(t *testing.T) {
	var a units.Age
	for text, want := range map[string]time.Duration{"7d": 7 * 24 * time.Hour, "36h": 36 * time.Hour, "1ms": time.Millisecond, "100000d": 100_000 * 24 * time.Hour} {
		if err := a.UnmarshalText([]byte(text)); err != nil || time.Duration(a) != want {
			t.Errorf("%s is %v, %v", text, time.Duration(a), err)
		}
	}
	if err := a.UnmarshalText([]byte("0")); err != nil || a >= 0 {
		t.Errorf("0 is %v, %v; want never", time.Duration(a), err)
	}
	for _, bad := range []string{"", "d", "0d", "-1d", "1.5d", "100001d", "0s", "-1h", "7", "7w", "7d12h", "0h"} {
		if err := a.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("age %q is %v", bad, time.Duration(a))
		}
	}
}
