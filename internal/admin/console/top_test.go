package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/status"
	"github.com/txlb/txlb/internal/testkit"
)

// plant is a Source whose counters grow with each look.
type plant struct {
	mu    sync.Mutex
	looks int
	err   error
	names []string // of hosts of service web
}

// fails makes it fail from now on, or no longer.
func (p *plant) fails(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

func (p *plant) Snapshot(context.Context) (Snapshot, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return Snapshot{}, p.err
	}
	p.looks++
	n := uint64(p.looks)
	moving := min(float64(n-1), 1) // there are rates from the second look on
	s := Snapshot{At: time.Now(), Generation: 5, Status: admin.Status{Sessions: 3, Rate: 10 * moving, InRate: 1000 * moving, OutRate: 2_000_000 * moving}, Services: []admin.ServiceInfo{
		{Name: "web", Listen: []string{"127.0.0.1:80"}, Group: "main", Hosts: len(p.names), HostsUp: 1, Sessions: 3, SessionsTotal: 10 * n, Rate: 10 * moving},
		{Name: "mail", Hosts: 1, HostsUp: 1, SessionsTotal: 1000 - n},
	}}
	for i, name := range p.names {
		s.Hosts = append(s.Hosts, admin.HostInfo{
			Service: "web", Group: "main", Enabled: true, Name: name, Address: fmt.Sprintf("10.0.0.%d:80", i), State: "ready", Up: i == 0,
			Reason: "refused", Counters: admin.Counters{"sessions": uint64(i), "sessions_total": 5 * n * uint64(i)}, Rate: 5 * float64(i) * moving, Weight: 1,
		})
	}
	s.Hosts = append(s.Hosts, admin.HostInfo{Service: "mail", Group: "only", Enabled: true, Name: "m", State: "maint", Up: true})
	return s, nil
}

// Each counter of hosts has a column, where there is room.
func TestTopShowsEveryCounter(t *testing.T) {
	v := newView(Style{})
	v.size = size{400, 20}
	s, _ := (&plant{names: []string{"a"}}).Snapshot(t.Context())
	v.take(s, nil)
	heads := v.draw()[1]
	for i := range status.HostCounters {
		if name := status.HostCounters[i].Short; name == "" || !slices.Contains(strings.Fields(heads), name) {
			t.Errorf("no column %q in %q", name, heads)
		}
	}
}

// Queues have columns where a service has one.
func TestTopShowsQueues(t *testing.T) {
	v := newView(Style{})
	v.size = size{200, 20}
	s, _ := (&plant{names: []string{"a"}}).Snapshot(t.Context())
	v.take(s, nil)
	if heads := v.draw()[1]; strings.Contains(heads, "queue") {
		t.Errorf("without a queue: %q", heads)
	}
	s.Services[0].Queues = []admin.QueueInfo{{Group: "main", Waiting: 3, Most: 7, Wait: 0.0304}, {Group: "other", Waiting: 2, Most: 9}}
	v.take(s, nil)
	lines := v.draw()
	heads, web, host := strings.Fields(lines[1]), strings.Fields(lines[2]), strings.Fields(lines[3])
	if got := strings.Join(heads[2:6], " "); got != "sess queue most wait" {
		t.Errorf("columns %q", got)
	}
	if got := strings.Join(web[5:9], " "); got != "3 5 9 30ms" {
		t.Errorf("line of web: %q", lines[2])
	}
	if strings.Contains(strings.Join(host, " "), "30ms") {
		t.Errorf("line of a host: %q", lines[3])
	}
}

// Turnarounds have columns, of services and hosts that have had some.
func TestTopShowsTurnarounds(t *testing.T) {
	v := newView(Style{})
	v.size = size{400, 20}
	s, _ := (&plant{names: []string{"a", "b"}}).Snapshot(t.Context())
	s.Services[0].Turnarounds = admin.Turnarounds{Mean: 0.0123456, Worst: 2}
	s.Hosts[0].Turnarounds = admin.Turnarounds{Mean: 0.0000123456, Worst: 0.00123456}
	s.Hosts[1].Turnarounds = admin.Turnarounds{Mean: 1.23456, Worst: 0.123456}
	v.take(s, nil)
	lines := v.draw()
	if heads := strings.Join(strings.Fields(lines[1]), " "); !strings.Contains(heads, "out/s turn worst total") {
		t.Errorf("columns %q", heads)
	}
	for i, want := range []string{" 12ms 2s ", " 12µs 1.23ms ", " 1.23s 123ms "} {
		if line := strings.Join(strings.Fields(lines[2+i]), " "); !strings.Contains(line, want) {
			t.Errorf("line %q, want %q", line, want)
		}
	}
	v.sort, v.reverse = orders()[slices.IndexFunc(orders(), func(o order) bool { return o.key == 'a' })], false
	if lines := v.draw(); !strings.Contains(lines[3], "main/b") {
		t.Errorf("the slowest is not the first: %q", lines[3])
	}
}

