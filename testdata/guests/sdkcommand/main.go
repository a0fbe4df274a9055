// sdkcommand is a command, not a reactor, that uses guest-sdk/go all the same: the
// contexts are there for every shape of module.
package main

import (
	"fmt"
	"io"
	"os"

	"github.com/circles-host/circles/guest-sdk/go"
)

func main() {
	path, err := io.ReadAll(os.Stdin)
	if err == nil {
		var card []byte
		if card, err = circles.Caller().ReadFile(string(path)); err == nil {
			fmt.Printf("%s brought %s to %s", circles.Caller().Name(), card, circles.Target().Name())
			return
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
