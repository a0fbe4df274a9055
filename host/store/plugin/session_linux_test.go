package plugin

import "syscall"

// ownSession has a process leave the group of its parent, as setsid(1) does.
func ownSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