// draws shows what a terminal that was written to has on its lines.
func (tt *tty) draws(height int) []string {
	lines := make([]string, height)
	for _, part := range strings.Split(strings.ReplaceAll(tt.raw(), "\x1b[2J", "\x1b[1;1H\x1b[2J"), "\x1b[") {
		var row int
		if n, _ := fmt.Sscanf(part, "%d;1H", &row); n == 1 && row <= height {
			lines[row-1] = part[strings.IndexByte(part, 'H')+1:]
		}
	}
	return lines
}

func openTop(t *testing.T, source Source, opt Options) *tty {
	t.Helper()
	return open(t, opt, func(ctx context.Context, term *Terminal) error { return term.Top(ctx, source) })
}

func TestTopShowsRates(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		tt := openTop(t, &plant{names: []string{"a", "b", "c"}}, Options{Width: 120, Height: 20})
		wants(t, plain(tt.raw()), "sess 3  new/s 0 ", "generation 5", "main/a    up", "main/b    DOWN")
		tt.press("")
		time.Sleep(pace)
		synctest.Wait()
		wants(t, plain(tt.raw()), "new/s 10  in/s 1000  out/s 2.0M", "web ")
		lines := tt.draws(20)
		if got := strings.Fields(lines[6]); len(got) < 5 || got[0] != "mail" || got[4] != "0" {
			t.Errorf("line of mail: %q", lines[6])
		}
		if got := strings.Fields(lines[5]); len(got) < 4 || got[3] != "10" { // c: 5 * 2 a second
			t.Errorf("line of c: %q", lines[5])
		}
		if strings.Contains(plain(tt.raw()), "q quit") {
			t.Error("a line that is the same was written again")
		}
		if !strings.HasPrefix(tt.raw(), beginSync) || !strings.HasSuffix(tt.raw(), endSync) {
			t.Errorf("the write is not synchronised: %q", tt.raw())
		}
	})
}

func TestTopGivesTheTerminalBack(t *testing.T) {
	end := errors.New("the end")
	for name, c := range map[string]struct {
		do   func(*tty, *plant)
		want error
	}{
		"q":                 {func(tt *tty, _ *plant) { tt.press("q") }, nil},
		"Ctrl-C":            {func(tt *tty, _ *plant) { tt.press("\x03") }, nil},
		"Ctrl-C in filter":  {func(tt *tty, _ *plant) { tt.press("/q\x03") }, nil},
		"a signal":          {func(tt *tty, _ *plant) { tt.term.Interrupt() }, nil},
		"the context":       {func(tt *tty, _ *plant) { tt.end(end) }, end},
		"the terminal goes": {func(tt *tty, _ *plant) { _ = tt.keys.Close() }, errHangup},
		"the user is gone":  {func(tt *tty, p *plant) { p.fails(ErrEnd); time.Sleep(pace) }, ErrEnd},
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) {
				p := &plant{}
				tt := openTop(t, p, Options{})
				if !strings.HasPrefix(tt.raw(), enterView) {
					t.Errorf("it begins with %q", tt.raw())
				}
				c.do(tt, p)
				if err := tt.left(); !errors.Is(err, c.want) {
					t.Errorf("it ends with %v, want %v", err, c.want)
				}
				if !strings.HasSuffix(tt.raw(), leaveView) {
					t.Errorf("it ends with %q", tt.raw())
				}
			})
		})
	}
}

func TestTopFromTheShell(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		c := &clerk{}
		tt := openShell(t, c)
		tt.press("top\r")
		time.Sleep(3 * pace)
		if got := tt.press("qnext\r"); !strings.Contains(got, "did next") {
			t.Errorf("behind top: %q", got)
		}
		tt.press("top; after\r")
		tt.press("\x03")
		if got := c.heard(); got[len(got)-1] != "after" {
			t.Errorf("it heard %q", got)
		}
		wants(t, tt.press("last\r"), "did last")
	})
}

