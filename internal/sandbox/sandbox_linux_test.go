package sandbox

import (
	"errors"
	"os/exec"
	"sync"
	"syscall"
	"testing"
)

// A thread that was in another network lives on: programs that it has started would be killed
// with it.
func TestInNetworkKeepsItsThread(t *testing.T) {
	const threads = 20
	var children []*exec.Cmd
	var mu sync.Mutex
	together := func(f func()) { // on as many threads as possible
		var all sync.WaitGroup
		begin := make(chan struct{})
		for range threads {
			all.Go(func() {
				<-begin
				f()
			})
		}
		close(begin)
		all.Wait()
	}
	together(func() {
		cmd := exec.Command("sleep", "60")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Error(err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		children = append(children, cmd)
	})
	together(func() {
		err := InNetwork("/proc/self/ns/net", func() error { return nil })
		if err != nil && !errors.Is(err, syscall.EPERM) {
			t.Error(err)
		}
	})
	for _, cmd := range children {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if s, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && s.Signal() != syscall.SIGTERM {
			t.Errorf("a program has ended by %v before", s.Signal())
		}
	}
}
