package director

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

// A name that comes to stand for a listener of the process itself is told, once
// for as long as it does.
func TestNameOfOurOwnListener(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		w.resolves("db", "10.255.0.1")
		start(t, w, `<config><service name="web"><listen ip="*:80"/><group name="g"><host name="a" ip="127.0.0.1:81"/></group></service>
			<service name="api"><listen ip="*:81"/><group name="g"><host name="b" ip="db:80" resolve="1s"/><host name="c" ip="10.255.0.2:80"/></group></service></config>`)
		const text = `level=WARN msg="connection loop`
		told := func(want int) {
			t.Helper()
			time.Sleep(5 * time.Second)
			synctest.Wait()
			if got := w.log.Lines(text); len(got) != want {
				t.Errorf("said %d times, want %d:\n%s", len(got), want, w.log.String())
			}
		}
		told(0)
		w.resolves("db", "10.255.0.1", "127.0.0.1")
		told(1)
		if line := w.log.Lines(text)[0]; !strings.Contains(line, "service=api group=g host=b name=db addr=127.0.0.1:80 listener=web") {
			t.Error(line)
		}
		told(1)
		w.resolves("db", "10.255.0.1")
		told(1)
		w.resolves("db", "127.0.0.1")
		told(2)
	})
}
