// Command is a guest for the engine's tests. Its first argument says what it does.
//
// It does without fmt and os, to be half the size: compiling it is what the
// tests spend their time on.
package main

import (
	"syscall"
	"time"
	_ "unsafe" // for go:linkname
)

var sink []byte

//go:linkname args os.runtime_args
func args() []string

func write(fd int, s string) {
	for b := []byte(s); len(b) > 0; {
		n, err := syscall.Write(fd, b)
		if err != nil {
			panic(err)
		}
		b = b[n:]
	}
}

func upper() {
	read := 0
	b := make([]byte, 4096)
	for {
		n, err := syscall.Read(0, b)
		if err != nil {
			panic(err)
		}
		if n == 0 {
			break
		}
		read += n
		for i, c := range b[:n] {
			if 'a' <= c && c <= 'z' {
				b[i] -= 'a' - 'A'
			}
		}
		write(1, string(b[:n]))
	}
	write(2, "read ")
	print(read)
	write(2, " bytes")
}

func main() {
	do := "upper"
	if a := args(); len(a) > 1 {
		do = a[1]
	}
	switch do {
	case "upper":
		upper()
	case "env":
		v, _ := syscall.Getenv("GREETING")
		write(1, args()[0]+" "+args()[1]+v)
	case "exit":
		write(2, "giving up")
		syscall.Exit(7)
	case "exit-as-if-cancelled":
		syscall.Exit(-1) // 0xffffffff is what wazero exits a cancelled guest with
	case "panic":
		panic("oh no")
	case "spin":
		for {
		}
	case "sleep":
		time.Sleep(time.Hour)
	case "flood":
		for {
			write(1, string(make([]byte, 4096)))
		}
	case "chatter":
		for range 1000 {
			write(2, "the quick brown fox jumps over the lazy dog\n")
		}
	case "hoard":
		for {
			sink = append(sink, make([]byte, 1<<20)...)
		}
	case "clock":
		for {
			time.Now()
		}
	case "date":
		write(1, time.Now().Format("2006"))
	}
}
