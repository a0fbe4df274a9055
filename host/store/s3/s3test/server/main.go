// Command server is an S3 server for tests: versitygw, which keeps objects as files,
// over one directory. It listens on a port of the kernel's choice, says which on its
// standard output, and ends when its standard input does, so that it does not outlive
// the test that started it.
//
//	server DIR
//
// DIR is empty. The keys are S3TEST_ACCESS_KEY and S3TEST_SECRET_KEY in its
// environment; with S3TEST_CERT and S3TEST_KEY, two files, it speaks TLS.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"

	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: server DIR")
	}
	out := os.Stdout
	os.Stdout = os.Stderr // what the gateway has to say
	objects, socket := filepath.Join(os.Args[1], "objects"), filepath.Join(os.Args[1], "sock")
	if err := os.Mkdir(objects, 0o700); err != nil {
		log.Fatal(err)
	}
	// What an object is, its ETag above all, lies in extended attributes of its file,
	// and so comes and goes with it. Beside the files, where a directory can have it
	// that takes no attributes, it does not: two writers with one If-Match both win.
	if err := (meta.XattrMeta{}).Test(objects); err != nil {
		log.Fatalf("the file system of %s has no extended attributes for users; set TMPDIR to a directory on one that has: %v", objects, err)
	}
	files, err := posix.New(objects, meta.XattrMeta{}, posix.PosixOpts{})
	if err != nil {
		log.Fatal(err)
	}
	// The gateway does not say which port it was given, so it has a socket in DIR, and
	// the port is ours.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				log.Fatal(err)
			}
			go carry(c, socket)
		}
	}()
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
		os.Exit(0)
	}()
	go func() {
		for { // until it listens
			if c, err := net.Dial("unix", socket); err == nil {
				c.Close()
				break
			}
		}
		fmt.Fprintln(out, l.Addr())
	}()
	log.Fatal(embedgw.RunVersityGW(ctx, files, &embedgw.Config{
		RootUserAccess: os.Getenv("S3TEST_ACCESS_KEY"), RootUserSecret: os.Getenv("S3TEST_SECRET_KEY"),
		Ports: []string{socket}, CertFile: os.Getenv("S3TEST_CERT"), KeyFile: os.Getenv("S3TEST_KEY"),
		MaxConnections: 1000, MaxRequests: 1000, MultipartMaxParts: 10000, KeepAlive: true, Quiet: true,
	}))
}

// carry copies bytes between a connection and the gateway's socket.
func carry(c net.Conn, socket string) {
	defer c.Close()
	g, err := net.Dial("unix", socket)
	if err != nil {
		return
	}
	defer g.Close()
	go func() {
		_, _ = io.Copy(g, c)
		_ = g.(*net.UnixConn).CloseWrite()
	}()
	_, _ = io.Copy(c, g)
}
