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
	"slices"
	"strconv"
	"strings"

	"github.com/txlb/txlb/internal/debian"
)

// The versions of the program: before and after the upgrade.
const oldVersion, newVersion = "0.0.1", "0.0.2"

// build builds txlb as a version.
func build(path, version string) error {
	return command("", "go", "build", "-ldflags", "-X main.version="+version, "-o", path, "github.com/txlb/txlb/cmd/txlb")
}

// processes returns the IDs of the processes of a namespace, in order.
func (f *netFleet) processes(space string) (list []int, err error) {
	out, err := exec.Command(debian.Path("ip"), "netns", "pids", space).Output()
	if err != nil {
		return nil, fmt.Errorf("ip netns pids %s: %w", space, err)
	}
	for _, word := range strings.Fields(string(out)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			return nil, err
		}
		list = append(list, pid)
	}
	slices.Sort(list)
	return list, nil
}

// process returns the ID of the one process of a node.
func (f *netFleet) process(node int) (int, error) {
	pids, err := f.processes(f.space("node", node))
	if err == nil && len(pids) != 1 {
		err = fmt.Errorf("node %d has the processes %v", node, pids)
	}
	if err != nil {
		return 0, err
	}
	return pids[0], nil
}

// upgraded is an upgrade of all nodes.
type upgraded struct {
	before, after []int // the processes, by node
	held          int   // sessions that last
	moved, stayed int   // sessions, those of ab and curl too
}

var handedOver = regexp.MustCompile(`msg="handed over" pid=(\d+) version=(\S+) moved=(\d+) stay=(\d+)`)

// upgrade upgrades all nodes by an order to one of them.
func (f *netFleet) upgrade(ctx context.Context, node int, all []*session) (*upgraded, error) {
	u := &upgraded{held: len(all)}
	for i := range fleetNodes {
		pid, err := f.process(i)
		if err != nil {
			return u, err
		}
		u.before = append(u.before, pid)
	}
	next := f.program + ".next"
	if err := errors.Join(build(next, newVersion), os.Rename(next, f.program), settle(ctx, all)); err != nil {
		return u, err
	}
	if out, err := f.ctl(node, "upgrade", "--fleet"); err != nil {
		return u, fmt.Errorf("upgrade --fleet: %w: %s", err, out)
	}
	for i := range fleetNodes { // the processes before end when they have answered their users
		if err := f.sees(ctx, i, fmt.Sprintf("done on %d nodes", fleetNodes)); err != nil {
			return u, err
		}
		var pid int
		err := until(ctx, func() (err error) {
			if pid, err = f.process(i); err == nil && pid == u.before[i] {
				err = fmt.Errorf("node %d still has the process %d", i, pid)
			}
			return err
		})
		if err != nil {
			return u, err
		}
		u.after = append(u.after, pid)
		log, err := os.ReadFile(f.nodes[i].Log)
		if err != nil {
			return u, err
		}
		m := handedOver.FindAllStringSubmatch(string(log), -1)
		if len(m) != 1 || m[0][1] != strconv.Itoa(pid) || m[0][2] != newVersion {
			return u, fmt.Errorf("node %d has process %d of version %s by one upgrade, and its log says %q", i, pid, newVersion, m)
		}
		moved, _ := strconv.Atoi(m[0][3]) // the pattern has digits
		stayed, _ := strconv.Atoi(m[0][4])
		u.moved += moved
		u.stayed += stayed
	}
	return u, nil
}

// reportUpgrades writes what became of sessions in upgrades, and fails if not all have moved.
func (r *result) reportUpgrades(out io.Writer) (all error) {
	for i, u := range r.upgrades {
		if i == 0 {
			fmt.Fprintln(out, "\n| upgrade of all nodes | processes before | after | sessions moved | stayed |")
			fmt.Fprintln(out, "|---|---|---|---|---|")
		}
		fmt.Fprintf(out, "| %s to %s | %v | %v | %d | %d |\n", oldVersion, newVersion, u.before, u.after, u.moved, u.stayed)
		if u.stayed > 0 || u.moved < u.held {
			all = errors.Join(all, fmt.Errorf("%d sessions have moved, and %d stayed with the old processes; %d last", u.moved, u.stayed, u.held))
		}
	}
	return all
}
