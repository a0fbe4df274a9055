//go:build !linux

package snapshot

import "errors"

// Elsewhere images are copied: Windows and macOS have private mappings, and
// nothing that tells which pages were written.

type region struct{}

func best(int) way { return copied }

var errNoMapping = errors.New("images are not mapped on this system")

func (im *Image) seal([]byte) error { return errNoMapping }
func (im *Image) free()             {}
func (m *Memory) mapImage() error   { return errNoMapping }
func (m *Memory) unmap()            {}
func (m *Memory) restore() bool     { return false }
