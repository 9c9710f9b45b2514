package config

import (
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/txlb/txlb/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// ignorePositions compares models by what they say.
var ignorePositions = cmp.Options{cmpopts.IgnoreTypes(Pos{}), cmpopts.EquateEmpty()}

// samples returns the documents that must load, by file name.
func samples(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/*.xml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	all := map[string][]byte{}
	for _, f := range append(files, "../etc/config.xml") {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(f)] = data
	}
	return all
}

func parse(t *testing.T, doc string) *Config {
	t.Helper()
	c, problems := Parse("c.xml", []byte(doc))
	if c == nil {
		t.Fatalf("refused:\n%v", problems)
	}
	return c
}

func TestAncestorsConfigsLoad(t *testing.T) {
	all := samples(t)
	tx, _ := Parse("", all["txloadbalancer.xml"])
	saved, _ := Parse("", all["txloadbalancer-saved.xml"])
	pd, _ := Parse("", all["pythondirector.xml"])
	early, _ := Parse("", all["txloadbalancer-early.xml"])
	running, _ := Parse("", all["pythondirector-running.xml"])
	for name, check := range map[string]bool{
		"tx: services and listeners":     len(tx.Services) == 2 && len(tx.Services[0].Listen) == 2 && tx.Services[1].Listen[0].Address == "*:19080",
		"tx: enabled group":              tx.Services[0].Enabled().Name == "first" && tx.Services[0].Enabled().Scheduler == "weightr",
		"tx: weights":                    tx.Services[0].Groups[0].Hosts[2].Weight == 20 && tx.Services[0].Groups[1].Hosts[0].Weight == 1,
		"tx: unnamed hosts are numbered": tx.Services[0].Groups[1].Hosts[1].Name == "host.1" && tx.Services[0].Groups[1].Hosts[2].Name == "host.2",
		"tx: default time-outs":          tx.Services[0].Timeouts == Timeouts{Connect: 5 * time.Second, Total: 30 * time.Second, Idle: time.Hour, HalfClosed: AsIdle, KeepAlive: time.Minute, Queue: 5 * time.Second, Hello: 5 * time.Second},
		"tx: admin":                      tx.Admin.Web.Listen == "*:17000" && tx.Admin.Web.Enable && !tx.Admin.Web.Secure && tx.Admin.SSH.Enable && tx.Admin.Users[0].Access == "full",
		"tx: manager":                    tx.Manager.HostCheck == Check{500 * time.Second, true} && !tx.Manager.Heartbeat.Enable,
		"saved: True and False":          saved.Services[0].Enabled().Name == "first" && !saved.Services[0].Groups[1].Enabled,
		"saved: schedulers":              saved.Services[0].Groups[0].Scheduler == "weightr" && saved.Services[0].Groups[1].Scheduler == "leastc",
		"saved: None, and a number that was saved as a boolean": saved.Admin.Web.Listen == "" && !saved.Admin.Web.Enable && saved.Admin.Web.Refresh == 10*time.Second,
		"saved: bare port":                  saved.Admin.SSH.Listen == "localhost:2222",
		"saved: fractions of seconds":       saved.Manager.ConfigCheck.Interval == 30500*time.Millisecond && !saved.Manager.HostCheck.Enable,
		"early: enable element in <config>": early.Services[0].Enabled().Name == "main" && early.Root == "config",
		"early: page without enable":        early.Admin.Web.Listen == "localhost:17001" && early.Admin.Web.Enable,
		"early: notes, CDATA and text":      len(early.Services[0].Groups) == 2,
		"running: every address":            running.Admin.Web.Listen == ":17001" && running.Admin.Web.Enable && running.Admin.Web.Refresh == 20*time.Second,
		"pd: root is kept":                  pd.Root == "pdconfig",
		"pd: enable element":                pd.Services[0].Enabled().Name == "main" && pd.Services[1].Enabled().Name == "only",
		"pd: schedulers":                    pd.Services[0].Groups[0].Scheduler == "leastc" && pd.Services[0].Groups[1].Scheduler == "roundr" && pd.Services[1].Groups[0].Scheduler == "rand",
		"pd: admin listen":                  pd.Admin.Web.Listen == "localhost:17001" && pd.Admin.Web.Enable && !pd.Admin.Web.Secure,
		"pd: checktime sets hostCheck":      pd.Manager.HostCheck == Check{15 * time.Second, true},
		"pd: logging":                       pd.Logging.File == "director.log",
		"manager attribute is understood":   parse(t, `<config><service name="a"><listen ip=":1"/></service><manager hostCheckInterval="7"/></config>`).Manager.HostCheck.Interval == 7*time.Second,
	} {
		if !check {
			t.Error(name)
		}
	}
}

func TestVerifiedCheck(t *testing.T) {
	c := parse(t, `<config><service name="a"><listen ip=":1"/><group name="g"><check type="tls" host="db.example" verify="yes" ca="/etc/txlb/ca.pem"/>
		<host ip="10.0.0.1:443"/><host ip="unix:/s"/></group></service></config>`)
	want := NewHealthCheck()
	want.Type, want.Host, want.Verify, want.CA = "tls", "db.example", true, "/etc/txlb/ca.pem"
	if diff := cmp.Diff(want, c.Services[0].Groups[0].Check, ignorePositions); diff != "" {
		t.Error(diff)
	}
}

func TestNewElements(t *testing.T) {
	c := parse(t, `<config>
	<engine loops="3" ring="off" steer="cpu" splice="never" pipeSize="128KiB" pipeMemory="2GiB" maxSessions="500" backlog="77" drain="2m"/>
	<service name="a">
		<listen ip="[::1]:80" proxyProtocol="accept" proxyFrom="10.0.0.0/8, ::ffff:192.0.2.7"/><listen ip="unix:/run/a.sock" proxyProtocol="require" tls="/c.pem /k.pem
		/b /b" clientCA="/ca.pem" alpn="h2 http/1.1"/>
		<timeouts connect="500ms" total="0" idle="5m" halfClosed="1h30m" queue="7s" hello="3s"/>
		<limits sessions="7" perClient="6" rate="5" perClientRate="4" tries="3" scope="fleet"/>
		<group name="g" scheduler="leastconns,sticky" allDown="refuse" start="down" maxFails="5" failWindow="1m" maxEjected="50" slow="5" silent="3s" ejectFor="2m" stickySize="5" stickyFor="2h">
			<check type="expect" interval="5s" fastInterval="500ms" downInterval="10s" rise="4" fall="5" timeout="1500ms"
				port="" path="/" host="" status="200-399" send="PING\r\n\x00" expect="a\\b\tü"/>
			<host name="h" ip="unix:/run/b.sock" weight="0" backup="on" state="maint" slowStart="90s"/>
			<host name="i" ip="db_1.example.:5432" state="drain" resolve="2m" proxyProtocol="v2"/>
			<host name="j" ip="_pg._TCP.example." resolve="0" eject="never"/>
		</group>
	</service>
	<admin><metrics listen="localhost:9107"/><socket path="/run/txlb/admin.sock" mode="660" group="adm"/>
		<web certificate="/c" key="/k" readyz="any" names="Ops.example. lb" trustedProxies="10.0.0.0/8 ::ffff:192.0.2.1 2001:db8::/32"/><ssh hostKey="/h"/>
		<user name="ann"><key>`+edKey+`</key><note>spare</note><key>
			`+strings.ReplaceAll(ecKey, " ", "\n\t")+`<!-- her token --> <![CDATA[at < work]]> </key></user></admin>
	<control socket="run/control"/>
	<dns servers="10.0.0.1
		[::1]:5353 fe80::1%eth0 [::2]"/>
	<logging level="debug" format="json" audit="/a" access="/b" accessFormat="json"/>
</config>`)
	want := New()
	want.Engine = Engine{3, "off", "cpu", "never", 128 << 10, 2 << 30, 500, 77, 2 * time.Minute, 0, false, ""}
	want.Logging = Logging{Level: "debug", Format: "json", Audit: "/a", Access: "/b", AccessFormat: "json"}
	want.DNS.Servers = []string{"10.0.0.1", "[::1]:5353", "fe80::1%eth0", "[::2]"}
	want.Admin = Admin{
		Web: &AdminListen{Listen: "localhost:7000", Enable: true, Secure: true, Refresh: 10 * time.Second, Certificate: "/c", Key: "/k", Readyz: "any",
			Names: []string{"ops.example", "lb"}, TrustedProxies: []string{"10.0.0.0/8", "192.0.2.1", "2001:db8::/32"}},
		SSH: &AdminListen{Listen: "localhost:2222", Enable: true, HostKey: "/h"}, Socket: &Socket{Path: "/run/txlb/admin.sock", Mode: 0o660, Group: "adm"},
		Metrics: "localhost:9107", Targets: "tcp", Users: []*User{{Name: "ann", Access: "readonly", Keys: []string{edKey, ecKey + " at < work"}}},
	}
	want.Control.Socket = "run/control"
	want.Services = []*Service{{
		Name:     "a",
		Listen:   []Listen{{Address: "[::1]:80", ProxyProtocol: "accept", ProxyFrom: "10.0.0.0/8 192.0.2.7/32"}, {Address: "unix:/run/a.sock", ProxyProtocol: "require", TLS: "/c.pem /k.pem /b /b", ClientCA: "/ca.pem", ALPN: "h2 http/1.1"}},
		Timeouts: Timeouts{Connect: 500 * time.Millisecond, Idle: 5 * time.Minute, HalfClosed: 90 * time.Minute, KeepAlive: time.Minute, Queue: 7 * time.Second, Hello: 3 * time.Second},
		Limits:   Limits{7, 6, 5, 4, 3, "fleet"},
		Groups: []*Group{{
			Name: "g", Scheduler: "leastc,sticky", Enabled: true, AllDown: "refuse", StartDown: true, MaxFails: 5, FailWindow: time.Minute, MaxEjected: 50, Slow: 5, Silent: 3 * time.Second, EjectFor: 2 * time.Minute,
			StickySize: 5, StickyFor: 2 * time.Hour,
			Check: &HealthCheck{
				Type: "expect", Interval: 5 * time.Second, FastInterval: 500 * time.Millisecond, DownInterval: 10 * time.Second,
				Rise: 4, Fall: 5, Timeout: 1500 * time.Millisecond, Path: "/", Status: "200-399",
				Send: "PING\r\n\x00", Expect: "a\\b\tü",
			},
			Hosts: []*Host{
				{Name: "h", Address: "unix:/run/b.sock", Weight: 0, Backup: true, State: "maint", SlowStart: 90 * time.Second, Resolve: 30 * time.Second},
				{Name: "i", Address: "db_1.example.:5432", Weight: 1, State: "drain", Resolve: 2 * time.Minute, ProxyProtocol: "v2"},
				{Name: "j", Address: "_pg._TCP.example.", Weight: 1, State: "ready", NeverEject: true},
			},
		}},
	}}
	if diff := cmp.Diff(want, c, ignorePositions); diff != "" {
		t.Error(diff)
	}
	if line := c.Services[0].Groups[0].Hosts[1].Pos.Line; line != 12 {
		t.Errorf("the second host is in line %d, want 12", line)
	}
}

// A clone shares nothing: changing it everywhere leaves the original alone.
func TestClone(t *testing.T) {
	for name, data := range samples(t) {
		c, _ := Parse(name, data)
		before, _ := Parse(name, data)
		d := c.Clone()
		if diff := cmp.Diff(c, d); diff != "" {
			t.Fatalf("%s: the clone differs:\n%s", name, diff)
		}
		d.Services[0].Name = "changed"
		d.Services[0].Listen[0].Address = "changed"
		for i := range d.DNS.Servers {
			d.DNS.Servers[i] = "changed"
		}
		if groups := d.Services[0].Groups; len(groups) > 0 {
			groups[0].Name = "changed"
			groups[0].Hosts[0].Weight = 77
			groups[0].Hosts = append(groups[0].Hosts[:0], &Host{})
		}
		for _, u := range d.Admin.Users {
			u.Name = "changed"
			for i := range u.Keys {
				u.Keys[i] = "changed"
			}
		}
		if d.Admin.Socket != nil {
			d.Admin.Socket.Path = "changed"
		}
		if d.Admin.Web != nil {
			d.Admin.Web.Listen = "changed"
		}
		if diff := cmp.Diff(before, c); diff != "" {
			t.Errorf("%s: the original has changed:\n%s", name, diff)
		}
	}
}

func TestMarshalGivesTheSameModel(t *testing.T) {
	for name, data := range samples(t) {
		c, _ := Parse(name, data)
		roundTrip(t, c)
	}
}

// roundTrip writes a model and reads it again.
func roundTrip(t rapid.TB, c *Config) {
	t.Helper()
	out, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, problems := Parse("again", out)
	if again == nil {
		t.Fatalf("what was written is refused:\n%v\n%s", problems, out)
	}
	if diff := cmp.Diff(c, again, ignorePositions); diff != "" {
		t.Fatalf("another model:\n%s\n%s", diff, out)
	}
}

// mostly draws from right, and one time in forty from wrong, so that many models
// of many parts are right as a whole.
func mostly[T any](right, wrong *rapid.Generator[T]) *rapid.Generator[T] {
	return rapid.Custom(func(t *rapid.T) T {
		if rapid.IntRange(0, 39).Draw(t, "wrong") == 25 { // rapid likes the ends of a range
			return wrong.Draw(t, "value")
		}
		return right.Draw(t, "value")
	})
}

// Whatever Check finds no error in survives writing and reading: a model
// changed at run time cannot become a file that is refused.
func TestCheckedModelsSurvive(t *testing.T) {
	word := func(right ...string) *rapid.Generator[string] {
		return mostly(rapid.SampledFrom(right), rapid.SampledFrom([]string{"", "x", " ", "a b", "é<&\"'>", "a\nb", "\x00", "\xff", "\uffff", "\u0085"}))
	}
	number := func(right ...int) *rapid.Generator[int] {
		return mostly(rapid.SampledFrom(right), rapid.SampledFrom([]int{-1, 0, 1, 65535, 65536, math.MaxInt}))
	}
	duration := mostly(
		rapid.SampledFrom([]time.Duration{time.Second, 90 * time.Minute, time.Millisecond, 1500 * time.Millisecond}),
		rapid.SampledFrom([]time.Duration{0, -1, 1, 1500 * time.Microsecond, 1 << 62}))
	check := rapid.Custom(func(t *rapid.T) Check { return Check{duration.Draw(t, "interval"), rapid.Bool().Draw(t, "enable")} })
	host := rapid.Custom(func(t *rapid.T) *Host {
		return &Host{
			TLS:  word("", "", "yes", "unverified").Draw(t, "tls"),
			Name: word("a", "b", "c").Draw(t, "host"), Address: word("h:1", "[::1]:2", "unix:/s", "_a._tcp.b", "_a._tcp.b:1", "_a").Draw(t, "address"), Resolve: duration.Draw(t, "resolve"),
			Weight: number(1, 7).Draw(t, "weight"), Backup: rapid.Bool().Draw(t, "backup"), State: word("ready", "drain", "maint").Draw(t, "state"),
			SlowStart: rapid.SampledFrom([]time.Duration{0, time.Minute, -1}).Draw(t, "slowStart"),
		}
	})
	healthCheck := rapid.Custom(func(t *rapid.T) *HealthCheck {
		c := NewHealthCheck()
		// Most is right and a part is anything, so that many models are right.
		switch rapid.IntRange(0, 5).Draw(t, "which") {
		case 0:
			c.Interval, c.FastInterval, c.DownInterval, c.Timeout = duration.Draw(t, "interval"), duration.Draw(t, "fast"), duration.Draw(t, "down"), duration.Draw(t, "timeout")
		case 1:
			c.Rise, c.Fall, c.Port = number(1, 3).Draw(t, "rise"), number(2, 5).Draw(t, "fall"), number(0, 80).Draw(t, "port")
		case 2:
			c.Type, c.Path, c.Host = "http", word("/", "/a?b=<&\"'").Draw(t, "path"), word("", "a.example:80", "[::1]:80", "::1", "10.0.0.1").Draw(t, "host")
		case 3:
			c.Type, c.Status = word("http", "tls").Draw(t, "type"), word("200", "200,204,300-399", "200-199", "2x0").Draw(t, "status")
			c.Verify, c.CA = rapid.Bool().Draw(t, "verify"), word("", "/ca.pem").Draw(t, "ca")
		default:
			c.Type, c.Send, c.Expect = "expect", string(rapid.SliceOf(rapid.Byte()).Draw(t, "send")), rapid.String().Draw(t, "expect")
		}
		return c
	})
	right := 0
	rapid.Check(t, func(t *rapid.T) {
		c := New()
		// One part at a time, so that many models are right.
		switch rapid.IntRange(0, 4).Draw(t, "part") {
		case 0:
			c.Root = word("config", "pdconfig").Draw(t, "root")
			c.Engine = Engine{
				number(0, 3).Draw(t, "loops"), word("auto", "off").Draw(t, "ring"), word("off", "cpu").Draw(t, "steer"), word("auto", "always", "never").Draw(t, "splice"), int64(number(1<<20).Draw(t, "pipeSize")),
				int64(number(1<<20).Draw(t, "pipeMemory")), number(0, 9).Draw(t, "maxSessions"), number(77).Draw(t, "backlog"), duration.Draw(t, "drain"), duration.Draw(t, "grace"), rapid.Bool().Draw(t, "keeper"), word("", "east").Draw(t, "zone"),
			}
		case 1:
			c.Manager = Manager{HostCheck: check.Draw(t, "hostCheck"), Heartbeat: check.Draw(t, "heartbeat"), ConfigCheck: check.Draw(t, "configCheck"), Backups: number(0, 3).Draw(t, "backups")}
			c.DNS.Servers = rapid.SliceOfN(word("10.0.0.1", "[::1]:5353", "::1%eth0", "::1%a b"), 0, 3).Draw(t, "servers")
			c.Logging = Logging{word("", "/var/log/x").Draw(t, "file"), word("debug", "warn").Draw(t, "level"), word("text", "json").Draw(t, "format"), word("", "/var/log/audit").Draw(t, "audit"), word("", "stderr", "/var/log/access").Draw(t, "access"), word("tcplog", "json").Draw(t, "accessFormat")}
		case 2:
			c.Admin.Metrics = word("", "localhost:9107").Draw(t, "metrics")
			c.Admin.Web = &AdminListen{Listen: word("localhost:7000", "*:1").Draw(t, "web"), Enable: true, Secure: rapid.Bool().Draw(t, "secure"), Refresh: duration.Draw(t, "refresh"), Certificate: word("", "/c").Draw(t, "certificate")}
			c.Admin.Web.Readyz = word("", "any", "all").Draw(t, "readyz")
			c.Admin.Web.Names = rapid.SampledFrom([][]string{nil, {"ops.example"}, {"a", "b"}}).Draw(t, "names")
			c.Admin.Web.TrustedProxies = rapid.SampledFrom([][]string{nil, {"10.0.0.0/8", "192.0.2.1"}}).Draw(t, "proxies")
			c.Admin.Web.Allow = rapid.SampledFrom([]Networks{"", "10.0.0.0/8", "10.0.0.0/8 2001:db8::/32"}).Draw(t, "allow")
			if c.Admin.Metrics != "" {
				c.Admin.MetricsAllow = rapid.SampledFrom([]Networks{"", "192.0.2.7/32"}).Draw(t, "metricsAllow")
			}
			c.Admin.Web.Key = rapid.SampledFrom([]string{c.Admin.Web.Certificate, c.Admin.Web.Certificate, "/k"}).Draw(t, "key")
			c.Admin.SSH = &AdminListen{HostKey: word("", "/h").Draw(t, "hostKey")}
			c.Admin.Socket = &Socket{Path: word("/s", "/s t").Draw(t, "path"), Mode: fs.FileMode(number(0o600, 0o660).Draw(t, "mode")), Group: word("", "adm").Draw(t, "group")}
			c.Control.Socket = word("", "/control", "relative", "None").Draw(t, "control")
			c.Admin.Users = []*User{{Name: word("u").Draw(t, "user"), Password: word("$6$a").Draw(t, "password"), Access: word("full", "readonly").Draw(t, "access")}}
			c.Admin.Users[0].Keys = rapid.SliceOfN(word(edKey, ecKey+" é"), 0, 3).Draw(t, "keys")
			if len(c.Admin.Users[0].Keys) == 0 {
				c.Admin.Users[0].Keys = nil
			}
		}
		s := NewService(word("s", "t").Draw(t, "service"))
		s.Listen = []Listen{{Address: word(":80", "unix:/a b").Draw(t, "listen")}}
		s.Listen[0].ProxyProtocol = word("", "accept", "require").Draw(t, "proxyProtocol")
		s.Listen[0].ProxyFrom = Networks(word("", "10.0.0.0/8", "192.0.2.7/32 2001:db8::/32").Draw(t, "proxyFrom"))
		s.Listen[0].TLS = KeyPairs(word("", "/c /k", "/c /k /b /b").Draw(t, "tls"))
		if s.Listen[0].TLS != "" {
			s.Listen[0].ClientCA, s.Listen[0].ALPN = word("", "/ca").Draw(t, "clientCA"), word("", "h2", "h2 http/1.1").Draw(t, "alpn")
		}
		s.Timeouts.Idle, s.Limits.Tries = duration.Draw(t, "idle"), number(0, 4).Draw(t, "tries")
		g := NewGroup(word("g").Draw(t, "group"))
		g.Scheduler, g.Enabled, g.AllDown = word("rand", "leastc,sticky").Draw(t, "scheduler"), rapid.SampledFrom([]bool{true, true, false}).Draw(t, "enabled"), word("refuse", "try").Draw(t, "allDown")
		g.StartDown = rapid.Bool().Draw(t, "startDown")
		if rapid.Bool().Draw(t, "checked") {
			g.Check = healthCheck.Draw(t, "check")
			g.MaxFails, g.FailWindow = number(0, 5).Draw(t, "maxFails"), duration.Draw(t, "failWindow")
			g.MaxEjected = number(0, 100).Draw(t, "maxEjected")
			g.Slow = number(0, 4).Draw(t, "slow")
			g.Silent, g.EjectFor = time.Duration(number(0, 2).Draw(t, "silent"))*time.Second, time.Duration(number(1, 2).Draw(t, "ejectFor"))*time.Minute
		}
		g.Hosts = rapid.SliceOfN(host, 0, 2).Draw(t, "hosts")
		s.Groups = []*Group{g}
		c.Services = []*Service{s}
		if c.Check("model").Err() == nil {
			right++
			roundTrip(t, c)
		}
	})
	t.Logf("%d models were right", right)
	if right == 0 && !testing.Short() { // in short tests rapid makes few
		t.Error("no model was right")
	}
}

// FuzzParse: nothing makes the reader panic, and what it accepts survives
// writing and reading.
func FuzzParse(f *testing.F) {
	for _, data := range samples(f) {
		f.Add(data)
	}
	f.Add([]byte("<config><service name=\"a&lt;&quot; b\"><listen ip=\"unix:/a b\"/><group name=\"&#xe9;\"><host ip=\"[::1]:1\"/></group></service></config>"))
	f.Add([]byte("<pdconfig><engine loops=\"2\" drain=\"0\"/><service name=\"a\"><listen ip=\"*:0\"/></service><admin><user name=\"u\" password=\" x&amp;\"/></admin><logging file=\"a b\"/></pdconfig>"))
	f.Add([]byte("<config " + strings.Repeat("\x88", 700)))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, problems := Parse("fuzz", data)
		if (c == nil) != (problems.Err() != nil) {
			t.Fatalf("model %v with problems\n%v", c, problems)
		}
		if !slices.IsSortedFunc(problems, func(a, b Problem) int { return a.Line - b.Line }) && len(problems) <= maxProblems {
			t.Fatalf("not in the order of the lines:\n%v", problems)
		}
		if c != nil {
			roundTrip(t, c)
		}
	})
}

func BenchmarkParse10000Hosts(b *testing.B) {
	var doc strings.Builder
	doc.WriteString("<config><service name=\"a\"><listen ip=\":80\"/><group name=\"g\">")
	for i := range 10_000 {
		fmt.Fprintf(&doc, "<host name=\"h%d\" ip=\"10.0.%d.%d:80\" weight=\"%d\"/>\n", i, i>>8, i&255, i%100)
	}
	doc.WriteString("</group></service></config>")
	data := []byte(doc.String())
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if c, problems := Parse("", data); c == nil {
			b.Fatal(problems)
		}
	}
}

// A service that names no half-closed timeout has that of idle, whatever it is;
// 0 is no limit.
func TestHalfClosedFollowsIdle(t *testing.T) {
	for attributes, want := range map[string]time.Duration{
		``:                           time.Hour,
		`idle="5m"`:                  5 * time.Minute,
		`idle="5m" halfClosed=""`:    5 * time.Minute,
		`idle="0"`:                   0,
		`idle="5m" halfClosed="0"`:   0,
		`idle="5m" halfClosed="90s"`: 90 * time.Second,
	} {
		doc := `<config><service name="a"><listen ip=":1"/><timeouts ` + attributes + `/></service></config>`
		c := parse(t, doc)
		out, err := c.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []*Config{c, parse(t, string(out))} {
			if got := c.Services[0].Timeouts.WhenHalfClosed(); got != want {
				t.Errorf("%s: %v, want %v", attributes, got, want)
			}
		}
	}
}
