package page

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/txlb/txlb/internal/debian"
)

// browser is one chromium for all tests of it.
type browser struct {
	ctx context.Context
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a browser")
	}
	if err := debian.Need("chromium", "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"); err != nil {
		t.Fatal(err)
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(debian.Path("chromium")), chromedp.NoSandbox,
		chromedp.UserDataDir(t.TempDir()), chromedp.WSURLReadTimeout(patience), chromedp.Flag("disable-dev-shm-usage", true))
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), opts...)
	ctx, cancelTab := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Error(err)
		}
		cancelTab()
		cancel()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	return &browser{ctx}
}

// tab is one page of the browser.
type tab struct {
	t   testing.TB
	ctx context.Context
}

// open opens an address in a tab of its own. What the page complains of fails
// the test.
func (b *browser) open(t testing.TB, url string, before ...step) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx)
	t.Cleanup(cancel)
	ctx, cancelTime := context.WithTimeout(ctx, 3*patience)
	t.Cleanup(cancelTime)
	p := &tab{t, ctx}
	err := chromedp.Listen(ctx, func(ev any) {
		switch ev := ev.(type) {
		case *runtime.EventExceptionThrown:
			t.Errorf("the page's script failed: %v", ev.ExceptionDetails)
		case *cdplog.EventEntryAdded:
			if ev.Entry.Source == cdplog.EntrySourceSecurity || strings.Contains(ev.Entry.Text, "Content Security Policy") {
				t.Errorf("the browser refused something: %s", ev.Entry.Text)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	p.run(append(before, chromedp.Navigate(url))...)
	return p
}

func (p *tab) run(steps ...step) {
	p.t.Helper()
	if err := chromedp.Do(p.ctx, steps...); err != nil {
		p.t.Fatal(err)
	}
}

// eval returns what an expression gives, as text.
func (p *tab) eval(expression string) string {
	p.t.Helper()
	v, err := chromedp.Run(p.ctx, chromedp.Evaluate[any](expression))
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	return fmt.Sprint(v)
}

// until waits for an expression to come true.
func (p *tab) until(what, expression string) time.Duration {
	p.t.Helper()
	begun := time.Now()
	for {
		ok, err := chromedp.Run(p.ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		if err != nil {
			p.t.Fatalf("%s: %v", what, err)
		}
		if ok {
			return time.Since(begun)
		}
		if time.Since(begun) > patience {
			body, _ := chromedp.Run(p.ctx, chromedp.Evaluate[string]("document.body.innerText.slice(0, 3000)"))
			p.t.Fatalf("%s: not within %v; the page says:\n%s", what, patience, body)
		}
		time.Sleep(20 * time.Millisecond) // between two looks, not instead of one
	}
}

// says waits for the page, or one element of it, to have a text.
func (p *tab) says(selector, text string) {
	p.t.Helper()
	p.until(selector+" says "+text, fmt.Sprintf("[...document.querySelectorAll(%q)].some(e => e.textContent.includes(%q))", selector, text))
}

// click clicks on what a selector finds and has the text.
func (p *tab) click(selector, text string) {
	p.t.Helper()
	find := fmt.Sprintf("[...document.querySelectorAll(%q)].find(e => e.textContent.includes(%q) && e.checkVisibility())", selector, text)
	p.until(selector+" with "+text, find)
	p.eval(find + ".click()")
}

// step is an action of the browser.
type step = chromedp.Action[chromedp.Void]

// size sets the window, and light or dark.
func size(width, height int64, scheme string) step {
	return chromedp.Steps(chromedp.EmulateViewport(width, height), chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	}))
}

var screenshots = flag.String("screenshots", "", "folder to write pictures of the page to")

// incident is a configuration on a bad night: c refuses, d is being drained, and
// e is in maintenance.
func incident(t *testing.T) string {
	t.Helper()
	var at []any
	for range 8 {
		at = append(at, serve(t).addr)
	}
	return fmt.Sprintf(`<config>
	<service name="web"><listen ip="127.0.0.1:0"/>
		<group name="blue" scheduler="weightlc" enable="yes"><check type="tcp" interval="1s" fall="2" rise="2"/>
			<host name="web-1" ip="%s" weight="10"/><host name="web-2" ip="%s" weight="10"/><host name="web-3" ip="127.0.0.1:1" weight="10"/>
			<host name="web-4" ip="%s" weight="5" state="drain"/><host name="web-5" ip="%s" weight="5" state="maint"/></group>
		<group name="green" scheduler="weightlc"><check type="tcp" interval="1s"/><host name="new-1" ip="%s"/><host name="new-2" ip="%s"/></group>
	</service>
	<service name="smtp"><listen ip="127.0.0.1:0"/><group name="mail" scheduler="roundr"><check type="tcp" interval="1s"/><host name="mx-1" ip="%s"/><host name="mx-2" ip="%s" backup="yes"/></group></service>
	</config>`, at...)
}

// TestScreenshots writes the pictures of docs/images.
func TestScreenshots(t *testing.T) {
	if *screenshots == "" {
		t.Skip("writes pictures, if asked by -screenshots")
	}
	b := newBrowser(t)
	r := newRig(t, incident(t))
	r.load(3 * time.Millisecond)
	shot := func(name string, p *tab) {
		time.Sleep(300 * time.Millisecond) // for the last frame
		png, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(*screenshots, name+".png"), png, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	light := b.open(t, r.url, size(1360, 1000, "light"))
	light.says("#state", "1 of 5 hosts")
	time.Sleep(20 * time.Second) // for something to be on the charts
	shot("page-light", light)
	shot("page-dark", b.open(t, r.url, size(1360, 1000, "dark")))
	shot("page-phone", b.open(t, r.url, size(390, 844, "light")))
	light.click("a", "web-1")
	light.says("dialog", "Set weight")
	time.Sleep(time.Second)
	shot("page-host", light)
	light.run(chromedp.Navigate(r.url + "/ask?verb=enableGroup&service=web&group=green"))
	shot("page-ask", light)
	light.run(chromedp.Navigate(r.url + "/configs"))
	shot("page-configs", light)
}
