// Package examples runs the programs of the module in /examples.
package examples

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/servers"
	"github.com/txlb/txlb/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const root = "../../examples"

// The programs of examples/ compile and do what they say. They are a module of their own.
func TestExamplesRun(t *testing.T) {
	testkit.Long(t)
	dir := t.TempDir()
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", dir+"/", "./...")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s\nIf go.mod has changed: cd examples && go mod tidy", err, out)
	}
	cert, key := servers.Certify(t, dir, "txlb.example", nil)
	run := func(t *testing.T, want string, argv ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 4*testkit.Patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, filepath.Join(dir, argv[0]), argv[1:]...)
		var log strings.Builder
		cmd.Stderr = &log
		out, err := cmd.Output()
		if err != nil || string(out) != want {
			t.Errorf("%s: %v; it wrote\n%s\nand not\n%s\nIts log:\n%s", argv[0], err, out, want, log.String())
		}
	}
	tested := map[string]bool{"database": true}
	for _, e := range []struct {
		want string
		argv []string
	}{
		{"six requests went to map[a:2 b:4]\n", []string{"web"}},
		{"10 %: of 100 clients map[v1:90 v2:10]\n50 %: of 100 clients map[v1:50 v2:50]\nall: of 100 clients map[v2:100]\n", []string{"canary"}},
		{"four clients went to map[a:4]\nfour clients went to map[a:2 b:2]\nreported twice\nfour clients went to map[b:4]\n", []string{"autoscale"}},
		{"no host yet: this program\nwith a host: a host\n", []string{"tls", cert, key}},
		{"frankfurt\nfrankfurt\nfrankfurt\nparis\nwith another price: paris\n", []string{"scheduler"}},
	} {
		tested[e.argv[0]] = true
		t.Run(e.argv[0], func(t *testing.T) { run(t, e.want, e.argv...) })
	}
	t.Run("database", func(t *testing.T) {
		debian.NeedFor(t, servers.Initdb)
		one, two := postgreSQL(t, "one"), postgreSQL(t, "two")
		dead, err := servers.FreeAddr()
		if err != nil {
			t.Fatal(err)
		}
		const dsn = "postgres://tester@db/postgres?sslmode=disable"
		run(t, fmt.Sprintln("connections by port:", map[string]int{portOf(one): 2, portOf(two): 2}), "database", dsn, one, two)
		run(t, fmt.Sprintln("connections by port:", map[string]int{portOf(two): 4}), "database", dsn, dead, two)
	})
	built, err := filepath.Glob(root + "/*/main.go")
	if err != nil || len(built) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	readme, err := os.ReadFile(root + "/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range built {
		name := filepath.Base(filepath.Dir(file))
		if !tested[name] || !strings.Contains(string(readme), "]("+name+"/main.go)") {
			t.Errorf("%s has no test here, or no line in examples/README.md", file)
		}
	}
}

// postgreSQL runs a PostgreSQL and returns its address.
func postgreSQL(t *testing.T, name string) string {
	t.Helper()
	dir, as := servers.Apart(t)
	addr, err := servers.FreeAddr()
	s, err2 := servers.New(dir, name, addr, as)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	if err := s.PostgreSQL(t.Context(), "tester", ""); err != nil {
		t.Fatal(err)
	}
	s.RunFor(t)
	return addr
}

func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}
