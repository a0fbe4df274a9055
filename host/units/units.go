// Package units reads quantities as people write them in configuration, on
// command lines and in policies.
package units

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration that is written "200ms", "5s" or "2m".
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil || v <= 0 {
		return fmt.Errorf("duration %q: want a number above 0 with its unit, as in 200ms, 5s or 2m", text)
	}
	*d = Duration(v)
	return nil
}

// Age is a time.Duration that is written in days too, "7d" or "36h"; "0", which is
// for never, is less than 0.
type Age time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *Age) UnmarshalText(text []byte) error {
	if string(text) == "0" {
		*a = -1
		return nil
	}
	if days, ok := strings.CutSuffix(string(text), "d"); ok {
		const most = 100_000 // which is 270 years, and no overflow
		if n, err := strconv.ParseUint(days, 10, 64); err == nil && n > 0 && n <= most {
			*a = Age(time.Duration(n) * 24 * time.Hour)
			return nil
		}
	} else if d, err := time.ParseDuration(string(text)); err == nil && d > 0 {
		*a = Age(d)
		return nil
	}
	return fmt.Errorf("age %q: want a number above 0 with its unit, as in 7d, 36h or 90m; or 0 for never", text)
}

// Size is a number of bytes that is written "64KiB", "8MiB", "1GiB", or as a
// plain number.
type Size uint64

var sizeUnits = []struct {
	suffix string
	shift  int
}{{"GiB", 30}, {"MiB", 20}, {"KiB", 10}, {"B", 0}, {"", 0}}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Size) UnmarshalText(text []byte) error {
	for _, unit := range sizeUnits {
		digits, ok := strings.CutSuffix(string(text), unit.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 64)
		if err != nil || n == 0 || bits.Len64(n)+unit.shift > 62 {
			break
		}
		*s = Size(n << unit.shift)
		return nil
	}
	return fmt.Errorf("size %q: want a number above 0 with its unit, as in 64KiB, 8MiB or 1GiB", text)
}

// String writes it in the largest unit that leaves a whole number.
func (s Size) String() string {
	for _, unit := range sizeUnits {
		if n := uint64(s); n != 0 && n&(1<<unit.shift-1) == 0 {
			return strconv.FormatUint(n>>unit.shift, 10) + unit.suffix
		}
	}
	return "0B"
}

// Count is a number that is written "1000", "200k", "50M" or "2G", in powers of
// ten.
type Count uint64

var countUnits = []struct {
	suffix string
	factor uint64
}{{"G", 1e9}, {"M", 1e6}, {"k", 1e3}, {"", 1}}

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *Count) UnmarshalText(text []byte) error {
	for _, unit := range countUnits {
		digits, ok := strings.CutSuffix(string(text), unit.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 64)
		if err != nil || n == 0 || n > math.MaxInt64/unit.factor {
			break
		}
		*c = Count(n * unit.factor)
		return nil
	}
	return fmt.Errorf("number %q: want one above 0, as in 1000, 200k or 50M", text)
}

// String writes it in the largest unit that leaves a whole number.
func (c Count) String() string {
	for _, unit := range countUnits {
		if n := uint64(c); n != 0 && n%unit.factor == 0 {
			return strconv.FormatUint(n/unit.factor, 10) + unit.suffix
		}
	}
	return "0"
}
