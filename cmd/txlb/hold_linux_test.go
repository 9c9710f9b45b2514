package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/servers"
	"github.com/txlb/txlb/internal/testkit"
)

// PostgreSQL restarts, five times in a row, and pgbench, whose clients connect for each
// transaction, notices nothing.
func TestB79PostgreSQLRestartsUnderPgbench(t *testing.T) {
	testkit.Long(t)
	debian.NeedFor(t, servers.Initdb, "psql")
	dir, as := servers.Apart(t)
	db, err := servers.New(dir, "db", fmt.Sprintf("127.0.0.1:%d", freePort(t)), as)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.PostgreSQL(t.Context(), "tester", ""); err != nil {
		t.Fatal(err)
	}
	db.RunFor(t)
	db.End = syscall.SIGTERM // "smart": it waits for the sessions that are open
	l := newLineage(t, fmt.Sprintf(`<service name="db"><listen ip="127.0.0.1:0"/><group name="main"><host name="a" ip=%q/></group></service>`, db.Addr), "")
	_, port, err := net.SplitHostPort(l.addr("db"))
	if err != nil {
		t.Fatal(err)
	}
	to := []string{"-h", "127.0.0.1", "-p", port, "-U", "tester"}
	pgbench := func(args ...string) []string {
		return append(append([]string{servers.InPostgreSQL("pgbench")}, to...), append(args, "postgres")...)
	}
	if _, err := servers.Call(t.Context(), db.Dir, as, nil, pgbench("-i", "-q", "-s", "1")...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var said output
	said.more = make(chan struct{})
	argv := pgbench("-n", "-C", "-c", "8", "-j", "8", "-P", "1", "-T", "3600")
	load := exec.CommandContext(ctx, argv[0], argv[1:]...)
	load.Dir, load.Stdout, load.Stderr = db.Dir, &said, &said
	load.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: as}
	if err := load.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- load.Wait() }()
	stop := sync.OnceFunc(func() {
		cancel()
		<-ended
	})
	defer stop()

	sessions := func() float64 {
		status, out := l.ctl("--json", "show", "services", "db")
		m := regexp.MustCompile(`"sessions_total": ?(\d+)`).FindStringSubmatch(out)
		if status != 0 || m == nil {
			t.Fatalf("show services: %s", out)
		}
		var n float64
		_, _ = fmt.Sscan(m[1], &n)
		return n
	}
	goesOn := func() {
		t.Helper()
		before := sessions()
		eventually(t, "pgbench goes on", func() bool { return sessions() >= before+40 })
	}
	goesOn()
	for i := range 5 {
		if status, out := l.ctl("hold", "db", "main", "for=5m"); status != 0 {
			t.Fatalf("hold: %s", out)
		}
		eventually(t, "all clients are held", func() bool {
			_, out := l.ctl("status")
			return strings.Contains(out, ": 8 wait")
		})
		db.Stop()
		if err := db.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		words := []string{"release", "db", "main"}
		if i%2 == 1 {
			words = append(words, "over=500ms")
		}
		if status, out := l.ctl(words...); status != 0 || !strings.Contains(out, "released: 8 clients") {
			t.Fatalf("release: %s", out)
		}
		goesOn()
	}
	stop()
	if text := said.String(); regexp.MustCompile(`(?i)error|fatal|abort|could not`).MatchString(text) {
		t.Errorf("pgbench said:\n%s", text)
	}
	if _, out := l.ctl("--json", "status"); strings.Contains(out, "rejected") {
		t.Errorf("clients were rejected: %s", out)
	}
}

