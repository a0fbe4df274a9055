//go:build darwin || freebsd

package fs

import "golang.org/x/sys/unix"

func exchange(int, string, int, string) error { return unix.ENOTSUP }

func unshared(int, *unix.Stat_t) bool { return false }
