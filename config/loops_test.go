package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

// ring is a configuration of services, each "NAME LISTEN HOST…".
func ring(services ...string) *Config {
	c := New()
	for _, line := range services {
		words := strings.Fields(line)
		s := NewService(words[0])
		for l := range strings.SplitSeq(words[1], ",") {
			s.Listen = append(s.Listen, Listen{Address: l})
		}
		g := NewGroup("g")
		g.Enabled = true
		for i, address := range words[2:] {
			g.Hosts = append(g.Hosts, NewHost(fmt.Sprint("h", i), address))
		}
		s.Groups = []*Group{g}
		c.Services = append(c.Services, s)
	}
	return c
}

// interfaceAddress is an address of this machine that is not loopback.
func interfaceAddress(t *testing.T) string {
	for ip := range ownAddresses() {
		if ip.Is4() && !ip.IsLoopback() {
			return ip.String()
		}
	}
	t.Log("this machine has loopback alone")
	return "127.0.0.9"
}

func TestLoops(t *testing.T) {
	own := interfaceAddress(t)
	for want, services := range map[string][]string{
		// service/host>listener of each loop
		"a/h1>a":                      {"a 127.0.0.1:80 10.255.0.1:80 127.0.0.1:80"},
		"a/h0>a":                      {"a *:80 127.0.0.7:80"},
		"a/h0>a ":                     {"a :80 [::1]:80"},
		"a/h0>a  ":                    {"a 0.0.0.0:80 localhost:80"},
		"a/h0>a   ":                   {"a localhost:80 127.0.0.1:80"},
		"a/h0>a    ":                  {"a 127.0.0.1:80 0.0.0.0:80"},
		"a/h0>a     ":                 {"a [::1]:80 [::]:80"},
		"a/h0>a      ":                {"a *:80 " + own + ":80"},
		"a/h0>a       ":               {"a *:80 [::ffff:" + own + "]:80"},
		"a/h0>a        ":              {"a unix:/run/a unix:/run/../run/a"},
		"a/h0>a         ":             {"a lb.example:80 LB.example.:80"},
		"a/h0>b b/h1>a":               {"a :1 127.0.0.1:2", "b :2 10.255.0.1:1 127.0.0.1:1"},
		"a/h0>b b/h0>c c/h0>a":        {"a :1 127.0.0.1:2", "b :2,:4 127.0.0.1:3", "c :3 127.0.0.1:1", "d :5 127.0.0.1:1"},
		"a/h0>a b/h0>c c/h0>b":        {"a :1 127.0.0.1:1 127.0.0.1:2", "b :2 127.0.0.1:3", "c :3 127.0.0.1:2"},
		"a/h0>b a/h1>c b/h0>a c/h0>a": {"a :1 127.0.0.1:2 127.0.0.1:3", "b :2 127.0.0.1:1", "c :3 127.0.0.1:1"},
		// none
		"":          {"a :1 127.0.0.1:2", "b :2 127.0.0.1:3", "c :3 10.255.0.1:3"},
		" ":         {"a 0.0.0.0:80 [::1]:80"},
		"  ":        {"a 127.0.0.1:80 127.0.0.2:80"},
		"   ":       {"a *:80 10.255.0.1:80 lb.example:80"},
		"    ":      {"a 127.0.0.1:0 127.0.0.1:80"},
		"     ":     {"a unix:/run/a unix:/run/b"},
		"      ":    {"a *:80 127.0.0.1:81 _x._tcp.example."},
		"       ":   {"a :1"},
		"        ":  {"a [::1]:80 127.0.0.1:80"},
		"         ": {"a " + own + ":80 127.0.0.1:80"},
	} {
		var got []string
		for _, l := range Loops(ring(services...), nil) {
			got = append(got, fmt.Sprintf("%s/%s>%s", l.Service, l.Host, l.Listener))
		}
		if strings.Join(got, " ") != strings.TrimSpace(want) {
			t.Errorf("%q: loops %q, want %q", services, got, want)
		}
	}
}

// Only hosts of the enabled group that take clients count, and what a name
// stands for if that is told.
func TestLoopsOfWhatTakesClients(t *testing.T) {
	for name, change := range map[string]func(g *Group, h *Host){
		"another group": func(g *Group, _ *Host) { g.Enabled = false },
		"maintenance":   func(_ *Group, h *Host) { h.State = "maint" },
		"drain":         func(_ *Group, h *Host) { h.State = "drain" },
		"no weight":     func(_ *Group, h *Host) { h.Weight = 0 },
	} {
		c := ring("a :80 127.0.0.1:80")
		change(c.Services[0].Groups[0], c.Services[0].Groups[0].Hosts[0])
		if l := Loops(c, nil); len(l) != 0 {
			t.Errorf("%s: %v", name, l)
		}
	}
	c := ring("a *:80 lb.example:80")
	if l := Loops(c, func(*Host) []string { return []string{"10.255.0.1:80", "127.0.0.1:80"} }); len(l) != 1 || l[0].Address != "127.0.0.1:80" {
		t.Errorf("%v", l)
	}
}

