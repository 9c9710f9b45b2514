//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/rig"
	"github.com/txlb/txlb/internal/servers"
)

// leaderDoc follows the leader of a Patroni: the host that answers /primary by 200. See
// docs/hold.md.
const leaderDoc = `<config><service name="db"><listen ip="127.0.0.1:0"/>
<timeouts queue="60s" total="60s"/>
<group name="main" allDown="hold" onMarkedDown="shutdown" start="down">
<check type="http" path="/primary" port="%s" interval="500ms" rise="1" fall="1" timeout="1s" status="200"/>
<host name="a" ip="%s"/><host name="b" ip="%s"/></group></service></config>`

// writers are clients that write one row after the other, each with a connection of its own.
const writers = 4

// turn is one switchover, as its clients have seen it.
type turn struct {
	held   bool          // the group was held meanwhile
	write  time.Duration // from the order to the first write at the new leader
	gap    time.Duration // the longest time between two writes that went well
	errors int           // writes that failed
	why    map[string]int
	aborts int // clients of pgbench that gave up
}

// followLeader makes a Patroni switch its leader so many times, half of them with the
// clients held, and tells what clients of txlb have noticed. pgbench works all the time.
func followLeader(ctx context.Context, n int, keep bool, out, progress io.Writer) (turns []turn, err error) {
	if err := debian.Need(append([]string{"psql"}, servers.PatroniNeeds...)...); err != nil {
		return nil, err
	}
	as, err := servers.Unprivileged()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	if keep {
		fmt.Fprintln(progress, "logs are kept in", dir)
	} else {
		defer func() { _ = os.RemoveAll(dir) }()
	}
	cluster, err := servers.NewPatroni(ctx, dir, as)
	if err != nil {
		return nil, err
	}
	defer cluster.Stop()
	_, port, _ := net.SplitHostPort(cluster.Nodes[0].REST)
	cfg, problems := config.Parse("leader.xml", fmt.Appendf(nil, leaderDoc, port, cluster.Nodes[0].DB, cluster.Nodes[1].DB))
	if cfg == nil {
		return nil, problems.Err()
	}
	lb, err := rig.Run(cfg, 2, director.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lb.Close()) }()
	f := &follower{cluster: cluster, lb: lb, dir: dir, as: as, addr: lb.Addr("db"), progress: progress}
	if err := f.prepare(ctx); err != nil {
		return nil, err
	}
	for i := range n {
		t, err := f.turn(ctx, i%2 == 1)
		if err != nil {
			return turns, fmt.Errorf("switchover %d: %w", i+1, err)
		}
		fmt.Fprintf(progress, "switchover %d, held: %v: first write after %v, longest gap %v, %d errors %v, %d clients of pgbench aborted\n",
			i+1, t.held, t.write.Round(time.Millisecond), t.gap.Round(time.Millisecond), t.errors, t.why, t.aborts)
		turns = append(turns, t)
	}
	return turns, reportTurns(out, turns)
}

// follower is what a run needs.
type follower struct {
	cluster  *servers.Patroni
	lb       *rig.Rig
	dir      string
	as       *syscall.Credential
	addr     string // of txlb
	progress io.Writer
}

// prepare makes the tables.
func (f *follower) prepare(ctx context.Context) error {
	return until(ctx, func() error {
		s, err := connect(ctx, f.addr, patience)
		if err != nil {
			return err
		}
		defer s.end()
		if _, err := s.query("create table if not exists written (at timestamptz default now())", patience); err != nil {
			return err
		}
		_, err = servers.Call(ctx, f.dir, f.as, nil, f.pgbench("-i", "-q", "-s", "1")...)
		return err
	})
}

func (f *follower) pgbench(args ...string) []string {
	host, port, _ := net.SplitHostPort(f.addr)
	return append([]string{servers.InPostgreSQL("pgbench"), "-h", host, "-p", port, "-U", "postgres"}, append(args, "postgres")...)
}

// write writes a row with a connection of its own, and says which host has it.
func (f *follower) write(ctx context.Context) (host string, err error) {
	s, err := connect(ctx, f.addr, patience)
	if err != nil {
		return "", fmt.Errorf("connect: %w", err)
	}
	defer s.end()
	host, err = s.query("insert into written default values returning host(inet_server_addr())", patience)
	if err != nil {
		return "", fmt.Errorf("write: %w", err)
	}
	return host, nil
}

