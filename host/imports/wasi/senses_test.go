package wasi

import "testing"

type senses struct{ clock, random bool }

func (s senses) Clock() bool  { return s.clock }
func (s senses) Random() bool { return s.random }

// A guest that may not tell the time has a clock that only its own sleep moves,
// and no file tells it either. Its sleep takes no time, however long.
func TestNoClock(t *testing.T) {
	w := &world{config: Config{Senses: senses{random: true}}}
	w.steps(t,
		do("clock", "0").is("OK true"), do("clock", "1").is("OK true"), do("clock", "9").is("INVAL"),
		do("now", "0").is("OK 946684800000000000"), do("now", "1").is("OK 946684800000000000"),
		do("poll-sleep", "3600000000000").is("OK 0:0"),
		do("poll-until", "3600000000000").is("OK 0:0"),
		do("now", "0").is("OK 946692000000000000"), do("now", "1").is("OK 946692000000000000"),
		do("poll-sleep", "9223372036854775807").is("OK 0:0"), do("poll-sleep", "18446744073709551615").is("OK 0:0"),
		do("random", "16").is("OK true"),
		do("f=", "open", "crw", "f"), do("write", "f", "x"),
		do("fstat", "f").is("OK 4 1 946684800000000000"), do("stat", "f").is("OK 4 1 946684800000000000"), do("lstat", "f").is("OK 4 1 946684800000000000"),
	)
}

// A guest that may not draw random bytes is told so: whatever else it got it
// would take for random.
func TestNoRandom(t *testing.T) {
	w := &world{config: Config{Senses: senses{clock: true}}}
	w.steps(t,
		do("random", "16").is("ACCES"), do("random", "0").is("ACCES"), do("random-at", "0", "0xffffffff").is("ACCES"),
		do("poll-sleep", "1").is("OK 0:0"),
	)
}
