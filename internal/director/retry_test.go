package director

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/testkit"
)

func TestRetryMarksAHostUpAtOnce(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, with(""))
		a := target(t, d, "g", "a", 0)
		w.set(w.dead, "10.0.0.1:80", true)
		w.fail(a)
		if names, _ := w.picks(); names != "bc" {
			t.Fatalf("hosts %s", names)
		}
		if n, err := d.Retry(t.Context(), "web", "g", "a"); n != 1 || err != nil {
			t.Errorf("retry: %d, %v", n, err)
		}
		synctest.Wait()
		if names, _ := w.picks(); names != "abc" || !a.Status().Up || w.probed("10.0.0.1:80") != 0 {
			t.Errorf("hosts %s, status %+v", names, a.Status())
		}
		if n, err := d.Retry(t.Context(), "web", "g", "b"); n != 0 || err != nil {
			t.Errorf("retry of a host that is up: %d, %v", n, err)
		}
		if _, err := d.Retry(t.Context(), "web", "g", "z"); err == nil || !strings.Contains(err.Error(), `"z"`) {
			t.Errorf("retry of no host: %v", err)
		}
	})
}

func TestRetryEndsWithRun(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		c, problems := config.Parse("", []byte(with("")))
		if c == nil {
			t.Fatal(problems)
		}
		d, err := New(c, w, Options{Log: w.logger(), Resolver: w, Probe: w.probe})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := d.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Retry(t.Context(), "web", "g", "a"); !errors.Is(err, ErrStopped) {
			t.Errorf("said %v", err)
		}
	})
}