// turn is one switchover under load.
func (f *follower) turn(ctx context.Context, held bool) (t turn, err error) {
	var leader, other *servers.PatroniNode
	if err := until(ctx, func() (err error) { leader, other, err = f.cluster.Leader(ctx); return err }); err != nil {
		return t, err
	}
	t = turn{held: held, why: map[string]int{}}
	work, stop := context.WithCancel(ctx)
	defer stop()
	var mu sync.Mutex
	var first time.Time
	var begun time.Time // of the switchover
	last := time.Now()
	now, _, _ := net.SplitHostPort(other.DB)
	done := 0
	var clients sync.WaitGroup
	for range writers {
		clients.Go(func() {
			for work.Err() == nil {
				host, err := f.write(work)
				at := time.Now()
				mu.Lock()
				switch {
				case err == nil:
					done++
					t.gap, last = max(t.gap, at.Sub(last)), at
					if host == now && first.IsZero() && !begun.IsZero() {
						first = at
					}
				case work.Err() == nil:
					t.errors++
					t.why[short(err)]++
				}
				mu.Unlock()
				if err != nil { // as a program would that tries again
					time.Sleep(20 * time.Millisecond)
				}
			}
		})
	}
	var said []byte
	clients.Go(func() {
		for work.Err() == nil { // all its clients may have given up
			argv := f.pgbench("-n", "-C", "-c", "4", "-j", "4", "-T", "600")
			cmd := exec.CommandContext(work, argv[0], argv[1:]...)
			cmd.Dir = f.dir
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: f.as}
			cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
			text, _ := cmd.CombinedOutput()
			said = append(said, text...)
		}
	})
	wrote := func(n int) error {
		return until(ctx, func() error {
			mu.Lock()
			defer mu.Unlock()
			if done < n {
				return fmt.Errorf("%d rows were written, want %d: %v", done, n, t.why)
			}
			return nil
		})
	}
	end := func() { stop(); clients.Wait() }
	if err := wrote(100); err != nil {
		end()
		return t, err
	}
	mu.Lock()
	begun, last, t.gap = time.Now(), time.Now(), 0
	t.errors, t.why = 0, map[string]int{}
	mu.Unlock()
	if held {
		if _, _, err := f.lb.Director.Hold(ctx, director.HoldOrder{By: "soak", Service: "db", Group: "main", For: patience}); err != nil {
			end()
			return t, err
		}
		// What is under way comes to its end.
		g := f.lb.Director.State().Services[0].Groups[0]
		if err := until(ctx, func() error {
			n := int64(0)
			for _, h := range g.Hosts {
				n += h.Stats().Active
			}
			if n > 0 {
				return fmt.Errorf("%d sessions go on", n)
			}
			return nil
		}); err != nil {
			end()
			return t, err
		}
	}
	err = f.cluster.Switch(ctx, leader, other)
	if err == nil {
		err = until(ctx, func() error { return other.Is(ctx, "primary") })
	}
	if err == nil && held {
		// The check of txlb has to see it, too: until then a client would get the old leader.
		err = until(ctx, func() error {
			for _, h := range f.lb.Director.State().Services[0].Groups[0].Hosts {
				if h.Up() != (h.Config.Name == other.Name) {
					return fmt.Errorf("host %s is up: %v", h.Config.Name, h.Up())
				}
			}
			return nil
		})
		_, wrong := f.lb.Director.Release(ctx, director.ReleaseOrder{By: "soak", Service: "db", Group: "main"})
		err = errors.Join(err, wrong)
	}
	if err == nil {
		err = until(ctx, func() error {
			mu.Lock()
			defer mu.Unlock()
			if first.IsZero() {
				return fmt.Errorf("nothing is written at the new leader: %v", t.why)
			}
			return nil
		})
	}
	mu.Lock()
	n := done
	mu.Unlock()
	if err == nil {
		err = wrote(n + 100)
	}
	end()
	t.write = first.Sub(begun)
	t.aborts = len(regexp.MustCompile(`client \d+ aborted|pgbench: error: connection to server`).FindAll(said, -1))
	return t, err
}

// short is an error without what differs each time.
func short(err error) string {
	text := regexp.MustCompile(`127\.0\.0\.\d+:\d+(->127\.0\.0\.\d+:\d+)?`).ReplaceAllString(err.Error(), "…")
	return strings.ReplaceAll(text, "\n", "; ")
}

// reportTurns writes a table of both kinds of switchovers.
func reportTurns(out io.Writer, turns []turn) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "switchovers\tfirst write: median\tslowest\tlongest gap\tfailed writes\tclients of pgbench that aborted")
	for _, held := range []bool{false, true} {
		var writes []time.Duration
		var gap time.Duration
		var failed, aborts int
		for _, t := range turns {
			if t.held == held {
				writes, gap = append(writes, t.write), max(gap, t.gap)
				failed, aborts = failed+t.errors, aborts+t.aborts
			}
		}
		if len(writes) == 0 {
			continue
		}
		slices.Sort(writes)
		name := map[bool]string{false: "as Patroni makes them", true: "held"}[held]
		fmt.Fprintf(w, "%d %s\t%v\t%v\t%v\t%d\t%d\n", len(writes), name, writes[len(writes)/2].Round(time.Millisecond),
			writes[len(writes)-1].Round(time.Millisecond), gap.Round(time.Millisecond), failed, aborts)
	}
	return w.Flush()
}
