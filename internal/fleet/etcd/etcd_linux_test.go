package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/document"
	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/fleet"
	"github.com/txlb/txlb/internal/rig"
	"github.com/txlb/txlb/internal/servers"
	"github.com/txlb/txlb/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// cluster starts Debian's etcd with so many members, and returns them and where they answer.
func cluster(t *testing.T, n int, args ...string) (members []*servers.Server, urls []string) {
	t.Helper()
	debian.NeedFor(t, "etcd")
	return clusterOf(t, debian.Path("etcd"), n, args...)
}

// current builds the current server, which is in a module of its own, and returns its path.
func current(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "etcd")
	cmd := exec.Command("go", "build", "-o", path, ".")
	cmd.Dir = "embedded"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the current etcd: %v\n%s", err, out)
	}
	return path
}

// clusterOf is cluster with a server of the test's choice.
func clusterOf(t *testing.T, program string, n int, args ...string) (members []*servers.Server, urls []string) {
	t.Helper()
	free := func() string {
		addr, err := servers.FreeAddr()
		if err != nil {
			t.Fatal(err)
		}
		return addr
	}
	parent := t.TempDir()
	var peers, all []string
	for i := range n {
		peers = append(peers, "http://"+free())
		all = append(all, fmt.Sprintf("m%d=%s", i, peers[i]))
	}
	for i := range n {
		s, err := servers.New(parent, fmt.Sprintf("m%d", i), free(), nil)
		if err != nil {
			t.Fatal(err)
		}
		url := "http://" + s.Addr
		s.Argv = append([]string{
			program, "--name", s.Name, "--data-dir", filepath.Join(s.Dir, "data"),
			"--listen-client-urls", url, "--advertise-client-urls", url,
			"--listen-peer-urls", peers[i], "--initial-advertise-peer-urls", peers[i],
			"--initial-cluster", strings.Join(all, ","), "--heartbeat-interval", "100", "--election-timeout", "2000",
		}, args...)
		s.Probe = healthy
		members, urls = append(members, s), append(urls, url)
	}
	t.Cleanup(func() {
		for _, s := range members {
			s.Kill()
			if t.Failed() {
				t.Logf("%s said:\n%s", s.Name, s.LastWords())
			}
		}
	})
	revive(t, members...)
	return members, urls
}

