package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// ignorePositions compares models by what they say.
var ignorePositions = cmpopts.IgnoreTypes(Pos{})

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
	for name, check := range map[string]bool{
		"tx: services and listeners":      len(tx.Services) == 2 && len(tx.Services[0].Listen) == 2 && tx.Services[1].Listen[0].Address == "*:19080",
		"tx: enabled group":               tx.Services[0].Enabled().Name == "first" && tx.Services[0].Enabled().Scheduler == "weightr",
		"tx: weights":                     tx.Services[0].Groups[0].Hosts[2].Weight == 20 && tx.Services[0].Groups[1].Hosts[0].Weight == 1,
		"tx: unnamed hosts are numbered":  tx.Services[0].Groups[1].Hosts[1].Name == "host.1" && tx.Services[0].Groups[1].Hosts[2].Name == "host.2",
		"tx: default time-outs":           tx.Services[0].Timeouts == Timeouts{5 * time.Second, 30 * time.Second, time.Hour, 30 * time.Second},
		"tx: admin":                       tx.Admin.Web.Listen == "*:17000" && tx.Admin.Web.Enable && !tx.Admin.Web.Secure && tx.Admin.SSH.Enable && tx.Admin.Users[0].Access == "full",
		"tx: manager":                     tx.Manager.HostCheck == Check{500 * time.Second, true} && !tx.Manager.Heartbeat.Enable,
		"saved: True and False":           saved.Services[0].Enabled().Name == "first" && !saved.Services[0].Groups[1].Enabled,
		"saved: schedulers":               saved.Services[0].Groups[0].Scheduler == "weightr" && saved.Services[0].Groups[1].Scheduler == "leastc",
		"saved: None":                     saved.Admin.Web.Listen == "" && !saved.Admin.Web.Enable && saved.Admin.Web.Refresh == 30*time.Second,
		"saved: bare port":                saved.Admin.SSH.Listen == "localhost:2222",
		"saved: fractions of seconds":     saved.Manager.ConfigCheck.Interval == 30500*time.Millisecond && !saved.Manager.HostCheck.Enable,
		"pd: root is kept":                pd.Root == "pdconfig",
		"pd: enable element":              pd.Services[0].Enabled().Name == "main" && pd.Services[1].Enabled().Name == "only",
		"pd: schedulers":                  pd.Services[0].Groups[0].Scheduler == "leastc" && pd.Services[0].Groups[1].Scheduler == "roundr" && pd.Services[1].Groups[0].Scheduler == "rand",
		"pd: admin listen":                pd.Admin.Web.Listen == "localhost:17001" && pd.Admin.Web.Enable && !pd.Admin.Web.Secure,
		"pd: checktime sets hostCheck":    pd.Manager.HostCheck == Check{15 * time.Second, true},
		"pd: logging":                     pd.Logging.File == "director.log",
		"manager attribute is understood": parse(t, `<config><service name="a"><listen ip=":1"/></service><manager hostCheckInterval="7"/></config>`).Manager.HostCheck.Interval == 7*time.Second,
	} {
		if !check {
			t.Error(name)
		}
	}
}

func TestNewElements(t *testing.T) {
	c := parse(t, `<config>
	<engine loops="3" splice="never" pipeSize="128KiB" pipeMemory="2GiB" maxSessions="500" backlog="77" drain="2m"/>
	<service name="a">
		<listen ip="[::1]:80"/><listen ip="unix:/run/a.sock"/>
		<timeouts connect="500ms" total="0" idle="5m" halfClosed="1h30m"/>
		<limits tries="3"/>
		<group name="g" scheduler="p2c" allDown="refuse">
			<host name="h" ip="unix:/run/b.sock" weight="0" backup="on" state="maint"/>
			<host name="i" ip="db_1.example.:5432" state="drain"/>
		</group>
	</service>
	<admin><metrics listen="localhost:9107"/></admin>
	<logging level="debug" format="json"/>
</config>`)
	want := New()
	want.Engine = Engine{3, "never", 128 << 10, 2 << 30, 500, 77, 2 * time.Minute}
	want.Logging = Logging{"", "debug", "json"}
	want.Admin.Metrics = "localhost:9107"
	want.Services = []*Service{{
		Name:     "a",
		Listen:   []Listen{{Address: "[::1]:80"}, {Address: "unix:/run/a.sock"}},
		Timeouts: Timeouts{500 * time.Millisecond, 0, 5 * time.Minute, 90 * time.Minute},
		Limits:   Limits{3},
		Groups: []*Group{{
			Name: "g", Scheduler: "p2c", Enabled: true, Refuse: true, Hosts: []*Host{
				{Name: "h", Address: "unix:/run/b.sock", Weight: 0, Backup: true, State: "maint"},
				{Name: "i", Address: "db_1.example.:5432", Weight: 1, State: "drain"},
			},
		}},
	}}
	if diff := cmp.Diff(want, c, ignorePositions); diff != "" {
		t.Error(diff)
	}
	if line := c.Services[0].Groups[0].Hosts[1].Pos.Line; line != 9 {
		t.Errorf("the second host is in line %d, want 9", line)
	}
}

