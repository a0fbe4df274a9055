// Package transporttest is the suite that every transport passes.
package transporttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/circles-host/circles/host/transport"
)

// Rig is one running server and a client of it.
type Rig struct {
	Sender transport.Sender
	// Stop begins an orderly shutdown and returns when it is done.
	Stop func() error
	// MaxMessage is the bound that the server was started with, in bytes.
	MaxMessage int
}

// patience is for what must happen at all, on a machine under load.
const patience = 20 * time.Second

// Run tests a transport. start serves handle on loopback until the test ends.
func Run(t *testing.T, start func(t *testing.T, handle transport.Handler) Rig) {
	ctx := func(t *testing.T) context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
		t.Cleanup(cancel)
		return ctx
	}
	echo := func(_ context.Context, sealed []byte, _ transport.Back) ([]byte, error) {
		return append([]byte("re:"), sealed...), nil
	}
	noQuestions := func(context.Context, []byte) ([]byte, error) { return nil, errors.New("unasked") }

	t.Run("carries bytes unchanged, either way", func(t *testing.T) {
		rig := start(t, echo)
		big := bytes.Repeat([]byte{0, 0xff, '\n', '"'}, (rig.MaxMessage-16)/4)
		for _, sealed := range [][]byte{{}, {0}, []byte("script"), big} {
			for _, answer := range []transport.Back{nil, noQuestions} {
				got, err := rig.Sender.Send(ctx(t), sealed, answer)
				if err != nil || !bytes.Equal(got, append([]byte("re:"), sealed...)) {
					t.Fatalf("%d bytes sent (with answers: %v): got %d bytes, %v", len(sealed), answer != nil, len(got), err)
				}
			}
		}
	})

	t.Run("says which transport it is", func(t *testing.T) {
		by := make(chan string, 1)
		rig := start(t, func(ctx context.Context, _ []byte, _ transport.Back) ([]byte, error) {
			by <- transport.Name(ctx)
			return nil, nil
		})
		for _, answer := range []transport.Back{nil, noQuestions} {
			if _, err := rig.Sender.Send(ctx(t), []byte("script"), answer); err != nil {
				t.Fatal(err)
			}
			if name := <-by; name == transport.Local || name == "" {
				t.Errorf("it came by %q (with answers: %v)", name, answer != nil)
			}
		}
	})

	t.Run("refuses what is too large and goes on", func(t *testing.T) {
		rig := start(t, echo)
		for _, answer := range []transport.Back{nil, noQuestions} {
			for _, n := range []int{rig.MaxMessage + 1, 4 * rig.MaxMessage} {
				_, err := rig.Sender.Send(ctx(t), make([]byte, n), answer)
				wantCode(t, err, transport.TooLarge)
			}
		}
		if _, err := rig.Sender.Send(ctx(t), []byte("next"), nil); err != nil {
			t.Fatalf("after a message that was too large: %v", err)
		}
	})

	t.Run("errors cross with their code and text", func(t *testing.T) {
		all := []transport.Code{transport.Malformed, transport.Unauthenticated, transport.NotFound, transport.Expired,
			transport.TooLarge, transport.Conflict, transport.Unavailable, transport.Internal, transport.Standstill}
		rig := start(t, func(_ context.Context, sealed []byte, _ transport.Back) ([]byte, error) {
			code := transport.Code(sealed)
			return nil, fmt.Errorf("wrapped: %w", &transport.Error{Code: code, Message: "told of " + string(code)})
		})
		for _, code := range all {
			for _, answer := range []transport.Back{nil, noQuestions} {
				_, err := rig.Sender.Send(ctx(t), []byte(code), answer)
				if e := wantCode(t, err, code); e.Message != "told of "+string(code) {
					t.Errorf("%s: message %q", code, e.Message)
				}
			}
		}
	})

	t.Run("who is turned away is told for how long", func(t *testing.T) {
		for _, told := range []time.Duration{time.Millisecond, time.Second, 1200 * time.Millisecond, 30 * time.Second} {
			rig := start(t, func(context.Context, []byte, transport.Back) ([]byte, error) {
				return nil, &transport.Error{Code: transport.Unavailable, Message: "full", RetryAfter: told}
			})
			for _, answer := range []transport.Back{nil, noQuestions} {
				_, err := rig.Sender.Send(ctx(t), []byte("x"), answer)
				if e := wantCode(t, err, transport.Unavailable); e.RetryAfter < told || e.RetryAfter > told+time.Second {
					t.Errorf("told to wait %v, and heard %v", told, e.RetryAfter)
				}
			}
		}
	})

	t.Run("an error that is the host's own stays there", func(t *testing.T) {
		rig := start(t, func(context.Context, []byte, transport.Back) ([]byte, error) {
			return nil, errors.New("open /secret/path: no such file")
		})
		_, err := rig.Sender.Send(ctx(t), nil, nil)
		if e := wantCode(t, err, transport.Internal); strings.Contains(e.Message, "secret") {
			t.Errorf("the host's error reached the sender: %q", e.Message)
		}
	})

	t.Run("a handler that panics costs one answer", func(t *testing.T) {
		rig := start(t, func(_ context.Context, sealed []byte, _ transport.Back) ([]byte, error) {
			if string(sealed) == "panic" {
				panic("secret")
			}
			return sealed, nil
		})
		for _, answer := range []transport.Back{nil, noQuestions} {
			_, err := rig.Sender.Send(ctx(t), []byte("panic"), answer)
			if e := wantCode(t, err, transport.Internal); strings.Contains(e.Message, "secret") {
				t.Errorf("the panic's value reached the sender: %q", e.Message)
			}
		}
		if _, err := rig.Sender.Send(ctx(t), []byte("next"), nil); err != nil {
			t.Fatalf("after a panic: %v", err)
		}
	})

	t.Run("a sender that answers nothing cannot be asked", func(t *testing.T) {
		rig := start(t, func(_ context.Context, _ []byte, back transport.Back) ([]byte, error) {
			return fmt.Appendf(nil, "%v", back == nil), nil
		})
		got, err := rig.Sender.Send(ctx(t), nil, nil)
		if err != nil || string(got) != "true" {
			t.Fatalf("back == nil: %s, %v", got, err)
		}
	})

	t.Run("questions come back to the sender", func(t *testing.T) {
		rig := start(t, func(ctx context.Context, sealed []byte, back transport.Back) ([]byte, error) {
			var parts []string
			for i := range 10 { // one after the other
				a, err := back(ctx, fmt.Appendf(nil, "q%d", i))
				if err != nil {
					return nil, err
				}
				parts = append(parts, string(a))
			}
			var all sync.WaitGroup // and at once
			late := make([]string, 8)
			for i := range late {
				all.Go(func() {
					a, err := back(ctx, fmt.Appendf(nil, "p%d", i))
					late[i] = fmt.Sprintf("%s%v", a, err)
				})
			}
			all.Wait()
			return []byte(strings.Join(append(parts, late...), " ")), nil
		})
		got, err := rig.Sender.Send(ctx(t), nil, func(_ context.Context, q []byte) ([]byte, error) {
			return append([]byte("a-"), q...), nil
		})
		want := "a-q0 a-q1 a-q2 a-q3 a-q4 a-q5 a-q6 a-q7 a-q8 a-q9 " +
			"a-p0<nil> a-p1<nil> a-p2<nil> a-p3<nil> a-p4<nil> a-p5<nil> a-p6<nil> a-p7<nil>"
		if err != nil || string(got) != want {
			t.Fatalf("got %q, %v\nwant %q", got, err, want)
		}
	})

	t.Run("large answers come back whole", func(t *testing.T) {
		rig := start(t, func(ctx context.Context, _ []byte, back transport.Back) ([]byte, error) {
			a, err := back(ctx, []byte("all of it"))
			return fmt.Appendf(nil, "%d", len(a)), err
		})
		got, err := rig.Sender.Send(ctx(t), nil, func(context.Context, []byte) ([]byte, error) {
			return make([]byte, rig.MaxMessage), nil
		})
		if err != nil || string(got) != fmt.Sprint(rig.MaxMessage) {
			t.Fatalf("got %s bytes, %v; want %d", got, err, rig.MaxMessage)
		}
	})

	t.Run("a sender's failure to answer fails that question only", func(t *testing.T) {
		rig := start(t, func(ctx context.Context, _ []byte, back transport.Back) ([]byte, error) {
			_, first := back(ctx, []byte("bad"))
			second, err := back(ctx, []byte("good"))
			return fmt.Appendf(nil, "%v | %s %v", first, second, err), nil
		})
		got, err := rig.Sender.Send(ctx(t), nil, func(_ context.Context, q []byte) ([]byte, error) {
			if string(q) == "bad" {
				return nil, errors.New("no such file")
			}
			return q, nil
		})
		if err != nil || !strings.Contains(string(got), "no such file | good <nil>") {
			t.Fatalf("got %q, %v", got, err)
		}
	})

	t.Run("a question ends with its context", func(t *testing.T) {
		rig := start(t, func(ctx context.Context, _ []byte, back transport.Back) ([]byte, error) {
			short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			defer cancel()
			_, err := back(short, []byte("are you there?"))
			if !errors.Is(err, context.DeadlineExceeded) {
				return nil, fmt.Errorf("question ended with %v", err)
			}
			return []byte("went on"), nil
		})
		release := make(chan struct{})
		time.AfterFunc(500*time.Millisecond, func() { close(release) })
		got, err := rig.Sender.Send(ctx(t), nil, func(context.Context, []byte) ([]byte, error) {
			<-release
			return []byte("late"), nil
		})
		if err != nil || string(got) != "went on" {
			t.Fatalf("got %q, %v", got, err)
		}
	})

	t.Run("a sender that goes away cancels what it sent", func(t *testing.T) {
		entered, left := make(chan struct{}, 2), make(chan error, 2)
		rig := start(t, func(ctx context.Context, _ []byte, back transport.Back) ([]byte, error) {
			entered <- struct{}{}
			select {
			case <-ctx.Done():
			case <-time.After(patience):
				left <- errors.New("the handler's context did not end")
				return nil, nil
			}
			if back != nil { // must fail, not hang
				if _, err := back(context.WithoutCancel(ctx), []byte("hello?")); err == nil {
					left <- errors.New("a sender that is gone answered")
					return nil, nil
				}
			}
			left <- nil
			return nil, ctx.Err()
		})
		for _, answer := range []transport.Back{nil, noQuestions} {
			sending, cancel := context.WithCancel(ctx(t))
			go func() { <-entered; cancel() }()
			if _, err := rig.Sender.Send(sending, nil, answer); err == nil {
				t.Error("a cancelled Send succeeded")
			}
			if err := <-left; err != nil {
				t.Error(err)
			}
		}
	})

	t.Run("many at once", func(t *testing.T) {
		rig := start(t, func(ctx context.Context, sealed []byte, back transport.Back) ([]byte, error) {
			return back(ctx, sealed)
		})
		var all sync.WaitGroup
		for i := range 32 {
			all.Go(func() {
				want := fmt.Sprintf("%d", i)
				got, err := rig.Sender.Send(ctx(t), []byte(want), func(_ context.Context, q []byte) ([]byte, error) { return q, nil })
				if err != nil || string(got) != want {
					t.Errorf("%d: got %q, %v", i, got, err)
				}
			})
		}
		all.Wait()
	})

	t.Run("a shutdown finishes what runs and takes nothing new", func(t *testing.T) {
		entered, release := make(chan struct{}), make(chan struct{})
		var late atomic.Int32
		rig := start(t, func(_ context.Context, sealed []byte, _ transport.Back) ([]byte, error) {
			if string(sealed) == "late" {
				late.Add(1)
				return nil, nil
			}
			close(entered)
			<-release
			return []byte("finished"), nil
		})
		result := make(chan string, 1)
		go func() {
			got, err := rig.Sender.Send(ctx(t), []byte("early"), noQuestions)
			result <- fmt.Sprintf("%s %v", got, err)
		}()
		<-entered
		stopped := make(chan error, 1)
		go func() { stopped <- rig.Stop() }()
		refused := false
		for end := time.Now().Add(patience); time.Now().Before(end) && !refused; time.Sleep(5 * time.Millisecond) {
			_, err := rig.Sender.Send(ctx(t), []byte("late"), nil)
			var e *transport.Error
			refused = errors.As(err, &e) && e.Code == transport.Unavailable
		}
		if !refused {
			t.Error("new scripts were still taken during a shutdown")
		}
		taken := late.Load()
		close(release)
		if got := <-result; got != "finished <nil>" {
			t.Errorf("what ran got %q", got)
		}
		if err := <-stopped; err != nil {
			t.Errorf("stop: %v", err)
		}
		_, err := rig.Sender.Send(ctx(t), []byte("late"), nil)
		wantCode(t, err, transport.Unavailable)
		if late.Load() != taken {
			t.Error("a script was taken after the shutdown")
		}
	})
}

func wantCode(t *testing.T, err error, code transport.Code) *transport.Error {
	t.Helper()
	var e *transport.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v (%T), want a *transport.Error of code %s", err, err, code)
	}
	if e.Code != code {
		t.Errorf("code %s (%s), want %s", e.Code, e.Message, code)
	}
	return e
}
