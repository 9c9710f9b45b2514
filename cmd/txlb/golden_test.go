//go:build linux

package main

import (
	"cmp"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write testdata/golden as the program answers now")

// TestGolden holds what other programs parse against testdata/golden: the
// answers of one small configuration with a little traffic, without what differs
// from run to run. A change of a file there is a change for users:
// go test ./cmd/txlb -run TestGolden -update.
func TestGolden(t *testing.T) {
	backend := answering(t, repeat)
	_, port, _ := net.SplitHostPort(backend)
	web, mail, page, metrics := freePort(t), freePort(t), freePort(t), freePort(t)
	socket := filepath.Join(socketFolder(t), "a.sock")
	p, file := txlbFile(t, fmt.Sprintf(`<config>
  <service name="web">
    <listen ip="127.0.0.1:%d"/>
    <timeouts idle="5m"/>
    <group name="main" scheduler="roundr" enable="yes">
      <host name="a" ip="%s" weight="2"/>
      <host name="b" ip="127.0.0.1:1" slowStart="10s"/>
      <host name="c" ip="127.0.0.2:1" state="drain"/>
      <host name="d" ip="127.0.0.3:1" backup="yes"/>
    </group>
    <group name="spare" allDown="refuse">
      <check type="http" interval="1h" path="/health"/>
      <host name="s" ip="127.0.0.4:1" state="maint"/>
    </group>
  </service>
  <service name="mail">
    <listen ip="127.0.0.1:%d"/>
  </service>
  <admin>
    <web listen="127.0.0.1:%d" secure="no"/>
    <socket path="%s"/>
    <metrics listen="127.0.0.1:%d"/>
    <user name="boss" password="$1$abcdefgh$hqvCbNwzGGtJDzHd8m2pC1" access="full"/>
  </admin>
  <manager><hostCheck enable="no"/></manager>
</config>
`, web, backend, mail, page, socket, metrics))

	session := func() net.Conn {
		c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", web))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, "ping"); err != nil {
			t.Fatal(err)
		}
		if err := hear(c, "ping"); err != nil {
			t.Fatal(err)
		}
		return c
	}
	ctl := func(words ...string) string {
		s := ctlOf(t, "", append([]string{"-s", socket}, words...)...)
		return s.out + s.err
	}
	for range 3 { // the second finds that b is down
		_ = session().Close()
	}
	open := session()
	defer func() { _ = open.Close() }()
	eventually(t, "three sessions have ended", func() bool {
		return strings.Contains(ctl("--json", "show", "services", "web"), `"sessions":1,"sessions_total":4`)
	})
	ctl("setHost", "web", "main", "a", "weight=3")
	ctl("setHost", "web", "main", "nobody", "weight=3") // refused
	eventually(t, "bytes are published", func() bool {
		return metric(t, fmt.Sprintf("127.0.0.1:%d", metrics), `txlb_bytes_in_total{service="web",group="main",host="a"}`) == 16
	})

	answers := map[string]string{}
	for _, words := range []string{
		"status", "show services", "show hosts", "show sessions", "show config", "show stored", "show diff", "show events",
		"show stat", "show servers state", "show info", "show sess", "help",
	} {
		name := strings.ReplaceAll(words, " ", "-")
		answers[name+".txt"] = ctl(strings.Fields(words)...)
		if words != "show info" && words != "show sess" {
			answers[name+".json"] = strings.ReplaceAll(ctl(append([]string{"--json"}, strings.Fields(words)...)...), ",\"", ",\n\"")
		}
	}
	for _, path := range []string{
		"/running.txt", "/status.txt", "/running.xml", "/rawConfig.xml", "/rawStored.xml", "/api/v1/status", "/api/v1/services", "/api/v1/hosts",
		"/api/v1/config", "/api/v1/sessions", "/api/v1/show/events", "/api/v1/openapi.json",
	} {
		status, text, err := visit("127.0.0.1", "http", fmt.Sprint("127.0.0.1:", page), path)
		if err != nil {
			t.Fatal(err)
		}
		if status == http.StatusNotFound {
			t.Errorf("%s is not there", path)
			continue
		}
		if strings.HasPrefix(path, "/api/") {
			text = strings.ReplaceAll(text, ",\"", ",\n\"")
		}
		answers["http-"+strings.ReplaceAll(strings.TrimPrefix(path, "/"), "/", "-")] = text
	}
	text, err := get(fmt.Sprintf("http://127.0.0.1:%d/metrics", metrics))
	if err != nil {
		t.Fatal(err)
	}
	answers["metrics.txt"] = steadyMetrics(text)
	answers["show-stat.txt"] = steadyStat(answers["show-stat.txt"])
	delete(answers, "show-stat.json")

	texts := strings.NewReplacer(socket, "@SOCKET", file, "@FILE", open.LocalAddr().String(), "127.0.0.1:@CLIENT")
	numbers := map[string]string{
		port: "@ECHO", fmt.Sprint(web): "@WEB@", fmt.Sprint(mail): "@MAIL", fmt.Sprint(page): "@PAGE",
		fmt.Sprint(metrics): "@METR", fmt.Sprint(p.cmd.Process.Pid): "@PID",
	}
	// A port or pid is a number of its own: the same digits may be within another.
	number := regexp.MustCompile(`\d+(\.\d+)?`)
	masked := func(text string) string {
		return number.ReplaceAllStringFunc(texts.Replace(text), func(n string) string { return cmp.Or(numbers[n], n) })
	}
	for name, text := range answers {
		golden(t, name, withoutNoise(masked(text)))
	}
}

