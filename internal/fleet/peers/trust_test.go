package peers

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

// papers are the files of a node with a certificate.
type papers struct {
	t    *testing.T
	path string
}

func newPapers(t *testing.T) papers { return papers{t, filepath.Join(t.TempDir(), "node")} }

// issue writes a certificate by an authority for these names.
func (p papers) issue(by *testkit.Authority, names ...string) papers {
	cert, key := by.Issue(p.t, testkit.Leaf{Names: names})
	testkit.Put(p.t, p.path+".crt", cert)
	testkit.Put(p.t, p.path+".key", key)
	return p
}

// trust writes which authorities the node trusts.
func (p papers) trust(all ...*testkit.Authority) papers {
	var text []byte
	for _, a := range all {
		text = append(text, a.PEM...)
	}
	testkit.Put(p.t, p.path+".ca", text)
	return p
}

func (p papers) auth() *Auth {
	return ByCertificates(p.path+".crt", p.path+".key", p.path+".ca")
}

// elsewhere is the address of a node on another host.
func elsewhere(t *testing.T, host string) string {
	_, port, err := net.SplitHostPort(testkit.Nobody(t))
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort(host, port)
}

// follows waits until so many follow the node.
func (n *node) follows(t *testing.T, want int) {
	t.Helper()
	testkit.Eventually(t, fmt.Sprintf("%d follow it", want), func() bool {
		n.mu.RLock()
		defer n.mu.RUnlock()
		return n.followers == want
	})
}

