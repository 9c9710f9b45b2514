package txlb_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/txlb/txlb"
	"github.com/txlb/txlb/internal/servers"
	"github.com/txlb/txlb/internal/testkit"
)

// server is a host: it answers each connection with its name and a line feed, and then sends
// back what it gets.
func server(t testing.TB, name string) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, ln, name)
	return ln.Addr().String()
}

// serve is server on a listener.
func serve(t testing.TB, ln net.Listener, name string) {
	var running sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	running.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[conn] = true
			mu.Unlock()
			running.Go(func() {
				defer conn.Close()
				if _, err := fmt.Fprintln(conn, name); err == nil {
					_, _ = io.Copy(conn, conn)
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		running.Wait()
	})
}

// unused is an address on which nobody listens, of a port that the kernel gives to nobody.
func unused(t testing.TB) string {
	t.Helper()
	port, err := servers.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

// quiet is a Config that logs to a test's log and checks hosts often.
func quiet(log *testkit.Log, services ...txlb.Service) txlb.Config {
	return txlb.Config{Services: services, Engine: txlb.Engine{Loops: 2}, Logger: log.Logger(), HostCheck: txlb.HostCheck{Interval: 50 * time.Millisecond}}
}

// start starts a balancer until the end of the test.
func start(t testing.TB, c txlb.Config) *txlb.Balancer {
	t.Helper()
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Engine.Loops == 0 {
		c.Engine.Loops = 2
	}
	lb, err := txlb.Start(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lb.Close(); err != nil {
			t.Error(err)
		}
	})
	return lb
}

// web is a service with hosts on a free port.
func web(hosts ...string) txlb.Service {
	s := txlb.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Scheduler: txlb.RoundRobin}
	for _, addr := range hosts {
		s.Hosts = append(s.Hosts, txlb.Host{Addr: addr})
	}
	return s
}

// ask connects and returns the name of the host that answers, "" if none does.
func ask(t testing.TB, addr net.Addr) string {
	t.Helper()
	conn, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		return ""
	}
	defer conn.Close()
	return hears(t, conn)
}

// hears returns the name that comes by a connection, "" if none does.
func hears(t testing.TB, conn net.Conn) string {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(testkit.Patience))
	line, _ := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line)
}

// ends fails unless a connection ends.
func ends(t testing.TB, conn net.Conn) {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(testkit.Patience))
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection goes on")
	}
}

// asks counts which hosts answer n connections.
func asks(t testing.TB, addr net.Addr, n int) map[string]int {
	t.Helper()
	got := map[string]int{}
	for range n {
		got[ask(t, addr)]++
	}
	return got
}

func TestHostsComeAndGo(t *testing.T) {
	a, b, c := server(t, "a"), server(t, "b"), server(t, "c")
	lb := start(t, txlb.Config{Services: []txlb.Service{web(a, b)}})
	web := lb.Service("web")
	addr := web.Addrs()[0]
	for _, step := range []struct {
		do   func() error
		want map[string]int
	}{
		{func() error { return nil }, map[string]int{"a": 2, "b": 2}},
		{func() error { return web.AddHost(txlb.Host{Name: "third", Addr: c}) }, map[string]int{"a": 2, "b": 2, "c": 2}},
		{func() error { return web.RemoveHost(a) }, map[string]int{"b": 2, "c": 2}}, // by its address
		{func() error { return web.RemoveHost(c) }, map[string]int{"b": 4}},         // whose name is another
		{func() error { return web.AddHost(txlb.Host{Addr: a}) }, map[string]int{"a": 2, "b": 2}},
		{func() error { return web.Drain(a) }, map[string]int{"b": 4}},
		{func() error { return web.Drain(a) }, map[string]int{"b": 4}}, // nothing to do
		{func() error { return web.Ready(a) }, map[string]int{"a": 2, "b": 2}},
		{func() error { return web.Maintain(b) }, map[string]int{"a": 4}},
		{func() error { return web.SetHost(txlb.Host{Addr: b}) }, map[string]int{"a": 2, "b": 2}},
		{func() error { return web.SetWeight(b, 0) }, map[string]int{"a": 4}},
		{func() error { return web.SetWeight(b, 3) }, map[string]int{"a": 2, "b": 2}}, // roundr obeys only 0
		{func() error { return web.SetScheduler(txlb.WeightedRoundRobin) }, map[string]int{"a": 1, "b": 3}},
		{func() error { return web.RemoveHost(a) }, map[string]int{"b": 4}},
		{func() error { return web.RemoveHost(b) }, map[string]int{"": 4}}, // the last one: a program means it
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		total := 0
		for _, n := range step.want {
			total += n
		}
		// A connection from elsewhere, such as a check of a host that once had this port, takes a turn.
		testkit.Eventually(t, fmt.Sprintf("the shares %v", step.want), func() bool {
			got := asks(t, addr, total)
			for name := range got {
				if step.want[name] == 0 {
					t.Fatalf("%v answered, want %v", got, step.want)
				}
			}
			return maps.Equal(got, step.want)
		})
	}
	if got := web.Addrs()[0]; got.String() != addr.String() {
		t.Errorf("it listens on %v, and before on %v", got, addr)
	}
}

