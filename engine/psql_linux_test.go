package engine_test

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/servers"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// postgresWithTLS runs a PostgreSQL whose certificate is for a name, with which it also
// answers select current_setting('cluster_name').
func postgresWithTLS(t *testing.T, parent, name string, as *syscall.Credential) (addr sched.Addr, cert string) {
	t.Helper()
	ln := enginetest.ListenOn(t, "tcp", "127.0.0.1:0")
	_ = ln.Close()
	s, err := servers.New(parent, name, ln.Addr().String(), as)
	if err != nil {
		t.Fatal(err)
	}
	cert, key := servers.Certify(t, s.Dir, name, as)
	if err := s.PostgreSQL(t.Context(), "tester", "", "-c", "cluster_name="+name, "-c", "ssl=on", "-c", "ssl_cert_file="+cert, "-c", "ssl_key_file="+key); err != nil {
		t.Fatal(err)
	}
	s.RunFor(t)
	return enginetest.AddrOf(t, ln.Addr()), cert
}

// Ordinary psql is routed by the name that it connects to, and verifies the certificate
// of the server that it gets. Without TLS it gets the active group.
func TestB85PsqlIsRoutedByName(t *testing.T) {
	testkit.Long(t)
	debian.NeedFor(t, "psql", servers.Initdb)
	dir, as := servers.Apart(t)
	mainAddr, mainCert := postgresWithTLS(t, dir, "main.db.test", as)
	salesAddr, salesCert := postgresWithTLS(t, dir, "sales.db.test", as)
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, mainAddr)
		route := named(r, testkit.Patience, salesAddr)
		route.Choose = func(a engine.Asking) engine.GroupID {
			if string(a.Name) == "sales.db.test" {
				return 1
			}
			return engine.Default
		}
		listen := []string{"127.0.0.1:0"}
		r.Apply(engine.Service{Name: "web", Listen: listen, Route: route, ListenOptions: map[string]engine.ListenOptions{listen[0]: {StartTLS: engine.StartTLSPostgres}}})
		_, port, err := net.SplitHostPort(r.Addr)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range [][4]string{ // host, sslmode, sslrootcert, who answers
			{"sales.db.test", "verify-full", salesCert, "sales.db.test"},
			{"main.db.test", "verify-full", mainCert, "main.db.test"},
			{"sales.db.test", "require", "", "sales.db.test"},
			{"other.db.test", "prefer", "", "main.db.test"},
			{"sales.db.test", "disable", "", "main.db.test"},
		} {
			psql := exec.CommandContext(t.Context(), debian.Path("psql"), "-X", "-A", "-t", "-w", "-c", "select current_setting('cluster_name')",
				"host="+c[0]+" hostaddr=127.0.0.1 port="+port+" user=tester dbname=postgres sslmode="+c[1]+" sslrootcert="+c[2])
			psql.Env = append(os.Environ(), "HOME="+dir)
			out, err := psql.CombinedOutput()
			if got := strings.TrimSpace(string(out)); err != nil || got != c[3] {
				t.Errorf("psql to %s with sslmode=%s: %v, %s; want %s", c[0], c[1], err, got, c[3])
			}
		}
	})
}
