//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/txlb/txlb/internal/debian"
)

// options say what is done with a fleet.
type options struct {
	without  time.Duration // of a quorum
	sessions int
	plain    bool // kill a node behind plain ECMP, too
	keep     bool // the logs
}

// result is what clients have seen.
type result struct {
	kills    []*killed
	quiet    []*undisturbed
	upgrades []*upgraded
	stops    []*stopped
}

// killed is the death of a node, and its return.
type killed struct {
	router            string
	sessions, had     int // all, and those of the node
	own, others       int // that ended by the death
	back              int // that ended because the node was back
	onReturned, fresh int // of so many new ones afterwards, how many went to it
}

// undisturbed is a time in which clients must not notice anything.
type undisturbed struct {
	what     string
	took     time.Duration
	sessions int
	ended    int // of these
	wrong    int // of these, because they got other bytes than they had sent
	requests int // of ab and curl
	errors   int
	why      string
}

// run runs a fleet in namespaces, kills a node, cuts one off, takes the quorum away, upgrades
// all nodes, stops some, and tells what clients have noticed. It needs root.
func run(ctx context.Context, opt options, out, progress io.Writer) (res *result, err error) {
	if err := debian.Need("ip", "nft", "etcd", "ab", "curl"); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "fleet")
	if err != nil {
		return nil, err
	}
	if opt.keep {
		fmt.Fprintln(progress, "logs are kept in", dir)
	} else {
		defer func() { _ = os.RemoveAll(dir) }()
	}
	f, err := newNetFleet(ctx, dir)
	defer func() { err = errors.Join(err, f.close()) }()
	if err != nil {
		return nil, err
	}
	weight := 2
	if err := f.change(ctx, 0, weight); err != nil {
		return nil, err
	}
	res = &result{}
	var routers []bool
	if opt.plain {
		routers = append(routers, false)
	}
	for _, resilient := range append(routers, true) {
		k, err := f.kill(ctx, 0, resilient, opt.sessions)
		if err != nil {
			return res, fmt.Errorf("kill a node: %w", err)
		}
		fmt.Fprintf(progress, "killed a node behind %s: %+v\n", k.router, *k)
		res.kills = append(res.kills, k)
	}
	for i := range fleetNodes {
		if err := f.forget(i); err != nil {
			return res, err
		}
	}
	steps := []struct {
		what string
		do   func(context.Context, []*session) error
	}{
		{"a node is cut off from the store", func(ctx context.Context, _ []*session) error {
			weight++
			return f.partition(ctx, 2, weight)
		}},
		{"no quorum for " + opt.without.String(), func(ctx context.Context, _ []*session) error {
			weight++
			return f.noQuorum(ctx, opt.without, weight)
		}},
		{"all nodes are upgraded", func(ctx context.Context, all []*session) error {
			u, err := f.upgrade(ctx, 1, all)
			res.upgrades = append(res.upgrades, u)
			return err
		}},
	}
	for _, s := range steps {
		u, err := f.undisturbed(ctx, s.what, opt.sessions, s.do)
		if err != nil {
			return res, fmt.Errorf("%s: %w", s.what, err)
		}
		fmt.Fprintf(progress, "%+v\n", *u)
		res.quiet = append(res.quiet, u)
	}
	for _, s := range stops {
		k, err := f.stop(ctx, s, opt.sessions)
		if err != nil {
			return res, fmt.Errorf("%v: %w", s, err)
		}
		fmt.Fprintf(progress, "%+v %+v\n", *k, *k.seen)
		res.stops = append(res.stops, k)
	}
	return res, res.report(out)
}

// partition cuts a node off from the store, changes something elsewhere, and lets it back.
func (f *netFleet) partition(ctx context.Context, node, weight int) error {
	nft := []string{debian.Path("ip"), "netns", "exec", f.space("node", node), debian.Path("nft")}
	err := command(`table ip faults {
		chain in { type filter hook input priority 0; tcp sport `+storePort+` drop; }
		chain out { type filter hook output priority 0; tcp dport `+storePort+` drop; }
	}`, append(nft, "-f", "-")...)
	if err != nil {
		return err
	}
	err = errors.Join(f.refuses(ctx, node), f.change(ctx, 0, weight, node))
	if out, _ := f.ctl(node, "show", "config"); strings.Contains(out, fmt.Sprintf(`weight="%d"`, weight)) {
		err = errors.Join(err, errors.New("it was not cut off"))
	}
	return errors.Join(err, command("", append(nft, "delete", "table", "ip", "faults")...), f.runs(ctx, node, weight))
}

// noQuorum kills two members for a while.
func (f *netFleet) noQuorum(ctx context.Context, length time.Duration, weight int) error {
	over := time.After(length)
	f.members[1].Kill()
	f.members[2].Kill()
	var err error
	for i := range fleetNodes {
		err = errors.Join(err, f.refuses(ctx, i))
	}
	select {
	case <-over:
	case <-ctx.Done():
		return ctx.Err()
	}
	return errors.Join(err, f.start(ctx, f.members[1], f.members[2]), f.change(ctx, 2, weight))
}

