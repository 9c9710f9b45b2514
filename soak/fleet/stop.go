//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/txlb/txlb/internal/debian"
)

// A node that stops: something asks /readyz of each node as keepalived, or txlb-announce beside
// BIRD, does (etc/ha), and takes the route away when two answers in a row are not 200.

const (
	grace, drain  = 4 * time.Second, 30 * time.Second // <engine grace drain>
	checkEvery    = 500 * time.Millisecond
	checkFailures = 2
	readyPort     = "7000"
)

// stopping is how a node is stopped.
type stopping struct {
	node    int
	signal  bool // by SIGTERM, and not by an order to another node
	flows   bool // the router remembers where each connection goes
	visited int  // goroutines that connect all the time
}

func (s stopping) String() string {
	how, router := "shutdown node=", "resilient next hops"
	if s.signal {
		how = "SIGTERM to "
	}
	if s.flows {
		router = "a router that remembers connections"
	}
	return fmt.Sprintf("%sn%d behind %s", how, s.node, router)
}

// stops are what is done. The two nodes differ, so that each is stopped and started again.
var stops = []stopping{
	{node: 2, flows: true, visited: 4},
	{node: 1, flows: true, signal: true, visited: 4},
	{node: 0, signal: true, visited: 4},
}

// stopped is what was seen of a node that was stopped. Times count from the order.
type stopped struct {
	how         stopping
	seen        *undisturbed
	had         int           // sessions of the node
	own, others int           // sessions that have ended by an error, of the node and of others
	unready     time.Duration // /readyz says something else than 200
	withdrawn   time.Duration // the route is gone
	last        time.Duration // a new client has come to the node for the last time
	refuses     time.Duration // the node refuses clients
	finishing   time.Duration // the sessions are asked to finish
	gone        time.Duration // the process
	visits      int           // new connections
	refused     int           // of these
	failed      int           // of these in another way
	why         string
}

// track makes the router remember which node each connection goes to, and send its packets
// there though the route goes elsewhere by now. That is for the state of connections; where new
// ones go is decided by the route as before.
func (f *netFleet) track(on bool) error {
	router := f.space("router", 0)
	nft := []string{debian.Path("ip"), "netns", "exec", router, debian.Path("nft")}
	_ = command("", append(nft, "delete", "table", "ip", "flows")...)
	for i := range fleetNodes {
		_ = configure(router, fmt.Sprintf("rule del fwmark %d lookup %d", 1+i, 101+i))
	}
	if !on {
		return nil
	}
	var marks strings.Builder
	var lines []string
	for i := range fleetNodes {
		fmt.Fprintf(&marks, "ip daddr %s ct mark 0 oifname \"to%d\" ct mark set %d\n", fleetAddress, firstNodeNet+i, 1+i)
		lines = append(lines,
			fmt.Sprintf("route replace %s/32 via %s dev to%d table %d", fleetAddress, machine(firstNodeNet+i), firstNodeNet+i, 101+i),
			fmt.Sprintf("rule add fwmark %d lookup %d", 1+i, 101+i))
	}
	return errors.Join(configure(router, lines...), command(`table ip flows {
		chain before { type filter hook prerouting priority mangle; meta mark set ct mark; }
		chain through { type filter hook forward priority mangle; `+marks.String()+` }
	}`, append(nft, "-f", "-")...))
}

// asker returns a client in the network of a node.
func (f *netFleet) asker(node int) *http.Client {
	return &http.Client{Timeout: time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
			return dial(f.space("node", node), address)
		},
	}}
}

// ready asks a node whether it is ready, as a check on the node does.
func ready(client *http.Client) error {
	answer, err := client.Get("http://127.0.0.1:" + readyPort + "/readyz")
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	_, _ = io.Copy(io.Discard, answer.Body)
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("/readyz says %s", answer.Status)
	}
	return nil
}

