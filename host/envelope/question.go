package envelope

import (
	"fmt"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

// Bytes of a sealed question or answer, checked before anything is parsed.
const (
	maxQuestion = 16 << 10
	maxAnswer   = 2 << 20
)

// SealQuestion signs q with the key of the host that runs the script.
func SealQuestion(q script.Question, host *peer.Key) ([]byte, error) {
	payload, err := q.Encode()
	if err != nil {
		return nil, fmt.Errorf("seal question: %w", err)
	}
	return seal(questionType, payload, host), nil
}

// OpenQuestion checks a sealed question: that it is in form and that signer
// signed it; if host is not empty, that this is signer. A question proves nothing
// else: before it answers, the caller checks that the script is one that it sent
// to that host, is still waiting for, and lent this path in.
func OpenQuestion(sealed []byte, host peer.ID) (q script.Question, signer peer.ID, err error) {
	payload, signer, err := open(sealed, maxQuestion, questionType)
	if err != nil {
		return script.Question{}, "", fmt.Errorf("open question: %w", err)
	}
	if host != "" && signer != host {
		return script.Question{}, "", fail(Unauthenticated, "open question: %s signed it, but the script went to %s", signer, host)
	}
	q, err = script.DecodeQuestion(payload)
	if err != nil {
		return script.Question{}, "", fail(Malformed, "open question: %w", err)
	}
	return q, signer, nil
}

// SealAnswer signs a, as the answer to q, with the key of the caller.
func SealAnswer(a script.Answer, q script.Question, caller *peer.Key) ([]byte, error) {
	asked, err := q.Encode()
	if err != nil {
		return nil, fmt.Errorf("seal answer: %w", err)
	}
	a.Question = script.DigestOf(asked)
	if err := q.Fits(&a); err != nil {
		return nil, fmt.Errorf("seal answer: %w", err)
	}
	payload, err := a.Encode()
	if err != nil {
		return nil, fmt.Errorf("seal answer: %w", err)
	}
	return seal(answerType, payload, caller), nil
}

// OpenAnswer checks a sealed answer: that it is in form, that caller signed it,
// and that it answers q and no other question, with no more than was asked for.
func OpenAnswer(sealed []byte, caller peer.ID, q script.Question) (script.Answer, error) {
	payload, signer, err := open(sealed, maxAnswer, answerType)
	if err != nil {
		return script.Answer{}, fmt.Errorf("open answer: %w", err)
	}
	if signer != caller {
		return script.Answer{}, fail(Unauthenticated, "open answer: %s signed it, but %s was asked", signer, caller)
	}
	a, err := script.DecodeAnswer(payload)
	if err != nil {
		return script.Answer{}, fail(Malformed, "open answer: %w", err)
	}
	asked, err := q.Encode()
	if err != nil {
		return script.Answer{}, fmt.Errorf("open answer: %w", err)
	}
	if a.Question != script.DigestOf(asked) {
		return script.Answer{}, fail(Unauthenticated, "open answer: it answers another question")
	}
	if err := q.Fits(&a); err != nil {
		return script.Answer{}, fail(Malformed, "open answer: %w", err)
	}
	return a, nil
}
