// Package models makes configurations for the tests of packages changes and document.
package models

import (
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/internal/address"
	"github.com/txlb/txlb/sched"
)

// Samples returns the documents that must load, by file name.
func Samples(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("../testdata/*.xml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	all := map[string][]byte{}
	for _, f := range append(files, "../../etc/config.xml") {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(f)] = data
	}
	return all
}

// Large returns a configuration of 10,000 hosts, read as from a file.
func Large(b testing.TB) *config.Config {
	b.Helper()
	c := config.New()
	s := config.NewService("s")
	s.Listen = []config.Listen{{Address: ":80"}}
	g := config.NewGroup("g")
	g.Enabled = true
	for i := range 10_000 {
		g.Hosts = append(g.Hosts, &config.Host{Name: fmt.Sprint("h", i), Address: fmt.Sprintf("10.0.%d.%d:80", i>>8, i&255), Weight: 1, State: "ready"})
	}
	s.Groups = []*config.Group{g}
	c.Services = []*config.Service{s}
	data, err := c.Marshal()
	if err != nil {
		b.Fatal(err)
	}
	c, _ = config.Parse("large", data)
	return c
}

// MustParse reads a document that is right.
func MustParse(t testing.TB, doc string) *config.Config {
	t.Helper()
	c, problems := config.Parse("c.xml", []byte(doc))
	if c == nil {
		t.Fatalf("refused:\n%v", problems)
	}
	return c
}

// Public keys.
const (
	EdKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAJBBfLxX+SQtrjKaOi5ZId/13rhxR0IAHHtUnUQYNgC ann@desk"
	EcKey = "ecdsa-sha2-nistp384 AAAAE2VjZHNhLXNoYTItbmlzdHAzODQAAAAIbmlzdHAzODQAAABhBOdCRuefzBpkP8KZYvMTgKePamIqEElt91iyu0e6tSvqkiC5Ap4QnSNpvEGdiPGH7EsFcjZBzVNW/cIo2AZoZB4p0z07cUflT2yT9HuqhmvLid8E+q/LDk1QNnIRDPa7Lg=="
)

// drawKeys makes the keys of a user.
func drawKeys(t *rapid.T) []string {
	keys := rapid.SliceOfN(rapid.SampledFrom([]string{EdKey, EcKey, EdKey + " é <&>"}), 0, 3).Draw(t, "keys")
	return append([]string(nil), keys...)
}

// SameMeaning compares models by their meaning: the order of named elements does
// not matter.
var SameMeaning = gocmp.Options{
	cmpopts.IgnoreTypes(config.Pos{}), cmpopts.EquateEmpty(),
	cmpopts.SortSlices(func(a, b *config.Service) int { return cmp.Compare(a.Name, b.Name) }),
	cmpopts.SortSlices(func(a, b *config.Group) int { return cmp.Compare(a.Name, b.Name) }),
	cmpopts.SortSlices(func(a, b *config.Host) int { return cmp.Compare(a.Name, b.Name) }),
	cmpopts.SortSlices(func(a, b *config.User) int { return cmp.Compare(a.Name, b.Name) }),
	cmpopts.SortSlices(func(a, b config.Listen) int { return cmp.Compare(a.Address, b.Address) }),
	cmpopts.SortSlices(func(a, b config.Mirror) int { return cmp.Compare(a.Address, b.Address) }),
}