// check watches a node until ctx ends, and calls failed when it is not ready for the first
// time, and withdraw when that is so checkFailures times in a row: then it returns.
func (f *netFleet) check(ctx context.Context, node int, failed func(), withdraw func()) {
	client := f.asker(node)
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for failures := 0; failures < checkFailures; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := ready(client); err == nil {
			failures = 0
			continue
		}
		if failures++; failures == 1 {
			failed()
		}
	}
	withdraw()
}

// forget ends the sessions of a node whose clients come to other nodes now. It would wait for
// them when it drains.
func (f *netFleet) forget(node int) (all error) {
	for _, service := range []string{"echo", "web"} {
		if out, err := f.ctl(node, "shutdownSessions", service); err != nil {
			all = errors.Join(all, fmt.Errorf("shutdownSessions %s: %w: %s", service, err, out))
		}
	}
	return all
}

// stop stops a node while clients work, sees what becomes of them, and starts it again.
func (f *netFleet) stop(ctx context.Context, how stopping, n int) (k *stopped, err error) {
	if err := errors.Join(f.route(true), f.track(how.flows)); err != nil {
		return nil, err
	}
	k = &stopped{how: how}
	k.seen, err = f.undisturbed(ctx, how.String(), n, func(ctx context.Context, all []*session) error {
		return f.stopUnder(ctx, k, all)
	})
	return k, err
}

// stopUnder is stop while there are sessions.
func (f *netFleet) stopUnder(ctx context.Context, k *stopped, all []*session) error {
	address := machine(firstNodeNet + k.how.node)
	k.had = carried(all, address)
	var mu sync.Mutex
	var began time.Time
	note := func(at *time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		*at = time.Since(began)
	}
	var beside sync.WaitGroup
	defer beside.Wait()
	working, end := context.WithCancel(ctx)
	defer end()
	var routing error // of the checks
	for i := range fleetNodes {
		beside.Go(func() {
			f.check(working, i, func() {
				if i == k.how.node {
					note(&k.unready)
				}
			}, func() {
				err := f.withdraw(i)
				if i == k.how.node {
					note(&k.withdrawn)
				}
				if !k.how.flows {
					err = errors.Join(err, f.forget(i))
				}
				mu.Lock()
				routing = errors.Join(routing, err)
				if i != k.how.node {
					routing = errors.Join(routing, fmt.Errorf("node %d was withdrawn", i))
				}
				mu.Unlock()
			})
		})
	}
	for range k.how.visited {
		beside.Go(func() {
			for working.Err() == nil {
				c, _, node, err := f.visit()
				mu.Lock()
				k.visits++
				switch {
				case errors.Is(err, syscall.ECONNREFUSED):
					k.refused++
					k.why = err.Error()
				case err != nil:
					k.failed++
					k.why = err.Error()
				case node == address && !began.IsZero():
					k.last = time.Since(began)
				}
				mu.Unlock()
				if err == nil {
					_ = c.Close()
				}
			}
		})
	}
	pid, err := f.process(k.how.node)
	if err != nil {
		return err
	}
	if err := settle(ctx, all); err != nil {
		return err
	}
	mu.Lock()
	began = time.Now()
	mu.Unlock()
	ordered := make(chan error, 1)
	if k.how.signal {
		ordered <- syscall.Kill(pid, syscall.SIGTERM)
	} else {
		beside.Go(func() {
			out, err := f.ctl((k.how.node+1)%fleetNodes, "shutdown", fmt.Sprint("node=n", k.how.node))
			if err == nil && !strings.Contains(out, "done on 1 node") {
				err = errors.New("the order was not done")
			}
			if err != nil {
				err = fmt.Errorf("shutdown: %w: %s", err, out)
			}
			ordered <- err
		})
	}
	var answer error
	answered := false
	err = until(ctx, func() error { // from the node itself, as nobody else reaches its listener any more
		select {
		case answer = <-ordered:
			answered = true
		default:
		}
		if answer != nil {
			return nil
		}
		c, err := dial(f.space("node", k.how.node), fleetAddress+":"+webPort)
		if errors.Is(err, syscall.ECONNREFUSED) {
			return nil
		}
		if err == nil {
			_ = c.Close()
			err = errors.New("the node goes on taking clients")
		}
		return err
	})
	note(&k.refuses)
	if err := errors.Join(err, answer, settle(ctx, all)); err != nil {
		return err
	}
	k.own, k.others = count(all, address)
	note(&k.finishing)
	for _, s := range all {
		if s.node == address {
			s.finish()
		}
	}
	err = until(ctx, func() error {
		left, err := f.processes(f.space("node", k.how.node))
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("node %d has the processes %v", k.how.node, left)
		}
		return err
	})
	note(&k.gone)
	if !answered {
		select {
		case answer = <-ordered:
		case <-ctx.Done():
			answer = ctx.Err()
		}
	}
	err = errors.Join(err, answer)
	mu.Lock()
	err = errors.Join(err, routing)
	mu.Unlock()
	end()
	beside.Wait()
	own, others := count(all, address)
	k.own, k.others = max(own, k.own), max(others, k.others)
	return errors.Join(err, f.start(ctx, f.nodes[k.how.node]), f.sees(ctx, k.how.node, "joined"), f.hop(k.how.node), f.group(true, "replace"))
}

