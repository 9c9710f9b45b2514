package engine_test

import (
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/sandbox"
	"github.com/txlb/txlb/internal/testkit"
)

// With steering, the loop with the number of the CPU that receives a client gets it.
func TestSteeringByCPU(t *testing.T) {
	if mask, err := os.ReadFile("/sys/class/net/lo/queues/rx-0/rps_cpus"); err == nil && strings.Trim(string(mask), "0,\n") != "" {
		t.Skip("the loopback interface moves packets to other CPUs (RPS)")
	}
	const loops, each = 3, 20
	opt := onLoops(engine.Options{Loops: loops, Steer: true})
	r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
	to := netip.MustParseAddrPort(r.Addr)
	if f := r.E.Snapshot().Facilities[1]; f != (engine.Facility{Name: engine.CPUSteering, On: true}) {
		t.Fatalf("%+v", f)
	}
	// The CPU of this thread receives what the thread sends over loopback.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, only unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.SchedSetaffinity(0, &before) }()
	want := make([]uint64, loops)
	for cpu, tried := 0, 0; cpu < 1024 && tried < 8; cpu++ {
		if !before.IsSet(cpu) {
			continue
		}
		only.Zero()
		only.Set(cpu)
		if unix.SchedSetaffinity(0, &only) != nil {
			continue
		}
		tried++
		want[cpu%loops] += each
		for range each {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
			_ = unix.Close(fd)
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	var got []uint64
	sum := func(n []uint64) (sum uint64) {
		for _, n := range n {
			sum += n
		}
		return sum
	}
	testkit.Eventually(t, "every client is accepted", func() bool {
		got = nil
		for _, l := range r.E.Snapshot().Loops {
			got = append(got, l.Accepts)
		}
		return sum(got) == sum(want)
	})
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("clients by loop: %v, want %v", got, want)
		}
	}
}

// Where the kernel refuses to steer, clients are spread by its hash, and the engine says why.
func TestSteeringIsRefused(t *testing.T) {
	if !sandbox.NoOption(t, unix.SO_ATTACH_REUSEPORT_CBPF, unix.ENOPROTOOPT) {
		return
	}
	r := newRig(t, onLoops(engine.Options{Loops: 2, Steer: true}), engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
	f := r.E.Snapshot().Facilities[1]
	if f.On || !f.Refused || !strings.Contains(f.Why, r.Addr) || !strings.Contains(f.Why, unix.ENOPROTOOPT.Error()) {
		t.Errorf("%+v", f)
	}
	c := r.Dial()
	c.Send([]byte("x"))
	c.Expect([]byte("x"))
}
