package txlb_test

import (
	"io"
	"net"
	"testing"

	"github.com/txlb/txlb"
	"github.com/txlb/txlb/internal/testkit"
)

// A program's group can have mirrors: they get what clients send, and their stats say so.
func TestMirrors(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan string, 1)
	go func() {
		defer close(heard)
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		all, _ := io.ReadAll(c)
		heard <- string(all)
	}()
	t.Cleanup(func() { _ = ln.Close() })
	service := txlb.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Groups: []txlb.Group{{
		Name: "main", Hosts: []txlb.Host{{Name: "a", Addr: server(t, "a")}}, Mirrors: []txlb.Mirror{{Addr: ln.Addr().String()}},
	}}}
	web := start(t, txlb.Config{Services: []txlb.Service{service}}).Service("web")
	c, err := net.Dial("tcp4", web.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("?")); err != nil {
		t.Error(err)
	}
	if got := hears(t, c); got != "a" {
		t.Errorf("the host says %q", got)
	}
	_ = c.Close()
	if got := <-heard; got != "?" {
		t.Errorf("the mirror has heard %q", got)
	}
	testkit.Eventually(t, "the copy is counted", func() bool {
		list, err := web.Mirrors()
		return err == nil && len(list) == 1 && list[0].Copies == 0 && list[0].Sessions == 1 && list[0].Bytes == 1 && list[0].Up &&
			list[0].Percent == 0 && list[0].Addr == ln.Addr().String() && list[0].Group == "main"
	})
	if err := web.Update(func(s *txlb.Service) error { s.Groups[0].Mirrors[0].Percent = txlb.None; return nil }); err != nil {
		t.Error(err)
	}
	if s, err := web.Config(); err != nil || s.Groups[0].Mirrors[0].Percent != txlb.None {
		t.Errorf("after a change: %+v, %v", s, err)
	}
	err = web.Update(func(s *txlb.Service) error { s.Groups[0].Mirrors = []txlb.Mirror{{}}; return nil })
	if err == nil {
		t.Error("a mirror without an address is taken")
	}
}
