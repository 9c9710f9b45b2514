package config

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestMirrors(t *testing.T) {
	doc := func(mirrors string) string {
		return `<config><service name="web"><listen ip=":80"/><group name="g"><host name="a" ip="10.0.0.1:80"/>` + mirrors + `</group></service></config>`
	}
	c, problems := Parse("c.xml", []byte(doc(`<mirror ip="10.0.0.9:80" percent="5"/><mirror ip="copy:80" resolve="1m" proxyProtocol="v1"/>`)))
	if len(problems) != 0 {
		t.Fatal(problems)
	}
	is := c.Services[0].Groups[0].Mirrors
	if len(is) != 2 || is[0].Percent != 5 || is[0].Resolve != DefaultResolve || is[1].Percent != 100 || is[1].Resolve != time.Minute || is[1].ProxyProtocol != "v1" {
		t.Errorf("read %+v", is)
	}
	for text, want := range map[string]string{
		`<mirror/>`:                                             `c.xml:1: <mirror> needs the attribute ip`,
		`<mirror ip="10.0.0.9"/>`:                               `<mirror ip>: "10.0.0.9"`,
		`<mirror ip="_pg._tcp.example"/>`:                       `SRV records; a mirror has one address`,
		`<mirror ip="a:1"/><mirror ip="a:1"/>`:                  `a second <mirror ip="a:1"> in group "g"`,
		`<mirror ip="a:1" percent="101"/>`:                      `"101" is not between 0 and 100`,
		`<mirror ip="a:1" name="b"/>`:                           `<mirror> has no attribute "name"`,
		`<host name="b" ip="b:1" tls="yes"/><mirror ip="a:1"/>`: `what its clients send goes to the mirror unencrypted`,
		`<mirror ip="127.0.0.1:80"/>`:                           `a mirror of service "web", group "g", has the address 127.0.0.1:80, which is a listener of service "web" itself`,
	} {
		_, problems := Parse("c.xml", []byte(doc(text)))
		if all := fmt.Sprint(problems); !strings.Contains(all, want) {
			t.Errorf("%s: %s\nwant %s", text, all, want)
		}
	}
}
