package status

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/testkit"
)

// A certificate is a problem when it ends soon, has ended, or cannot be read again.
func TestCertificateProblems(t *testing.T) {
	now := time.Now()
	long := now.Add(365 * 24 * time.Hour)
	for name, test := range map[string]struct {
		c     director.Certificate
		level Level
		want  string
	}{
		"good":     {director.Certificate{From: now.Add(-time.Hour), To: long}, Fine, ""},
		"soon":     {director.Certificate{To: now.Add(3 * 24 * time.Hour)}, Notice, "The certificate for a.example of service web (/c.pem) expires in 3 days"},
		"today":    {director.Certificate{To: now.Add(5 * time.Hour), Names: []string{"a.example", "b.example", "c.example"}}, Notice, "The certificate for a.example and 2 other names of service web (/c.pem) expires in 5 hours"},
		"expired":  {director.Certificate{To: now.Add(-48 * time.Hour)}, Warning, "The certificate for a.example of service web (/c.pem) expired 2 days ago: clients that verify it do not connect"},
		"future":   {director.Certificate{From: now.Add(time.Minute), To: long}, Warning, "is not valid for another 1m0s"},
		"replaced": {director.Certificate{To: long, Trouble: "cannot read /c.pem: permission denied"}, Warning, "stays in use, as the files are wrong now: cannot read /c.pem: permission denied"},
	} {
		test.c.Service, test.c.File = "web", "/c.pem"
		if test.c.Names == nil {
			test.c.Names = []string{"a.example"}
		}
		p, wrong := judgeCertificate(&test.c, now)
		if wrong != (test.want != "") || p.Level != test.level || !strings.Contains(p.Text, test.want) || wrong && p.Remedy == "" {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

// A reading has the certificates of each listener, and who makes handshakes with whom.
func TestReadingHasCertificates(t *testing.T) {
	dir, a := t.TempDir(), testkit.NewAuthority(t, "ca")
	file := func(name string, text []byte) string {
		testkit.Put(t, filepath.Join(dir, name), text)
		return filepath.Join(dir, name)
	}
	cert, key := a.Issue(t, testkit.Leaf{Names: []string{"a.example"}, To: time.Now().Add(24 * time.Hour)})
	s := state(t, fmt.Sprintf(`<service name="web"><listen ip=":1" tls="%[1]s %[2]s"/><listen ip="127.0.0.1:0" tls="%[1]s %[2]s"/><listen ip="127.0.0.1:0" tls="%[1]s %[2]s"/><listen ip=":2"/><group name="g"><host name="a" ip="10.0.0.1:1"/></group></service>
		<service name="back"><listen ip=":3"/><group name="g"><host name="a" ip="10.0.0.1:1" tls="unverified"/></group></service>
		<service name="plain"><listen ip=":4"/><group name="g"><host name="a" ip="10.0.0.1:1"/></group></service>`, file("c", cert), file("k", key)))
	r := Read(Facts{State: s, At: time.Now(), Listeners: []engine.Listener{{Service: "web", Listen: ":1", Addr: "127.0.0.1:1"}, {Service: "web", Listen: ":2", Addr: "127.0.0.1:2"}}})
	web, back, plain := &r.Services[0], &r.Services[1], &r.Services[2]
	if len(web.Encrypted) != 1 || web.Encrypted[0] != "127.0.0.1:1" || len(web.Certificates) != 2 || !web.Encrypts["client"] || web.Encrypts["host"] {
		t.Errorf("web: %v, %v, %v", web.Encrypted, web.Certificates, web.Encrypts)
	}
	if len(back.Certificates) != 0 || back.Encrypts["client"] || !back.Encrypts["host"] || plain.Encrypts != nil {
		t.Errorf("back %v, plain %v", back.Encrypts, plain.Encrypts)
	}
	if web.Level != Notice || len(r.Problems) != 2 || !strings.Contains(r.Problems[0].Text, "expires in ") {
		t.Errorf("problems: %v", r.Problems)
	}
}
