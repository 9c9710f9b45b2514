package engine_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// The address of a host and that of a listener name an interface. Both work, by
// name and by number, and work again after the interface has gone and come back,
// with another number. A host on an interface that is not there fails alone.
func TestZones(t *testing.T) {
	testkit.Long(t)
	t.Parallel()
	ip, err := exec.LookPath("ip")
	if err != nil {
		t.Skip("needs ip, of iproute2")
	}
	if os.Getenv("TXLB_TEST_ZONES") == "" {
		if os.Geteuid() != 0 {
			t.Skip("needs root, for interfaces of its own")
		}
		cmd := exec.Command(os.Args[0], "-test.run", "^TestZones$", "-test.v", "-test.timeout", "8m")
		cmd.Env = append(os.Environ(), "TXLB_TEST_ZONES=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNET}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	do := func(words ...string) {
		t.Helper()
		if out, err := exec.Command(ip, words...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", words, err, out)
		}
	}
	comes := func() (index int) {
		t.Helper()
		do("link", "add", "d0", "type", "veth", "peer", "name", "d1")
		do("link", "set", "d0", "up")
		do("link", "set", "d1", "up")
		do("addr", "add", "fe80::1/64", "dev", "d0", "nodad")
		// The kernel may take its time to notice that there is a cable.
		testkit.Eventually(t, "the interface runs", func() bool {
			i, err := net.InterfaceByName("d0")
			if err != nil {
				t.Fatal(err)
			}
			index = i.Index
			return i.Flags&net.FlagRunning != 0
		})
		return index
	}
	do("link", "set", "lo", "up")
	index := comes()
	// Package net goes on with old numbers for a while, so the test says them.
	numbered := func(port int) string { return fmt.Sprintf("[fe80::1%%%d]:%d", index, port) }
	host := enginetest.ListenOn(t, "tcp", numbered(0))
	port := host.Addr().(*net.TCPAddr).Port
	serve := func(ln net.Listener) {
		enginetest.ServeOn(t, ln, func(p *enginetest.Peer) { p.Send([]byte("x")); p.Fin() })
	}
	serve(host)

	eachMode(t, func(t *testing.T, opt setup) {
		parse := func(text string) sched.Addr {
			a, err := sched.ParseAddr(text)
			if err != nil {
				t.Fatal(err)
			}
			return a
		}
		r := newRig(t, opt, engine.Route{}, parse("[fe80::1%none]:80"), parse(fmt.Sprintf("[fe80::1%%d0]:%d", port)))
		r.Apply(
			engine.Service{Name: "web", Listen: []string{"127.0.0.1:0", "[fe80::1%d0]:0", "[fe80::1%" + strconv.Itoa(index) + "]:0"}, Route: &engine.Route{Table: r.Table(sched.Policy{Scheduler: "roundr"}, parse("[fe80::1%none]:80"), parse(fmt.Sprintf("[fe80::1%%d0]:%d", port)))}},
		)
		ports := map[string]int{}
		for _, l := range r.E.Listeners() {
			_, p, _ := net.SplitHostPort(l.Addr)
			ports[l.Listen], _ = strconv.Atoi(p)
		}
		ask := func(address string) error {
			c, err := net.DialTimeout("tcp", address, testkit.Patience)
			if err != nil {
				return err
			}
			defer func() { _ = c.Close() }()
			_ = c.SetDeadline(time.Now().Add(testkit.Patience))
			got, err := io.ReadAll(c)
			if err == nil && string(got) != "x" {
				err = fmt.Errorf("%q", got)
			}
			return err
		}
		v4 := "127.0.0.1:" + strconv.Itoa(ports["127.0.0.1:0"])
		for _, address := range []string{v4, v4, numbered(ports["[fe80::1%d0]:0"]), numbered(ports["[fe80::1%"+strconv.Itoa(index)+"]:0"])} {
			if err := ask(address); err != nil {
				t.Errorf("%s: %v", address, err)
			}
		}
		select {
		case f := <-r.E.Failures():
			if f.Host.Addr().String() != "[fe80::1%none]:80" || f.Err.Error() != "connect to [fe80::1%none]:80: no such device" {
				t.Errorf("%v: %v", f.Host.Addr(), f.Err)
			}
		case <-time.After(testkit.Patience):
			t.Error("the host without an interface has not failed")
		}

		do("link", "del", "d0")
		if err := ask(v4); err == nil {
			t.Error("a host was there while its interface was not")
		}
		was := index
		if index = comes(); index == was {
			t.Fatal("the interface has its old number")
		}
		serve(enginetest.ListenOn(t, "tcp", numbered(port)))
		if err := ask(v4); err != nil {
			t.Errorf("the host, after its interface has come back: %v", err)
		}
		testkit.Eventually(t, "the listener hears of its interface again", func() bool {
			return ask(numbered(ports["[fe80::1%d0]:0"])) == nil
		})
		if len(r.E.Listeners()) != 3 {
			t.Errorf("listeners %v", r.E.Listeners())
		}
	})
}
