package txlb

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/txlb/txlb/config"
)

// leftOut are elements and attributes that a Config does not have, each with the reason.
var leftOut = map[string]string{
	"admin": "a program has interfaces of its own", "web": "see admin", "ssh": "see admin", "socket": "see admin",
	"metrics": "see admin; MetricsHandler serves them", "user": "see admin",
	"control":       "a host learns the client from the PROXY protocol",
	"fleet":         "each program has its configuration from Apply",
	"limits scope":  "a program is in no fleet",
	"logging":       "Config.Logger takes the log",
	"configCheck":   "there is no file to write to",
	"engine drain":  "the context of Shutdown says it",
	"engine grace":  "it is about SIGTERM; a program calls Shutdown when it wants to",
	"engine keeper": "the process of txlb keeper serves the program txlb alone",
}

// Every row of the schema is a field, and every tag is a row.
func TestConfigHasEveryRow(t *testing.T) {
	for _, e := range config.Elements() {
		element := e.Name
		if len(config.Attributes(element)) == 0 {
			continue
		}
		if leftOut[element] != "" {
			if _, ours := parts[element]; ours {
				t.Errorf("<%s> is left out, but has a struct", element)
			}
			continue
		}
		p, ours := parts[element]
		if !ours {
			t.Errorf("<%s> has no struct: give it one in config.go and a line in parts, or say in leftOut why it has none", element)
			continue
		}
		for _, row := range config.Attributes(element) {
			has := false
			for _, f := range p.fields {
				has = has || f.row == config.Find(element, row.Name)
			}
			if !has && leftOut[element+" "+row.Name] == "" {
				t.Errorf("<%s %s>: %v has no field with `txlb:%q`; add one to config.go", element, row.Name, p.is, row.Name)
			}
		}
		for _, f := range p.fields {
			if f.row == nil {
				t.Errorf("%v.%s: <%s> has no attribute of its tag", p.is, f.name, element)
			}
		}
	}
	for name := range leftOut {
		element, attribute, one := strings.Cut(name, " ")
		if one && config.Find(element, attribute) == nil {
			t.Errorf("%s is left out, but the schema does not have it", name)
		}
	}
}

// samples are values for an attribute that its row takes, as a document has them.
func samples(row *config.Attribute) []string {
	special := map[string][]string{
		"name": {"a", "b.c", "d:1"}, "ip": {"127.0.0.1:80", "[::1]:443", "unix:/run/a.sock", "db.example:5432"}, "net": {"10.0.0.0/8", "192.0.2.1/32 2001:db8::/32"},
		"proxyFrom": {"10.0.0.0/8 192.0.2.7/32"}, "servers": {"10.0.0.1", "10.0.0.1 [::1]:5353"}, "interface": {"eth0"}, "zone": {"z1"},
		"sni": {"db.example", "*.db.example *"}, "alpn": {"h2 http/1.1"}, "source": {"192.0.2.1", "client"}, "status": {"200,204,300-399"},
		"path": {"/health"}, "host": {"web.example"}, "send": {"PING\r\n\x00"}, "expect": {"+PONG"}, "file": {"/etc/list"}, "ca": {"/etc/ca.pem"},
		"group": {"main"}, "clientCA": {"/etc/ca.pem"}, "onHold": {"systemctl start db", "sh -c 'a; b'"},
	}
	if row.Element == "listen" && row.Name == "tls" {
		return []string{"/a.pem /a.key", "/a.pem /a.key /b.pem /b.key"}
	}
	if row.Element == "host" && row.Name == "sni" {
		return []string{"db.example"}
	}
	if list := special[row.Name]; list != nil {
		return list
	}
	switch row.Type {
	case config.TypeBool:
		return []string{"true", "false"}
	case config.TypeChoice:
		return row.Choices
	case config.TypeScheduler:
		return []string{LeastConns, RoundRobin, Sticky(Maglev)}
	case config.TypeNumber:
		return []string{"1", "7", "100"}
	case config.TypeSize:
		return []string{"64KiB", "3MiB", "1GiB", "70001"}
	case config.TypeSeconds:
		return []string{"7", "0.5", "90"}
	case config.TypeDuration:
		return []string{"1s", "90s", "1h30m", "1500ms"}
	}
	return nil
}

