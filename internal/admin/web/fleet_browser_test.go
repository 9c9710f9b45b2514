//go:build linux

package web

import (
	"sync/atomic"
	"testing"

	"github.com/chromedp/chromedp"

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
	plain := b.open(t, r, "guest", "/fleet", chromedp.Func(noScript), size(1300, 900, "light"))
	plain.says(".nodes td", "2 of 2 services without a usable host")
	plain.until("it refreshes itself", "document.querySelector('meta[http-equiv=refresh]')?.content === '10'")
}
