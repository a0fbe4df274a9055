package script

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/circles-host/circles/host/peer"
)

// Limits of what a record is found by.
const (
	MaxCollection = 64   // bytes of a collection's name
	MaxKey        = 1024 // bytes of a record's key
)

// CheckCollection says what is wrong with the name of a collection of records.
// It is in kebab case, "bookings" or "shopping-list": lower-case ASCII letters,
// digits, single hyphens between them, a letter first. So it is one file's name,
// spelled in one way, wherever a context is kept.
func CheckCollection(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("a collection has a name")
	case len(name) > MaxCollection:
		return fmt.Errorf("the name of a collection has %d bytes, at most %d are allowed", len(name), MaxCollection)
	}
	after := byte('-')
	for i := range len(name) {
		c := name[i]
		letter, digit := 'a' <= c && c <= 'z', '0' <= c && c <= '9'
		if !letter && (i == 0 || !digit && (c != '-' || after == '-' || i == len(name)-1)) {
			return fmt.Errorf("%.80q does not name a collection: use lower-case letters, digits, and single hyphens between them, as in shopping-list", name)
		}
		after = c
	}
	return nil
}

// CheckKey says what is wrong with a record's key: any text of 1 to MaxKey bytes
// of UTF-8 without control characters, so that a key can be shown, and be a line
// of a file. A slash or a dot in it means nothing.
func CheckKey(key string) error {
	switch {
	case key == "":
		return fmt.Errorf("a record's key is not empty")
	case len(key) > MaxKey:
		return fmt.Errorf("a record's key has %d bytes, at most %d are allowed", len(key), MaxKey)
	case !utf8.ValidString(key):
		return fmt.Errorf("the key %.80q is not UTF-8", key)
	case strings.IndexFunc(key, unicode.IsControl) >= 0:
		return fmt.Errorf("the key %.80q has a control character in it", key)
	}
	return nil
}

// SplitRecord takes apart how grants, policies and commands name records:
// "bookings" is a collection, with key "", and "bookings/2026-11-23" the record
// of that key in it.
func SplitRecord(name string) (collection, key string, err error) {
	collection, key, one := strings.Cut(name, "/")
	if err := CheckCollection(collection); err != nil {
		return "", "", err
	}
	if one {
		if err := CheckKey(key); err != nil {
			return "", "", err
		}
	}
	return collection, key, nil
}

// CheckResource says what is wrong with name as that of something to which an
// action can be done.
func CheckResource(a Action, name string) error {
	if a == Send {
		_, err := peer.ParseID(name)
		return err
	}
	if !a.OfRecords() {
		return checkPath(name)
	}
	_, key, err := SplitRecord(name)
	if err == nil && a == Query && key != "" {
		err = fmt.Errorf("%.80q is one record: it is collections that are queried", name)
	}
	return err
}

// JoinRecord is the inverse of SplitRecord.
func JoinRecord(collection, key string) string {
	if key == "" {
		return collection
	}
	return collection + "/" + key
}