// A file with a loop loads, and check says what is wrong with it.
func TestCheckWarnsOfLoops(t *testing.T) {
	c, problems := Parse("c.xml", []byte(`<config>
<service name="a"><listen ip=":1"/><group name="g"><host name="x" ip="127.0.0.1:2"/></group></service>
<service name="b"><listen ip=":2"/><group name="g">
<host name="y" ip="127.0.0.1:3"/></group></service>
<service name="c"><listen ip=":3"/><group name="g"><host name="z" ip="localhost:1"/></group></service></config>`))
	if c == nil || problems.Err() != nil || len(problems) != 3 {
		t.Fatalf("%v", problems)
	}
	want := `c.xml:4: warning: host "y" of service "b", group "g", has the address 127.0.0.1:3, which is a listener of service "c", which leads back to service "b" through a: its connections would loop forever; give it another address`
	if got := problems[1].String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// Very many services and hosts cost time in proportion to their number.
func TestLoopsOfManyServices(t *testing.T) {
	if testing.Short() {
		t.Skip("it measures")
	}
	const n = 20_000
	c := New()
	for i := range n { // a chain on one port, and its end leads to its beginning
		s := NewService(fmt.Sprint("s", i))
		at := func(i int) string { return fmt.Sprintf("127.%d.%d.1:80", i>>8&255, i&255) }
		s.Listen = []Listen{{Address: at(i)}}
		g := NewGroup("g")
		g.Enabled = true
		g.Hosts = []*Host{NewHost("h", at(i+1))}
		s.Groups = []*Group{g}
		c.Services = append(c.Services, s)
	}
	clock := testkit.NewClock(t)
	if l := Loops(c, nil); len(l) != 0 {
		t.Errorf("%d loops in a chain", len(l))
	}
	c.Services[n-1].Groups[0].Hosts[0].Address = "127.0.0.1:80"
	if l := Loops(c, nil); len(l) != n || !strings.Contains(l[0].String(), "through s2, s3, s4, s5, s6, s7, s8, s9 and 19990 more:") {
		t.Errorf("%d loops in a circle: %.300v", len(l), l[0])
	}
	if took := clock.Now(); took > 20*time.Second { // work with the square of the number takes minutes
		t.Errorf("a chain of %d services took %v", n, took)
	}
}

// The quick answer is never wrong: no loop is new where it says so, and it says so of a
// change of a host that leads to no port of ours.
func TestNoNewLoop(t *testing.T) {
	was := ring("a 127.0.0.1:1 10.0.0.1:80", "b 127.0.0.1:2,unix:/b 10.0.0.1:81", "c 127.0.0.1:3 127.0.0.1:3")
	share := func(c *Config, but ...int) {
		for i := range c.Services {
			if i < len(was.Services) && !slices.Contains(but, i) {
				c.Services[i] = was.Services[i]
			}
		}
	}
	for name, test := range map[string]struct {
		change func(c *Config)
		quick  bool
	}{
		"nothing":            {func(c *Config) {}, true},
		"a weight":           {func(c *Config) { c.Services[0].Groups[0].Hosts[0].Weight = 7 }, true},
		"a host elsewhere":   {func(c *Config) { c.Services[0].Groups[0].Hosts[0].Address = "10.0.0.2:82" }, true},
		"a host of a loop":   {func(c *Config) { c.Services[0].Groups[0].Hosts[0].Address = "127.0.0.1:1" }, false},
		"a host of two":      {func(c *Config) { c.Services[0].Groups[0].Hosts[0].Address = "unix:/b" }, false},
		"another listener":   {func(c *Config) { c.Services[0].Listen[0].Address = "127.0.0.1:80" }, false},
		"a new service":      {func(c *Config) { c.Services = append(c.Services, ring("d 127.0.0.1:4 127.0.0.1:4").Services...) }, false},
		"a service is gone":  {func(c *Config) { c.Services = c.Services[:2] }, false},
		"a host of the same": {func(c *Config) { c.Services[0].Groups[0].Hosts[0].Address = "10.0.0.9:2" }, false},
	} {
		c := was.Clone()
		test.change(c)
		share(c, 0)
		if got := c.NoNewLoop(was); got != test.quick {
			t.Errorf("%s: %v, want %v", name, got, test.quick)
		}
		if c.NoNewLoop(was) && len(Loops(c, nil)) > len(Loops(was, nil)) {
			t.Errorf("%s: there is a new loop", name)
		}
	}
}