// kill kills a node, takes it out of the router, and lets it come back.
func (f *netFleet) kill(ctx context.Context, node int, resilient bool, n int) (*killed, error) {
	if err := f.route(resilient); err != nil {
		return nil, err
	}
	k := &killed{router: "plain ECMP", sessions: n, fresh: n}
	if resilient {
		k.router = "resilient next hops"
	}
	all, end, err := f.open(ctx, n)
	if err != nil {
		return nil, err
	}
	defer end()
	if err := settle(ctx, all); err != nil {
		return nil, err
	}
	address := machine(firstNodeNet + node)
	k.had = carried(all, address)
	f.nodes[node].Kill()
	if err := errors.Join(f.withdraw(node), settle(ctx, all)); err != nil {
		return nil, err
	}
	k.own, k.others = count(all, address)
	if err := errors.Join(f.start(ctx, f.nodes[node]), f.sees(ctx, node, "joined"), f.hop(node), f.group(resilient, "replace"), settle(ctx, all)); err != nil {
		return nil, err
	}
	if resilient { // the router looks at idle buckets now and then
		over := time.After(2 * idleTimer * time.Second)
		select {
		case <-over:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if err := settle(ctx, all); err != nil {
			return nil, err
		}
	}
	own, others := count(all, address)
	k.back = own + others - k.own - k.others
	fresh, endNew, err := f.open(ctx, n)
	if err != nil {
		return nil, err
	}
	defer endNew()
	k.onReturned = carried(fresh, address)
	return k, nil
}

var (
	abComplete = regexp.MustCompile(`Complete requests:\s+(\d+)`)
	abFailed   = regexp.MustCompile(`Failed requests:\s+(\d+)`)
)

// undisturbed lets clients work while something happens. None of them must notice.
func (f *netFleet) undisturbed(ctx context.Context, what string, n int, do func(context.Context, []*session) error) (*undisturbed, error) {
	u := &undisturbed{what: what, sessions: n}
	all, end, err := f.open(ctx, n)
	if err != nil {
		return nil, err
	}
	defer end()
	working, stop := context.WithCancel(ctx)
	defer stop()
	var clients sync.WaitGroup
	var mu sync.Mutex
	note := func(requests, failed int, why string) {
		mu.Lock()
		defer mu.Unlock()
		u.requests += requests
		u.errors += failed
		if failed > 0 {
			u.why = why
		}
	}
	in := func(words ...string) (string, error) {
		out, err := exec.Command(debian.Path("ip"), append([]string{"netns", "exec", f.space("clients", 0)}, words...)...).CombinedOutput()
		return string(out), err
	}
	url := "http://" + fleetAddress + "/"
	clients.Go(func() {
		for working.Err() == nil {
			out, err := in(debian.Path("ab"), "-q", "-n", "500", "-c", "4", "-s", "60", url)
			complete, failed := abComplete.FindStringSubmatch(out), abFailed.FindStringSubmatch(out)
			if err != nil || complete == nil || failed == nil {
				note(0, 1, fmt.Sprintf("ab: %v: %s", err, out))
				continue
			}
			requests, _ := strconv.Atoi(complete[1])
			bad, _ := strconv.Atoi(failed[1])
			note(requests, bad, out)
		}
	})
	clients.Go(func() {
		for working.Err() == nil {
			failed := 0
			out, err := in(debian.Path("curl"), "-sS", "--fail", "--max-time", "60", url)
			if err != nil {
				failed = 1
			}
			note(1, failed, fmt.Sprintf("curl: %v: %s", err, out))
		}
	})
	began := time.Now()
	err = do(ctx, all)
	err = errors.Join(err, settle(ctx, all))
	u.took = time.Since(began)
	stop()
	clients.Wait()
	own, others := count(all, "")
	u.ended, u.wrong = own+others, corrupted(all)
	return u, err
}

// report writes the tables, and fails if clients have noticed what they must not.
func (r *result) report(out io.Writer) error {
	var all error
	fmt.Fprintln(out, "| a node is killed behind | sessions | on it | ended of these | ended of the others | ended when it was back | of as many new ones on it |")
	fmt.Fprintln(out, "|---|---|---|---|---|---|---|")
	for _, k := range r.kills {
		fmt.Fprintf(out, "| %s | %d | %d | %d | %d | %d | %d |\n", k.router, k.sessions, k.had, k.own, k.others, k.back, k.onReturned)
		if k.own != k.had {
			all = errors.Join(all, fmt.Errorf("%s: %d of %d sessions of the node have ended", k.router, k.own, k.had))
		}
		if strings.HasPrefix(k.router, "resilient") && k.others+k.back > 0 {
			all = errors.Join(all, fmt.Errorf("%s: %d sessions of other nodes have ended, %d more when the node was back", k.router, k.others, k.back))
		}
	}
	fmt.Fprintln(out, "\n| what happens | for | sessions | ended | with other bytes | requests of ab and curl | errors |")
	fmt.Fprintln(out, "|---|---|---|---|---|---|---|")
	for _, u := range r.quiet {
		fmt.Fprintf(out, "| %s | %v | %d | %d | %d | %d | %d |\n", u.what, u.took.Round(time.Second), u.sessions, u.ended, u.wrong, u.requests, u.errors)
		if u.ended+u.errors > 0 {
			all = errors.Join(all, fmt.Errorf("%s: %d sessions have ended, %d requests failed: %s", u.what, u.ended, u.errors, u.why))
		}
	}
	return errors.Join(all, r.reportUpgrades(out), r.reportStops(out))
}
