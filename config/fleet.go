package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/txlb/txlb/internal/words"
)

// The bounds of <fleet lease>: etcd counts in seconds, and renews nothing while it elects a
// leader, which takes one.
const minLease, maxLease = 3 * time.Second, 10 * time.Minute

// maxStores is how many members of an etcd may be named.
const maxStores = 16

// fleetName names a fleet or a node: it is a part of keys.
var fleetName = checked(TypeText, func(s string) error {
	if s != "" && !words.Plain(s) {
		return fmt.Errorf("%q is not a name; use 1 to 64 letters, digits and _ . : -", s)
	}
	return nil
})

// storeURLs are where a store answers.
var storeURLs = values[[]string]{
	kind: TypeOther, parse: parseStores, format: fieldList.format,
	check: func(list []string) error {
		_, err := parseStores(strings.Join(list, " "))
		return err
	},
}

func parseStores(s string) ([]string, error) {
	list := strings.Fields(s)
	if len(list) > maxStores {
		return nil, fmt.Errorf("%d addresses are more than %d", len(list), maxStores)
	}
	for _, one := range list {
		u, err := url.Parse(one)
		switch {
		case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Port() == "" || u.Hostname() == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "":
			return nil, fmt.Errorf("%q is not the address of a store; want http://HOST:PORT or https://HOST:PORT", clip(one))
		case u.User != nil: // it would be shown
			return nil, fmt.Errorf("the address of a store at %s has a user; give it by user and password", u.Host)
		}
	}
	return list, nil
}

// fleet checks <fleet>.
func (k *checker) fleet(f *Fleet) {
	if f.Name == "" {
		return
	}
	line := f.Pos.Line
	k.values(line, "fleet", f)
	if k.broken[f] {
		return
	}
	if len(f.Store) == 0 {
		k.fail(line, "<fleet> needs a store: the addresses of an etcd, such as http://10.0.0.5:2379")
	}
	if (f.Cert == "") != (f.Key == "") {
		k.fail(line, "<fleet> needs both cert and key, or none of them")
	}
	if (f.User == "") != (f.Password == "") {
		k.fail(line, "<fleet> needs both user and password, or none of them")
	}
	secure, open := 0, ""
	for _, s := range f.Store {
		if strings.HasPrefix(s, "https:") {
			secure++
		} else {
			open = s
		}
	}
	k.peers(f)
	switch {
	case secure > 0 && open != "":
		k.fail(line, "<fleet store>: %s is not encrypted and others are; use https for all", open)
	case secure == 0 && f.CA+f.Cert != "" && f.Listen == "":
		k.fail(line, "<fleet> has certificates, but its store has no https address; use https://HOST:PORT")
	case secure == 0 && f.Password != "":
		k.warn(line, "<fleet store>: the password and the configuration travel unencrypted; use https addresses")
	}
}

// shares warns of limits that are to be shared with nodes that this one does not hear. It refuses
// none: the configuration is that of all nodes, and what others have accepted has to run here.
func (k *checker) shares(c *Config) {
	if c.Fleet.Listen != "" || k.program {
		return
	}
	for _, s := range c.Services {
		switch {
		case !s.Limits.Shared():
		case c.Fleet.Name == "":
			k.warn(s.Pos.Line, "service %q: <limits scope=\"fleet\"> without <fleet>: the limits are those of this node alone", s.Name)
		default:
			k.warn(s.Pos.Line, "service %q: <limits scope=\"fleet\"> without <fleet listen>: this node takes a fixed part, the limit divided by the number of nodes", s.Name)
		}
	}
}

// peers checks how the node shares checks with others.
func (k *checker) peers(f *Fleet) {
	line := f.Pos.Line
	if f.Listen == "" {
		if f.Advertise+f.Secret != "" {
			k.fail(line, "<fleet> has advertise or secret, but no listen: the others cannot follow this node")
		}
		return
	}
	if host, port, _ := net.SplitHostPort(f.PeerAddress()); host == "" && port != "" {
		k.fail(line, "<fleet listen>: other nodes cannot connect to %s; say advertise=\"HOST:PORT\"", f.Listen)
	}
	if host, _, _ := net.SplitHostPort(f.PeerAddress()); f.Secret == "" && strings.Contains(host, "%") {
		k.fail(line, "<fleet listen>: a certificate cannot be for %s, which has a zone; say advertise=\"HOST:PORT\" without one, or use a secret", f.PeerAddress())
	}
	if f.Secret == "" && (f.Cert == "" || f.CA == "") {
		k.fail(line, "<fleet listen> needs a secret, or cert, key and ca, so that nodes know each other")
	}
}

// PeerAddress is where other nodes find Listen. Its host is "" if nothing says it.
func (f *Fleet) PeerAddress() string {
	if f.Advertise != "" {
		return f.Advertise
	}
	host, port, _ := net.SplitHostPort(f.Listen)
	if ip, err := netip.ParseAddr(host); host == "*" || err == nil && ip.IsUnspecified() {
		host = ""
	}
	return net.JoinHostPort(host, port)
}

// peerAddress is HOST:PORT.
var peerAddress = checked(TypeListen, func(s string) error {
	if s == "" {
		return nil
	}
	_, port, err := net.SplitHostPort(s)
	if n, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || n == 0 {
		return fmt.Errorf("%q is not HOST:PORT", clip(s))
	}
	return nil
})

// minSecret is the least length of a <fleet secret>: a stranger may guess as fast as connections
// are made. maxSecrets is how many there may be: each takes a tenth of a second at the start.
const minSecret, maxSecrets = 16, 4

var fleetSecret = checked(TypeText, func(s string) error {
	list := strings.Fields(s)
	if s != "" && len(list) == 0 {
		return errors.New("it has no characters")
	}
	if len(list) > maxSecrets {
		return fmt.Errorf("%d secrets are more than %d; spaces separate them", len(list), maxSecrets)
	}
	for _, one := range list {
		if len(one) < minSecret {
			return fmt.Errorf("it has less than %d characters, which can be guessed, and spaces separate several secrets; openssl rand -hex 32 makes a good one", minSecret)
		}
	}
	return nil
})

// Secrets are those of Secret, the node's own first; the others are accepted too.
func (f *Fleet) Secrets() []string { return strings.Fields(f.Secret) }

// NodeName is the name of this node in the fleet. The error says why the machine gives none.
func (f *Fleet) NodeName() (string, error) {
	if f.Node != "" {
		return f.Node, nil
	}
	name, err := os.Hostname()
	if err == nil && !words.Plain(name) {
		err = fmt.Errorf("the host name %q cannot be one", name)
	}
	if err != nil {
		return "", fmt.Errorf("<fleet node=\"auto\">: %w; give the node a name", err)
	}
	return name, nil
}
