//go:build linux

package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// The backends: what stands behind a peer.
const (
	web     = "web"     // nginx with static files, for wrk and ab
	streams = "streams" // raw TCP from this program, for bulk and idle sessions
)

// backend is one of them. Its probe asks through address for something small
// and returns an error unless the answer is right.
type backend struct {
	*server
	addr  string
	probe func(address string) error
}

// pages are the static files of the web backend, by path. 18 KB is the page
// of the original project's own measurements.
func pages() map[string]int {
	return map[string]int{"small": 100, "18k": 18 << 10, "1m": 1 << 20}
}

// webConfig is nginx as a web server with nothing but files; /empty is a
// reply without a body.
func webConfig(p place, root string) string {
	return fmt.Sprintf(`daemon off;
pid nginx-web.pid;
error_log stderr error;
worker_processes auto;
worker_rlimit_nofile %d;
events { worker_connections 8192; }
http {
    client_body_temp_path tmp;
    proxy_temp_path tmp;
    fastcgi_temp_path tmp;
    scgi_temp_path tmp;
    uwsgi_temp_path tmp;
    access_log off;
    sendfile on;
    tcp_nopush on;
    open_file_cache max=100;
    keepalive_requests 1000000000;
    server {
        listen %s backlog=4096 reuseport;
        root %s;
        location = /empty { return 204; }
    }
}
`, p.files, p.listen, root)
}

// writePages puts the pages into a new folder below dir. nginx's workers run
// as another user when the bench is root, so everybody may read them.
func writePages(dir string) (root string, err error) {
	root = filepath.Join(dir, "pages")
	if err := os.Mkdir(root, 0o755); err != nil {
		return "", err
	}
	for name, size := range pages() {
		if err := os.WriteFile(filepath.Join(root, name), make([]byte, size), 0o644); err != nil {
			return "", err
		}
	}
	return root, nil
}

func probeWeb(address string) error {
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + address + "/18k")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil {
		return err
	}
	if want := int64(pages()["18k"]); resp.StatusCode != http.StatusOK || n != want {
		return fmt.Errorf("status %d with %d bytes, want 200 with %d", resp.StatusCode, n, want)
	}
	return nil
}

// The first byte of a connection tells the streams backend what to do with
// the rest of it.
const (
	opDown = 'D' // send without end
	opUp   = 'U' // read without end
	opEcho = 'E' // send back what comes, this byte included
)

// block is how many bytes the bulk load and its backend read and write with
// one system call.
const block = 256 << 10

func probeStreams(address string) error {
	conn, err := net.DialTimeout("tcp", address, 2*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	return echo(conn)
}

// echo exchanges a small message with the streams backend over a new
// connection.
func echo(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	const message = string(opEcho) + " and the rest of a small message"
	if _, err := io.WriteString(conn, message); err != nil {
		return err
	}
	back := make([]byte, len(message))
	if _, err := io.ReadFull(conn, back); err != nil {
		return err
	}
	if string(back) != message {
		return fmt.Errorf("sent %q, got %q", message, back)
	}
	return conn.SetDeadline(time.Time{})
}

// The roles that this program plays as a process of its own.
const (
	roleProxy   = "role-proxy"   // LISTEN TARGET
	roleStreams = "role-streams" // LISTEN
)

// playRole runs the role that args ask for, if they do, until the process is
// killed or the role fails.
func playRole(args []string) (status int, played bool) {
	if len(args) == 0 {
		return 0, false
	}
	var handle func(net.Conn)
	switch {
	case args[0] == roleProxy && len(args) == 3:
		handle = func(c net.Conn) { proxy(c, args[2]) }
	case args[0] == roleStreams && len(args) == 2:
		handle = stream
	default:
		return 0, false
	}
	l, err := net.Listen("tcp", args[1])
	if err == nil {
		err = accept(l, handle)
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	return 1, true
}

// accept gives each connection to handle, which closes it, until the listener
// fails.
func accept(l net.Listener, handle func(net.Conn)) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go handle(c)
	}
}

// proxy is the plain Go proxy, written as anybody would: on Linux io.Copy
// between TCP connections splices by itself.
func proxy(client net.Conn, target string) {
	defer client.Close()
	server, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer server.Close()
	up := make(chan struct{})
	go pass(server, client, up)
	pass(client, server, make(chan struct{}))
	<-up
}

// pass copies one direction, hands its end on and closes done. An error ends
// the direction as an EOF does; the load notices what is missing.
func pass(dst, src net.Conn, done chan<- struct{}) {
	defer close(done)
	_, _ = io.Copy(dst, src)
	if d, ok := dst.(*net.TCPConn); ok {
		_ = d.CloseWrite()
	}
}

// stream serves one connection of the streams backend.
func stream(c net.Conn) {
	defer c.Close()
	op := make([]byte, 1)
	if _, err := io.ReadFull(c, op); err != nil {
		return
	}
	switch op[0] {
	case opDown:
		for buf := make([]byte, block); ; {
			if _, err := c.Write(buf); err != nil {
				return
			}
		}
	case opUp:
		for buf := make([]byte, block); ; {
			if _, err := c.Read(buf); err != nil {
				return
			}
		}
	case opEcho:
		if _, err := c.Write(op); err != nil {
			return
		}
		// A small buffer: thousands of idle sessions wait here.
		for buf := make([]byte, 64); ; {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			if _, err := c.Write(buf[:n]); err != nil {
				return
			}
		}
	}
}