// A document with one mistake, and what is said of it.
func TestEveryMistakeNamesItsLineAndWhatIsRight(t *testing.T) {
	// %s stands in line 3, within a service that is right.
	frame := "<config>\n<service name=\"a\"><listen ip=\":80\"/>\n%s\n<group name=\"g\" enable=\"yes\"><host name=\"h\" ip=\"10.0.0.1:80\"/></group></service></config>"
	outside := "<config><service name=\"a\"><listen ip=\":80\"/><group name=\"g\"><host name=\"h\" ip=\"10.0.0.1:80\"/></group></service>\n\n%s</config>"
	for _, test := range []struct{ frame, doc, want string }{
		{frame, `<liste ip=":81"/>`, `c.xml:3: there is no <liste> in <service>; did you mean "listen"?`},
		{frame, `<listen ipp=":81"/>`, `<listen> has no attribute "ipp"; did you mean "ip"?`},
		{frame, `<listen/>`, `<listen> needs the attribute ip`},
		{frame, `<listen ip="80"/>`, `"80" is no address; want host:port`},
		{frame, `<listen ip=":70000"/>`, `port "70000" is no number from 0 to 65535`},
		{frame, `<listen ip="1.2.3.4.5:80"/>`, `"1.2.3.4.5" is no IPv4 address`},
		{frame, `<listen ip="unix:relative"/>`, `want unix: and an absolute path`},
		{frame, `<listen ip="*:80"/>`, `service "a" listens on *:80, which service "a" has taken in line 2`},
		{frame, `<listen ip="127.0.0.1:80"/>`, `has taken in line 2 (:80)`},
		{frame, `<timeouts connect="5"/>`, `<timeouts connect>: "5" has no unit; say 5ms or 5s`},
		{frame, `<timeouts idle="soon"/>`, `"soon" is no duration; want one such as 500ms`},
		{frame, `<timeouts idle="1s"/><timeouts idle="2s"/>`, `a second <timeouts> in <service>`},
		{frame, `<limits tries="-1"/>`, `"-1" is no number from 0 to 10000`},
		{frame, `<limits sessions="5"/>`, `<limits sessions>: is not supported by this version yet; leave it out or say 0`},
		{frame, `<access/>`, `<access> is not supported by this version yet`},
		{frame, `<group name="g"/>`, `a second group "g"; names are unique`},
		{frame, `<group/>`, `<group> needs a name`},
		{frame, `<group name="x" enable="yes"/>`, `service "a" has two enabled groups, "x" and "g"`},
		{frame, `<group name="x" enable="maybe"/>`, `"maybe" is neither true nor false`},
		{frame, `<group name="x" scheduler="leastcon"/>`, `there is no scheduler "leastcon"; did you mean "leastc"?`},
		{frame, `<group name="x" scheduler="maglev"/>`, `"maglev" is not supported by this version yet`},
		{frame, `<group name="x" scheduler="roundr,sticky"/>`, `"roundr,sticky" is not supported by this version yet`},
		{frame, `<group name="x" allDown="panic"/>`, `"panic" is none of try, refuse`},
		{frame, `<group name="x"><check type="tcp"/></group>`, `<check> is not supported by this version yet`},
		{frame, `<group name="x"><host ip="b:80" weight="70000"/></group>`, `"70000" is no number from 0 to 65535`},
		{frame, `<group name="x"><host ip="b"/></group>`, `"b" is no address`},
		{frame, `<group name="x"><host ip="*:80"/></group>`, `"*:80" names no host to connect to`},
		{frame, `<group name="x"><host ip="b:0"/></group>`, `port "0" is no number from 1 to 65535`},
		{frame, `<group name="x"><host ip="b_a d:1"/></group>`, `is no host name`},
		{frame, `<group name="x"><host name="b" ip="b:1"/><host name="b" ip="b:2"/></group>`, `a second host "b"`},
		{frame, `<group name="x"><host name="b" ip="b:1" state="off"/></group>`, `"off" is none of ready, drain, maint`},
		{frame, `<group name="x"><host name="b" ip="b:1"><x/></host></group>`, `<host> contains nothing, and no <x>`},
		{frame, `<enable group="gg"/>`, `service "a" has no group "gg"; did you mean "g"?`},
		{frame, `<group name="x"/><enable group="x"/>`, `<enable group="x"> disagrees with <group enable> in line 4`},
		{outside, `<serice/>`, `c.xml:3: there is no <serice> in <config>; did you mean "service"?`},
		{outside, `<service name="a"><listen ip=":81"/></service>`, `c.xml:3: a second service "a"`},
		{outside, `<service><listen ip=":81"/></service>`, `<service> needs a name`},
		{outside, `<service name="b"/>`, `service "b" listens nowhere`},
		{outside, `<service name="b"><listen ip=":81"/><group name="g"/><group name="h"/></service>`, `service "b" has no enabled group`},
		{outside, `<service name="b"><listen ip="0.0.0.0:80"/></service>`, `service "b" listens on 0.0.0.0:80, which service "a" has taken in line 1`},
		{outside, `<engine loops="0"/>`, `"0" is no number from 1 to 1024, nor auto`},
		{outside, `<engine splice="sometimes"/>`, `"sometimes" is none of auto, always, never`},
		{outside, `<engine pipeSize="1MB"/>`, `"1MB" is no size; want one such as 64KiB`},
		{outside, `<engine pipeSize="4KiB"/>`, `"4KiB" is not between 64KiB and 64MiB`},
		{outside, `<manager><hostCheck interval="0"/></manager>`, `"0" is no time; want seconds above 0`},
		{outside, `<manager><hostChek/></manager>`, `did you mean "hostCheck"?`},
		{outside, `<admin><metrics listen="localhost:80"/></admin>`, `<metrics> listens on localhost:80, which service "a" has taken`},
		{outside, `<admin><user password="x"/></admin>`, `<user> needs the attribute name`},
		{outside, `<admin><user name="u" access="root"/></admin>`, `"root" is none of full, readonly`},
		{outside, `<admin/><admin/>`, `a second <admin> in <config>`},
		{outside, `<logging level="loud"/>`, `"loud" is none of debug, info, warn, error`},
		{outside, `<dns servers="1.1.1.1"/>`, `<dns> is not supported by this version yet`},
		{"%s", ``, `c.xml: the document is empty`},
		{"%s", `<proxy/>`, `c.xml:1: the root element is <proxy>; it must be <config>`},
		{"%s", "<config></config>\n<config/>", `c.xml:2: a second root element <config>`},
		{"%s", "<config>\n<service></config>", `c.xml:2: no well-formed XML`},
		{"%s", `<config/>trailing`, `text outside the root element`},
		{"%s", `<config/>`, `there is no <service>`},
		{"%s", "<!DOCTYPE config [<!ENTITY a \"b\">]>\n<config/>", `a document type with declarations of its own`},
		{"%s", `<?xml version="1.0" encoding="EBCDIC"?><config/>`, `encoding "EBCDIC" is not known; use UTF-8`},
		{"%s", strings.Repeat("<a>", 100), `elements are nested more than 16 deep`},
		{"%s", "\x00\x01\x02", `no well-formed XML`},
	} {
		doc := fmt.Sprintf(test.frame, test.doc)
		c, problems := Parse("c.xml", []byte(doc))
		if c != nil || problems.Err() == nil {
			t.Errorf("%s: accepted", test.doc)
			continue
		}
		found := slices.ContainsFunc(problems, func(p Problem) bool {
			return !p.Warning && strings.Contains(p.String(), test.want)
		})
		if !found {
			t.Errorf("%s:\nsaid %v\nwant %s", test.doc, problems, test.want)
		}
		errors := 0
		for _, p := range problems {
			if !p.Warning {
				errors++
			}
		}
		if errors != 1 {
			t.Errorf("%s: %d errors for one mistake:\n%v", test.doc, errors, problems)
		}
	}
}

