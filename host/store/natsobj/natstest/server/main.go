// Command server is a NATS server for tests. It reads a configuration file, says on
// its standard output at which port of loopback it listens, and ends when its
// standard input does, so that it does not outlive the test that started it.
//
//	server FILE
package main

import (
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: server FILE")
	}
	o, err := server.ProcessConfigFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	o.NoSigs = true
	s, err := server.NewServer(o)
	if err != nil {
		log.Fatal(err)
	}
	s.ConfigureLogger()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		s.Shutdown()
		os.Exit(0)
	}()
	s.Start()
	if !s.ReadyForConnections(time.Minute) {
		log.Fatal("it does not listen")
	}
	fmt.Println(s.Addr())
	s.WaitForShutdown()
}
