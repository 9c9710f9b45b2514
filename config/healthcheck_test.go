package config

import (
	"slices"
	"testing"
	"time"
)

// What a file says of checks when it says little is what HAProxy does.
func TestHealthCheckDefaults(t *testing.T) {
	c := parse(t, `<config><service name="a"><listen ip=":1"/><group name="g">
		<check fastInterval="" downInterval="" port=""/><host ip="b:1"/></group></service></config>`)
	want := HealthCheck{
		Type: "tcp", Interval: 2 * time.Second, Rise: 2, Fall: 3, Timeout: 2 * time.Second, Path: "/", Status: "200-399", Pos: Pos{2},
	}
	if g := c.Services[0].Groups[0]; *g.Check != want || g.MaxFails != 1 || g.FailWindow != 10*time.Second || g.Hosts[0].SlowStart != 0 {
		t.Errorf("%+v, %+v", g, g.Check)
	}
}

func TestEscapes(t *testing.T) {
	for text, bytes := range map[string]string{
		`PING\r\n`: "PING\r\n", `\t\\`: "\t\\", `\x00\xff\xA0`: "\x00\xff\xa0", `ü`: "ü", `\\n`: `\n`, ``: "",
	} {
		got, err := unescape(text)
		if err != nil || got != bytes {
			t.Errorf("%s reads as %q, %v; want %q", text, got, err, bytes)
		}
		if again, err := unescape(escape(bytes)); err != nil || again != bytes {
			t.Errorf("%q is written as %s, which reads as %q, %v", bytes, escape(bytes), again, err)
		}
	}
	// What would not survive in XML, or on a terminal, is written as digits.
	if got := escape("a\x00\xffü\uffff\x1b"); got != `a\x00\xffü\xef\xbf\xbf\x1b` {
		t.Errorf("written as %s", got)
	}
}

func TestParseStatus(t *testing.T) {
	got, err := ParseStatus("200,204,300-399")
	if want := []StatusRange{{200, 200}, {204, 204}, {300, 399}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	for _, s := range []string{"", "200,", "99", "600", "200-100", "+200", "0200", "200 ", "2xx", "-200", "200--300"} {
		if got, err := ParseStatus(s); err == nil {
			t.Errorf("%q reads as %v", s, got)
		}
	}
}

// A copy can be changed without a word to the original.
func TestCloneCopiesChecks(t *testing.T) {
	c := New()
	s, g := NewService("s"), NewGroup("g")
	g.Check = NewHealthCheck()
	s.Groups, c.Services = []*Group{g}, []*Service{s}
	c.Clone().Services[0].Groups[0].Check.Interval = time.Hour
	if g.Check.Interval != 2*time.Second {
		t.Error("the original has changed")
	}
}
