package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/txlb/txlb/config/internal/address"
)

// Route is <route>: which clients of a service go to a group that need not be the
// enabled one. All that it says must hold. The first route that matches decides.
type Route struct {
	SNI     string   // names that the client's TLS asks for, as ParseServerNames has them; "": any, or no TLS
	ALPN    string   // protocols, one of which the client offers, with spaces between them; "": any, or no TLS
	Nets    Networks // of the client; "": every address
	Percent int      // of those who match otherwise
	Group   string
	Pos     Pos
}

// NewRoute returns a route with the defaults of a document.
func NewRoute(group string) *Route { return reset("route", &Route{Group: group}) }

// ByHello tells whether what a client's TLS says matters.
func (r *Route) ByHello() bool { return r.SNI != "" || r.ALPN != "" }

// Conditions are what a client must have, percent apart.
func (r *Route) Conditions() string {
	var b strings.Builder
	for _, c := range []struct{ name, value string }{{"sni", r.SNI}, {"alpn", r.ALPN}, {"net", string(r.Nets)}} {
		if c.value != "" {
			fmt.Fprintf(&b, " %s=%q", c.name, c.value)
		}
	}
	return strings.TrimSpace(b.String())
}

// takesAll tells whether no route behind it is ever reached.
func (r *Route) takesAll() bool {
	return !r.ByHello() && r.Nets == "" && r.Percent == 100
}

// Routed returns the groups to which routes lead, of which each may take clients though
// it is not enabled.
func (s *Service) Routed() map[string]bool {
	if len(s.Routes) == 0 {
		return nil
	}
	groups := make(map[string]bool, len(s.Groups))
	for i := range s.Routes {
		if s.Routes[i].Percent > 0 {
			groups[s.Routes[i].Group] = true
		}
	}
	return groups
}

// RouteTo returns the number of the first route to a group, from 1 on; 0 without one.
func (s *Service) RouteTo(group string) int {
	return 1 + slices.IndexFunc(s.Routes, func(r Route) bool { return r.Group == group })
}

// routes checks the routes of a service, whose groups have these names.
func (k *checker) routes(s *Service, groups map[string]bool) {
	k.hellos(s)
	var all *Route // takes all clients that come so far
	told := false
	whole := map[string]*Route{} // that take all clients with their conditions
	for i := range s.Routes {
		r := &s.Routes[i]
		line := r.Pos.Line
		k.values(line, "route", r)
		if r.Group != "" && !groups[r.Group] {
			var names []string
			for _, g := range s.Groups {
				names = append(names, g.Name)
			}
			k.fail(line, "<route group=%q>: service %q has no such group%s", r.Group, s.Name, k.suggest(r.Group, names))
		}
		key := r.Conditions()
		switch before := whole[key]; {
		case all != nil && !told:
			told = true
			k.warn(line, "service %q: this route and those after it are never reached: the one in line %d matches every client", s.Name, all.Pos.Line)
		case all == nil && before != nil:
			k.fail(line, "<route>: the one in line %d has the same conditions and takes all these clients; remove one of them", before.Pos.Line)
		}
		if all == nil && r.takesAll() {
			all = r
		}
		if r.Percent == 100 && whole[key] == nil {
			whole[key] = r
		}
	}
}

// firstWord are ports of protocols in which the server speaks first.
var firstWord = map[string]string{
	"21": "FTP", "22": "SSH", "25": "SMTP", "110": "POP3", "143": "IMAP", "587": "SMTP", "3306": "MySQL", "5900": "VNC",
}

// hellos warns of listeners where the server speaks first: it would stay silent until the
// time for a hello is over.
func (k *checker) hellos(s *Service) {
	i := slices.IndexFunc(s.Routes, func(r Route) bool { return r.ByHello() && r.Percent > 0 })
	if i < 0 {
		for _, l := range s.Listen {
			if l.StartTLS != "" && l.TLS == "" {
				k.warn(l.Pos.Line, "<listen startTLS> means nothing without a <route> with sni or alpn: clients ask their hosts for TLS themselves")
			}
		}
		return
	}
	for _, l := range s.Listen {
		_, port := address.Split(l.Address)
		if l.StartTLS == "smtp" {
			if l.DeferAccept {
				k.warn(l.Pos.Line, "<listen deferAccept>: with startTLS=\"smtp\", clients wait for the greeting, so each is accepted after a minute only; leave deferAccept out")
			}
			continue
		}
		if protocol := firstWord[port]; protocol != "" && l.TLS == "" && !strings.HasPrefix(l.Address, "unix:") {
			k.warn(l.Pos.Line, "service %q listens on %s, the port of %s, where the server speaks first: the route in line %d waits for a ClientHello, so each plain client waits for <timeouts hello>", s.Name, l.Address, protocol, s.Routes[i].Pos.Line)
		}
	}
}

