//go:build darwin || freebsd

package fs

import "errors"

func copyRange(int, int, int64, int64) (int, error) { return 0, errors.ErrUnsupported }

// room is not asked for here: a full disk is noticed when a commit is applied.
func room(int, bool) (int64, bool) { return 0, false }
