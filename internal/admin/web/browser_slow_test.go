//go:build linux

package web

import (
	"context"
	"fmt"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// testSlow has a txlb that is too busy to say anything: each further try to reach it waits
// twice as long. With a fixed time, a txlb that takes longer would never be heard.
func testSlow(t *testing.T, b *browser) {
	const fast = 50 // times as fast as ours is the clock of the page
	// A stream that stays silent notes when it was opened.
	mute := fmt.Sprintf(`
		const now = Date.now.bind(Date), began = now(), every = window.setInterval
		Date.now = () => began + (now() - began) * %d
		window.setInterval = (f, ms) => every(f, ms / %d)
		window.opened = []
		window.EventSource = class {
			constructor() { window.opened.push(Date.now()); this.readyState = 1 }
			addEventListener() {}
			close() {}
		}`, fast, fast)
	r := newRig(t, fmt.Sprintf(`<config><service name="web"><listen ip="127.0.0.1:0"/>
		<group name="main"><host name="a" ip="%s"/></group></service>%s</config>`, serve(t).addr, bossAndGuest))
	p := b.open(t, r, "boss", "/", chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: mute})
		return err
	}))
	p.until("five tries", "opened.length >= 6")
	p.says("#connection", "Connection to txlb lost")
	for i, least := range []int{10, 20, 40, 60, 60} { // seconds
		waited := p.eval(fmt.Sprintf("opened[%d] - opened[%d]", i+1, i))
		if !p.holds(fmt.Sprintf("opened[%d] - opened[%d] >= %d", i+1, i, least*1000)) {
			t.Errorf("try %d came after %s ms; want %d s at least", i+1, waited, least)
		}
	}
}
