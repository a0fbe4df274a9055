package review

import (
	"context"
	"errors"
	"sync"

	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/script"
)

// maxAnswered is how many bytes of answers are kept with a script.
const maxAnswered = 8 << 20

// Back puts a question to the host of a script's caller, as transport.Back.
type Back = func(ctx context.Context, question []byte) ([]byte, error)

// Recorder passes on what a script asks its caller's host, and remembers what it
// was answered. A script that asks for more than is kept is denied the rest, so
// that what the owner sees is what can be done again. It is safe for concurrent use.
type Recorder struct {
	back Back

	mu      sync.Mutex
	answers map[script.Digest][]byte
	bytes   int
}

// Record wraps a way back; nil, if there is none, stays nil.
func Record(back Back) *Recorder { return &Recorder{back: back, answers: map[script.Digest][]byte{}} }

var errTooMuch = errors.New("it has read as much of what its caller lent as can be kept for review")

// Back is for the script that runs.
func (r *Recorder) Back() Back {
	if r.back == nil {
		return nil
	}
	return func(ctx context.Context, sealed []byte) ([]byte, error) {
		q, _, err := envelope.OpenQuestion(sealed, "")
		if err != nil {
			return nil, err
		}
		asked, err := digestOf(q)
		if err != nil {
			return nil, err
		}
		answer, err := r.back(ctx, sealed)
		if err != nil {
			return nil, err
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.bytes += len(answer); r.bytes > maxAnswered || len(r.answers) >= maxAnswers {
			return nil, errTooMuch
		}
		r.answers[asked] = answer
		return answer, nil
	}
}

// Answers are for Held.
func (r *Recorder) Answers() map[script.Digest][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.answers) == 0 {
		return nil
	}
	return r.answers
}

var errNotAsked = errors.New("when the script was held for review it did not ask that, and its caller cannot be asked any more")

// Back answers the same questions, in the same order, as when the script was held.
// Questions are numbered within a script, and answers say to which question they
// are, so one cannot be given to another.
func (h *Held) Back() Back {
	return func(_ context.Context, sealed []byte) ([]byte, error) {
		q, _, err := envelope.OpenQuestion(sealed, "")
		if err != nil {
			return nil, err
		}
		asked, err := digestOf(q)
		if err != nil {
			return nil, err
		}
		if answer, ok := h.Answers[asked]; ok {
			return answer, nil
		}
		return nil, errNotAsked
	}
}

func digestOf(q script.Question) (script.Digest, error) {
	text, err := q.Encode()
	return script.DigestOf(text), err
}
