package config

import (
	"fmt"
	"strings"
	"testing"
)

// What verbs may name depends on the rule that runs; what runs or is in the file
// at the same place may stay or come back.
func TestNamed(t *testing.T) {
	const frame = `<config><service name="web"><listen ip="%s"/><group name="main"><host name="a" ip="%s"/></group></service><admin targets="%s"%s/config>`
	doc := func(listen, host, targets, rest string) *Config {
		if rest == "" {
			rest = `/><`
		}
		return parse(t, fmt.Sprintf(frame, listen, host, targets, rest))
	}
	tcp := doc("127.0.0.1:80", "10.1.2.3:80", "tcp", "")
	sock := doc("127.0.0.1:80", "unix:/run/x", "tcp", "")
	nets := doc("127.0.0.1:80", "10.1.2.3:80", "10.1.2.0/24, 192.168.0.1 fd00::/8", "")
	for _, c := range []struct {
		what          string
		next, is, was *Config
		want          string
	}{
		{"nothing", tcp, tcp, tcp, ""},
		{"another address", doc("*:81", "192.0.2.1:80", "tcp", ""), tcp, tcp, ""},
		{"a name", doc("*:81", "example.org:80", "tcp", ""), tcp, tcp, ""},
		{"a socket as host", sock, tcp, tcp, `"unix:/run/x": <admin targets="tcp"> lets commands name only TCP addresses`},
		{"a socket as listener", doc("unix:/run/x", "10.1.2.3:80", "tcp", ""), tcp, nil, `"unix:/run/x"`},
		{"a socket that runs", sock, sock, nil, ""},
		{"a socket of the file", sock, tcp, sock, ""},
		{"any", doc("unix:/run/y", "unix:/run/x", "tcp", ""), doc("127.0.0.1:80", "10.1.2.3:80", "any", ""), nil, ""},
		{"its own rule says nothing", doc("127.0.0.1:80", "unix:/run/x", "any", ""), tcp, nil, `"unix:/run/x"`},
		{"a certificate", doc("127.0.0.1:80", "10.1.2.3:80", "tcp", `><web certificate="/c" key="/k"/></admin><`), tcp, nil, `"/c"`},
		{"a host key", doc("127.0.0.1:80", "10.1.2.3:80", "tcp", `><ssh hostKey="/k"/></admin><`), tcp, nil, `"/k"`},
		{"a socket for commands", doc("127.0.0.1:80", "10.1.2.3:80", "tcp", `><socket path="/s"/></admin><`), tcp, nil, `"/s"`},
		{"metrics", doc("127.0.0.1:80", "10.1.2.3:80", "tcp", `><metrics listen="unix:/m"/></admin><`), tcp, nil, `"unix:/m"`},
		{"a log", doc("127.0.0.1:80", "10.1.2.3:80", "tcp", `/><logging file="/l"/><`), tcp, nil, `"/l"`},
		{"an audit file", doc("127.0.0.1:80", "10.1.2.3:80", "tcp", `/><logging audit="/l"/><`), tcp, nil, `"/l"`},
		{"a control socket", doc("127.0.0.1:80", "10.1.2.3:80", "tcp", `/><control socket="/l"/><`), tcp, nil, `"/l"`},
		{"inside", doc("*:81", "10.1.2.200:80", "tcp", ""), nets, nil, ""},
		{"an address alone", doc("*:81", "192.168.0.1:80", "tcp", ""), nets, nil, ""},
		{"IPv6", doc("*:81", "[fd00::1]:80", "tcp", ""), nets, nil, ""},
		{"IPv4 in IPv6", doc("*:81", "[::ffff:10.1.2.9]:80", "tcp", ""), nets, nil, ""},
		{"outside", doc("*:81", "10.1.3.1:80", "tcp", ""), nets, nil, `"10.1.3.1:80": <admin targets="10.1.2.0/24 192.168.0.1/32 fd00::/8"> lets commands name only addresses in 10.1.2.0/24`},
		{"a name that may lead outside", doc("*:81", "example.org:80", "tcp", ""), nets, nil, `"example.org:80"`},
		{"outside, as in the file", doc("*:81", "10.1.3.1:80", "tcp", ""), nets, doc("*:81", "10.1.3.1:80", "tcp", ""), ""},
		{"a socket with networks", doc("unix:/run/x", "10.1.2.3:80", "tcp", ""), nets, nil, "only TCP addresses"},
	} {
		err := c.next.Named(c.is, c.was)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.what, err, c.want)
		}
	}

	ca := parse(t, `<config><service name="web"><listen ip=":80"/><group name="g"><check type="tls" verify="yes" ca="/ca"/></group></service></config>`)
	plain := parse(t, `<config><service name="web"><listen ip=":80"/><group name="g"/></service></config>`)
	if err := ca.Named(plain, nil); err == nil || !strings.Contains(err.Error(), `"/ca"`) {
		t.Errorf("the certificates of a check: %v", err)
	}
}

// Every attribute that names a file, a socket or an address is looked at: each
// element of the schema is.
func TestNamedLooksAtEveryElement(t *testing.T) {
	c := New()
	s := NewService("s")
	s.Listen = []Listen{{}}
	s.Access = []AccessRule{{}, {Deny: true}}
	g := NewGroup("g")
	g.Check, g.Hosts, g.Mirrors = NewHealthCheck(), []*Host{NewHost("h", "")}, []Mirror{{}}
	s.Groups = []*Group{g}
	c.Services = []*Service{s}
	c.Admin.Web, c.Admin.SSH, c.Admin.Socket = &AdminListen{}, &AdminListen{}, &Socket{}
	seen := map[string]bool{}
	c.each(nil, func(n naming) { seen[n.element+" "+n.attribute] = true })
	for element, rows := range namingRows {
		for _, a := range rows {
			if !seen[element+" "+a.Name] {
				t.Errorf("<%s %s> is not looked at", element, a.Name)
			}
		}
	}
}