// A group that a program enables for a while goes back by itself, unless that is confirmed.
func TestConfirmWithin(t *testing.T) {
	lb := start(t, txlb.Config{Services: []txlb.Service{web(server(t, "blue"))}})
	web := lb.Service("web")
	if err := errors.Join(web.AddGroup(txlb.Group{Name: "green"}), web.Group("green").AddHost(txlb.Host{Addr: server(t, "green")})); err != nil {
		t.Fatal(err)
	}
	if err := web.EnableGroup("green", txlb.ConfirmWithin(time.Millisecond)); err == nil || !strings.Contains(err.Error(), "is not between 1s and 24h") {
		t.Errorf("a millisecond: %v", err)
	}
	if err := web.EnableGroup("green", txlb.ConfirmWithin(time.Hour)); err != nil {
		t.Fatal(err)
	}
	list := lb.Pending()
	if len(list) != 1 || list[0].Change != "EnableGroup web green" || list[0].Until.Sub(list[0].Made) != time.Hour {
		t.Fatalf("pending: %+v", list)
	}
	if err := lb.Confirm(list[0].Generation + 1); err == nil {
		t.Error("another generation was confirmed")
	}
	if err := lb.Confirm(list[0].Generation); err != nil || len(lb.Pending()) != 0 {
		t.Errorf("%v, pending: %+v", err, lb.Pending())
	}
	if err := web.EnableGroup("main", txlb.ConfirmWithin(time.Second)); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the switch is undone", func() bool { return len(lb.Pending()) == 0 })
	if got := ask(t, web.Addrs()[0]); got != "green" {
		t.Errorf("%q answered", got)
	}
}

