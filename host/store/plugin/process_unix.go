//go:build unix && !linux

package plugin

import (
	"os"
	"os/exec"
	"syscall"
)

// own gives the process a group of its own. That it ends with us is up to it: it
// sees the end of its standard input.
func own(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func awaitExit(cmd *exec.Cmd) (reap func() error) {
	err := cmd.Wait()
	return func() error { return err }
}

func killAll(cmd *exec.Cmd) {
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	_ = cmd.Process.Kill()
}

func descriptorPath(*os.File) string { return "" }