// withoutNoise takes out of an answer what differs from run to run.
func withoutNoise(text string) string {
	for _, m := range [][2]string{
		{`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`, "@TIME"},
		{`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`, "@TIME"},
		{`pid \d+`, "pid @"},
		{`(?m)^(io_uring|cpu_steering) (not )?in use.*$`, "$1 @"}, // as the kernel allows
		{`(?m)^pipes: .*\n|,\s*"pipe_(quota|memory)":\s*\d+`, ""}, // as the kernel allows this user
		{`"in_use":(true|false)(,\s*"why":"([^"\\]|\\.)*")?`, `"in_use":"@"`},
		{`(session|sessions), up [0-9hms.]+`, "$1, up @"},
		{`0x[0-9a-f]{6,}`, "@ID"},
		{`(?m)^[0-9a-f]+ +(web .*@CLIENT +127.0.0.1:)\d+ .*$`, "@ID $1@ @"},
		{` age=\d+s `, " age=@ "},
		{`(\d+ \S+ \d+ \S+ \S+ \d+ \d+ \d+ \d+) \d+ (\d+ \d+ \d+ \d+)`, "$1 @ $2"}, // show servers state: since the last change
		{`"(local)":"[^"]*"`, `"$1":"@"`},
		{`"(age_seconds|idle_seconds|turnaround_seconds|turnaround_worst_seconds)":[0-9.e+-]+`, `"$1":"@"`},
		{`"text":"([^"\\]|\\.)*"`, `"text":"@"`}, // the same as without --json
		{`"(id|age|idle|started|since|boot|version|port|connect_seconds|rate|rate_max|in_rate|out_rate)":("[^"]*"|[0-9.e+-]+)`, `"$1":"@"`},
		{`(?m)^(Version|Release_date|Uptime|Uptime_sec|Start_time_sec|Pid|Name|Description|Node|Memmax_MB|Nbproc|Nbthread|Ulimit-n|Maxsock|Maxconn|Hard_maxconn|CumReq|CurrConns|CumConns|Idle_pct|[A-Za-z]*[Rr]ate[A-Za-z]*|MaxPipes|PipesUsed|PipesFree|PoolAlloc_[A-Za-z]+|PoolUsed_[A-Za-z]+|Tasks|Run_queue|TotalBytesOut|TotalSplicedBytesOut|BytesOutRate|node|version): .*$`, "$1: @"},
		{` {2,}`, "  "}, // columns are as wide as what stands in them
		{`  [0-9.]+[µm]?s  [0-9.]+[µm]?s  (up|down)`, "  @  @  $1"}, // show hosts: turnarounds
		{`txlb [0-9a-f]{7,}(-dirty)?|txlb unknown|txlb dev`, "txlb @VERSION"},
	} {
		text = regexp.MustCompile(m[0]).ReplaceAllString(text, m[1])
	}
	return text
}

// steadyMetrics leaves comments, names and labels, and the values of what the
// sessions of the test count.
func steadyMetrics(text string) string {
	counted := regexp.MustCompile(`^txlb_(sessions|bytes|service|connect_failures|redispatches|host|group|config)[a-z_]*(\{|$)`)
	ofCgroup := regexp.MustCompile(`^# \w+ process_(pressure|cgroup)_`) // not every kernel and cgroup has them
	var lines []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		name, _, _ := strings.Cut(line, "{")
		switch series, _, ok := strings.Cut(line, "} "); {
		case ofCgroup.MatchString(line):
			continue
		case strings.HasPrefix(line, "#"):
		case strings.HasPrefix(name, "go_"), strings.HasPrefix(name, "process_"):
			continue // the library's
		case strings.Contains(name, "_bucket"):
			line = regexp.MustCompile(`(le|vmrange)="[^"]*"`).ReplaceAllString(series, `$1="@"`) + "}"
		case ok && !counted.MatchString(line), ok && strings.Contains(name, "seconds"):
			line = series + "}"
		case !ok:
			line, _, _ = strings.Cut(line, " ")
		}
		lines = append(lines, regexp.MustCompile(`(version|loop|goversion|go)="[^"]*"`).ReplaceAllString(line, `$1="@"`))
	}
	slices.Sort(lines)
	return strings.Join(slices.Compact(lines), "\n") + "\n"
}

// steadyStat masks the columns of times and rates.
func steadyStat(text string) string {
	volatile := regexp.MustCompile(`^(rate|rate_max|lastchg|downtime|check_duration|lastsess|qtime|ctime|rtime|ttime|conn_rate|conn_rate_max|[qcrt]time_max|idle_conn_cur|pid)$`)
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	head := strings.Split(lines[0], ",")
	for i, line := range lines[1:] {
		fields := strings.Split(line, ",")
		for j := range fields {
			if j < len(head) && volatile.MatchString(head[j]) && fields[j] != "" {
				fields[j] = "@"
			}
		}
		lines[i+1] = strings.Join(fields, ",")
	}
	return strings.Join(lines, "\n") + "\n"
}

// golden compares a text with its file.
func golden(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
		return
	}
	if diff := gocmp.Diff(string(want), text); diff != "" {
		t.Errorf("%s is another (-want +got); if users may see that, run go test ./cmd/txlb -run TestGolden -update\n%s", path, diff)
	}
}