func TestTopSurvivesAnError(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		p := &plant{err: errors.New("dial:\n\x1b[2J nobody")}
		tt := openTop(t, p, Options{})
		wants(t, plain(tt.raw()), "error: dial:; ?[2J nobody")
		p.fails(nil)
		tt.press("")
		time.Sleep(pace)
		synctest.Wait()
		wants(t, plain(tt.raw()), "generation 5")
	})
}

// names returns the names in the rows of a view.
func names(v *view) []string {
	var list []string
	for _, r := range v.visible() {
		list = append(list, r.name)
	}
	return list
}

func press(v *view, keys string) {
	var d decoder
	for _, b := range []byte(keys) {
		if k, ok := d.feed(b); ok {
			v.press(k)
		}
	}
	if k, ok := d.rest(); ok {
		v.press(k)
	}
}

func TestViewKeys(t *testing.T) {
	for keys, want := range map[string][]string{
		"":               {"web > main", "main/a", "main/c", "main/b", "mail", "only/m"},
		"n":              {"mail", "only/m", "web > main", "main/a", "main/b", "main/c"},
		"nn":             {"web > main", "main/c", "main/b", "main/a", "mail", "only/m"},
		"s":              {"web > main", "main/b", "main/c", "main/a", "mail", "only/m"},
		"h":              {"web > main", "main/c", "main/b", "main/a", "mail", "only/m"},
		"t":              {"mail", "only/m", "web > main", "main/b", "main/c", "main/a"},
		"snc":            {"web > main", "main/a", "main/c", "main/b", "mail", "only/m"},
		"\t":             {"web > main", "mail"},
		"\t\t":           {"web > main", "main/a", "main/c", "main/b", "mail", "only/m"},
		"/DOWN\r":        {"web > main", "main/c", "main/b"},
		"/10.0.0.1":      {"web > main", "main/c"},
		"/mail\r":        {"mail", "only/m"},
		"/maint\r\t":     {"mail"},
		"/x\x7fmain/a\r": {"web > main", "main/a"},
		"/zzz\r":         nil,
		"/zzz\r\x1b":     {"web > main", "main/a", "main/c", "main/b", "mail", "only/m"},
		"/a\r/zzz\x1b":   {"web > main", "main/a", "main/c", "main/b", "mail", "only/m"},
		"/zzz\x15":       {"web > main", "main/a", "main/c", "main/b", "mail", "only/m"},
	} {
		v := newView(Style{})
		v.size = size{80, 24}
		s, _ := (&plant{names: []string{"a", "c", "b"}}).Snapshot(t.Context())
		v.take(s, nil)
		press(v, keys)
		if got := names(v); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", keys, got, want)
		}
	}
}

func TestViewPausesAndScrolls(t *testing.T) {
	p := &plant{}
	for i := range 100 {
		p.names = append(p.names, fmt.Sprintf("h%02d", i))
	}
	v := newView(Style{})
	v.size = size{60, 13} // ten rows
	look := func() {
		s, err := p.Snapshot(t.Context())
		v.take(s, err)
	}
	look()
	first := func() string { return strings.Fields(v.draw()[2])[0] }
	for _, c := range []struct{ key, first string }{
		{"", "web"}, {"\x1b[B", "main/h00"}, {"\x1b[6~", "main/h09"}, {"\x1b[5~", "main/h00"}, {"j", "main/h01"}, {"k", "main/h00"},
		{"G", "main/h92"}, {"\x1b[6~", "main/h92"}, {"\x1b[H", "web"}, {"\x1b[A", "web"}, {"\x1b[F", "main/h92"}, {"s", "web"},
	} {
		press(v, c.key)
		if got := first(); got != c.first {
			t.Errorf("%q: the first row is %s, want %s", c.key, got, c.first)
		}
	}
	press(v, "p")
	before := strings.Join(v.draw(), "\n")
	look()
	if after := strings.Join(v.draw(), "\n"); after != before {
		t.Errorf("paused, and it has changed:\n%s\n%s", before, after)
	}
	wants(t, before, "[paused] [1-10 of 103]")
	press(v, "p")
	look()
	if after := strings.Join(v.draw(), "\n"); after == before {
		t.Error("it is paused still")
	}
}

