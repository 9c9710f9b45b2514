//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/txlb/txlb/bench/internal/floor"
	"github.com/txlb/txlb/internal/servers"
)

// The kinds of backends: what stands behind a peer.
const (
	web       = "web"     // nginx with static files, for wrk, ab and the fixed rates
	secureWeb = "web-tls" // the same over TLS
	streams   = "streams" // raw TCP from this program, for bulk and idle sessions
	sql       = "sql"     // PostgreSQL
	redis     = "redis"
)

// kind says what a backend needs and how it starts. Its probe asks for something
// small and returns an error unless the answer is right.
type kind struct {
	name  string
	about string
	needs []string
	start func(context.Context, *rig, route) (*servers.Server, error)
	probe func(dialer) error
	tls   bool // it speaks nothing else
}

func kinds() []kind {
	return []kind{
		{web, "nginx with static files", []string{"nginx"}, startWeb, probeWeb, false},
		{secureWeb, "nginx with static files over TLS 1.3, ECDSA P-256, AES-128-GCM", []string{"nginx"}, startSecureWeb, probeWeb, true},
		{streams, "a program of the bench", nil, startStreamsBackend, probeStreams, false},
		{sql, "PostgreSQL with pgbench's tables at scale 5, fsync off", []string{"postgres"}, startSQL, probeSQL, false},
		{redis, "Redis that stores nothing", []string{"redis-server"}, startRedis, probeRedis, false},
	}
}

// kindOf returns a kind by its name.
func kindOf(name string) kind {
	all := kinds()
	return all[slices.IndexFunc(all, func(k kind) bool { return k.name == name })]
}

// backend is one that runs.
type backend struct {
	kind
	*servers.Server
	addr string
}

// startWeb and startSecureWeb write the pages and start a web server.
func startWeb(ctx context.Context, r *rig, at route) (*servers.Server, error) {
	return r.startNginx(ctx, web, noKey, at)
}

func startSecureWeb(ctx context.Context, r *rig, at route) (*servers.Server, error) {
	return r.startNginx(ctx, secureWeb, ecdsaKey, at)
}

func (r *rig) startNginx(ctx context.Context, name, key string, at route) (*servers.Server, error) {
	root, err := writePages(r.dir)
	if err != nil {
		return nil, err
	}
	front, err := r.certificate(key)
	if err != nil {
		return nil, err
	}
	p := place{programs: r.programs, dir: r.dir, file: filepath.Join(r.dir, name+".conf"), files: r.files, front: front}
	if err := os.WriteFile(p.file, []byte(webConfig(p, at.listen, name, root)), 0o600); err != nil {
		return nil, err
	}
	return serve(ctx, longestRun, r.dir, "backend-"+name, nginxArgv(p))
}

func startStreamsBackend(ctx context.Context, r *rig, at route) (*servers.Server, error) {
	return serve(ctx, longestRun, r.dir, "backend-"+streams, []string{r.programs["bench"], roleStreams, at.listen})
}

// longestRun ends a backend whatever happens.
const longestRun = 6 * time.Hour

// pages are the static files of the web backend, by path. 18 KB is the page
// of the original project's own measurements.
func pages() map[string]int {
	return map[string]int{"small": 100, "18k": 18 << 10, "64m": 64 << 20}
}

// webConfig is nginx as a web server with nothing but files; /empty is a
// reply without a body.
func webConfig(p place, listen, name, root string) string {
	option, lines := p.nginxFront("        ")
	return fmt.Sprintf(`daemon off;
pid nginx-%s.pid;
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
        listen %s backlog=4096 reuseport%s;
%s        root %s;
        location = /empty { return 204; }
    }
}
`, name, p.files, listen, option, lines, root)
}

// writePages puts the pages into a folder below dir. nginx's workers run
// as another user when the bench is root, so everybody may read them.
func writePages(dir string) (root string, err error) {
	root = filepath.Join(dir, "pages")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", err
	}
	for name, size := range pages() {
		if err := os.WriteFile(filepath.Join(root, name), make([]byte, size), 0o644); err != nil {
			return "", err
		}
	}
	return root, nil
}

func probeWeb(to dialer) error {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return to.dial(probeLimit) }}
	client := http.Client{Timeout: probeLimit, Transport: transport}
	resp, err := client.Get("http://" + to.address + "/18k")
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
	opEcho = 'E' // send back what comes, this byte included
)