// maxServerNames bounds how many names or protocols one route has.
const maxServerNames = 1000

// ServerName is a name that a client's TLS may ask for: "db.example", or with Below
// any name below it, as *.db.example is written, or with Below and no Name any name.
type ServerName struct {
	Name  string
	Below bool
}

// ParseServerNames reads names with spaces between them.
func ParseServerNames(s string) (list []ServerName, err error) {
	for _, w := range strings.Fields(s) {
		n := ServerName{Name: strings.ToLower(strings.TrimSuffix(w, "."))}
		if n.Name == "*" {
			n = ServerName{Below: true}
		} else {
			n.Name, n.Below = strings.CutPrefix(n.Name, "*.")
			if err := checkServerName(n.Name, w); err != nil {
				return nil, err
			}
		}
		if slices.Contains(list, n) {
			return nil, fmt.Errorf("%q is there twice", w)
		}
		if list = append(list, n); len(list) > maxServerNames {
			return nil, fmt.Errorf("more than %d names; write several routes", maxServerNames)
		}
	}
	return list, nil
}

func (n ServerName) String() string {
	switch {
	case !n.Below:
		return n.Name
	case n.Name == "":
		return "*"
	}
	return "*." + n.Name
}

func checkServerName(name, said string) error {
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return fmt.Errorf("%q is an address; TLS clients send names alone, so match addresses with net, or by the listener", said)
	}
	if strings.Contains(name, "*") {
		return fmt.Errorf("%q has * in the wrong place; it stands for one or more labels at the beginning, as in *.db.example", said)
	}
	if !IsDNSName(name) {
		return fmt.Errorf("%q is not a host name; want one such as db.example or *.db.example (international names as xn--…)", said)
	}
	return nil
}

// serverNames are names of <route sni>; "" is none.
var serverNames = values[string]{
	kind: TypeText, format: plain.format, parse: canonicalServerNames,
	check: func(s string) error { return canonical(s, canonicalServerNames) },
}

func canonicalServerNames(s string) (string, error) {
	list, err := ParseServerNames(s)
	texts := make([]string, len(list))
	for i, n := range list {
		texts[i] = n.String()
	}
	return strings.Join(texts, " "), err
}

// protocolNames are those of <route alpn>; "" is none.
var protocolNames = values[string]{
	kind: TypeText, format: plain.format, parse: canonicalProtocols,
	check: func(s string) error { return canonical(s, canonicalProtocols) },
}

func canonicalProtocols(s string) (string, error) {
	list := strings.Fields(s)
	if len(list) > maxServerNames {
		return "", fmt.Errorf("more than %d protocols", maxServerNames)
	}
	for i, p := range list {
		switch {
		case len(p) > 255:
			return "", fmt.Errorf("%.20q… is longer than a protocol may be, 255 bytes", p)
		case !printable(p):
			return "", fmt.Errorf("%q has a non-printable character", p)
		case strings.Contains(p, ","): // no registered one has
			return "", fmt.Errorf("%q has a comma; write spaces between protocols", p)
		case slices.Contains(list[:i], p):
			return "", fmt.Errorf("%q is there twice", p)
		}
	}
	return strings.Join(list, " "), nil
}

// routeNetworks are those of <route net>; "" and * are every address.
var routeNetworks = values[Networks]{
	kind: TypeOther, format: func(n Networks) string { return string(n) },
	parse: func(s string) (Networks, error) {
		if strings.TrimSpace(s) == "" {
			return "", nil
		}
		return parseNetworks(s)
	},
	check: func(n Networks) error {
		return canonical(string(n), func(s string) (string, error) {
			if s == "" {
				return "", nil
			}
			n, err := parseNetworks(s)
			return string(n), err
		})
	},
}

// canonical checks that a value of the model is as it would have been read.
func canonical(s string, parse func(string) (string, error)) error {
	is, err := parse(s)
	if err == nil && is != s {
		err = fmt.Errorf("%q has to be written %q", s, is)
	}
	return err
}
