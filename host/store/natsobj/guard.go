package natsobj

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strconv"
)

// guarded is a connection to a server, in the clear, that lets through what the
// protocol of NATS allows, in its plainest spelling, and bounded. The client
// library allocates what a server announces, and gathers a line for as long as
// the server goes on with it: a server could end the host by one line.
type guarded struct {
	net.Conn
	line  []byte // of the control line, so far
	skip  int    // bytes of a message that are to come
	crlf  int    // of the two bytes after a message, how many are to come
	first bool   // nothing but INFO may come first
	err   error
}

const (
	maxLine    = 256 << 10 // bytes of a control line; INFO names all servers of a cluster
	maxMessage = 16 << 20  // bytes of a message: the names of 100,000 blobs
)

func guard(c net.Conn) *guarded { return &guarded{Conn: c, first: true} }

// Read implements net.Conn.
func (g *guarded) Read(p []byte) (int, error) {
	if g.err != nil {
		return 0, g.err
	}
	n, err := g.Conn.Read(p)
	if g.err = g.check(p[:n]); g.err != nil {
		g.Close()
		return 0, g.err
	}
	return n, err
}

func (g *guarded) check(p []byte) error {
	for len(p) > 0 {
		switch {
		case g.skip > 0:
			n := min(g.skip, len(p))
			g.skip -= n
			p = p[n:]
		case g.crlf > 0:
			if p[0] != "\n\r"[g.crlf-1] {
				return errors.New("the NATS server sends a message that is longer than it says")
			}
			g.crlf--
			p = p[1:]
		default:
			n := bytes.IndexByte(p, '\n') + 1
			end := n > 0
			if !end {
				n = len(p)
			}
			if len(g.line)+n > maxLine {
				return fmt.Errorf("the NATS server sends a line of more than %d bytes", maxLine)
			}
			g.line = append(g.line, p[:n]...)
			p = p[n:]
			if end {
				if err := g.control(); err != nil {
					return err
				}
				g.line = g.line[:0]
			}
		}
	}
	return nil
}

// control looks at a whole line.
func (g *guarded) control() error {
	line, ok := bytes.CutSuffix(g.line, []byte("\r\n"))
	fields := bytes.Fields(line)
	if !ok || len(fields) == 0 || line[0] == ' ' || bytes.ContainsAny(line, "\r\t\v\f\x00") {
		return errors.New("the NATS server sends a line that is none of its protocol")
	}
	verb := string(fields[0])
	if g.first && verb != "INFO" {
		return errors.New("this is no NATS server: it does not begin with INFO")
	}
	g.first = false
	switch verb {
	case "PING", "PONG", "+OK":
		if len(line) != len(verb) {
			return fmt.Errorf("the NATS server sends a %s with an argument", verb)
		}
	case "INFO", "-ERR":
	case "MSG", "HMSG":
		sizes := 1 // the numbers at the end
		if verb == "HMSG" {
			sizes = 2
		}
		if n := len(fields) - 3 - sizes; n != 0 && n != 1 { // a reply subject is optional
			return fmt.Errorf("the NATS server sends a %s with %d arguments", verb, len(fields)-1)
		}
		size, err := strconv.ParseUint(string(fields[len(fields)-1]), 10, 31)
		if err != nil || size > maxMessage {
			return fmt.Errorf("the NATS server sends a message of %.20q bytes, and at most %d are read", fields[len(fields)-1], maxMessage)
		}
		if sizes == 2 {
			if head, err := strconv.ParseUint(string(fields[len(fields)-2]), 10, 31); err != nil || head > size {
				return fmt.Errorf("the NATS server sends a message with headers of %.20q bytes", fields[len(fields)-2])
			}
		}
		g.skip, g.crlf = int(size), 2
	default:
		return fmt.Errorf("the NATS server sends %.20q, which is none of its protocol", verb)
	}
	return nil
}