// followAs asks a node for its stream with the certificate of one node and the name of another.
func followAs(t *testing.T, auth *Auth, to *node, name string) (status int, text string, stop func()) {
	t.Helper()
	secure, err := auth.client("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: secure, DisableKeepAlives: true}}
	ctx, cancel := context.WithCancel(t.Context())
	var r *http.Response
	testkit.Eventually(t, "it answers", func() bool {
		q, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+to.addr+path+"?"+url.Values{"fleet": {"edge"}, "node": {name}}.Encode(), nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err = client.Do(q)
		return err == nil
	})
	if r.StatusCode == http.StatusOK {
		return r.StatusCode, "", func() { cancel(); _ = r.Body.Close() }
	}
	said, _ := io.ReadAll(r.Body)
	_ = r.Body.Close()
	cancel()
	return r.StatusCode, string(said), func() {}
}

func TestStrangersAreRefused(t *testing.T) {
	ours, theirs := testkit.NewAuthority(t, "ours"), testkit.NewAuthority(t, "theirs")
	issue := func(by *testkit.Authority, names ...string) *Auth {
		return newPapers(t).issue(by, names...).trust(ours).auth()
	}
	good := start(t, "good", issue(ours, "127.0.0.1"))
	also := start(t, "also", issue(ours, "127.0.0.1", "lb2.example.net"))
	other := start(t, "other", issue(theirs, "127.0.0.1"))
	misnamed := start(t, "misnamed", issue(ours, "10.9.9.9", "www.example.net"))
	unnamed := start(t, "unnamed", issue(ours))
	secret := start(t, "secret", bySecret())
	nodes := []*node{good, also, other, misnamed, unnamed, secret}
	var all []Member
	for _, n := range nodes {
		all = append(all, Member{n.opt.Node, n.addr})
	}
	for _, n := range nodes {
		n.Follow(all)
	}
	good.sees(t, "also", true, "")
	also.sees(t, "good", true, "")
	good.sees(t, "other", false, "certificate signed by unknown authority")
	good.sees(t, "misnamed", false, "its certificate is for 10.9.9.9, www.example.net, and has to be for 127.0.0.1, which the node advertises")
	good.sees(t, "unnamed", false, `its certificate is for no address (its common name "client" does not count), and has to be for 127.0.0.1`)
	good.sees(t, "secret", false, "certificate")
	other.sees(t, "good", false, "it refuses this node: has it another secret or authority?")
	secret.sees(t, "good", false, "it has another secret, or is of another fleet")
	misnamed.sees(t, "good", false, `it answers 403: this is not the node "misnamed": its certificate is for 10.9.9.9, www.example.net, and has to be for 127.0.0.1, which the node advertises`)
	if !testkitSays(good.log, "a node must not follow this one") {
		t.Errorf("the log does not tell:\n%s", good.log)
	}
	// A node finds out by itself.
	for n, want := range map[*node]string{
		misnamed: "<fleet cert>: ", unnamed: "and has to be for 127.0.0.1, which the node advertises", other: "it has to be of the authority in ca",
	} {
		testkit.Eventually(t, n.opt.Node+" knows what is wrong", func() bool {
			_, closed := n.Peers()
			return closed != nil && strings.Contains(closed.Error(), want) && testkitSays(n.log, "other nodes refuse this one")
		})
	}
	if _, closed := good.Peers(); closed != nil {
		t.Error(closed)
	}

	if _, err := BySecret("edge", ""); err != nil {
		t.Error(err)
	}
}

func testkitSays(l *testkit.Log, text string) bool { return len(l.Lines(text)) > 0 }

// A node proves with its certificate that it is itself, and not another one of the fleet.
func TestANodeIsNoOther(t *testing.T) {
	ca := testkit.NewAuthority(t, "ours")
	first, second := newPapers(t).issue(ca, "127.0.0.1").trust(ca).auth(), newPapers(t).issue(ca, "127.0.0.2").trust(ca).auth()
	a := start(t, "a", first)
	b := startAt(t, "b", elsewhere(t, "127.0.0.2"), second)
	all := []Member{{"a", a.addr}, {"b", b.addr}}
	a.Follow(all)
	b.Follow(all)
	a.sees(t, "b", true, "")
	b.sees(t, "a", true, "")
	// b says that it is c, which is on the host of a, and nobody whom the store has.
	c := start(t, "c", first)
	a.Follow(append(all, Member{"c", c.addr}))
	for name, want := range map[string]string{
		"c":       `this is not the node "c": its certificate is for 127.0.0.2, and has to be for 127.0.0.1`,
		"nobody":  `this node knows no node "nobody" that shares checks`,
		"":        `this node knows no node ""`,
		"a":       `this node knows no node "a"`,
		"\x1b[2J": `this node knows no node " [2J"`,
	} {
		status, text, stop := followAs(t, second, a, name)
		stop()
		if status != http.StatusForbidden || !strings.Contains(text, want) {
			t.Errorf("as %q: %d %s", name, status, text)
		}
	}
	status, text, stop := followAs(t, second, a, "b")
	stop()
	if status != http.StatusOK {
		t.Errorf("as itself: %d %s", status, text)
	}
	// The store says that a is where b is: b is not taken for a.
	a.stop()
	b.Follow(append(all, Member{"c", c.addr}))
	c.Follow([]Member{{"a", b.addr}})
	c.sees(t, "a", false, `it is the node "b"`)
}

// A node that the store tells of a moment later is let in.
func TestNodeThatIsKnownLater(t *testing.T) {
	ca := testkit.NewAuthority(t, "ours")
	auth := func() *Auth { return newPapers(t).issue(ca, "127.0.0.1").trust(ca).auth() }
	a, b := start(t, "a", auth()), start(t, "b", auth())
	b.Follow([]Member{{"a", a.addr}})
	b.sees(t, "a", false, `this node knows no node "b"`)
	a.Follow([]Member{{"b", b.addr}})
	b.sees(t, "a", true, "")
	a.sees(t, "b", true, "")
}

// If a node gets another address, the streams to it begin again, and it has to prove that its
// certificate is for that.
func TestAddressChanges(t *testing.T) {
	ca := testkit.NewAuthority(t, "ours")
	mine := newPapers(t).issue(ca, "127.0.0.1").trust(ca)
	a, b := start(t, "a", newPapers(t).issue(ca, "127.0.0.1").trust(ca).auth()), start(t, "b", mine.auth())
	a.Follow([]Member{{"b", b.addr}})
	b.Follow([]Member{{"a", a.addr}})
	a.sees(t, "b", true, "")
	b.sees(t, "a", true, "")
	moved := elsewhere(t, "127.0.0.2")
	a.Follow([]Member{{"b", moved}})
	b.sees(t, "a", false, `this is not the node "b": its certificate is for 127.0.0.1, and has to be for 127.0.0.2`)
	a.follows(t, 0)
	// It comes back there, with the right certificate.
	b.stop()
	mine.issue(ca, "127.0.0.2")
	b = startAt(t, "b", moved, mine.auth())
	b.Follow([]Member{{"a", a.addr}})
	a.sees(t, "b", true, "")
	b.sees(t, "a", true, "")
	// It leaves the fleet.
	b.stop()
	a.sees(t, "b", false, "")
	a.Follow(nil)
	a.follows(t, 0)
}

// A node that has left the fleet does not go on following.
func TestFormerNode(t *testing.T) {
	ca := testkit.NewAuthority(t, "ours")
	auth := func() *Auth { return newPapers(t).issue(ca, "127.0.0.1").trust(ca).auth() }
	a := startAt(t, "a", testkit.Nobody(t), auth(), func(x *Exchange) { x.opt.Beat = time.Second }) // it is not silent by chance
	b := start(t, "b", auth())
	nowhere := testkit.Nobody(t)
	a.Follow([]Member{{"b", nowhere}}) // so that it is not live
	b.Follow([]Member{{"a", a.addr}})
	b.sees(t, "a", true, "")
	a.Follow(nil)
	a.follows(t, 0)
	b.sees(t, "a", false, `this node knows no node "b"`)
}

// Certificates and authorities are replaced while nodes run, one after the other, and no node
// is lost. What is no longer trusted ends, also on streams that are open.
func TestNewCertificates(t *testing.T) {
	former, next := testkit.NewAuthority(t, "former"), testkit.NewAuthority(t, "next")
	both := []papers{newPapers(t), newPapers(t)}
	var nodes []*node
	var lost atomic.Int32
	for i, p := range both {
		p.issue(former, "127.0.0.1").trust(former)
		nodes = append(nodes, startAt(t, string(rune('a'+i)), testkit.Nobody(t), p.auth(), func(x *Exchange) {
			x.provesEvery, x.opt.Beat = testBeat, time.Second // it has three seconds to come back
			x.opt.Lost = func() { lost.Add(1) }
		}))
	}
	live := func() {
		t.Helper()
		nodes[0].sees(t, "b", true, "")
		nodes[1].sees(t, "a", true, "")
	}
	for _, n := range nodes {
		n.Follow([]Member{{"a", nodes[0].addr}, {"b", nodes[1].addr}})
	}
	live()
	for _, p := range both {
		p.trust(former, next)
		live()
	}
	for _, p := range both {
		p.issue(next, "127.0.0.1")
		live()
	}
	// New connections have the new certificate, and both are trusted.
	shown := func() string {
		s, err := nodes[0].opt.Auth.server(nil)
		if err != nil {
			t.Fatal(err)
		}
		return s.Certificates[0].Leaf.Issuer.CommonName
	}
	if got := shown(); got != "next" {
		t.Errorf("it shows a certificate by %s", got)
	}
	streams := func() (list []string) {
		for _, n := range nodes {
			n.mu.RLock()
			for _, p := range n.peers {
				list = append(list, fmt.Sprint(p.live, p.began))
			}
			n.mu.RUnlock()
		}
		return list
	}
	before := streams()
	for _, p := range both {
		p.trust(next)
	}
	testkit.Eventually(t, "the streams begin again", func() bool {
		is := streams()
		return is[0] != before[0] && is[1] != before[1]
	})
	live()
	if n := lost.Load(); n > 0 {
		t.Errorf("nodes were lost %d times:\n%s\n%s", n, nodes[0].log, nodes[1].log)
	}
	// Files that are not right change nothing, and are told.
	testkit.Put(t, both[0].path+".crt", []byte("nonsense"))
	nodes[0].lookAtOwn()
	if _, _, stale := nodes[0].Certificate(); stale == nil || !strings.Contains(stale.Error(), "<fleet cert key>") || !testkitSays(nodes[0].log, "the former ones stay in use") {
		t.Errorf("it does not tell: %v", stale)
	}
	if _, closed := nodes[0].Peers(); closed != nil || testkitSays(nodes[0].log, "other nodes refuse this one") {
		t.Errorf("others do not refuse it: %v", closed)
	}
	if got := shown(); got != "next" {
		t.Errorf("it shows a certificate by %s", got)
	}
	live()
	both[0].issue(next, "127.0.0.1")
	nodes[0].lookAtOwn()
	if _, unfit, stale := nodes[0].Certificate(); unfit != nil || stale != nil {
		t.Error(unfit, stale)
	}
	// An authority that is not trusted any more.
	both[0].trust(former)
	nodes[0].sees(t, "b", false, "")
	nodes[1].sees(t, "a", false, "")
}

// A certificate that has ended ends the streams that were opened with it.
func TestCertificateEnds(t *testing.T) {
	ca := testkit.NewAuthority(t, "ours")
	a := startAt(t, "a", testkit.Nobody(t), newPapers(t).issue(ca, "127.0.0.1").trust(ca).auth(), func(x *Exchange) { x.provesEvery = testBeat })
	testkit.BestOf(t, 3, func() error { // on a busy machine it may end before b is there
		p, end := newPapers(t).trust(ca), time.Now().Add(6*time.Second)
		cert, key := ca.Issue(t, testkit.Leaf{Names: []string{"127.0.0.1"}, To: end})
		testkit.Put(t, p.path+".crt", cert)
		testkit.Put(t, p.path+".key", key)
		b := start(t, "b", p.auth())
		defer b.stop()
		a.Follow([]Member{{"b", b.addr}})
		b.Follow([]Member{{"a", a.addr}})
		came := false
		testkit.Eventually(t, "b follows it, or the certificate has ended", func() bool {
			a.mu.RLock()
			defer a.mu.RUnlock()
			came = a.followers == 1
			return came || time.Now().After(end)
		})
		if !came {
			return fmt.Errorf("b does not follow it before its certificate ends, at %v", end)
		}
		a.follows(t, 0)
		a.sees(t, "b", false, "certificate has expired")
		return nil
	})
}

// A secret is replaced on one node after the other, in two rounds, and no node is refused
// meanwhile. Who has only the former one is refused in the end.
func TestNewSecret(t *testing.T) {
	const former, next = "the former secret of all", "the next secret of all nodes"
	auths := map[string]*Auth{}
	auth := func(secrets ...string) *Auth {
		key := strings.Join(secrets, " ")
		if auths[key] == nil {
			a, err := BySecret("edge", secrets...)
			if err != nil {
				t.Fatal(err)
			}
			auths[key] = a
		}
		return auths[key]
	}
	a := start(t, "a", auth(former))
	b := start(t, "b", auth(former))
	live := func() {
		t.Helper()
		all := []Member{{"a", a.addr}, {"b", b.addr}}
		a.Follow(all)
		b.Follow(all)
		a.sees(t, "b", true, "")
		b.sees(t, "a", true, "")
	}
	live()
	for _, step := range []struct {
		n       **node
		secrets []string
	}{{&a, []string{next, former}}, {&b, []string{next, former}}, {&b, []string{next}}, {&a, []string{next}}} {
		old := *step.n
		old.stop()
		*step.n = startAt(t, old.opt.Node, old.addr, auth(step.secrets...))
		live()
	}
	c := start(t, "c", auth(former))
	c.Follow([]Member{{"a", a.addr}})
	a.Follow([]Member{{"c", c.addr}})
	c.sees(t, "a", false, "it has another secret, or is of another fleet")
	a.sees(t, "c", false, "it has another secret, or is of another fleet")
	// The order in which the former and the next one stand does not matter.
	c.stop()
	for _, pair := range [][2][]string{{{former, next}, {next, former}}, {{former, next}, {next}}, {{former}, {next, former}}} {
		a.stop()
		b.stop()
		a, b = start(t, "a", auth(pair[0]...)), start(t, "b", auth(pair[1]...))
		live()
	}
	if _, err := BySecret("edge"); err == nil {
		t.Error("no secret is a secret")
	}
}
