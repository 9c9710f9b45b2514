package page

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/director"
)

// plan is an engine that serves nothing: what a page shows of it is made up.
type plan struct{ failures chan engine.Failure }

func (plan) Apply(engine.Plan) error           { return nil }
func (p plan) Failures() <-chan engine.Failure { return p.failures }

// world is a configuration that a director holds, without its goroutine: hosts
// are up or down as a test marks them.
func world(t testing.TB, doc string) *director.Director {
	t.Helper()
	cfg, problems := config.Parse("c.xml", []byte(doc))
	if cfg == nil {
		t.Fatal(problems)
	}
	d, err := director.New(cfg, plan{}, director.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// many writes a service with that many hosts in one enabled group.
func many(hosts int) string {
	var b strings.Builder
	b.WriteString(`<config><service name="web"><listen ip="127.0.0.1:0"/><group name="main">`)
	for i := range hosts {
		if i > 0 && i%250 == 0 {
			fmt.Fprintf(&b, `</group></service><service name="web%d"><listen ip="127.0.0.1:0"/><group name="main">`, i)
		}
		fmt.Fprintf(&b, `<host name="host%d" ip="10.%d.%d.%d:80"/>`, i, i>>16, i>>8&255, i&255)
	}
	b.WriteString(`</group></service></config>`)
	return b.String()
}

func source(d *director.Director) Source {
	return Source{
		State: d.State(), Version: "1.2.3", Boot: "boot", Started: time.Now().Add(-time.Hour), HasFile: true,
		User: "admin", CanChange: true, Refresh: 10 * time.Second,
	}
}

func TestRunningIsWritten(t *testing.T) {
	d := world(t, many(3))
	var b bytes.Buffer
	if err := New().Running(&b, NewView(source(d))); err != nil {
		t.Fatal(err)
	}
	t.Log(b.String())
}

// BenchmarkRunning writes the page of 1,000 hosts: 500 rows a group, whole.
func BenchmarkRunning(b *testing.B) {
	for _, hosts := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprint(hosts), func(b *testing.B) {
			d := world(b, many(hosts))
			m := NewMeter("boot")
			src := source(d)
			m.Sample(src)
			src.Figures = m.Figures(false)
			p := New()
			var out bytes.Buffer
			for b.Loop() {
				out.Reset()
				if err := p.Running(&out, NewView(src)); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(out.Len()), "bytes")
		})
	}
}