// order tells what has not come in its order, nil if all has.
func (k *stopped) order() error {
	var all error
	for _, o := range []struct {
		first, then   string
		before, after time.Duration
	}{
		{"the order", "/readyz says 503", 0, k.unready},
		{"/readyz says 503", "the route is withdrawn", k.unready, k.withdrawn},
		{"the route is withdrawn", "the node refuses clients", k.withdrawn, k.refuses},
		{"the last new client comes", "the node refuses clients", k.last, k.refuses},
		{"grace is over", "the node refuses clients", grace, k.refuses},
		{"the node refuses clients", "its process ends", k.refuses, k.gone},
		{"its process ends", "drain is over", k.gone, k.refuses + drain},
	} {
		if o.before >= o.after {
			all = errors.Join(all, fmt.Errorf("%v: %s after %v, and %s after %v", k.how, o.first, o.before, o.then, o.after))
		}
	}
	return all
}

// reportStops writes what was seen of nodes that were stopped, and fails if the route was not
// withdrawn first, or if clients have noticed what they must not.
func (r *result) reportStops(out io.Writer) (all error) {
	if len(r.stops) == 0 {
		return nil
	}
	fmt.Fprintln(out, "\n| a node stops | /readyz says 503 after | route withdrawn | last new client | refuses | process ends | new connections | refused | failed | sessions on it | ended | of others | requests of ab and curl | errors |")
	fmt.Fprintln(out, "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|")
	for _, k := range r.stops {
		ms := func(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }
		u := k.seen
		fmt.Fprintf(out, "| %v | %v | %v | %v | %v | %v | %d | %d | %d | %d | %d | %d | %d | %d |\n", k.how, ms(k.unready), ms(k.withdrawn), ms(k.last), ms(k.refuses), ms(k.gone),
			k.visits, k.refused, k.failed, k.had, k.own, k.others, u.requests, u.errors)
		all = errors.Join(all, k.order())
		switch {
		case k.refused > 0:
			all = errors.Join(all, fmt.Errorf("%v: %d new connections were refused: %s", k.how, k.refused, k.why))
		case k.others > 0:
			all = errors.Join(all, fmt.Errorf("%v: %d sessions of other nodes have ended", k.how, k.others))
		case k.how.flows && k.failed+k.own+u.ended+u.errors > 0:
			all = errors.Join(all, fmt.Errorf("%v: %d new connections failed (%s), %d sessions have ended, %d requests failed: %s", k.how, k.failed, k.why, u.ended, u.errors, u.why))
		case k.had == 0 || k.visits == 0 || u.requests == 0:
			all = errors.Join(all, fmt.Errorf("%v: the node had %d sessions, and there were %d connections and %d requests", k.how, k.had, k.visits, u.requests))
		}
	}
	return all
}
