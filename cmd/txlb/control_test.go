//go:build linux

package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// whose asks the control socket at path which client a connection belongs to.
func whose(path string, local, own net.Addr) (string, error) {
	c, err := net.DialTimeout("unix", path, patience)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(c, "GetClientAddress %v %v\n", local, own); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), err
}

// A backend asks the control socket who its client is. The socket is for its
// owner alone, goes where the configuration says, is not taken from a txlb that
// has it, and one that was left behind is replaced.
func TestControlSocket(t *testing.T) {
	backend, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn, 16)
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			c, err := backend.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	})
	t.Cleanup(func() {
		_ = backend.Close()
		accepting.Wait()
	})
	dir, err := os.MkdirTemp("", "txlb") // a path that fits into a socket's address
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	here, there := filepath.Join(dir, "control"), filepath.Join(dir, "elsewhere")
	stale, err := net.Listen("unix", here)
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = stale.Close()

	doc := func(path string) string {
		return fmt.Sprintf(`<config><service name="web"><listen ip="127.0.0.1:0"/><group name="g"><host name="a" ip="%v"/></group></service><control socket="%s"/></config>`, backend.Addr(), path)
	}
	name, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	file := write(t, doc(here))
	p := run(t, name, "run", "-c", file)
	p.expect("msg=ready")
	info, err := os.Stat(here)
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Fatalf("the socket: %v, %v", info, err)
	}
	told := func(path string) {
		t.Helper()
		client, err := net.Dial("tcp", p.addr("web", 0))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = client.Close() }()
		select {
		case c := <-accepted:
			defer func() { _ = c.Close() }()
			if got, err := whose(path, c.RemoteAddr(), c.LocalAddr()); err != nil || got != client.LocalAddr().String() {
				t.Errorf("the client of %v is %v; told %q, %v", c.RemoteAddr(), client.LocalAddr(), got, err)
			}
		case <-time.After(patience):
			t.Fatal("no client came to the backend")
		}
	}
	told(here)
	if got, err := whose(here, backend.Addr(), backend.Addr()); err != nil || !strings.HasPrefix(got, "error UNKNOWN_PORT: ") {
		t.Errorf("of no connection it says %q, %v", got, err)
	}

	second, _ := txlbFile(t, doc(here))
	second.expect(`admin interface did not start" part=control err=.*in use`)
	second.kill()
	told(here)

	if err := os.WriteFile(file, []byte(doc(there)), 0o600); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGHUP)
	p.expect(`msg="admin listening" part=control addr=\S*elsewhere`)
	told(there)
	if _, err := os.Stat(here); !os.IsNotExist(err) {
		t.Errorf("the old socket: %v", err)
	}
	c, err := net.Dial("unix", there)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	p.signal(syscall.SIGTERM)
	if status := p.wait(); status != exitOK {
		t.Errorf("status %d", status)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	if rest, err := io.ReadAll(c); len(rest) > 0 || os.IsTimeout(err) {
		t.Errorf("a connection that is idle at the end: %q, %v", rest, err)
	}
	if _, err := os.Stat(there); !os.IsNotExist(err) {
		t.Errorf("the socket after the end: %v", err)
	}
}
