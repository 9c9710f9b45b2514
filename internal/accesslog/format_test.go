package accesslog

import (
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/sched"
)

// host makes a host of an address, in a group.
func host(t *testing.T, group, name, addr string) (*sched.Host, *sched.Table) {
	t.Helper()
	a, err := sched.ParseAddr(addr)
	if err != nil {
		t.Fatal(err)
	}
	h := sched.NewHost(name, a)
	table, err := sched.NewTable(sched.Policy{Group: group}, []sched.Member{{Host: h, Weight: 1}})
	if err != nil {
		t.Fatal(err)
	}
	return h, table
}

// Lines of both formats are as the golden file has them, and are read back as what they
// were made of: go test ./internal/accesslog -update.
func TestFormats(t *testing.T) {
	accepted := time.Date(2026, 11, 8, 3, 4, 5, 6_000_000, time.UTC)
	a, main := host(t, "main", "a", "10.0.0.1:80")
	odd, oddGroup := host(t, `of "all" #1`, "a/b [c]\x01ü", "unix:/run/x y")
	client := netip.MustParseAddrPort("192.0.2.7:35856")
	records := []engine.Record{
		{Service: "web", Table: main, Host: a, Client: client, Accepted: 1, Picked: 1, Connected: 213_001, Ended: 62_296_500_001, In: 79, Out: 1352, Sessions: 3, OnHost: 1, Before: 7, How: "--"},
		{Service: "web", Table: main, Host: a, Client: netip.MustParseAddrPort("[2001:db8::1]:1"), Proxied: true, Accepted: 1, Picked: 5_000_000_001, Ended: 10_003_000_001, Retries: 2, Sessions: 1, How: "sC", Why: "no_host"},
		{Service: "my \"shop\"", Client: client, Accepted: 1, Ended: 1, Sessions: 1, How: "PR", Why: "access"},
		{Service: "web", Table: oddGroup, Host: odd, Accepted: 1, Picked: 1, Connected: 2, Ended: 3, In: 1 << 60, Out: 1 << 60, Sessions: 1, How: "CD"},
	}
	records[1].ServerName.Set([]byte(strings.Repeat("long.", 20) + "example"))
	var golden []byte
	for i := range records {
		r := &records[i]
		for _, w := range []*writer{{prefix: true, process: " lb1 txlb[812]: ", zone: time.UTC}, {zone: time.FixedZone("", -5400)}, {format: JSON, zone: time.UTC}, {format: JSON, zone: time.FixedZone("", 7200)}} {
			line := w.line(nil, r, accepted.Add(time.Minute), accepted, 4)
			golden = append(golden, line...)
			e, err := ParseLine(string(line))
			if err != nil {
				t.Errorf("%s: %v", line, err)
				continue
			}
			queue, connect, total := stages(r)
			for what, times := range map[string][2]time.Duration{
				"wait": {e.Wait, time.Duration(queue)}, "connect": {e.Connect, time.Duration(connect)}, "total": {e.Total, time.Duration(total)},
			} {
				if times[0] != times[1] && times[0] != times[1].Truncate(time.Millisecond) && times[0] != times[1].Truncate(time.Microsecond) {
					t.Errorf("%s %v, want %v: %s", what, times[0], times[1], line)
				}
			}
			name := ""
			if r.Host != nil {
				name = r.Host.Name()
			}
			if e.Service != r.Service || e.Group != group(r) || e.Host != name || e.Out != int64(r.Out) || e.Retries != int64(r.Retries) ||
				e.Termination != r.How || e.Sessions != r.Sessions || e.GroupSessions != 4 || e.GroupQueue != int64(r.Before) || e.HostSessions != r.OnHost {
				t.Errorf("read as %+v: %s", e, line)
			}
			if w.format == JSON && (e.In != int64(r.In) || e.Rejected != r.Why || e.Proxied != r.Proxied || e.Name != string(r.ServerName.Bytes()) || !e.Accepted.Equal(accepted)) {
				t.Errorf("read as %+v: %s", e, line)
			}
		}
	}
	const file = "testdata/lines.golden"
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, golden, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(file); err != nil || string(want) != string(golden) {
		t.Errorf("%v: the lines are others:\n%s", err, golden)
	}
}