// Draw makes a random model without errors. It uses few names and addresses, so
// that two models have much in common and many conflicts.
func Draw(t *rapid.T, label string) *config.Config {
	c := config.New()
	used := address.Set{}
	take := func(from ...string) (string, bool) {
		a := rapid.SampledFrom(from).Draw(t, "address")
		if used.Overlaps(a) {
			return "", false
		}
		used.Add(a)
		return a, true
	}
	duration := func(std time.Duration) time.Duration {
		return rapid.SampledFrom([]time.Duration{std, std, std, 2 * time.Second, 90 * time.Minute}).Draw(t, "duration")
	}
	pick := func(n int, what string) []string {
		all := []string{"a", "b", "c d", `e"=\#`, "é"}
		return rapid.SliceOfNDistinct(rapid.SampledFrom(all[:4+n%2]), min(n, 1), n, rapid.ID).Draw(t, what)
	}
	for _, name := range pick(3, label+" services") {
		s := config.NewService(name)
		for range rapid.IntRange(1, 3).Draw(t, "listeners") {
			if a, ok := take(":80", "127.0.0.1:80", "127.0.0.1:81", ":82", "[::1]:83", "unix:/a b", ":0", "0.0.0.0:80"); ok {
				s.Listen = append(s.Listen, config.Listen{Address: a})
			}
		}
		s.Access = append([]config.AccessRule(nil), rapid.SliceOfN(rapid.SampledFrom([]config.AccessRule{
			{Nets: "10.0.0.0/8 2001:db8::/32"}, {Nets: "192.0.2.7/32"}, {Deny: true, Nets: "10.1.0.0/16"}, {Deny: true, Nets: "*"},
			{File: "/lists/friends"}, {Deny: true, File: "/lists/foes"},
		}), 0, 3).Draw(t, "access")...)
		if len(s.Listen) == 0 {
			continue
		}
		s.Timeouts.Idle, s.Timeouts.Connect = duration(time.Hour), duration(5*time.Second)
		s.Limits.Tries = rapid.IntRange(0, 1).Draw(t, "tries")
		for _, name := range pick(rapid.IntRange(0, 2).Draw(t, "groups"), "groups") {
			g := config.NewGroup(name)
			g.Scheduler = rapid.SampledFrom([]string{"leastc", "roundr", "leastc,sticky"}).Draw(t, "scheduler")
			g.AllDown = rapid.SampledFrom([]string{"try", "refuse", "hold"}).Draw(t, "allDown")
			g.StickySize = rapid.SampledFrom([]int{100_000, 1}).Draw(t, "stickySize")
			for _, name := range pick(rapid.IntRange(0, 3).Draw(t, "hosts"), "hosts") {
				h := parseHost(t, name, rapid.SampledFrom([]string{"h:1", "h:2", "unix:/s t"}).Draw(t, "ip"))
				h.Weight = rapid.IntRange(0, 1).Draw(t, "weight")
				h.Backup = rapid.Bool().Draw(t, "backup")
				h.Zone = rapid.SampledFrom([]string{"", "east", "west"}).Draw(t, "zone")
				h.SlowStart = rapid.SampledFrom([]time.Duration{0, 0, 90 * time.Second}).Draw(t, "slow start")
				h.Resolve = rapid.SampledFrom([]time.Duration{30 * time.Second, 0, time.Hour}).Draw(t, "resolve")
				h.State = rapid.SampledFrom(config.Find("host", "state").Choices).Draw(t, "state")
				g.Hosts = append(g.Hosts, h)
			}
			g.Mirrors = drawMirrors(t)
			s.Groups = append(s.Groups, g)
		}
		s.Routes = drawRoutes(t, s)
		if len(s.Groups) > 0 {
			rapid.SampledFrom(s.Groups).Draw(t, "enabled").Enabled = true
		}
		c.Services = append(c.Services, s)
	}
	if rapid.Bool().Draw(t, "metrics") {
		if a, ok := take("127.0.0.1:80", "127.0.0.1:81", ":90"); ok {
			c.Admin.Metrics = a
		}
	}
	if rapid.Bool().Draw(t, "web") {
		if a, ok := take("127.0.0.1:81", ":82", ":91"); ok {
			c.Admin.Web = &config.AdminListen{Listen: a, Enable: true, Secure: rapid.Bool().Draw(t, "secure"), Refresh: 10 * time.Second}
		}
	}
	for _, name := range pick(rapid.IntRange(0, 2).Draw(t, "users"), "users") {
		c.Admin.Users = append(c.Admin.Users, &config.User{
			Name: name, Password: rapid.SampledFrom([]string{"$6$secret", "$6$other secret"}).Draw(t, "password"), Access: rapid.SampledFrom(config.Find("user", "access").Choices).Draw(t, "access"),
			Keys: drawKeys(t),
		})
	}
	if rapid.Bool().Draw(t, "socket") {
		if a, ok := take("unix:/a b", "unix:/run/admin"); ok {
			c.Admin.Socket = &config.Socket{Path: strings.TrimPrefix(a, "unix:"), Mode: rapid.SampledFrom([]fs.FileMode{0o600, 0o660}).Draw(t, "mode"), Group: rapid.SampledFrom([]string{"", "adm"}).Draw(t, "group")}
		}
	}
	c.Control.Socket = rapid.SampledFrom([]string{"", "relative", "/run/control"}).Draw(t, "control")
	c.Engine.Loops = rapid.IntRange(0, 1).Draw(t, "loops")
	c.Manager.HostCheck.Interval = rapid.SampledFrom([]time.Duration{10 * time.Second, time.Second}).Draw(t, "interval")
	if rapid.Bool().Draw(t, "fleet") {
		c.Fleet.Name, c.Fleet.Store = "edge", []string{"https://10.0.0.5:2379"}
		c.Fleet.Lease = duration(c.Fleet.Lease)
		if rapid.Bool().Draw(t, "login") {
			c.Fleet.User, c.Fleet.Password = "lb", rapid.SampledFrom([]string{"topsecret", "topsecret2"}).Draw(t, "password")
		}
	}
	c.Logging.Level = rapid.SampledFrom(config.Find("logging", "level").Choices).Draw(t, "level")
	if err := c.Check("model").Err(); err != nil {
		t.Skip(err)
	}
	return c
}