// block is how many bytes the bulk load and its backend read and write with
// one system call.
const block = 256 << 10

func probeStreams(to dialer) error {
	conn, err := to.dial(probeLimit)
	if err != nil {
		return err
	}
	defer conn.Close()
	return echo(conn)
}

// probeLimit is how long a probe may take.
const probeLimit = 2 * time.Second

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
	roleProxy   = "role-proxy"   // THREADS CERTIFICATE KEY (both may be ""), then LISTEN TARGET, once or more
	roleBare    = "role-bare"    // WAY THREADS, then LISTEN TARGET, once or more
	roleStreams = "role-streams" // LISTEN
	roleEmbed   = "role-embed"   // THREADS PROCS ACCEPTS, then LISTEN TARGET, once or more
	roleLoad    = "role-load"
	roleSteps   = "role-steps" // CORE
)

// playRole runs the role that args ask for, if they do, until the process is
// killed or the role ends or fails.
func playRole(args []string) (status int, played bool) {
	if len(args) == 0 || !strings.HasPrefix(args[0], "role-") {
		return 0, false
	}
	var err error
	switch role, args := args[0], args[1:]; {
	case role == roleProxy && len(args) > 4 && len(args)%2 == 1:
		err = playProxies(args)
	case role == roleBare && len(args) > 3 && len(args)%2 == 0:
		err = playBare(args)
	case role == roleEmbed && len(args) > 4 && len(args)%2 == 1:
		err = playEmbed(args)
	case role == roleStreams && len(args) == 1:
		err = listen(args[0], streamer())
	case role == roleLoad && len(args) == 0:
		err = loadProcess(os.Stdin, os.Stdout)
	case role == roleSteps && len(args) == 1:
		err = stepsProcess(args[0], os.Stdin, os.Stdout)
	default:
		err = fmt.Errorf("%s does not take %q", role, args)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1, true
	}
	return 0, true
}

// listen accepts connections and gives each to handle, which closes it, until
// the listener fails.
func listen(address string, handle func(net.Conn)) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go handle(c)
	}
}

// playBare is the relay of package floor, in a process that the runtime does not
// interrupt.
func playBare(args []string) error {
	const calm = "GODEBUG=asyncpreemptoff=1"
	if os.Getenv("GODEBUG") != strings.TrimPrefix(calm, "GODEBUG=") {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		env := slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "GODEBUG=") })
		return fmt.Errorf("start again: %w", syscall.Exec(self, os.Args, append(env, calm)))
	}
	threads, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	var routes []floor.Route
	for pair := range slices.Chunk(args[2:], 2) {
		routes = append(routes, floor.Route{Listen: pair[0], Target: pair[1]})
	}
	return floor.Run(floor.Way(args[0]), threads, routes)
}

func playProxies(args []string) error {
	threads, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	runtime.GOMAXPROCS(threads)
	answerAllocations()
	secure := func(c net.Conn) net.Conn { return c }
	if args[1] != "" {
		pair, err := tls.LoadX509KeyPair(args[1], args[2])
		if err != nil {
			return err
		}
		config := &tls.Config{Certificates: []tls.Certificate{pair}}
		secure = func(c net.Conn) net.Conn { return tls.Server(c, config) }
	}
	play := func(address, target string) error {
		return listen(address, func(c net.Conn) { proxy(secure(c), target) })
	}
	for args = args[3:]; len(args) > 2; args = args[2:] {
		go play(args[0], args[1]) // what it lacks the load notices
	}
	return play(args[0], args[1])
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
	if d, ok := dst.(interface{ CloseWrite() error }); ok {
		_ = d.CloseWrite()
	}
}

// streamer returns what serves the connections of the streams backend. They
// share what they send: a thousand stalled readers would pin a buffer each.
func streamer() func(net.Conn) {
	zeros := make([]byte, block)
	return func(c net.Conn) { stream(c, zeros) }
}

// stream serves one connection of the streams backend.
func stream(c net.Conn, zeros []byte) {
	defer c.Close()
	op := make([]byte, 1)
	if _, err := io.ReadFull(c, op); err != nil {
		return
	}
	switch op[0] {
	case opDown:
		for {
			if _, err := c.Write(zeros); err != nil {
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