// random gives p, a struct of a Config, random values by the rows of its element.
func random[T any](t *rapid.T, element string, but ...string) T {
	var v T
	of := reflect.ValueOf(&v).Elem()
	for _, f := range parts[element].fields {
		if strings.Contains(" "+strings.Join(but, " ")+" ", " "+f.row.Name+" ") {
			continue
		}
		list := samples(f.row)
		if zero, _ := f.row.Parse("0"); zero == "0" {
			list = append(list, "0")
		}
		if i := rapid.IntRange(-1, len(list)-1).Draw(t, f.name); i >= 0 {
			text := list[i]
			if f.row.Name != "send" && f.row.Name != "expect" { // which need no escapes in a Config
				if canonical, err := f.row.Parse(text); err == nil {
					text = canonical
				}
			}
			f.put(of.Field(f.index), text)
		}
	}
	return v
}

// A Config that is written as a document and read again means the same.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := random[Config](t, "dns")
		c.Engine = random[Engine](t, "engine")
		c.HostCheck, c.Heartbeat = random[HostCheck](t, "hostCheck"), random[Heartbeat](t, "heartbeat")
		names := []string{"web", "db", "cache"}
		for i := range rapid.IntRange(0, 3).Draw(t, "services") {
			s := random[Service](t, "service", "name")
			s.Name = names[i]
			for range rapid.IntRange(0, 2).Draw(t, "listeners") {
				l := random[Listener](t, "listen")
				if l.Addr != "" {
					s.Listeners = append(s.Listeners, l)
				}
			}
			s.Timeouts, s.Limits = random[Timeouts](t, "timeouts"), random[Limits](t, "limits")
			for range rapid.IntRange(0, 2).Draw(t, "rules") {
				r := random[AccessRule](t, "allow")
				r.Deny = rapid.Bool().Draw(t, "deny")
				s.Access = append(s.Access, r)
			}
			for j := range rapid.IntRange(0, 3).Draw(t, "groups") {
				g := random[Group](t, "group", "name", "enable")
				g.Name, g.Enabled = names[j], j == 0
				if rapid.Bool().Draw(t, "checked") {
					check := random[Check](t, "check")
					g.Check = &check
				}
				for range rapid.IntRange(0, 3).Draw(t, "hosts") {
					if h := random[Host](t, "host"); h.Addr != "" {
						g.Hosts = append(g.Hosts, h)
					}
				}
				s.Groups = append(s.Groups, g)
			}
			if len(s.Groups) > 0 && rapid.Bool().Draw(t, "routed") {
				r := random[Route](t, "route", "group")
				r.Group = s.Groups[0].Name
				s.Routes = append(s.Routes, r)
			}
			c.Services = append(c.Services, s)
		}
		m, err := c.model()
		if err != nil {
			t.Skip() // values that do not go together
		}
		doc, err := c.XML()
		if err != nil {
			t.Fatal(err)
		}
		read, err := Load(doc)
		if err != nil {
			t.Fatalf("%v\n%s", err, doc)
		}
		again, err := read.model()
		if err != nil {
			t.Fatalf("%v\n%s", err, doc)
		}
		if diff := cmp.Diff(m, again, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s\n%s", diff, doc)
		}
		if once := configOf(m); !reflect.DeepEqual(once, configOf(again)) {
			t.Error("what is read twice differs")
		}
	})
}

// Each value of each row comes through on its own, so that the one above does not hide one
// that does not go together with others.
func TestEveryRowComesThrough(t *testing.T) {
	for element, p := range parts {
		for _, f := range p.fields {
			seen := false
			for _, text := range samples(f.row) {
				if f.row.Name != "send" && f.row.Name != "expect" {
					canonical, err := f.row.Parse(text)
					if err != nil {
						continue // a row of another element has that name
					}
					text = canonical
				}
				seen = true
				v := reflect.New(p.is).Elem()
				f.put(v.Field(f.index), text)
				got, err := f.text(v.Field(f.index))
				if err == nil && got == "" {
					got = f.row.Default
				}
				if got, _ = f.row.Parse(got); err != nil || got != mustParse(t, f.row, text) {
					t.Errorf("<%s %s>: %q became %q, %v", element, f.row.Name, text, got, err)
				}
			}
			if !seen {
				t.Errorf("<%s %s>: no sample that it takes; add one to samples", element, f.row.Name)
			}
		}
	}
}

func mustParse(t *testing.T, row *config.Attribute, text string) string {
	t.Helper()
	canonical, err := row.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return canonical
}

