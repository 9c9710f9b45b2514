//go:build unix

package socket

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/testkit"
)

func TestClient(t *testing.T) {
	r := newRig(t, doc(backendServer(t), backendServer(t), nobody(t)))
	c := r.client()
	if c.Version != "txlb 9.9" {
		t.Errorf("it is %q", c.Version)
	}
	hosts := into[[]admin.HostInfo](t, r.do(c, "show hosts web"))
	if len(hosts) != 4 || hosts[1].Name != "b" || hosts[1].Weight != 4 || hosts[3].Group != "spare.one" || !hosts[3].Backup {
		t.Errorf("hosts: %+v", hosts)
	}
	services := into[[]admin.ServiceInfo](t, r.do(c, "show services"))
	if len(services) != 2 || services[0].Listen[0] != r.web {
		t.Errorf("services: %+v", services)
	}
	a := r.do(c, "setHost web main a weight=3")
	if a.Generation != 2 || !strings.Contains(a.Text, "weight 1 -> 3") || a.Error != "" || a.Kind != "" {
		t.Errorf("answer: %+v", a)
	}
	if a := r.do(c, "get weight web.main/a"); a.Text != "3 (initial 1)" || a.Generation != 2 {
		t.Errorf("answer: %+v", a)
	}
	// Several commands have one answer.
	a = r.do(c, "show hosts mail; show services mail; show version")
	data := into[[]json.RawMessage](t, a)
	if len(data) != 3 || !strings.Contains(a.Text, "only") || !strings.HasSuffix(a.Text, "\n9.9") || string(data[2]) != "null" {
		t.Errorf("answer: %+v", a)
	}
	if a := r.do(c, ""); a.Text != "" {
		t.Errorf("answer to nothing: %+v", a)
	}
	for line, want := range map[string]struct{ kind, text string }{
		"frobnicate":                               {"unknown", "unknown verb"},
		"setHost web main zz weight=1":             {"failed", "unknown host"},
		"setHost web main a weight=9 generation=1": {"moved", "has changed from generation 1 to 2"},
		"shutdown":                                 {"missing", "not served here"},
		"set server web.main/zz state maint":       {"failed", "No such server."},
		"set frobnicate":                           {"failed", "Unknown command."},
		`show "`:                                   {"failed", "column 6"},
		"prompt":                                   {"failed", "behind ctl every line is answered by one"},
		"show pprof nothing":                       {"failed", "usage: show pprof"},
		"show version; frobnicate; setHost web main a weight=9": {"unknown", "unknown verb"},
	} {
		a, err := c.Do(t.Context(), line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if a.OK || a.Kind != want.kind || !strings.Contains(a.Error, want.text) || strings.Contains(a.Error, "\n") || a.Err() == nil {
			t.Errorf("%s: %+v", line, a)
		}
	}
	if w := r.host("web", "main", "a").Config.Weight; w != 3 {
		t.Errorf("weight %d: a command behind an error was done", w)
	}
	if _, err := c.Do(t.Context(), "status\nstatus"); err == nil {
		t.Error("two lines as one")
	}
	if a := r.do(c, "quit"); a.Text != "" {
		t.Errorf("quit: %+v", a)
	}
	if _, err := c.Do(t.Context(), "status"); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("after quit: %v", err)
	}
	if _, err := c.Do(t.Context(), "status"); err == nil {
		t.Error("a client that is of no use is used")
	}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestClientGivesUp(t *testing.T) {
	r := newRig(t, doc(backendServer(t), backendServer(t), nobody(t)))
	c := r.client()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	clock := testkit.NewClock(t)
	if _, err := c.Do(ctx, "show pprof profile 30"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if took := clock.Now(); took > 15*time.Second {
		t.Errorf("it took %v", took)
	}
	if _, err := r.client().Do(ctx, "status"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestDialSaysWhatWouldBeRight(t *testing.T) {
	dir := folder(t)
	path := filepath.Join(dir, "x.sock")
	told := func(want string) {
		t.Helper()
		c, err := Dial(path)
		if err == nil {
			_ = c.Close()
			t.Fatal("connected")
		}
		if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	told("is txlb running with <socket path=")
	// Somebody was there.
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	_ = ln.Close()
	told("nobody answers")
	_ = os.Remove(path)
	// Somebody else is there.
	if ln, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}); err != nil {
		t.Fatal(err)
	}
	said := make(chan error, 1)
	go func() {
		c, err := ln.Accept()
		if err == nil {
			_, err = io.WriteString(c, "220 mail.example ESMTP\n")
			_ = c.Close()
		}
		said <- err
	}()
	told("is not the socket of a txlb")
	if err := <-said; err != nil {
		t.Error(err)
	}
	_ = ln.Close()
}

func TestJSONBehindACommand(t *testing.T) {
	r := newRig(t, doc(backendServer(t), backendServer(t), nobody(t)))
	for line, ok := range map[string]bool{
		"show hosts web --json": true, "--json": false, "get weight web.main/a --json": true, "frob --json": false,
		"setHost web main a --json weight=2 --dry-run": true, "show info --json": true, "get weight web.main/zz --json": false,
	} {
		var a Answer
		if body := r.ask(line); json.Unmarshal([]byte(body), &a) != nil && line != "--json" || a.OK != ok || strings.Count(body, "\n") != 1 {
			t.Errorf("%s: %q", line, body)
		}
	}
}