// revive starts members and waits until they are healthy.
func revive(t *testing.T, members ...*servers.Server) {
	t.Helper()
	for _, s := range members {
		if err := s.Launch(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range members {
		if err := s.Await(t.Context(), func() error { return s.Probe(s.Addr) }); err != nil {
			t.Fatal(err)
		}
	}
}

// healthy is the probe of a member: there is a leader.
func healthy(addr string) error {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get("http://" + addr + "/health")
	if err != nil {
		return err
	}
	defer func() { _ = r.Body.Close() }()
	var is struct{ Health string }
	if err := json.NewDecoder(r.Body).Decode(&is); err != nil || is.Health != "true" {
		return fmt.Errorf("health %q, %v", is.Health, err)
	}
	return nil
}

// open is Open for a test.
func open(t *testing.T, c config.Fleet) fleet.Store {
	t.Helper()
	var s fleet.Store
	testkit.BestOf(t, 5, func() (err error) { // with a user it has three seconds, and a busy machine may take longer
		s, err = Open(context.Background(), &c)
		return err
	})
	if s == nil {
		t.FailNow()
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// soon is how long one call may take.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
	t.Cleanup(cancel)
	return ctx
}

// The driver keeps what fleet.Store promises: with Debian's etcd, which is the oldest that may
// be used, and with the current one (-whole).
func TestStore(t *testing.T) {
	t.Run("Debian", func(t *testing.T) {
		t.Parallel()
		debian.NeedFor(t, "etcd")
		testStore(t, debian.Path("etcd"))
	})
	t.Run("current", func(t *testing.T) {
		if !*whole {
			t.Skip("a minute of compiling: make fleet")
		}
		t.Parallel()
		testStore(t, current(t))
	})
}

func testStore(t *testing.T, program string) {
	members, urls := clusterOf(t, program, 1)
	s := open(t, config.Fleet{Store: urls})
	ctx := soon(t)

	// Compare-and-swap.
	r1, _, err := s.Swap(ctx, "/a/x", []byte("1"), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, is, err := s.Swap(ctx, "/a/x", []byte("2"), 0, 0); !errors.Is(err, fleet.ErrMoved) || string(is.Value) != "1" || is.Revision != r1 || is.Key != "/a/x" {
		t.Errorf("%+v, %v", is, err)
	}
	if _, is, err := s.Swap(ctx, "/a/none", []byte("2"), 77, 0); !errors.Is(err, fleet.ErrMoved) || is.Key != "" {
		t.Errorf("%+v, %v", is, err)
	}
	r2, _, err := s.Swap(ctx, "/a/x", []byte("3"), r1, 0)
	if err != nil || r2 <= r1 {
		t.Errorf("revision %d after %d, %v", r2, r1, err)
	}
	entries, revision, err := s.Get(ctx, "/a/")
	if err != nil || len(entries) != 1 || string(entries[0].Value) != "3" || revision != r2 {
		t.Errorf("%+v at %d, %v", entries, revision, err)
	}

	// Watch, from a revision in the past.
	watching, stop := context.WithCancel(context.Background())
	heard, ended := make(chan fleet.Entry, 16), make(chan error, 1)
	go func() {
		ended <- s.Watch(watching, "/a/", r1, func(list []fleet.Entry) {
			for _, e := range list {
				heard <- e
			}
		})
	}()
	next := func() fleet.Entry {
		select {
		case e := <-heard:
			return e
		case <-ctx.Done():
			t.Fatal("nothing heard")
			return fleet.Entry{}
		}
	}
	if e := next(); string(e.Value) != "3" || e.Revision != r2 || e.Deleted {
		t.Errorf("heard %+v", e)
	}

	// Leases.
	lease, err := s.Grant(ctx, time.Hour) // it is revoked
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Swap(ctx, "/a/leased", []byte("l"), 0, lease); err != nil {
		t.Fatal(err)
	}
	if e := next(); e.Key != "/a/leased" || e.Deleted {
		t.Errorf("heard %+v", e)
	}
	if err := s.Renew(ctx, lease); err != nil {
		t.Error(err)
	}
	if err := s.Revoke(ctx, lease); err != nil {
		t.Error(err)
	}
	if e := next(); e.Key != "/a/leased" || !e.Deleted {
		t.Errorf("heard %+v", e)
	}
	if err := s.Renew(ctx, lease); !errors.Is(err, fleet.ErrLeaseGone) {
		t.Errorf("renewed a lease that has ended: %v", err)
	}
	if _, _, err := s.Swap(ctx, "/a/leased", []byte("l"), 0, lease); err == nil || errors.As(err, new(*fleet.UnknownError)) {
		t.Errorf("with a lease that has ended: %v", err)
	}

	// Deletion, of what is at that revision alone.
	r3, _, err := s.Swap(ctx, "/a/gone", []byte("1"), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	next()
	if _, is, err := s.Swap(ctx, "/a/gone", nil, r2, 0); !errors.Is(err, fleet.ErrMoved) || is.Revision != r3 {
		t.Errorf("%+v, %v", is, err)
	}
	r4, _, err := s.Swap(ctx, "/a/gone", nil, r3, 0)
	if e := next(); err != nil || r4 <= r3 || e.Key != "/a/gone" || !e.Deleted || e.Revision != r4 {
		t.Errorf("heard %+v, deleted at %d, %v", e, r4, err)
	}

	// Too large.
	if _, _, err := s.Swap(ctx, "/a/x", make([]byte, 1_400_000), r2, 0); err != nil {
		t.Errorf("a value as large as a fleet writes: %v", err)
	}
	next()
	if _, _, err := s.Swap(ctx, "/a/y", make([]byte, 1_600_000), 0, 0); err == nil || errors.As(err, new(*fleet.UnknownError)) {
		t.Errorf("a value that is too large: %v", err)
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the watch ended with %v", err)
	}

	// Compaction.
	_, revision, err = s.Get(ctx, "/a/")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.(*store).client.Compact(ctx, revision); err != nil {
		t.Fatal(err)
	}
	if err := s.Watch(ctx, "/a/", r1, func([]fleet.Entry) {}); !errors.Is(err, fleet.ErrCompacted) {
		t.Errorf("a watch from before a compaction: %v", err)
	}

	// Nobody answers. What was sent may still be done.
	members[0].Kill()
	brief, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if _, _, err := s.Swap(brief, "/a/z", nil, 0, 0); !errors.As(err, new(*fleet.UnknownError)) {
		t.Errorf("without the store: %v", err)
	}
}

// Users, and what they may not do; certificates on both sides.
func TestAuthentication(t *testing.T) {
	ca := testkit.NewAuthority(t, "ca")
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pair := func(name string, l testkit.Leaf) (cert, key string) {
		c, k := ca.Issue(t, l)
		return file(name+".pem", c), file(name+".key", k)
	}
	trusted := file("ca.pem", ca.PEM)
	debian.NeedFor(t, "etcd")
	cert, key := pair("server", testkit.Leaf{Names: []string{"127.0.0.1"}})
	mine, mineKey := pair("client", testkit.Leaf{})
	addr, err := servers.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	peer, err := servers.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	s, err := servers.New(dir, "m0", addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Argv = []string{
		debian.Path("etcd"), "--name", "m0", "--data-dir", filepath.Join(s.Dir, "data"),
		"--listen-client-urls", "https://" + addr, "--advertise-client-urls", "https://" + addr,
		"--listen-peer-urls", "http://" + peer, "--initial-advertise-peer-urls", "http://" + peer, "--initial-cluster", "m0=http://" + peer,
		"--cert-file", cert, "--key-file", key, "--trusted-ca-file", trusted, "--client-cert-auth",
	}
	s.RunFor(t)
	with := config.Fleet{Store: []string{"https://" + addr}, CA: trusted, Cert: mine, Key: mineKey}
	ctx := soon(t)
	root := open(t, with).(*store).client
	if _, err := root.Get(ctx, "x"); err != nil {
		t.Fatal(err)
	}
	for _, f := range []func() error{
		func() error { _, err := root.RoleAdd(ctx, "fleet"); return err },
		func() error {
			_, err := root.RoleGrantPermission(ctx, "fleet", "/txlb/", clientv3.GetPrefixRangeEnd("/txlb/"), clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func() error { _, err := root.RoleAdd(ctx, "root"); return err },
		func() error { _, err := root.UserAdd(ctx, "root", "rootpassword"); return err },
		func() error { _, err := root.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := root.UserAdd(ctx, "lb", "topsecret"); return err },
		func() error { _, err := root.UserGrantRole(ctx, "lb", "fleet"); return err },
		func() error { _, err := root.AuthEnable(ctx); return err },
	} {
		if err := f(); err != nil {
			t.Fatal(err)
		}
	}
	with.User, with.Password = "lb", "topsecret"
	lb := open(t, with)
	revision, _, err := lb.Swap(ctx, "/txlb/edge/config", []byte("1"), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := lb.Swap(ctx, "/other", []byte("1"), 0, 0); err == nil || errors.As(err, new(*fleet.UnknownError)) || !strings.Contains(err.Error(), "etcd: permission denied") {
		t.Errorf("a key of others: %v", err)
	}
	wrong := with
	wrong.Password = "topsecret2"
	testkit.BestOf(t, 5, func() error { // as above
		if _, err := Open(ctx, &wrong); err == nil || strings.Contains(err.Error(), "topsecret") || !strings.Contains(err.Error(), "authentication failed") {
			return fmt.Errorf("with a wrong password: %v", err)
		}
		return nil
	})
	stranger := with
	stranger.Cert, stranger.Key = "", ""
	brief, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := Open(brief, &stranger); err == nil {
		t.Error("without a certificate it was let in")
	}
	// Credentials that are revoked while the node runs.
	with.User, with.Password = "root", "rootpassword"
	admin := open(t, with).(*store).client
	if _, err := admin.UserRevokeRole(ctx, "lb", "fleet"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := lb.Swap(ctx, "/txlb/edge/config", []byte("2"), revision, 0); err == nil || errors.As(err, new(*fleet.UnknownError)) {
		t.Errorf("with a role that was revoked: %v", err)
	}
}

const oneService = `<config><service name="web"><listen ip="unix:/run/web"/><group name="g"><host name="a" ip="10.0.0.1:80"/></group></service></config>`

// member is a node with a director that holds its configuration.
type member struct {
	*fleet.Node
	name string
	dir  *director.Director
	log  *testkit.Log
	stop func()
}

// join starts a node. It may take a moment until it has joined.
func join(t *testing.T, name string, urls []string) *member {
	t.Helper()
	m := &member{name: name, log: new(testkit.Log)}
	dir := t.TempDir()
	path := filepath.Join(dir, "config.xml")
	if err := os.WriteFile(path, []byte(oneService), 0o600); err != nil {
		t.Fatal(err)
	}
	doc, problems := document.Open(path)
	if doc == nil {
		t.Fatal(problems)
	}
	settings := config.Fleet{Name: "edge", Node: name, Store: urls, Lease: 10 * time.Second}
	var err error
	m.Node, err = fleet.New(fleet.Options{
		Config: settings, StateDir: dir, Log: m.log.Logger(),
		Connect: func(ctx context.Context) (fleet.Store, error) { return Open(ctx, &settings) },
	})
	if err != nil {
		t.Fatal(err)
	}
	m.dir, err = director.New(doc.Config, rig.Idle{}, director.Options{Log: m.log.Logger(), Document: doc, Commit: m.Commit, Fleet: m, Generation: m.Generation()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = m.dir.Run(ctx) })
	running.Go(func() { m.Run(ctx, m.dir) })
	m.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(func() {
		m.stop()
		if t.Failed() {
			t.Logf("node %s:\n%s", name, m.log)
		}
	})
	return m
}

// weigh changes the weight of the host.
func (m *member) weigh(weight int) (uint64, error) {
	return m.dir.Do(context.Background(), director.Change{
		By: "ops", From: m.name, Verb: fmt.Sprint("setHost web g a weight=", weight),
		Apply: func(c *config.Config) error { c.Services[0].Groups[0].Hosts[0].Weight = weight; return nil },
	})
}

// weight is what runs.
func (m *member) weight() int { return m.dir.State().Config.Services[0].Groups[0].Hosts[0].Weight }

// joined waits until nodes have joined and run the same.
func joined(t *testing.T, all ...*member) {
	t.Helper()
	testkit.Eventually(t, "all nodes join and run the same", func() bool {
		for _, m := range all {
			if s := m.Status(); !s.Joined || s.Problem != "" || s.Generation == 0 || s.Running != s.Generation || m.dir.State().Generation != all[0].dir.State().Generation || m.weight() != all[0].weight() {
				return false
			}
		}
		return true
	})
}

// Without a quorum nodes keep what runs and refuse changes; with it back, they take part again.
func TestQuorumLost(t *testing.T) {
	testkit.Long(t)
	members, urls := cluster(t, 3)
	a, b := join(t, "a", urls), join(t, "b", urls)
	joined(t, a, b)
	testkit.Eventually(t, "a change is accepted", func() bool { _, err := a.weigh(2); return err == nil })
	joined(t, a, b)
	generation := a.dir.State().Generation
	members[1].Kill()
	members[2].Kill()
	testkit.Eventually(t, "the nodes see it", func() bool { return !a.Status().Joined && !b.Status().Joined })
	if _, err := a.weigh(3); err == nil || !strings.Contains(err.Error(), "takes no changes") {
		t.Errorf("without a quorum: %v", err)
	}
	if a.weight() != 2 || b.weight() != 2 || b.dir.State().Generation != generation {
		t.Errorf("weights %d and %d", a.weight(), b.weight())
	}
	revive(t, members[1:]...)
	joined(t, a, b)
	testkit.Eventually(t, "a change is accepted again", func() bool { _, err := b.weigh(4); return err == nil })
	joined(t, a, b)
}

// A disk that is full: etcd takes no writes, and says so.
func TestDiskFull(t *testing.T) {
	_, urls := cluster(t, 1, "--quota-backend-bytes", "400000")
	a := join(t, "a", urls)
	joined(t, a)
	s := open(t, config.Fleet{Store: urls})
	for i := range 100 {
		if _, _, err := s.Swap(soon(t), fmt.Sprint("/fill/", i), make([]byte, 100_000), 0, 0); err != nil {
			break
		}
	}
	_, err := a.weigh(2)
	if err == nil || !strings.Contains(err.Error(), "fleet edge takes no changes from this node now: etcd: ") || !strings.Contains(err.Error(), "space exceeded") {
		t.Errorf("with a full disk: %v", err)
	}
	if a.weight() != 1 {
		t.Error("it was made")
	}
}