// All mistakes are told at once, in the order of their lines.
func TestAllMistakesAtOnce(t *testing.T) {
	_, problems := Parse("c.xml", []byte("<config>\n<engine loops=\"x\"/>\n<service nam=\"a\">\n<listen ip=\":1\" port=\"2\"/>\n</service>\n<oops/></config>"))
	var lines []int
	for _, p := range problems {
		if !p.Warning {
			lines = append(lines, p.Line)
		}
	}
	if !slices.Equal(lines, []int{2, 3, 4, 6}) {
		t.Errorf("lines %v:\n%v", lines, problems)
	}
}

func TestWarnings(t *testing.T) {
	for doc, want := range map[string]string{
		`<config><service name="a"><listen ip=":1"/></service></config>`:                                                                                          `service "a" has no group`,
		`<config><service name="a"><listen ip=":1"/><group name="g"/></service></config>`:                                                                         `group "g" of service "a" is empty`,
		`<config><service name="a"><listen ip=":1"/><group name="g"><host ip="b:1" weight="0"/></group></service></config>`:                                       `every host of group "g" has weight 0`,
		`<config><service name="a b"><listen ip=":1"/></service></config>`:                                                                                        `service name "a b" has to be quoted`,
		`<config><service name="a"><listen ip=":1"/></service><admin><user name="u" password="abJnggxhB/yWI"/></admin></config>`:                                  `is a DES hash`,
		`<config><service name="a"><listen ip=":1"/></service><admin><web/></admin></config>`:                                                                     `the admin page is not served by this version yet`,
		`<config><service name="a"><listen ip=":1"/></service><admin><web listen="*:7000" enable="1"/><user name="u" password="..xpoEyRReGzk"/></admin></config>`: `will refuse to serve *:7000 with it`,
		`<config><service name="a"><listen ip=":1"/></service><manager><configCheck enable="1"/></manager></config>`:                                              `not written back`,
	} {
		c, problems := Parse("c.xml", []byte(doc))
		if c == nil || !slices.ContainsFunc(problems, func(p Problem) bool { return p.Warning && strings.Contains(p.Text, want) }) {
			t.Errorf("%s:\nsaid %v\nwant %s", doc, problems, want)
		}
	}
	// Without enable, an admin surface is on only where nobody else can reach it.
	c := parse(t, `<config><service name="a"><listen ip=":1"/></service><admin><web listen="*:7000"/><ssh listen="127.0.0.1:2222"/></admin></config>`)
	if c.Admin.Web.Enable || !c.Admin.SSH.Enable {
		t.Errorf("page on %v, SSH on %v; want the SSH alone", c.Admin.Web.Enable, c.Admin.SSH.Enable)
	}
}

