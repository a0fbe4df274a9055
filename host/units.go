package host

import (
	"fmt"
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