// Clients that are held when the program is upgraded wait in the new process, in their order,
// with what they have said, until somebody releases the group there.
func TestB79HeldClientsOverAnUpgrade(t *testing.T) {
	testkit.Long(t)
	const n = 20
	served := make(chan byte, n)
	address := backend(t, func(c *net.TCPConn) {
		first := make([]byte, 1)
		if _, err := io.ReadFull(c, first); err != nil {
			return
		}
		served <- first[0]
		_, _ = c.Write(first)
		echo(c)
	})
	l := newLineage(t, fmt.Sprintf(`<engine loops="2"/><service name="web"><listen ip="127.0.0.1:0"/><timeouts queue="1s"/><group name="g"><host name="a" ip=%q maxSessions="1"/></group></service>`, address), "")
	at := l.addr("web")
	if status, out := l.ctl("hold", "web", "g", "for=1h"); status != 0 {
		t.Fatalf("hold: %s", out)
	}
	var clients []net.Conn
	come := func() {
		t.Helper()
		c, err := dial(at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := c.Write([]byte{byte(len(clients))}); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
		eventually(t, "the client is held", func() bool {
			_, out := l.ctl("status")
			return strings.Contains(out, fmt.Sprintf(": %d wait", len(clients)))
		})
	}
	for range n / 2 {
		come()
	}
	for range 2 {
		before := l.pid
		l.upgrade()
		l.ends(before)
	}
	for range n / 2 { // behind those that have moved
		come()
	}
	// The time of the queue is far over: it does not count. With one place at the host, the
	// order shows.
	if status, out := l.ctl("release", "web", "g"); status != 0 || !strings.Contains(out, fmt.Sprintf("released: %d clients", n)) {
		t.Fatalf("release: %s", out)
	}
	if status, out := l.ctl("setService", "web", "queue=0"); status != 0 {
		t.Fatal(out)
	}
	for i, c := range clients {
		if got := <-served; got != byte(i) {
			t.Fatalf("client %d is served, and it is the turn of client %d", got, i)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Errorf("client %d: %v", i, err)
		}
		if err := ask(c, "hello"); err != nil {
			t.Errorf("client %d: %v", i, err)
		}
		_ = c.Close()
	}
}

// A server that is off is started when clients come, once for all of them; they wait for it
// and are served. The command succeeds and leaves a daemon behind, as one that starts a server
// does.
func TestOnHoldStartsTheServer(t *testing.T) {
	t.Parallel()
	started := filepath.Join(t.TempDir(), "started")
	address, listen := testkit.Bound(t)
	l := newLineage(t, fmt.Sprintf(`<service name="web"><listen ip="127.0.0.1:0"/><timeouts queue="10m"/>
<group name="g" allDown="hold" start="down" onHold="sh -c 'sleep 600 &amp; echo $TXLB_SERVICE $TXLB_GROUP >>%s; echo is starting $!'"><check interval="100ms" rise="1"/><host name="a" ip=%q/></group></service>`, started, address), "")
	var clients []net.Conn
	for range 5 {
		c, err := dial(l.addr("web"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		clients = append(clients, c)
	}
	eventually(t, "the server is started", func() bool {
		text, err := os.ReadFile(started)
		return err == nil && len(text) > 0
	})
	l.expect(`msg="onHold has ended" service=web group=g program=sh after=\S+ output="is starting \d+"`)
	daemons := regexp.MustCompile(`output="is starting (\d+)"`)
	t.Cleanup(func() {
		for _, m := range daemons.FindAllStringSubmatch(l.log(), -1) {
			pid, _ := strconv.Atoi(m[1])
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Errorf("the daemon does not run: %v", err)
			}
		}
	})
	if text, err := os.ReadFile(started); err != nil || string(text) != "web g\n" {
		// Ten seconds later it may be run again: on a machine that is very slow, say.
		t.Logf("it was started by: %q, %v", text, err)
	}
	backendOn(t, listen(), echo)
	for _, c := range clients {
		if err := ask(c, "hello"); err != nil {
			t.Error(err)
		}
	}
	// Neither a command nor the API can say what is run.
	for _, words := range [][]string{{"setGroup", "web", "g", "onHold=/bin/true"}, {"addGroup", "web", "h", "leastc", "onHold=/bin/true"}} {
		if status, out := l.ctl(words...); status == 0 || !strings.Contains(out, "onHold") {
			t.Errorf("%v: %s", words, out)
		}
	}
}
