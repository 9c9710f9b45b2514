package engine_test

import (
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/sandbox"
)

// Where io_uring is forbidden, does not exist or gets no memory, the engine sends with
// plain calls and says why.
func TestEngineWithoutARing(t *testing.T) {
	for name, fails := range map[string]struct {
		call  uintptr
		errno syscall.Errno
	}{
		"forbidden": {unix.SYS_IO_URING_SETUP, syscall.EPERM},
		"unknown":   {unix.SYS_IO_URING_SETUP, syscall.ENOSYS},
		"memory":    {unix.SYS_IO_URING_SETUP, syscall.ENOMEM},
		"flags":     {unix.SYS_IO_URING_SETUP, syscall.EINVAL},
		"half":      {unix.SYS_IO_URING_ENTER, syscall.EPERM},
	} {
		t.Run(name, func(t *testing.T) {
			if !sandbox.NoCall(t, fails.call, fails.errno) {
				return
			}
			r := newRig(t, setup{engine.Options{Loops: 2}, toRing}, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
			ring := r.E.Snapshot().Facilities[0]
			if ring.On || !ring.Refused || !strings.Contains(ring.Why, fails.errno.Error()) {
				t.Errorf("%+v", ring)
			}
			c := r.Dial()
			data := enginetest.Payload(1<<20, 1)
			sent := make(chan struct{})
			go func() { defer close(sent); c.Send(data) }()
			c.Expect(data)
			<-sent
		})
	}
}

func TestRingSwitchedOff(t *testing.T) {
	r := newRig(t, setup{engine.Options{Loops: 1, Ring: engine.RingOff}, toRing}, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
	if ring := r.E.Snapshot().Facilities[0]; ring.On || ring.Refused || ring.Why != `ring="off"` {
		t.Errorf("%+v", ring)
	}
}
