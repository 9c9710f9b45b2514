//go:build unix

package director

import (
	"os/exec"
	"syscall"
)

// apart gives a program a process group of its own, which is killed as a whole: what it has
// started ends with it.
func apart(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
