// Command is a guest for the engine's tests. Its first argument says what it does.
package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

var sink []byte

func main() {
	do := "upper"
	if len(os.Args) > 1 {
		do = os.Args[1]
	}
	switch do {
	case "upper":
		in, _ := io.ReadAll(os.Stdin)
		os.Stdout.WriteString(strings.ToUpper(string(in)))
		fmt.Fprintf(os.Stderr, "read %d bytes", len(in))
	case "env":
		fmt.Print(os.Args, os.Getenv("GREETING"))
	case "exit":
		fmt.Fprint(os.Stderr, "giving up")
		os.Exit(7)
	case "exit-as-if-cancelled":
		os.Exit(-1) // 0xffffffff is what wazero exits a cancelled guest with
	case "panic":
		panic("oh no")
	case "spin":
		for {
		}
	case "sleep":
		time.Sleep(time.Hour)
	case "flood":
		for {
			os.Stdout.Write(make([]byte, 4096))
		}
	case "chatter":
		for range 1000 {
			os.Stderr.WriteString("the quick brown fox jumps over the lazy dog\n")
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
		fmt.Print(time.Now().Year())
	}
}
