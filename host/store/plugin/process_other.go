//go:build !unix

package plugin

import (
	"os"
	"os/exec"
)

func own(*exec.Cmd) {}

func awaitExit(cmd *exec.Cmd) (reap func() error) {
	err := cmd.Wait()
	return func() error { return err }
}

func killAll(cmd *exec.Cmd) { _ = cmd.Process.Kill() }

func descriptorPath(*os.File) string { return "" }