// drawRoutes makes routes to the groups of a service.
func drawRoutes(t *rapid.T, s *config.Service) (list []config.Route) {
	if len(s.Groups) == 0 {
		return nil
	}
	whole := map[string]bool{}
	for range rapid.IntRange(0, 4).Draw(t, "routes") {
		r := config.Route{
			SNI:     rapid.SampledFrom([]string{"", "db.example", "db.example *.db.example"}).Draw(t, "sni"),
			ALPN:    rapid.SampledFrom([]string{"", "", "h2 http/1.1"}).Draw(t, "alpn"),
			Nets:    rapid.SampledFrom([]config.Networks{"", "", "10.0.0.0/8 2001:db8::/32"}).Draw(t, "net"),
			Percent: rapid.SampledFrom([]int{100, 100, 5, 0}).Draw(t, "percent"),
			Group:   rapid.SampledFrom(s.Groups).Draw(t, "to").Name,
		}
		if c := r.Conditions(); !whole[c] { // else it is an error
			whole[c] = r.Percent == 100
			list = append(list, r)
		}
	}
	return list
}

// drawMirrors makes mirrors of a group.
func drawMirrors(t *rapid.T) (list []config.Mirror) {
	addresses := []string{"h:1", "10.0.0.9:80", "unix:/s t"}
	for _, address := range rapid.SliceOfNDistinct(rapid.SampledFrom(addresses), 0, 2, rapid.ID).Draw(t, "mirrors") {
		m := config.NewMirror(address)
		m.Percent = rapid.SampledFrom([]int{100, 5, 0}).Draw(t, "percent")
		m.ProxyProtocol = rapid.SampledFrom([]string{"", "v2"}).Draw(t, "proxyProtocol")
		list = append(list, *m)
	}
	return list
}

// parsed has the hosts that parseHost has read, by address: there are very many, of few addresses.
var parsed sync.Map

// parseHost makes a host with the defaults of a document.
func parseHost(t rapid.TB, name, address string) *config.Host {
	t.Helper()
	is, known := parsed.Load(address)
	if !known {
		c, problems := config.Parse("host", []byte(`<config><service name="s"><listen ip=":1"/><group name="g"><host ip="`+address+`"/></group></service></config>`))
		if c == nil {
			t.Fatal(problems)
			panic("unreachable")
		}
		is = *c.Services[0].Groups[0].Hosts[0]
		parsed.Store(address, is)
	}
	h := is.(config.Host)
	h.Name, h.Pos = name, config.Pos{}
	return &h
}

