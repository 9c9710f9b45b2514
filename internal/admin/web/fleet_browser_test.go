//go:build linux

package web

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/fleet"
)

// testFleet is the page of a fleet: live, on a phone in the dark, and without JavaScript.
func testFleet(t *testing.T, b *browser) {
	var s atomic.Pointer[fleet.Status]
	s.Store(threeNodes())
	r := newRig(t, twoHosts, secure, inFleet(&s))
	p := b.open(t, r, "boss", "/", size(1300, 900, "light"))
	p.click(".fleet a", "Fleet edge")
	p.says("main h1", "Fleet edge")
	first := "document.querySelector('.nodes tbody tr').textContent"
	p.until("problems come first", first+".includes('lb3') && "+first+".includes('not ready')")
	p.click(".nodes .button", "Upgrade…")
	p.says("dialog h1", "Hand over to the installed program on node lb3?")
	p.click("dialog a", "Cancel")
	now := threeNodes()
	now.Nodes[2].Ready, now.Nodes[2].Unready, now.Order = true, "", nil
	s.Store(now)
	p.until("a node that gets ready", "!document.querySelector('.nodes .health.down') && !document.querySelector('.order')")
	s.Store(threeNodes())
	phone := b.open(t, r, "boss", "/fleet", size(360, 740, "dark"))
	phone.says(".nodes th", "this node")
	if got := phone.eval("document.documentElement.scrollWidth"); got != "360" {
		t.Errorf("on a phone the page is %s pixels wide", got)
	}
	testFleetCancel(t, b)
	plain := b.open(t, r, "guest", "/fleet", chromedp.Func(noScript), size(1300, 900, "light"))
	plain.says(".nodes td", "2 of 2 services without a usable host")
	plain.until("it refreshes itself", "document.querySelector('meta[http-equiv=refresh]')?.content === '10'")
}

// testFleetCancel is an upgrade that somebody cancels, and the sessions of hosts on other nodes,
// which move by themselves.
func testFleetCancel(t *testing.T, b *browser) {
	var s atomic.Pointer[fleet.Status]
	var elsewhere atomic.Int64
	elsewhere.Store(12)
	going := threeNodes()
	going.Order.Ended, going.Order.Problem, going.Order.Steps[1].State = time.Time{}, "", fleet.Begun
	s.Store(going)
	r := newRig(t, twoHosts, secure, inFleet(&s), func(o *Options) {
		o.Status.Elsewhere = func(string, string, *director.Host) (int64, bool) { return elsewhere.Load(), true }
		o.Admin = admin.New(admin.Options{
			Director: o.Director, Engine: o.Engine, Status: o.Status, Process: process{}, Log: o.Log,
			Fleet: nodesOf{func(id, by string) error {
				if id != "1" || by != "boss" {
					t.Errorf("order %q is cancelled by %s", id, by)
				}
				now := threeNodes()
				now.Order.Cancelled, now.Order.Problem = true, "cancelled by boss on node lb1"
				s.Store(now)
				return nil
			}},
		})
	})
	p := b.open(t, r, "boss", "/fleet", size(1300, 900, "light"))
	p.says(".order", "1 of 3 nodes done, lb3 is begun")
	p.says(".nodes .why", "not heard by this node: dial: connection refused")
	p.says(".pending", "enableGroup web spare")
	p.click(".order .button", "Cancel…")
	p.says("dialog h1", "Cancel the order to the nodes of the fleet?")
	p.click("dialog button", "Cancel the order")
	p.says(".order", "cancelled by boss on node lb1")
	p.until("there is nothing more to cancel", "!document.querySelector('.order .button')")
	p.click("nav a", "Running")
	p.until("sessions elsewhere", row("a", "r.querySelector('[data-f=elsewhere]').textContent === '≥12 elsewhere'"))
	elsewhere.Store(1234)
	p.until("they move", row("a", "r.querySelector('[data-f=elsewhere]').textContent === '≥1,234 elsewhere'"))
}

// fiveNodes is a fleet on a bad night, for pictures: an upgrade has stopped at lb3, whose port the
// others do not reach, and lb4 lacks a file.
func fiveNodes() *fleet.Status {
	now := time.Now()
	s := &fleet.Status{
		Fleet: "edge", Node: "lb1", Joined: true, Since: now.Add(-3 * time.Hour), Generation: 42, Running: 42,
		Order: &fleet.Order{
			ID: "1", Verb: fleet.Upgrade, By: "ann", Node: "lb1", Begun: now.Add(-4 * time.Minute), Ended: now.Add(-3 * time.Minute),
			Problem: "node lb3 has been upgraded to txlb 1.0, and 25s after that is not ready: all services without a usable host: see its log",
		},
		Unconfirmed: []fleet.Unconfirmed{{Generation: 42, Node: "lb2", By: "ann", Verb: "enableGroup web green", Until: now.Add(4*time.Minute + 20*time.Second)}},
		Holds:       []fleet.Held{{Service: "db", Group: "main", Node: "lb1", By: "ben", Until: now.Add(25 * time.Second)}},
		Shares:      &fleet.Shares{Checks: fleet.Checks{Nodes: 4, Mine: 82, Learned: 118}, Listen: "10.0.0.11:7946", Missing: []string{"lb3"}},
	}
	for i, name := range []string{"lb1", "lb2", "lb3", "lb4", "lb5"} {
		n := fleet.Info{Member: fleet.Member{
			Name: name, Version: "1.0", Ready: true, Generation: 42, Sessions: int64(1204 - 17*i), Peer: fmt.Sprintf("10.0.0.1%d:7946", i+1),
		}}
		step := fleet.Step{Node: name, State: fleet.Waiting, Before: "0.9"}
		switch name {
		case "lb2":
			step.State, step.After = fleet.Done, "1.0"
		case "lb3":
			step.State = fleet.Failed
			n.Ready, n.Unready, n.Sessions, n.Unheard = false, "all services without a usable host", 0, "dial: no route to host"
		case "lb4":
			n.Version, n.Generation, n.Behind, n.Lag = "0.9", 41, 1, 95
			n.Problem = "generation 42 cannot run here: open /etc/txlb/ca.pem: no such file or directory"
		default:
			n.Version = "0.9"
		}
		s.Nodes = append(s.Nodes, n)
		s.Order.Steps = append(s.Order.Steps, step)
	}
	s.Order.Steps = append(s.Order.Steps[1:], s.Order.Steps[0])
	return s
}

// TestScreenshotsOfFleet writes the pictures of the page of a fleet.
func TestScreenshotsOfFleet(t *testing.T) {
	if *screenshots == "" {
		t.Skip("writes pictures, if asked by -screenshots")
	}
	b := newBrowser(t)
	var s atomic.Pointer[fleet.Status]
	s.Store(fiveNodes())
	r := newRig(t, twoHosts, inFleet(&s))
	for _, shot := range []struct {
		name          string
		width, height int64
		scheme        string
	}{
		{"page-fleet", 1360, 780, "light"}, {"page-fleet-dark", 1360, 780, "dark"}, {"page-fleet-phone", 390, 1100, "light"},
	} {
		p := b.open(t, r, "boss", "/fleet", size(shot.width, shot.height, shot.scheme))
		p.says(".nodes", "lb5")
		png, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(*screenshots, shot.name+".png"), png, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
