package admin

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/changes"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/testkit"

	"github.com/txlb/txlb/sched"
)

// drawConfig makes a configuration of few names and addresses, so that two have
// much in common and much in each other's way. Addresses are taken from listen.
func drawConfig(t *rapid.T, label string, listen []string) *config.Config {
	c := config.New()
	c.Admin.Targets = "any"
	names := func(what string, least, most int) []string {
		return rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c d", `e"=\#`, "--é", "f;g"}), least, most, rapid.ID).Draw(t, label+" "+what)
	}
	oneOf := func(what string, values ...string) string { return rapid.SampledFrom(values).Draw(t, label+" "+what) }
	free := rapid.Permutation(listen).Draw(t, label+" addresses")
	for _, name := range names("services", 1, 3) {
		s := config.NewService(name)
		for range rapid.IntRange(1, 2).Draw(t, label+" listeners") {
			s.Listen = append(s.Listen, config.Listen{Address: free[0]})
			free = free[1:]
		}
		s.Limits.Tries = rapid.SampledFrom([]int{0, 0, 0, 3}).Draw(t, label+" tries")
		s.Access = rapid.SliceOfN(rapid.SampledFrom([]config.AccessRule{
			{Nets: "10.0.0.0/8"}, {Nets: "*", Deny: true}, {Nets: "192.0.2.0/24 2001:db8::/32", Deny: true},
		}), 0, 4).Draw(t, label+" access")
		for _, name := range names("groups", 0, 3) {
			g := config.NewGroup(name)
			g.Scheduler = oneOf("scheduler", sched.Choices()...)
			g.AllDown = oneOf("allDown", "try", "refuse")
			g.MaxFails = rapid.SampledFrom([]int{1, 1, 1, 5}).Draw(t, label+" maxFails")
			for _, name := range names("hosts", 0, 3) {
				h := config.NewHost(name, oneOf("ip", "127.0.0.1:1", "[::1]:2", "unix:/s t", "127.0.0.3:3"))
				h.Weight = rapid.SampledFrom([]int{1, 1, 0, 7}).Draw(t, label+" weight")
				h.Backup = rapid.Bool().Draw(t, label+" backup")
				h.State = oneOf("state", "ready", "ready", "drain", "maint")
				h.SlowStart = rapid.SampledFrom([]time.Duration{0, 0, 90 * time.Second}).Draw(t, label+" slow start")
				h.Resolve = rapid.SampledFrom([]time.Duration{30 * time.Second, 0, time.Hour}).Draw(t, label+" resolve")
				g.Hosts = append(g.Hosts, h)
			}
			s.Groups = append(s.Groups, g)
		}
		if len(s.Groups) > 0 {
			rapid.SampledFrom(s.Groups).Draw(t, label+" enabled").Enabled = true
		}
		c.Services = append(c.Services, s)
	}
	if i := slices.IndexFunc(free, func(a string) bool { return !strings.HasPrefix(a, "unix:") }); i >= 0 && rapid.Bool().Draw(t, label+" metrics") {
		c.Admin.Metrics = free[i]
	}
	for _, name := range names("users", 0, 3) {
		c.Admin.Users = append(c.Admin.Users, &config.User{
			Name: name, Password: oneOf("password", "$6$salt$one", "$6$salt$two#;"), Access: oneOf("access", "full", "readonly"),
		})
	}
	c.Manager.HostCheck.Interval = rapid.SampledFrom([]time.Duration{10 * time.Second, time.Hour}).Draw(t, label+" interval")
	xml, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	read, problems := config.Parse(label, xml)
	if read == nil {
		t.Fatalf("%v\n%s", problems, xml)
	}
	return read
}

// The commands that Diff prints are taken by the verbs, in their order, and make
// of a running configuration what they say.
func TestDiffIsTakenByTheVerbs(t *testing.T) {
	r := newRig(t, plainDoc())
	dir, err := os.MkdirTemp("", "txlb") // a path that fits into a socket's address
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	var listen []string
	for i := range 4 {
		listen = append(listen, fmt.Sprintf("unix:%s/s %d", dir, i))
	}
	_, port, _ := net.SplitHostPort(testkit.Nobody(t))
	for i := range 4 {
		address := fmt.Sprintf("unix:%s/%d", dir, i)
		if runtime.GOOS == "linux" { // where every process can have addresses of its own
			address = fmt.Sprintf("127.100.0.%d:%s", 1+i, port)
		}
		listen = append(listen, address)
	}
	begun, pairs, commands := time.Now(), 0, 0
	check := func(t *rapid.T) {
		if time.Since(begun) > 5*time.Second && pairs >= 10 {
			return
		}
		old, new := drawConfig(t, "old", listen), drawConfig(t, "new", listen)
		_, err := r.dir.Do(r.t.Context(), director.Change{By: "test", Verb: "old", Apply: func(c *config.Config) error {
			*c = *old.Clone()
			return nil
		}})
		if err != nil {
			t.Fatalf("old: %v", err)
		}
		edits := changes.Diff(old, new)
		var live []changes.Edit
		var lines []string
		for _, e := range edits {
			lines = append(lines, e.Command())
			// A comment is a line like any other to who pipes them in.
			if _, err := r.a.Run(r.t.Context(), boss, e.Command()); err != nil {
				t.Fatalf("%v\nof\n%s", err, strings.Join(lines, "\n"))
			}
			if e.Live() {
				live = append(live, e)
			}
			commands++
		}
		want, err := changes.Apply(old, live)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.dir.State().Config; !changes.Same(got, want) {
			t.Fatalf("%s\nlead elsewhere:\n%v", strings.Join(lines, "\n"), changes.Diff(got, want))
		}
		if len(live) == len(edits) && !changes.Same(r.dir.State().Config, new) {
			t.Fatalf("%s\ndo not lead to the new configuration", strings.Join(lines, "\n"))
		}
		pairs++
	}
	for range 4 {
		rapid.Check(t, check)
	}
	if pairs < 10 {
		t.Errorf("only %d pairs were looked at", pairs)
	}
	t.Logf("%d pairs, %d commands", pairs, commands)
}
