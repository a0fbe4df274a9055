package engine

import (
	"bytes"
	"io"
)

// params is a command's stdin when it is Call.Params.
type params struct{ b []byte }

func (p *params) Read(b []byte) (int, error) {
	if len(p.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.b)
	p.b = p.b[n:]
	return n, nil
}

// output is a command's stdout.
type output struct {
	run *run
	to  io.Writer // nil: b
	b   []byte
	n   uint64
}

// Write ends the run if there is more than Limits.Output: a guest that is told
// of an error would as likely ignore it.
func (o *output) Write(p []byte) (int, error) {
	if o.n+uint64(len(p)) > o.run.limits.Output {
		o.run.halt(OutputHit, "wrote more than its limit of %d bytes to stdout", o.run.limits.Output)
	}
	o.n += uint64(len(p))
	if o.to != nil {
		return o.run.await(o.to.Write, bytes.Clone(p)) // p is the guest's memory
	}
	o.b = append(o.b, p...)
	return len(p), nil
}

// logBuffer is a guest's log: its stderr, and what it passes to the log
// interface. What is over Limits.Log is cut.
type logBuffer struct {
	run *run
	to  io.Writer // nil: b
	b   []byte
	n   uint64 // bytes written, cut or not
}

// Write passes on to the outermost run's, which has it all.
func (l *logBuffer) Write(p []byte) (int, error) {
	all := &l.run.outermost().log
	if l.run.quiet {
		all.n += uint64(len(p))
		return len(p), nil
	}
	return all.keep(p)
}

func (l *logBuffer) keep(p []byte) (int, error) {
	room := l.run.limits.Log - min(l.n, l.run.limits.Log)
	l.n += uint64(len(p))
	keep := p[:min(uint64(len(p)), room)]
	if len(keep) == 0 {
		return len(p), nil
	}
	if l.to != nil {
		if _, err := l.run.await(l.to.Write, bytes.Clone(keep)); err != nil {
			return 0, err
		}
		return len(p), nil
	}
	l.b = append(l.b, keep...)
	return len(p), nil
}

// input is a command's stdin when it is the host's own.
type input struct {
	run  *run
	from io.Reader
	buf  []byte
}

func (i *input) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if len(i.buf) == 0 {
		// Into a buffer of our own: a read that is given up on must not write to
		// the memory of a guest that is gone.
		buf := make([]byte, min(len(b), 64<<10))
		n, err := i.run.await(i.from.Read, buf)
		if n == 0 {
			return 0, err
		}
		i.buf = buf[:n]
	}
	n := copy(b, i.buf)
	i.buf = i.buf[n:]
	return n, nil
}

// await does I/O on one of the host's own streams, which may block for good: a
// terminal nobody types at, a pipe nobody reads. The run does not: it ends with
// its deadline, and leaves the goroutine that blocks behind until the stream
// moves or is closed.
func (r *run) await(do func([]byte) (int, error), b []byte) (int, error) {
	type outcome struct {
		n   int
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		n, err := do(b)
		done <- outcome{n, err}
	}()
	select {
	case o := <-done:
		return o.n, o.err
	case <-r.Done():
		r.check()
		panic("unreachable: check does not return when the context is done")
	}
}