func TestEncodings(t *testing.T) {
	doc := "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><config><service name=\"caf\xe9\"><listen ip=\":1\"/></service></config>"
	if c := parse(t, doc); c.Services[0].Name != "café" {
		t.Errorf("the name is %q", c.Services[0].Name)
	}
}

func TestUnreadableFiles(t *testing.T) {
	for path, want := range map[string]string{
		filepath.Join(t.TempDir(), "none.xml"): "no such file",
		t.TempDir():                            "no regular file",
	} {
		c, problems := ReadFile(path)
		if c != nil || !strings.Contains(problems.Error(), want) || !strings.HasPrefix(problems.Error(), path) {
			t.Errorf("%s: said %v", path, problems)
		}
	}
}

func TestHostileFilesAreRefusedQuickly(t *testing.T) {
	for name, doc := range map[string][]byte{
		"large":            make([]byte, maxSize+1),
		"deep":             []byte(strings.Repeat("<config>", 1_000_000)),
		"many elements":    []byte("<config>" + strings.Repeat("<a/>", 3_000_000) + "</config>"),
		"many attributes":  []byte("<config " + strings.Repeat(`a="1" `, 2_000_000) + "/>"),
		"quoted brackets":  []byte("<config " + strings.Repeat(`a=">" `, 2_000_000) + "/>"),
		"billion laughs":   []byte("<!DOCTYPE c [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;\">]><config>&b;</config>"),
		"outside entity":   []byte("<!DOCTYPE c SYSTEM \"file:///etc/passwd\"><config>&c;</config>"),
		"long names":       []byte("<config><service name=\"a\"><listen ip=\":1\"/><" + strings.Repeat("x", 1<<20) + "/></service></config>"),
		"many mistakes":    []byte("<config>" + strings.Repeat("<wrong/>", 400_000) + "</config>"),
		"one long comment": []byte("<config><!--" + strings.Repeat("-x", 4<<20)),
	} {
		start := time.Now()
		c, problems := Parse(name, doc)
		if c != nil || len(problems) == 0 {
			t.Errorf("%s: accepted", name)
		}
		if len(problems) > maxProblems {
			t.Errorf("%s: %d problems are told", name, len(problems))
		}
		// Milliseconds, but for those that are mostly bytes to skip; the race
		// detector makes all of it several times slower.
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s: refused after %v", name, took)
		}
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
		d.Services[0].Groups[0].Name = "changed"
		d.Services[0].Groups[0].Hosts[0].Weight = 77
		d.Services[0].Groups[0].Hosts = append(d.Services[0].Groups[0].Hosts[:0], &Host{})
		for _, u := range d.Admin.Users {
			u.Name = "changed"
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
func roundTrip(t *testing.T, c *Config) {
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

// FuzzParse: nothing makes the reader panic, and what it accepts survives
// writing and reading.
func FuzzParse(f *testing.F) {
	for _, data := range samples(f) {
		f.Add(data)
	}
	f.Add([]byte("<config><service name=\"&#10;\"><listen ip=\"unix:/a&#9;b\"/><group name=\"&lt;\"><host ip=\"[::1]:1\"/></group></service></config>"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, _ := Parse("fuzz", data); c != nil {
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
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if c, problems := Parse("", data); c == nil {
			b.Fatal(problems)
		}
	}
}