// Mutate changes a model at random places.
func Mutate(t *rapid.T, c *config.Config) {
	names := rapid.SampledFrom([]string{"n1", "two", "new", `q"<&'`, "é", "€"})
	name := func() string { return names.Draw(t, "name") }
	some := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "which") }
	port := func() int { return rapid.IntRange(20000, 60000).Draw(t, "port") }
	s := c.Services[some(len(c.Services))]
	switch what := rapid.IntRange(0, 19).Draw(t, "what"); what {
	case 19:
		if len(s.Groups) > 0 {
			s.Groups[some(len(s.Groups))].Mirrors = drawMirrors(t)
		}
	case 18:
		s.Routes = drawRoutes(t, s)
	case 17:
		for _, u := range c.Admin.Users {
			u.Keys = drawKeys(t)
		}
		c.Admin.Socket = rapid.SampledFrom([]*config.Socket{nil, config.NewSocket("/run/s"), {Path: "/run/t<", Mode: 0o660, Group: "é"}}).Draw(t, "socket")
		c.Control.Socket = rapid.SampledFrom([]string{"", "relative", "/run/control"}).Draw(t, "control")
	case 0:
		n := config.NewService(name())
		n.Listen = []config.Listen{{Address: fmt.Sprint(":", port())}}
		g := config.NewGroup("g")
		g.Enabled = true
		g.Hosts = []*config.Host{parseHost(t, name(), "h:1")}
		n.Groups = []*config.Group{g}
		c.Services = append(c.Services, n)
	case 1:
		if len(c.Services) > 1 {
			c.Services = append(c.Services[:0:0], c.Services[1:]...)
		}
	case 2:
		s.Listen = append(s.Listen, config.Listen{Address: fmt.Sprint("127.0.0.1:", port())})
	case 3:
		s.Listen = append(s.Listen[1:], config.Listen{Address: fmt.Sprint("[::1]:", port())})
	case 4:
		s.Timeouts.Idle = rapid.SampledFrom([]time.Duration{0, time.Hour, time.Minute}).Draw(t, "idle")
		s.Timeouts.Connect = rapid.SampledFrom([]time.Duration{time.Second, 5 * time.Second}).Draw(t, "connect")
	case 5:
		s.Limits.Tries = some(3)
	case 6:
		g := config.NewGroup(name())
		g.Enabled = len(s.Groups) == 0
		s.Groups = append(s.Groups, g)
	case 7:
		if len(s.Groups) > 0 {
			n := some(len(s.Groups))
			for i, g := range s.Groups {
				g.Enabled = i == n
			}
		}
	case 8:
		s.Groups, s.Routes = nil, nil
	case 9, 10, 11, 12:
		if len(s.Groups) == 0 {
			return
		}
		g := s.Groups[some(len(s.Groups))]
		g.Scheduler = rapid.SampledFrom(sched.Choices()).Draw(t, "scheduler")
		if what == 9 || len(g.Hosts) == 0 {
			g.Hosts = append(g.Hosts, parseHost(t, name(), "h:1"))
			return
		}
		n := some(len(g.Hosts))
		switch what {
		case 10:
			g.Hosts = append(g.Hosts[:n:n], g.Hosts[n+1:]...)
		default:
			h := g.Hosts[n]
			h.Weight, h.State, h.Backup = some(9), rapid.SampledFrom(config.Find("host", "state").Choices).Draw(t, "state"), rapid.Bool().Draw(t, "backup")
			if what == 12 {
				h.Address = fmt.Sprint("é"[:0], "x:", port())
			}
		}
	case 13:
		c.Manager.HostCheck.Enable = rapid.Bool().Draw(t, "enable")
		c.Manager.HostCheck.Interval = time.Duration(1+some(20)) * time.Second
		c.Manager.Backups = some(20)
	case 14:
		c.Admin.Web = rapid.SampledFrom([]*config.AdminListen{nil, {Listen: "localhost:17001", Enable: false, Refresh: time.Second}, {Listen: "*:17777", Enable: true, Secure: true, Refresh: 10 * time.Second, Certificate: "/c", Key: "/é"}}).Draw(t, "web")
		c.Admin.Metrics = rapid.SampledFrom([]string{"", "localhost:9107", "localhost:9108"}).Draw(t, "metrics")
	case 15:
		c.Admin.Users = rapid.SampledFrom([][]*config.User{nil, {{Name: "admin", Password: "$6$€", Access: "full"}}, {{Name: "reader", Password: "x y", Access: "readonly"}}}).Draw(t, "users")
	case 16:
		c.Engine.Loops = some(3)
		c.Logging.File = rapid.SampledFrom([]string{"", "é.log"}).Draw(t, "file")
	}
}
