//go:build !linux

package plugin

import "syscall"

// ownSession is for the tests of Linux.
func ownSession() *syscall.SysProcAttr { return nil }
