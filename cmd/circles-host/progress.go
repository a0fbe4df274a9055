package main

import (
	"context"
	"io"
	"sync"
	"time"
)

// progressAfter is how long something may take before a person is told of it.
const progressAfter = 500 * time.Millisecond

// progress tells on a terminal, and nowhere else, that what is being done, which
// takes long, is still being done. The line is gone when done is called; until
// then nobody else may write to w.
func progress(ctx context.Context, w io.Writer, what string) (done func()) {
	p := newPrinter(w)
	if p.width == 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var ended sync.WaitGroup
	ended.Go(func() {
		started := time.Now()
		wait := time.NewTimer(progressAfter)
		defer wait.Stop()
		shown := false
		for {
			select {
			case <-ctx.Done():
				if shown {
					p.f("\r\x1b[K") // to the beginning of the line, and erase it
				}
				return
			case <-wait.C:
				seconds := time.Since(started).Truncate(time.Second)
				p.f("\r\x1b[K%s", p.dim(cut(line(what), p.width/2)+"… "+seconds.String()))
				shown = true
				wait.Reset(time.Second)
			}
		}
	})
	return func() { cancel(); ended.Wait() }
}
