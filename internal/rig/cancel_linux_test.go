package rig_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/rig"
	"github.com/txlb/txlb/internal/servers"
	"github.com/txlb/txlb/internal/testkit"
)

// A cancel request of psql comes over a connection of its own, and only the server that
// runs the query knows its key. With affinity it gets there, from each of two servers.
// Without, it goes to the other server, which does not know it.
func TestB40CancelRequestsReachTheirServer(t *testing.T) {
	testkit.Long(t)
	debian.NeedFor(t, servers.Initdb)
	dbs := twoPostgres(t)
	r := rig.Start(t, fmt.Sprintf(`<config>
	<service name="maglev"><listen ip="127.0.0.1:0"/><group name="g" scheduler="maglev"><host name="a" ip="%[1]s"/><host name="b" ip="%[2]s"/></group></service>
	<service name="sticky"><listen ip="127.0.0.1:0"/><group name="g" scheduler="roundr,sticky"><host name="a" ip="%[1]s"/><host name="b" ip="%[2]s"/></group></service>
	<service name="turns"><listen ip="127.0.0.1:0"/><group name="g" scheduler="roundr"><host name="a" ip="%[1]s"/><host name="b" ip="%[2]s"/></group></service>
</config>`, dbs[0].Addr, dbs[1].Addr))

	for _, service := range []string{"maglev", "sticky"} {
		served := map[int]bool{}
		for n := range 3 {
			p := startPsql(t, r.Addr(service), fmt.Sprintf("select pg_sleep(600) as %s%d", service, n))
			served[p.server(t, dbs)] = true
			p.interrupt(t)
			if out := p.end(t); !strings.Contains(out, "canceling statement due to user request") {
				t.Errorf("%s: psql said %q", service, out)
			}
		}
		if len(served) != 1 {
			t.Errorf("%s: one client had both servers", service)
		}
	}

	// Drain the client's host: from now on both its queries and cancels go to the other.
	p := startPsql(t, r.Addr("sticky"), "select pg_sleep(602)")
	at := p.server(t, dbs)
	if _, err := r.Director.Do(t.Context(), director.Change{Apply: func(c *config.Config) error {
		c.Services[1].Groups[0].Hosts[at].State = "drain"
		return nil
	}}); err != nil {
		t.Fatal(err)
	}
	other := startPsql(t, r.Addr("sticky"), "select pg_sleep(603)")
	if now := other.server(t, dbs); now == at {
		t.Error("a host in drain has a new session")
	}
	other.interrupt(t)
	if out := other.end(t); !strings.Contains(out, "canceling statement due to user request") {
		t.Errorf("after a drain, psql said %q", out)
	}
	p.kill(t)

	p = startPsql(t, r.Addr("turns"), "select pg_sleep(604)")
	at = p.server(t, dbs)
	p.interrupt(t)
	testkit.Eventually(t, "the other server has the cancel request and does not know it", func() bool {
		log, err := os.ReadFile(dbs[1-at].Log)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(log), "in cancel request did not match any process")
	})
	p.kill(t)
}

// twoPostgres runs two servers for the test.
func twoPostgres(t *testing.T) (dbs [2]*servers.Server) {
	t.Helper()
	as, err := servers.Unprivileged()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "txlb-cancel-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // the servers are another user
		t.Fatal(err)
	}
	for i := range dbs {
		addr, err := servers.FreeAddr()
		if err != nil {
			t.Fatal(err)
		}
		s, err := servers.New(dir, fmt.Sprint("postgres", i), addr, as)
		if err == nil {
			err = s.PostgreSQL(t.Context(), pgUser, "", "-c", "shared_buffers=1MB", "-c", "autovacuum=off", "-c", "max_connections=20")
		}
		if err != nil {
			t.Fatal(err)
		}
		s.RunFor(t)
		dbs[i] = s
	}
	return dbs
}

const pgUser = "txlb"

// psql is one that runs a query.
type psql struct {
	cmd   *exec.Cmd
	query string
	out   bytes.Buffer
}

func psqlArgs(t *testing.T, addr, query string) []string {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return []string{servers.InPostgreSQL("psql"), "-X", "-q", "-t", "-A", "-h", host, "-p", port, "-U", pgUser, "-d", "postgres", "-c", query}
}

// startPsql starts a query through an address. The query of a psql that was killed goes
// on, so each has a text of its own.
func startPsql(t *testing.T, addr, query string) *psql {
	t.Helper()
	argv := psqlArgs(t, addr, query)
	p := &psql{cmd: exec.Command(argv[0], argv[1:]...), query: query}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
	})
	return p
}

// server waits until the query runs, and returns on which server.
func (p *psql) server(t *testing.T, dbs [2]*servers.Server) (at int) {
	t.Helper()
	running := fmt.Sprintf("select count(*) from pg_stat_activity where state = 'active' and query = '%s' and wait_event = 'PgSleep'", p.query)
	testkit.Eventually(t, "the query runs", func() bool {
		for i, db := range dbs {
			within, cancel := context.WithTimeout(t.Context(), testkit.Patience)
			out, err := servers.Call(within, db.Dir, nil, nil, psqlArgs(t, db.Addr, running)...)
			cancel()
			if err != nil {
				t.Fatal(err)
			}
			if strings.TrimSpace(out) == "1" {
				at = i
				return true
			}
		}
		return false
	})
	return at
}

// interrupt does what Ctrl-C does: psql sends a cancel request.
func (p *psql) interrupt(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
}

// end waits for psql and returns what it has said.
func (p *psql) end(t *testing.T) string {
	t.Helper()
	late := time.AfterFunc(testkit.Patience, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	_ = p.cmd.Wait() // it says that the query has failed
	return p.out.String()
}

func (p *psql) kill(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = p.cmd.Wait()
}