func TestNone(t *testing.T) {
	c := Config{Services: []Service{{
		Name: "web", Timeouts: Timeouts{Idle: None, HalfClosed: None, KeepAlive: None},
		Hosts: []Host{{Addr: "10.0.0.1:80", Weight: None, Resolve: None}, {Addr: "10.0.0.2:80"}},
	}}}
	m, err := c.model()
	if err != nil {
		t.Fatal(err)
	}
	s := m.Services[0]
	if s.Timeouts.Idle != 0 || s.Timeouts.HalfClosed != 0 || s.Timeouts.KeepAlive != 0 || s.Timeouts.Connect != 5*time.Second {
		t.Errorf("timeouts are %+v", s.Timeouts)
	}
	if hosts := s.Groups[0].Hosts; hosts[0].Weight != 0 || hosts[0].Resolve != 0 || hosts[1].Weight != 1 || hosts[0].Name != "10.0.0.1:80" || s.Groups[0].Name != "main" {
		t.Errorf("hosts are %+v and %+v of group %q", hosts[0], hosts[1], s.Groups[0].Name)
	}
	if back := configOf(m).Services[0]; back.Timeouts.Idle != None || back.Groups[0].Hosts[0].Weight != None || back.Groups[0].Hosts[1].Weight != 0 {
		t.Errorf("back it is %+v", back)
	}
}

// What is wrong is said with service, host and field, and with what would be right.
func TestMistakesAreNamed(t *testing.T) {
	one := func(change func(*Service)) Config {
		s := Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Hosts: []Host{{Addr: "10.0.0.1:80"}}}
		change(&s)
		return Config{Services: []Service{s}}
	}
	for name, test := range map[string]struct {
		c    Config
		want []string
	}{
		"no name":    {one(func(s *Service) { s.Name = "" }), []string{`Services[0]: Name is missing`}},
		"weight":     {one(func(s *Service) { s.Hosts[0].Weight = 70000 }), []string{`service "web", host "10.0.0.1:80": Weight:`, `between 0 and 65535`}},
		"negative":   {one(func(s *Service) { s.Hosts[0].Weight = -5 }), []string{`Weight: -5 is negative; None says 0`}},
		"duration":   {one(func(s *Service) { s.Timeouts.Idle = -time.Second }), []string{`service "web", Timeouts: Idle: -1s is negative; None says 0`}},
		"too short":  {one(func(s *Service) { s.Timeouts.Idle = time.Microsecond }), []string{`Timeouts: Idle:`, `shorter than 1ms`}},
		"address":    {one(func(s *Service) { s.Hosts[0].Addr = "10.0.0.1" }), []string{`service "web", host "10.0.0.1":`, `write host:port`}},
		"no address": {one(func(s *Service) { s.Hosts[0].Addr = "" }), []string{`service "web", Hosts[0]: Addr is missing`}},
		"scheduler":  {one(func(s *Service) { s.Scheduler = "roundrobbin" }), []string{`service "web": Scheduler: unknown scheduler "roundrobbin"; did you mean "roundrobin"?`}},
		"twice":      {one(func(s *Service) { s.Hosts = append(s.Hosts, s.Hosts[0]) }), []string{`service "web", host "10.0.0.1:80": a second host`}},
		"listen":     {one(func(s *Service) { s.Listen[0] = "8080" }), []string{`service "web", listener "8080":`, `write host:port`}},
		"both":       {one(func(s *Service) { s.Groups = []Group{{}} }), []string{`it has Groups, and Hosts`}},
		"expect":     {one(func(s *Service) { s.Check = ExpectCheck("", "") }), []string{`service "web", Check:`, `expect: what a host that is up says`}},
		"proxyFrom":  {one(func(s *Service) { s.Listeners = []Listener{{Addr: ":81", ProxyProtocol: "accept"}} }), []string{`listener ":81": Listener.ProxyProtocol="accept" needs`}},
		"same":       {one(func(s *Service) { s.Listen = append(s.Listen, ":9", ":9") }), []string{`listens on :9, which service "web" has taken (service "web", listener ":9")`}},
		"group": {one(func(s *Service) {
			s.Routes = []Route{{Group: "canari"}}
			s.Hosts = nil
			s.Groups = []Group{{Name: "canary"}}
		}), []string{`service "web", Routes[0]:`, `did you mean "canary"?`}},
		"two enabled": {one(func(s *Service) {
			s.Hosts = nil
			s.Groups = []Group{{Name: "a", Enabled: true}, {Name: "b", Enabled: true}}
		}), []string{`two enabled groups`}},
		"none enabled": {one(func(s *Service) { s.Hosts = nil; s.Groups = []Group{{Name: "a"}, {Name: "b"}} }), []string{`no enabled group; the one that takes the clients needs Group.Enabled="true"`}},
		"nets":         {one(func(s *Service) { s.Access = []AccessRule{Deny("10.0.0.0/8 11.0.0.0/8")} }), []string{`Access[0]: Nets: "10.0.0.0/8 11.0.0.0/8" is not one word`}},
		"rule":         {one(func(s *Service) { s.Access = []AccessRule{{}} }), []string{`service "web", Access[0]: Nets or File is needed, and not both`}},
		"files":        {one(func(s *Service) { s.Listeners = []Listener{{Addr: ":80", ClientCA: "/ca.pem"}} }), []string{`Listener.ClientCA needs TLS="CERTIFICATE KEY": without it`}},
		"engine":       {Config{Engine: Engine{Loops: 5000}}, []string{`Engine: Loops:`, `between 1 and 1024`}},
		"several":      {one(func(s *Service) { s.Hosts[0].Weight = -7; s.Timeouts.Hello = -3 }), []string{`Weight`, "\n", `Hello`}},
		"start": {func() Config {
			c := one(func(s *Service) { s.Groups = []Group{{StartDown: true, Hosts: s.Hosts}}; s.Hosts = nil })
			c.HostCheck.Off = true
			return c
		}(), []string{`waits for a check`}},
	} {
		_, err := test.c.model()
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		for _, want := range append(test.want, "txlb: ") {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q lacks %q", name, err, want)
			}
		}
	}
}

