package circles

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// Error is why a context did not do what it was asked. errors.Is finds
// fs.ErrNotExist, fs.ErrPermission, fs.ErrExist and fs.ErrInvalid in it.
type Error struct {
	Op, Path string // "read", "/card.txt"; "get", "bookings/today"; empty inside a *fs.PathError, which has them
	Code     Code
	Message  string // a sentence by the host, for the person who reads the receipt
}

func (e *Error) Error() string {
	message := e.Message
	if message == "" {
		message = e.Code.String()
	}
	// A host that names the path in its sentence has said what was tried too.
	if e.Op == "" || strings.Contains(message, e.Path) {
		return message
	}
	return e.Op + " " + e.Path + ": " + message
}

// Is maps codes to the errors of package io/fs.
func (e *Error) Is(err error) bool {
	switch err {
	case fs.ErrNotExist:
		return e.Code == NotFound
	case fs.ErrPermission:
		return e.Code == Denied || e.Code == ReadOnly
	case fs.ErrExist:
		return e.Code == Exists || e.Code == NotEmpty
	case fs.ErrInvalid:
		return e.Code == Invalid || e.Code == Violates
	}
	return false
}

// Violation is one way in which a value is not as its collection's schema says.
type Violation struct {
	Path   string // where in the value, a JSON Pointer (RFC 6901); "" is all of it
	Reason string
}

// Violations are those that err tells of, if it has an *Error of code Violates.
func Violations(err error) []Violation {
	var e *Error
	if !errors.As(err, &e) || e.Code != Violates {
		return nil
	}
	var list []Violation
	for line := range strings.SplitSeq(e.Message, "\n") {
		path, reason, ok := strings.Cut(line, ": ")
		if ok && (path == "" || path[0] == '/') {
			list = append(list, Violation{path, reason})
		}
	}
	return list
}

// failed completes a host function's error. It exists so that a nil *Error does
// not become a non-nil error.
func failed(op, path string, err *Error) error {
	if err == nil {
		return nil
	}
	err.Op, err.Path = op, path
	return err
}

// Code tells errors apart; contexts.error-code in host.wit.
type Code uint8

const (
	NotFound     Code = iota // no such file or directory, or one that the policy hides
	Denied                   // the policy of the context's owner does not allow it
	Exists                   // there is something with that name
	NotDirectory             // a path component is not a directory, or a file was expected
	IsDirectory              // a directory, where a file was expected
	NotEmpty                 // a directory that has entries
	Invalid                  // a path or argument that can never be right
	TooLarge                 // more than a limit or quota allows
	ReadOnly                 // the context cannot be changed by this script
	Unavailable              // the context's host cannot be reached now, or there is no host
	IO                       // the host failed
	Conflict                 // the record is not as it was expected to be
	Violates                 // a value is not as the collection's schema says; see Violations
	Failed                   // the module or script that was called failed; the message is its own
)

var codeNames = [...]string{
	"not found", "denied", "exists", "not a directory", "is a directory", "not empty",
	"invalid", "too large", "read-only", "unavailable", "input/output error",
	"conflict", "violates the schema", "failed",
}

func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return fmt.Sprintf("code %d", uint8(c))
}