// TestViewFitsAnySize draws random views: no line is wider than the terminal,
// there are no more of them than it has, and from 40 columns on the name,
// health, sessions and their rate are there.
func TestViewFitsAnySize(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := newView(Style{Color: rapid.Bool().Draw(t, "colour")})
		v.size = size{rapid.IntRange(1, 220).Draw(t, "width"), rapid.IntRange(1, 60).Draw(t, "height")}
		word := rapid.StringMatching(`[a-z\x1bä]{1,40}`)
		big := rapid.Uint64()
		for range 2 {
			s := Snapshot{At: time.Now(), Generation: big.Draw(t, "generation")}
			for range rapid.IntRange(0, 5).Draw(t, "services") {
				svc := admin.ServiceInfo{Name: word.Draw(t, "service"), Listen: []string{word.Draw(t, "listen")}, Sessions: int64(big.Draw(t, "n") >> 1), In: big.Draw(t, "in"), SessionsTotal: big.Draw(t, "total")}
				s.Services = append(s.Services, svc)
				for range rapid.IntRange(0, 5).Draw(t, "hosts") {
					s.Hosts = append(s.Hosts, admin.HostInfo{Service: svc.Name, Name: word.Draw(t, "host"), Counters: admin.Counters{"bytes_out": big.Draw(t, "out")}, Reason: word.Draw(t, "reason")})
				}
			}
			v.take(s, nil)
		}
		press(v, rapid.StringMatching(`([cnhsriotfbw?p\tjkgG]|\x1b\[[56]~|/[a-z]\r){0,6}`).Draw(t, "keys"))
		lines := v.draw()
		if len(lines) > v.size.height && !v.help {
			t.Fatalf("%d lines on %d", len(lines), v.size.height)
		}
		for _, l := range lines {
			l = sequence.ReplaceAllString(l, "")
			if n := utf8.RuneCountInString(l); n > v.size.width || strings.ContainsFunc(l, unprintable) {
				t.Fatalf("a line of %d letters on %d: %q", n, v.size.width, l)
			}
		}
		if v.size.width >= 40 && v.size.height > 2 && !v.help {
			wants := []string{"name", "health", "sess", "new/s"}
			for _, w := range wants {
				if !strings.Contains(lines[1], w) {
					t.Fatalf("%s is missing in %d columns: %q", w, v.size.width, lines[1])
				}
			}
		}
	})
}

func TestRemoteReadsAnswers(t *testing.T) {
	p := &plant{names: []string{"a"}}
	ask := func(_ context.Context, line string) ([]byte, uint64, error) {
		s, err := p.Snapshot(t.Context())
		var data []byte
		switch {
		case err != nil:
			return nil, 0, err
		case line == "status":
			data, err = json.Marshal(s.Status)
			return data, 3, err
		case line == "show services":
			data, err = json.Marshal(s.Services)
			return data, 4, err
		case line == "show hosts":
			data, err = json.Marshal(s.Hosts)
			return data, 5, err
		}
		return nil, 0, errors.New(line)
	}
	s, err := Remote(ask).Snapshot(t.Context())
	if err != nil || s.Generation != 5 || len(s.Services) != 2 || len(s.Hosts) != 2 || s.Hosts[0].Address != "10.0.0.0:80" || s.Status.Sessions != 3 || s.At.IsZero() {
		t.Errorf("%+v, %v", s, err)
	}
	for _, answer := range []string{"", "nothing", "[", `{"hosts":"one"}`} {
		_, err := Remote(func(context.Context, string) ([]byte, uint64, error) { return []byte(answer), 1, nil }).Snapshot(t.Context())
		if err == nil || !strings.Contains(err.Error(), "status: the answer is not as expected") {
			t.Errorf("%q: %v", answer, err)
		}
	}
	p.fails(io.ErrUnexpectedEOF)
	if _, err := Remote(ask).Snapshot(t.Context()); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}

func TestShortNumbers(t *testing.T) {
	for n, want := range map[float64]string{
		0: "0", 0.04: "0", 0.5: "0.5", 9.96: "10.0", 12.4: "12", 9999: "9999", 10_000: "10.0k", 99_949: "99.9k", 99_950: "100k",
		1_000_000: "1.0M", 1.8e19: "18.0E", 1e30: "lots",
	} {
		if got := short(n); got != want || len(got) > 5 {
			t.Errorf("%v: %q, want %q", n, got, want)
		}
	}
}