func TestGroupsSwitch(t *testing.T) {
	blue, green := server(t, "blue"), server(t, "green")
	lb := start(t, txlb.Config{Services: []txlb.Service{web(blue)}})
	web := lb.Service("web")
	addr := web.Addrs()[0]
	if err := web.AddGroup(txlb.Group{Name: "green"}); err != nil {
		t.Fatal(err)
	}
	if err := web.EnableGroup("green"); !errors.Is(err, txlb.ErrNotReady) || !strings.Contains(err.Error(), "txlb.Force") {
		t.Errorf("an empty group: %v", err)
	}
	if err := web.Group("green").AddHost(txlb.Host{Addr: green}); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, addr); got != "blue" {
		t.Errorf("%q answered before the switch", got)
	}
	if err := web.EnableGroup("green"); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, addr); got != "green" {
		t.Errorf("%q answered after the switch", got)
	}
	if err := web.RemoveGroup("green"); !errors.Is(err, txlb.ErrInUse) {
		t.Errorf("the enabled group: %v", err)
	}
	if err := web.Update(func(s *txlb.Service) error {
		s.Routes = []txlb.Route{{Nets: []string{"127.0.0.1"}, Group: "main"}}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, addr); got != "blue" {
		t.Errorf("%q answered by the route", got)
	}
	if err := web.RemoveGroup("main"); !errors.Is(err, txlb.ErrInUse) {
		t.Errorf("the group of a route: %v", err)
	}
	if err := web.Update(func(s *txlb.Service) error { s.Routes = nil; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := web.RemoveGroup("main"); err != nil {
		t.Fatal(err)
	}
	if err := web.AddGroup(txlb.Group{Name: "empty"}); err != nil {
		t.Fatal(err)
	}
	if err := web.EnableGroup("empty", txlb.Force); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, addr); got != "" {
		t.Errorf("%q answered for an empty group", got)
	}
}

func TestListenersComeAndGo(t *testing.T) {
	a := server(t, "a")
	path := filepath.Join(t.TempDir(), "s")
	lb := start(t, txlb.Config{Services: []txlb.Service{{Name: "web", Hosts: []txlb.Host{{Addr: a}}}}})
	web := lb.Service("web")
	if got := web.Addrs(); len(got) != 0 {
		t.Errorf("without listeners it listens on %v", got)
	}
	if err := web.AddListener(txlb.Listener{Addr: "127.0.0.1:0"}); err != nil {
		t.Fatal(err)
	}
	first := web.Addrs()[0]
	if _, tcp := first.(*net.TCPAddr); !tcp || ask(t, first) != "a" {
		t.Errorf("nobody answers on %v", first)
	}
	if runtime.GOOS != "windows" {
		if err := web.AddListener(txlb.Listener{Addr: "unix:" + path}); err != nil {
			t.Fatal(err)
		}
		unix := slices.IndexFunc(web.Addrs(), func(a net.Addr) bool { return a.Network() == "unix" })
		if unix < 0 || ask(t, web.Addrs()[unix]) != "a" {
			t.Errorf("nobody answers on the UNIX socket of %v", web.Addrs())
		}
		if err := web.RemoveListener("unix:" + path); err != nil {
			t.Fatal(err)
		}
	}
	if err := web.SwitchPort("127.0.0.2:0", ""); runtime.GOOS == "linux" && err != nil {
		t.Fatal(err)
	}
	if got := web.Addrs(); len(got) != 1 || runtime.GOOS == "linux" && (!strings.HasPrefix(got[0].String(), "127.0.0.2:") || ask(t, got[0]) != "a") {
		t.Errorf("after the switch it listens on %v", got)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if err := web.AddListener(txlb.Listener{Addr: taken.Addr().String()}); err == nil || !strings.Contains(err.Error(), "web") || !strings.Contains(err.Error(), taken.Addr().String()) {
		t.Errorf("a port that is taken: %v", err)
	}
	if err := web.RemoveListener(":1"); err == nil {
		t.Error("a listener that is not there was removed")
	}
}

// Addrs has the addresses as the configuration has them, equal ones too.
func TestAddrsAreInOrder(t *testing.T) {
	where := func(all []net.Addr) (hosts []string) {
		for _, a := range all {
			hosts = append(hosts, a.(*net.TCPAddr).IP.String())
		}
		return hosts
	}
	lb := start(t, txlb.Config{Services: []txlb.Service{{
		Name: "web", Listen: []string{"127.0.0.3:0", "127.0.0.1:0", "127.0.0.1:0"}, Listeners: []txlb.Listener{{Addr: "127.0.0.2:0"}},
	}}})
	s := lb.Service("web")
	want := []string{"127.0.0.3", "127.0.0.1", "127.0.0.1", "127.0.0.2"}
	first := s.Addrs()
	for range 20 {
		if got := s.Addrs(); !slices.Equal(where(got), want) || got[1].String() != first[1].String() {
			t.Fatalf("%v, then %v", first, got)
		}
	}
	if err := s.AddListener(txlb.Listener{Addr: "127.0.0.1:0"}); err != nil {
		t.Fatal(err)
	}
	if got := s.Addrs(); len(got) != 5 || got[1].String() != first[1].String() || got[2].String() != first[2].String() {
		t.Errorf("%v, then %v", first, got)
	}
}

// Errors say each thing once, and nothing of what is inside.
func TestErrorsAreInTheWordsOfThePackage(t *testing.T) {
	ctx := context.Background()
	lb := start(t, txlb.Config{Services: []txlb.Service{{Name: "web"}}})
	web, other := lb.Service("web"), lb.Service("other")
	dial := func(s *txlb.LiveService) error { _, err := s.DialContext(ctx, "", ""); return err }
	bad := txlb.Config{Services: []txlb.Service{{Name: "web", Scheduler: "nix"}}}
	expect := func(err error, want string) {
		t.Helper()
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Count(err.Error(), "txlb: ") != 1 {
			t.Errorf("%v; want %s", err, want)
		}
	}
	expect(dial(web), `txlb: dial service "web": no host for the connection: `)
	expect(dial(other), `txlb: dial service "other": unknown service`)
	expect(lb.Apply(bad), `txlb: Apply: service "web": Scheduler: unknown scheduler "nix"`)
	expect(web.Update(func(s *txlb.Service) error { s.Hosts = []txlb.Host{{Addr: "127.0.0.1:1"}}; return nil }), `txlb: Update: service "web": it has Groups`)
	if err := lb.Close(); err != nil {
		t.Fatal(err)
	}
	expect(dial(web), `txlb: dial service "web": the balancer is closed`)
	expect(web.AddHost(txlb.Host{Addr: "127.0.0.1:1"}), "txlb: AddHost: the balancer is closed")
}

func TestServicesComeAndGo(t *testing.T) {
	lb := start(t, txlb.Config{}) // there may be none
	if err := lb.AddService(web(server(t, "a"))); err != nil {
		t.Fatal(err)
	}
	s := lb.Service("web")
	if got := ask(t, s.Addrs()[0]); got != "a" {
		t.Errorf("%q answered", got)
	}
	if err := lb.AddService(web()); !errors.Is(err, txlb.ErrExists) {
		t.Errorf("a second one of the name: %v", err)
	}
	if err := lb.AddService(txlb.Service{Name: "x", Hosts: []txlb.Host{{Addr: "nowhere"}}}); err == nil || !strings.Contains(err.Error(), `service "x", host "nowhere"`) {
		t.Errorf("a mistake: %v", err)
	}
	conn, err := net.Dial("tcp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := hears(t, conn); got != "a" {
		t.Errorf("%q answered", got)
	}
	if err := lb.RemoveService("web", txlb.EndAfter(0)); err != nil {
		t.Fatal(err)
	}
	ends(t, conn)
	if got := lb.Services(); len(got) != 0 {
		t.Errorf("there are %v", got)
	}
	if err := lb.RemoveService("web"); !errors.Is(err, txlb.ErrUnknownService) {
		t.Errorf("removed twice: %v", err)
	}
}

// Every method of a service that is not there says so.
func TestUnknownService(t *testing.T) {
	lb := start(t, txlb.Config{Services: []txlb.Service{web()}})
	for name, err := range calls(t, lb.Service("wep")) {
		if !errors.Is(err, txlb.ErrUnknownService) || !strings.Contains(err.Error(), "wep") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := lb.Service("wep").Addrs(); len(got) != 0 {
		t.Errorf("it listens on %v", got)
	}
	s := lb.Service("web")
	for name, err := range map[string]error{
		"AddHost": s.Group("x").AddHost(txlb.Host{Addr: ":1"}), "RemoveGroup": s.RemoveGroup("x"), "EnableGroup": s.EnableGroup("x"), "Retry": s.Group("x").Retry("h"),
	} {
		if name == "AddHost" {
			err = s.Group("x").AddHost(txlb.Host{Addr: "10.0.0.1:1"})
		}
		if !errors.Is(err, txlb.ErrUnknownGroup) {
			t.Errorf("%s of an unknown group: %v", name, err)
		}
	}
	for name, err := range map[string]error{
		"RemoveHost": s.RemoveHost("h"), "Drain": s.Drain("h"), "SetWeight": s.SetWeight("h", 1), "SetHost": s.SetHost(txlb.Host{Addr: "10.0.0.1:1"}), "Retry": s.Retry("h"),
	} {
		if !errors.Is(err, txlb.ErrUnknownHost) {
			t.Errorf("%s of an unknown host: %v", name, err)
		}
	}
}

// calls makes every call of a service that returns an error.
func calls(t *testing.T, s *txlb.LiveService) map[string]error {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conn, other := net.Pipe()
	defer other.Close()
	host := txlb.Host{Addr: "10.0.0.1:1"}
	all := map[string]error{
		"AddHost": s.AddHost(host), "SetHost": s.SetHost(host), "RemoveHost": s.RemoveHost("h"), "SetWeight": s.SetWeight("h", 1), "Drain": s.Drain("h"),
		"Maintain": s.Maintain("h"), "Ready": s.Ready("h"), "SetScheduler": s.SetScheduler(txlb.Random), "Retry": s.Retry("h"),
		"AddGroup": s.AddGroup(txlb.Group{Name: "g"}), "EnableGroup": s.EnableGroup("g"), "RemoveGroup": s.RemoveGroup("g"),
		"AddListener": s.AddListener(txlb.Listener{Addr: "127.0.0.1:0"}), "RemoveListener": s.RemoveListener(":1"), "SwitchPort": s.SwitchPort("127.0.0.1:1", ""),
		"Update": s.Update(func(*txlb.Service) error { return nil }), "Serve": s.Serve(ln), "ServeConn": s.ServeConn(t.Context(), conn),
	}
	_, all["Config"] = s.Config()
	_, all["Stats"] = s.Stats()
	_, all["Hosts"] = s.Hosts()
	_, all["Mirrors"] = s.Mirrors()
	_, all["EndSessions"] = s.EndSessions()
	_, all["DialContext"] = s.DialContext(t.Context(), "tcp", "x")
	_, all["ContextDialer"] = s.ContextDialer(t.Context(), "x")
	if _, err := ln.Accept(); err == nil {
		t.Error("the listener is open")
	}
	if _, err := conn.Read(nil); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the connection is open: %v", err)
	}
	return all
}

func TestAfterTheEnd(t *testing.T) {
	for name, end := range map[string]func(*txlb.Balancer) error{
		"Close":    (*txlb.Balancer).Close,
		"Shutdown": func(lb *txlb.Balancer) error { return lb.Shutdown(context.Background()) },
	} {
		lb := start(t, txlb.Config{Services: []txlb.Service{web(server(t, "a"))}})
		for range 3 { // more than one does nothing
			if err := end(lb); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for call, err := range calls(t, lb.Service("web")) {
			switch call {
			case "Config", "Stats", "Hosts", "Mirrors", "EndSessions": // which only read, or have nothing to do
				if err != nil {
					t.Errorf("%s after %s: %v", call, name, err)
				}
				continue
			}
			if !errors.Is(err, txlb.ErrClosed) {
				t.Errorf("%s after %s: %v", call, name, err)
			}
		}
		for call, err := range map[string]error{
			"AddService": lb.AddService(web()), "RemoveService": lb.RemoveService("web"), "Apply": lb.Apply(lb.Config()), "Close": lb.Close(), "Shutdown": lb.Shutdown(context.Background()),
		} {
			if want := !strings.HasPrefix(call, "Close") && !strings.HasPrefix(call, "Shutdown"); want != errors.Is(err, txlb.ErrClosed) {
				t.Errorf("%s after %s: %v", call, name, err)
			}
		}
		if got := lb.Service("web").Addrs(); len(got) != 0 {
			t.Errorf("after %s it listens on %v", name, got)
		}
		if err := lb.WriteMetrics(io.Discard); err != nil {
			t.Errorf("metrics after %s: %v", name, err)
		}
	}
}

func TestShutdown(t *testing.T) {
	lb := start(t, txlb.Config{Services: []txlb.Service{web(server(t, "a"))}})
	conn, err := net.Dial("tcp", lb.Service("web").Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if hears(t, conn) != "a" {
		t.Fatal("nobody answers")
	}
	expired, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- lb.Shutdown(expired) }()
	testkit.Eventually(t, "the listener closes", func() bool { return len(lb.Service("web").Addrs()) == 0 })
	select {
	case err := <-ended:
		t.Errorf("it did not wait for the session: %v", err)
	default:
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ctx has ended: %v", err)
	}
	ends(t, conn)
}

// A Shutdown whose context has ended before ends everything too, each time.
func TestShutdownWithAnExpiredContext(t *testing.T) {
	expired, cancel := context.WithCancel(context.Background())
	cancel()
	for range 20 {
		lb := start(t, txlb.Config{Services: []txlb.Service{web(server(t, "a"))}})
		conn, err := net.Dial("tcp", lb.Service("web").Addrs()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		if hears(t, conn) != "a" {
			t.Fatal("nobody answers")
		}
		if err := lb.Shutdown(expired); !errors.Is(err, context.Canceled) {
			t.Errorf("ctx has ended: %v", err)
		}
		if left := lb.Service("web").Addrs(); len(left) > 0 {
			t.Errorf("it still listens on %v", left)
		}
		ends(t, conn)
		_ = conn.Close()
	}
}

// Close ends a Shutdown that waits.
func TestCloseDuringShutdown(t *testing.T) {
	lb := start(t, txlb.Config{Services: []txlb.Service{web(server(t, "a"))}})
	conn, err := net.Dial("tcp", lb.Service("web").Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if hears(t, conn) != "a" {
		t.Fatal("nobody answers")
	}
	ended := make(chan error, 1)
	go func() { ended <- lb.Shutdown(context.Background()) }()
	testkit.Eventually(t, "the listener closes", func() bool { return len(lb.Service("web").Addrs()) == 0 })
	if err := lb.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, txlb.ErrClosed) {
		t.Errorf("Shutdown returned %v", err)
	}
}

func TestBadInput(t *testing.T) {
	lb := start(t, txlb.Config{Services: []txlb.Service{web()}})
	s := lb.Service("web")
	for name, err := range map[string]error{
		"Serve":       s.Serve(nil),
		"ServeConn":   s.ServeConn(t.Context(), nil),
		"Update":      s.Update(nil),
		"AddHost":     s.AddHost(txlb.Host{}),
		"AddListener": s.AddListener(txlb.Listener{}),
		"AddGroup":    s.AddGroup(txlb.Group{}),
		"AddService":  lb.AddService(txlb.Service{}),
		"weight":      s.SetWeight("x", 70000),
		"scheduler":   s.SetScheduler("x"),
	} {
		if err == nil || !strings.HasPrefix(err.Error(), "txlb: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	//lint:ignore SA1012 that is what is tested
	if _, err := txlb.Start(nil, txlb.Config{}); err == nil { //nolint:staticcheck
		t.Error("Start without a context")
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	if err := s.Serve(closed); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed listener: %v", err)
	}
	expired, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.DialContext(expired, "tcp", "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("an expired context: %v", err)
	}
	if err := s.AddHost(txlb.Host{Addr: "10.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveHost("10.0.0.1:1", nil); err != nil { // an option that is nil
		t.Error(err)
	}
}

// silent is a DNS server that never answers.
func silent(t *testing.T) (addr string, asked <-chan struct{}) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan struct{}, 100)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for b := make([]byte, 512); ; {
			if _, _, err := conn.ReadFrom(b); err != nil {
				return
			}
			select {
			case got <- struct{}{}:
			default:
			}
		}
	}()
	t.Cleanup(func() { _ = conn.Close(); <-ended })
	return conn.LocalAddr().String(), got
}

// A context that ends during Start leaves nothing behind: TestMain looks for goroutines and
// descriptors, and the port is free again.
func TestContextEndsDuringStart(t *testing.T) {
	dns, asked := silent(t)
	s := web("db.example:5432")
	s.Listen = []string{unused(t)}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-asked
		cancel()
	}()
	lb, err := txlb.Start(ctx, txlb.Config{Services: []txlb.Service{s}, DNSServers: []string{dns}, Logger: slog.New(slog.DiscardHandler)})
	if lb != nil || !errors.Is(err, context.Canceled) {
		t.Fatalf("Start returned %v, %v", lb, err)
	}
	if lb, err := txlb.Start(ctx, txlb.Config{}); lb != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("Start with a context that has ended returned %v, %v", lb, err)
	}
	s.Hosts = nil
	start(t, txlb.Config{Services: []txlb.Service{s}})
}

// ctx means nothing after Start.
func TestContextEndsAfterStart(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	lb, err := txlb.Start(ctx, txlb.Config{Services: []txlb.Service{web(server(t, "a"))}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer lb.Close()
	cancel()
	if err := lb.Service("web").AddHost(txlb.Host{Name: "b", Addr: server(t, "b")}); err != nil {
		t.Fatal(err)
	}
	if got := asks(t, lb.Service("web").Addrs()[0], 4); got["a"] != 2 || got["b"] != 2 {
		t.Errorf("hosts answered %v", got)
	}
}

func TestApply(t *testing.T) {
	a, b := server(t, "a"), server(t, "b")
	c := txlb.Config{Services: []txlb.Service{web(a)}, Engine: txlb.Engine{Loops: 2}}
	lb := start(t, c)
	s := lb.Service("web")
	addr := s.Addrs()[0]
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if hears(t, conn) != "a" {
		t.Fatal("nobody answers")
	}
	c.Services[0].Hosts = []txlb.Host{{Addr: b}}
	second := web(a)
	second.Name = "second"
	c.Services = append(c.Services, second)
	if err := lb.Apply(c); err != nil {
		t.Fatal(err)
	}
	if got := asks(t, addr, 2); got["b"] != 2 {
		t.Errorf("hosts answered %v", got)
	}
	if got := ask(t, lb.Service("second").Addrs()[0]); got != "a" {
		t.Errorf("the second service: %q answered", got)
	}
	if _, err := fmt.Fprintln(conn, "still there"); err != nil || hears(t, conn) != "still there" {
		t.Errorf("the session was touched: %v", err)
	}
	wrong := c
	wrong.Services = append(slices.Clone(c.Services), txlb.Service{})
	if err := lb.Apply(wrong); err == nil {
		t.Error("a mistake was applied")
	}
	wrong = c
	wrong.Engine.Loops = 3
	if err := lb.Apply(wrong); err == nil || !strings.Contains(err.Error(), "Engine.Loops is fixed") {
		t.Errorf("another engine: %v", err)
	}
	if got := lb.Services(); !slices.Equal(got, []string{"web", "second"}) {
		t.Errorf("services are %v", got)
	}
	if err := lb.Apply(lb.Config()); err != nil { // what runs
		t.Error(err)
	}
}

// Two programs' worth of balancers share nothing.
func TestSeveralBalancers(t *testing.T) {
	one := start(t, txlb.Config{Services: []txlb.Service{web(server(t, "a"))}})
	two := start(t, txlb.Config{Services: []txlb.Service{web(server(t, "b"))}})
	for range 3 {
		ask(t, one.Service("web").Addrs()[0])
	}
	if got := ask(t, two.Service("web").Addrs()[0]); got != "b" {
		t.Errorf("%q answered", got)
	}
	testkit.Eventually(t, "the sessions are counted", func() bool {
		a, err := one.Service("web").Stats()
		b, err2 := two.Service("web").Stats()
		return err == nil && err2 == nil && a.Total == 3 && b.Total == 1
	})
	if err := one.Close(); err != nil {
		t.Error(err)
	}
	if got := ask(t, two.Service("web").Addrs()[0]); got != "b" {
		t.Errorf("%q answered after the other one has ended", got)
	}
}

// events keeps what OnEvent gets.
type events struct {
	mu   sync.Mutex
	list []txlb.Event
}

func (e *events) add(one txlb.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, one)
}

func (e *events) kinds() (list []txlb.EventKind) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, one := range e.list {
		list = append(list, one.Kind)
	}
	return list
}

func TestEventsComeInOrder(t *testing.T) {
	var got events
	gone := unused(t)
	s := web(gone)
	s.Check = &txlb.Check{Interval: 10 * time.Millisecond, Fall: 1, Rise: 1, Timeout: 10 * time.Second}
	lb := start(t, txlb.Config{Services: []txlb.Service{s}, OnEvent: got.add})
	testkit.Eventually(t, "the host is down", func() bool { return slices.Contains(got.kinds(), txlb.ServiceDown) })
	var ln net.Listener
	testkit.Eventually(t, "the port is free", func() (ok bool) {
		var err error
		ln, err = net.Listen("tcp", gone)
		return err == nil
	})
	serve(t, ln, "a")
	testkit.Eventually(t, "the host is up", func() bool { return slices.Contains(got.kinds(), txlb.ServiceUp) })
	if err := lb.Service("web").Drain(gone); err != nil {
		t.Fatal(err)
	}
	want := []txlb.EventKind{txlb.HostDown, txlb.ServiceDown, txlb.HostUp, txlb.ServiceUp, txlb.ConfigChanged, txlb.ServiceDown}
	testkit.Eventually(t, "all events are there", func() bool { return len(got.kinds()) >= len(want) })
	if !slices.Equal(got.kinds()[:len(want)], want) {
		t.Errorf("events are %v", got.list)
	}
	got.mu.Lock()
	defer got.mu.Unlock()
	down, changed := got.list[0], got.list[4]
	if down.Service != "web" || down.Group != "main" || down.Host != gone || down.Addr != gone || down.Reason == "" || down.Generation != 1 {
		t.Errorf("the host went down as %+v", down)
	}
	if changed.Generation != 2 || !strings.Contains(changed.Change, "Drain web "+gone) {
		t.Errorf("the change was told as %+v", changed)
	}
}

// A callback that waits, panics or calls the balancer holds up nothing.
func TestCallbacksHoldUpNothing(t *testing.T) {
	var log testkit.Log
	release := make(chan struct{})
	var got events
	var lb *txlb.Balancer
	ready := make(chan struct{})
	c := quiet(&log, web(server(t, "a")))
	first := true
	c.OnEvent = func(e txlb.Event) {
		<-ready
		if first {
			first = false
			<-release
			_ = lb.Service("web").SetWeight("b", 7) // may be called
			panic("on purpose")
		}
		got.add(e)
	}
	lb = start(t, c)
	close(ready)
	s := lb.Service("web")
	if err := s.AddHost(txlb.Host{Name: "b", Addr: server(t, "b")}); err != nil { // the event that is stuck
		t.Fatal(err)
	}
	for i := range 1100 { // more than wait
		if err := s.SetWeight("b", 10+i%2); err != nil {
			t.Fatal(err)
		}
	}
	if got := asks(t, s.Addrs()[0], 2); got["a"] != 1 || got["b"] != 1 {
		t.Errorf("hosts answered %v", got)
	}
	close(release)
	testkit.Eventually(t, "the rest of the events is there", func() bool {
		got.mu.Lock()
		defer got.mu.Unlock()
		return len(got.list) > 0 && got.list[len(got.list)-1].Generation == 1103
	})
	got.mu.Lock()
	missed, last := 0, uint64(0)
	for _, e := range got.list {
		missed += e.Missed
		if e.Generation <= last {
			t.Errorf("generation %d comes after %d", e.Generation, last)
		}
		last = e.Generation
	}
	if missed == 0 || missed+len(got.list) != 1101 {
		t.Errorf("%d events are there and %d were missed, of 1101", len(got.list), missed)
	}
	got.mu.Unlock()
	testkit.Eventually(t, "the panic is logged", func() bool {
		lines := log.Lines("panic in a callback")
		return len(lines) == 1 && strings.Contains(lines[0], "on purpose") && strings.Contains(lines[0], "OnEvent")
	})
	var text bytes.Buffer
	if err := lb.WriteMetrics(&text); err != nil || !strings.Contains(text.String(), `txlb_callback_panics_total{callback="OnEvent"} 1`) {
		t.Errorf("the panic is not counted: %v", err)
	}
}

// A callback may end the balancer, and its own goroutine.
func TestCallbackEndsTheBalancer(t *testing.T) {
	ended := make(chan error, 1)
	given := make(chan *txlb.Balancer, 1)
	calls := atomic.Int32{}
	lb := start(t, txlb.Config{Services: []txlb.Service{web()}, OnEvent: func(txlb.Event) {
		if calls.Add(1) == 1 {
			runtime.Goexit()
		}
		ended <- (<-given).Close()
	}})
	given <- lb
	for i := range 2 {
		if err := lb.AddService(txlb.Service{Name: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// stuck is a handler that takes nothing until it is told to.
type stuck struct {
	slog.Handler
	release chan struct{}
}

func (h stuck) Handle(ctx context.Context, r slog.Record) error {
	<-h.release
	return h.Handler.Handle(ctx, r)
}

func (h stuck) WithAttrs(a []slog.Attr) slog.Handler { return stuck{h.Handler.WithAttrs(a), h.release} }

// A handler of the log that waits holds up nothing, and one that panics neither.
func TestLoggerHoldsUpNothing(t *testing.T) {
	var log testkit.Log
	h := stuck{log.Logger().Handler(), make(chan struct{})}
	lb := start(t, txlb.Config{Services: []txlb.Service{web(server(t, "a"))}, Logger: slog.New(h).With("part", "lb")})
	s := lb.Service("web")
	for i := range 1100 {
		if err := s.SetWeight(firstHost(t, s), 1+i%2); err != nil && i > 0 {
			t.Fatal(err)
		}
	}
	if got := ask(t, s.Addrs()[0]); got != "a" {
		t.Errorf("%q answered", got)
	}
	close(h.release)
	testkit.Eventually(t, "the log has caught up", func() bool {
		return len(log.Lines("log lines dropped")) > 0 && len(log.Lines("generation=1100")) > 0
	})
	for _, line := range log.Lines("configuration changed") {
		if !strings.Contains(line, "part=lb") {
			t.Fatalf("%q lacks the attribute of the logger", line)
		}
	}
}

func firstHost(t *testing.T, s *txlb.LiveService) string {
	t.Helper()
	c, err := s.Config()
	if err != nil {
		t.Fatal(err)
	}
	return c.Groups[0].Hosts[0].Name
}

type panicking struct{ slog.Handler }

func (panicking) Handle(context.Context, slog.Record) error { panic("the log is broken") }

func TestLoggerPanics(t *testing.T) {
	lb := start(t, txlb.Config{Services: []txlb.Service{web(server(t, "a"))}, Logger: slog.New(panicking{slog.NewTextHandler(io.Discard, nil)})})
	if err := lb.Service("web").AddHost(txlb.Host{Addr: "10.0.0.1:1", Weight: txlb.None}); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the panic is counted", func() bool {
		var text bytes.Buffer
		return lb.WriteMetrics(&text) == nil && !strings.Contains(text.String(), `callback="Logger"} 0`)
	})
	if got := ask(t, lb.Service("web").Addrs()[0]); got != "a" {
		t.Errorf("%q answered", got)
	}
}

// The metrics are those of the balancer, and none of the process.
func TestMetrics(t *testing.T) {
	lb := start(t, txlb.Config{Services: []txlb.Service{web(server(t, "a"))}})
	ask(t, lb.Service("web").Addrs()[0])
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := http.Server{Handler: lb.MetricsHandler()}
	served := make(chan struct{})
	go func() { defer close(served); _ = srv.Serve(ln) }()
	defer func() { _ = srv.Close(); <-served }()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	url := "http://" + ln.Addr().String() + "/"
	testkit.Eventually(t, "the session is counted", func() bool {
		r, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		text, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if name := strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE "); !strings.HasPrefix(name, "txlb_") {
				t.Fatalf("a line that is not of the balancer: %q", line)
			}
		}
		return r.StatusCode == 200 && strings.HasPrefix(r.Header.Get("Content-Type"), "text/plain; version=0.0.4") &&
			strings.Contains(string(text), `txlb_service_sessions_total{service="web"} 1`+"\n")
	})
	r, err := client.Post(url, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Body.Close()
	if r.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST is answered with %v", r.Status)
	}
	if err := lb.WriteMetrics(broken{}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a writer that fails: %v", err)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, os.ErrClosed }

func TestStats(t *testing.T) {
	a := server(t, "a")
	lb := start(t, txlb.Config{Services: []txlb.Service{web(a, unused(t))}, HostCheck: txlb.HostCheck{Off: true}})
	s := lb.Service("web")
	conn, err := net.Dial("tcp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprint(conn, "12345"); err != nil || hears(t, conn) != "a" {
		t.Fatalf("nobody answers: %v", err)
	}
	if got := asks(t, s.Addrs()[0], 3); got["a"] != 3 {
		t.Errorf("hosts answered %v", got)
	}
	testkit.Eventually(t, "all is counted", func() bool {
		stats, err := s.Stats()
		hosts, err2 := s.Hosts()
		return err == nil && err2 == nil && stats.Sessions == 1 && stats.Total == 4 && stats.Usable && len(hosts) == 2 &&
			hosts[0].Addr == a && hosts[0].Group == "main" && hosts[0].Up && hosts[0].Sessions == 1 && hosts[0].Total == 4 &&
			!hosts[1].Up && hosts[1].Reason != "" && hosts[1].ConnectFailures == 1
	})
	if err := s.Retry(firstHost(t, s)); err != nil {
		t.Error(err)
	}
	if n, err := s.EndSessions(); n != 1 || err != nil {
		t.Errorf("%d sessions were ended, %v", n, err)
	}
	ends(t, conn)
}

// Many starts and ends leave nothing behind.
func TestManyCycles(t *testing.T) {
	testkit.Long(t)
	a := server(t, "a")
	log := slog.New(slog.DiscardHandler)
	cycle := func(talk bool) {
		s := web(a)
		s.Check = txlb.TCPCheck()
		lb, err := txlb.Start(context.Background(), txlb.Config{Services: []txlb.Service{s}, Engine: txlb.Engine{Loops: 2}, Logger: log, OnEvent: func(txlb.Event) {}})
		if err != nil {
			t.Fatal(err)
		}
		if talk {
			if got := ask(t, lb.Service("web").Addrs()[0]); got != "a" {
				t.Errorf("%q answered", got)
			}
		}
		if err := lb.Close(); err != nil {
			t.Fatal(err)
		}
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for range 20 {
		cycle(true)
	}
	files, goroutines, before := testkit.OpenFDs(), runtime.NumGoroutine(), heap()
	for i := range 1000 {
		cycle(i%10 == 0)
	}
	testkit.Eventually(t, "descriptors and goroutines are back", func() bool {
		return testkit.OpenFDs() <= files+2 && runtime.NumGoroutine() <= goroutines+2
	})
	if after := heap(); after > before+4<<20 {
		t.Errorf("the heap grew from %d KiB to %d KiB", before>>10, after>>10)
	}
}