func TestLoad(t *testing.T) {
	c, err := Load([]byte(`<config>
	<service name="web"><listen ip=":80"/><listen ip=":81" mptcp="yes"/>
		<group name="g" scheduler="roundrobin"><check type="http" path="/health"/><host ip="10.0.0.1:80" weight="0"/></group></service>
	<manager><hostCheck enable="no" interval="5"/></manager>
	<logging file="/x"/><dns servers="10.0.0.53"/></config>`))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		HostCheck: HostCheck{Off: true, Interval: 5 * time.Second}, DNSServers: []string{"10.0.0.53"},
		Services: []Service{{
			Name: "web", Listen: []string{":80"}, Listeners: []Listener{{Addr: ":81", MPTCP: true}},
			Groups: []Group{{Name: "g", Enabled: true, Scheduler: RoundRobin, Check: HTTPCheck("/health"), Hosts: []Host{{Name: "host.0", Addr: "10.0.0.1:80", Weight: None}}}},
		}},
	}
	if diff := cmp.Diff(want, c, cmpopts.IgnoreFields(Config{}, "Logger", "OnEvent", "Schedulers"), cmpopts.IgnoreFields(Service{}, "Fallback")); diff != "" {
		t.Error(diff)
	}
	_, err = Load([]byte("<config>\n<service name=\"web\"><group name=\"g\"><host ip=\"10.0.0.1\"/></group></service>\n<admin><web/></admin>\n<control socket=\"/c\"/>\n<fleet name=\"x\" store=\"http://h:1\"/>\n<bogus/></config>"))
	if err == nil {
		t.Fatal("mistakes load")
	}
	lines := strings.Split(err.Error(), "\n")
	for i, want := range []string{"config.xml:2: ", "config.xml:3: <admin> is for the program txlb; remove it", "config.xml:4: <control>", "config.xml:5: <fleet>", "config.xml:6: unknown element <bogus>"} {
		if i >= len(lines) || !strings.HasPrefix(lines[i], want) {
			t.Errorf("line %d should begin with %q:\n%v", i, want, err)
		}
	}
	for _, doc := range []string{"", "x", "<a", "<admin/>", "<config><admin", strings.Repeat("<config>", 100)} {
		if _, err := Load([]byte(doc)); err == nil {
			t.Errorf("%q loads", doc)
		}
	}
}

// FuzzLoad reads whatever comes, and what it takes comes through once more.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(`<config><service name="web"><listen ip=":80"/><group name="g"><check type="expect" expect="a\x00"/><host ip="a:80" weight="0"/></group></service></config>`))
	f.Add([]byte(`<pdconfig><service name="a"><listen ip="*:1"/><route sni="*.a" percent="0" group="g"/><group name="g"/></service><admin/></pdconfig>`))
	f.Add([]byte(`<config><engine loops="3" pipeSize="70001"/><manager><heartbeat enable="yes" interval="0.5"/></manager></config>`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		c, err := Load(doc)
		if err != nil {
			return
		}
		written, err := c.XML()
		if err != nil {
			t.Fatalf("%v of\n%s", err, doc)
		}
		again, err := Load(written)
		if err != nil {
			t.Fatalf("%v of\n%s", err, written)
		}
		if !reflect.DeepEqual(c, again) {
			t.Fatalf("%s", cmp.Diff(c, again, cmpopts.IgnoreFields(Config{}, "Logger", "OnEvent", "Schedulers"), cmpopts.IgnoreFields(Service{}, "Fallback")))
		}
	})
}
