package txlb_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb"
	"github.com/txlb/txlb/internal/testkit"
)

func TestFallback(t *testing.T) {
	ln := txlb.NewFallbackListener()
	srv := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/panic" {
			panic(http.ErrAbortHandler)
		}
		_, _ = fmt.Fprint(w, "the program, for "+r.RemoteAddr)
	})}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	s := web()
	s.Fallback = ln.Handle
	lb := start(t, txlb.Config{Services: []txlb.Service{s}})
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	url := "http://" + lb.Service("web").Addrs()[0].String()
	get := func() string {
		r, err := client.Get(url)
		if err != nil {
			return err.Error()
		}
		defer r.Body.Close()
		text, _ := io.ReadAll(r.Body)
		return string(text)
	}
	if got := get(); !strings.HasPrefix(got, "the program, for 127.0.0.1:") {
		t.Errorf("%q answered without hosts", got)
	}
	host := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "the host") })}
	hostLn, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	hosted := make(chan error, 1)
	go func() { hosted <- host.Serve(hostLn) }()
	defer func() { _ = host.Close(); <-hosted }()
	addr := hostLn.Addr().String()
	if err := lb.Service("web").AddHost(txlb.Host{Addr: addr}); err != nil {
		t.Fatal(err)
	}
	if got := get(); got != "the host" {
		t.Errorf("%q answered with a host", got)
	}
	if err := lb.Service("web").RemoveHost(addr); err != nil {
		t.Fatal(err)
	}
	if got := get(); !strings.HasPrefix(got, "the program") {
		t.Errorf("%q answered after the last host has gone", got)
	}
	_ = srv.Close()
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
	_ = ln.Close()
	if got := get(); strings.HasPrefix(got, "the") {
		t.Errorf("%q answered after the server has ended", got)
	}
}

// A panic in a Fallback closes the connection, and is logged and counted.
func TestFallbackPanics(t *testing.T) {
	var log testkit.Log
	s := web()
	s.Fallback = func(net.Conn) { panic("on purpose") }
	lb := start(t, quiet(&log, s))
	if got := ask(t, lb.Service("web").Addrs()[0]); got != "" {
		t.Errorf("%q answered", got)
	}
	testkit.Eventually(t, "the panic is logged and counted", func() bool {
		var text bytes.Buffer
		_ = lb.WriteMetrics(&text)
		return len(log.Lines("panic in a callback")) == 1 && strings.Contains(text.String(), `callback="Fallback"} 1`)
	})
	if err := lb.Service("web").Update(func(s *txlb.Service) error { // another one takes its place
		s.Fallback = func(c net.Conn) { _, _ = fmt.Fprintln(c, "f"); _ = c.Close() }
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, lb.Service("web").Addrs()[0]); got != "f" {
		t.Errorf("%q answered", got)
	}
	if err := lb.Apply(txlb.Config{Services: []txlb.Service{web()}, Engine: txlb.Engine{Loops: 2}, HostCheck: txlb.HostCheck{Interval: 50 * time.Millisecond}}); err != nil { // and none
		t.Fatal(err)
	}
	if got := ask(t, lb.Service("web").Addrs()[0]); got != "" {
		t.Errorf("%q answered without a fallback", got)
	}
}

func TestDialContext(t *testing.T) {
	a, b := server(t, "a"), server(t, "b")
	lb := start(t, txlb.Config{Services: []txlb.Service{{Name: "db", Scheduler: txlb.Sticky(txlb.RoundRobin), Hosts: []txlb.Host{{Addr: a}, {Addr: b}}}}})
	db := lb.Service("db")
	dial := func(ctx context.Context) string {
		conn, err := db.DialContext(ctx, "tcp", "ignored:1")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return hears(t, conn)
	}
	got := map[string]int{}
	for range 4 {
		got[dial(t.Context())]++
	}
	if got["a"] != 2 || got["b"] != 2 {
		t.Errorf("hosts answered %v", got)
	}
	client := txlb.WithClient(t.Context(), netip.MustParseAddr("192.0.2.7"))
	first := dial(client)
	for range 4 {
		if again := dial(client); again != first {
			t.Errorf("the client had %q and then %q", first, again)
		}
	}
	for _, addr := range []string{a, b} {
		if err := db.RemoveHost(addr); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.DialContext(t.Context(), "tcp", ""); !errors.Is(err, txlb.ErrNoHost) {
		t.Errorf("without hosts: %v", err)
	}
}

// Connections of the program are balanced, and end with the balancer.
func TestServe(t *testing.T) {
	lb := start(t, txlb.Config{Services: []txlb.Service{{Name: "web", Hosts: []txlb.Host{{Addr: server(t, "a")}}}}})
	s := lb.Service("web")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ln) }()
	if got := ask(t, ln.Addr()); got != "a" {
		t.Errorf("%q answered on TCP", got)
	}
	ours, theirs := net.Pipe()
	if err := s.ServeConn(t.Context(), theirs); err != nil {
		t.Fatal(err)
	}
	if got := hears(t, ours); got != "a" {
		t.Errorf("%q answered in the pipe", got)
	}
	if err := lb.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, txlb.ErrClosed) {
		t.Errorf("Serve returned %v", err)
	}
	ends(t, ours)
	_ = ours.Close()
}
