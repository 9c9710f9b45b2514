//go:build unix

package page

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/testkit"
)

// TestScriptWritesFiguresAlike has a browser write figures with the functions
// of page.js: what moves must not change its form.
func TestScriptWritesFiguresAlike(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a browser")
	}
	debian.NeedFor(t, "chromium")
	script, err := os.ReadFile("static/page.js")
	if err != nil {
		t.Fatal(err)
	}
	_, texts, _ := strings.Cut(string(script), "// ---- texts")
	_, texts, _ = strings.Cut(texts, "\n")
	texts, _, ok := strings.Cut(texts, "const shown")
	if !ok {
		t.Fatal("page.js has no part with the texts any more")
	}
	var calls, want []string
	call := func(name string, argument any, result string) {
		calls = append(calls, fmt.Sprintf("%s(%v)", name, argument))
		want = append(want, result)
	}
	for _, n := range []int64{0, 7, 999, 1000, 12345, 1234567, 9007199254740991} {
		call("count", n, count(n))
	}
	for _, f := range []float64{0, .04, .05, .1, 1.26, 9.94, 9.95, 10, 123.4, 999.49, 999.5, 1000, 1234.5, 99949, 1e6, 2.5e6, 9.99e8, 1e12, 5e15, 7e18} {
		call("decimal", f, decimal(f))
		call("amount", f, amount(f))
		call("took", f, took(&f))
	}
	call("took", "null", took(nil))
	for _, s := range []float64{0, .5, 1, 59, 119, 120, 7199, 7200, 172799, 172800, 1e7} {
		d := time.Duration(s * float64(time.Second))
		call("span", d.Milliseconds(), span(d))
		call("left", d.Milliseconds(), left(time.Time{}.Add(d), time.Time{}))
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(debian.Path("chromium")), chromedp.NoSandbox,
		chromedp.UserDataDir(t.TempDir()), chromedp.WSURLReadTimeout(testkit.Patience))
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), opts...)
	defer cancel()
	ctx, cancelTab := chromedp.NewContext(allocator)
	defer cancelTab()
	got, err := chromedp.Run(ctx, chromedp.Evaluate[[]string]("(() => {"+texts+"\nreturn ["+strings.Join(calls, ",")+"]})()"))
	if err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Cancel(ctx); err != nil {
		t.Error(err)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%s: the script writes %q, the server %q", calls[i], got[i], want[i])
		}
	}
}
