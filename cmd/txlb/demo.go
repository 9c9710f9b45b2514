package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/passwd"
)

// Where the demo listens.
const (
	demoAddress = "127.0.0.1:8080"
	demoMetrics = "127.0.0.1:9107"
	demoPage    = "127.0.0.1:7000"
)

// demoPassword is how many letters the password has: of five bits each.
const demoPassword = 16

// demoCommand balances three small web servers that run in this process.
func demoCommand(ctx context.Context, c console, _ []string) int {
	cfg := config.New()
	cfg.Admin.Metrics = demoMetrics
	// Without TLS, because a certificate would be left behind. Nobody can listen in
	// between: it is this machine's own address.
	cfg.Admin.Web = &config.AdminListen{Listen: demoPage, Enable: true, Refresh: 10 * time.Second}
	password := rand.Text()[:demoPassword]
	hash, err := passwd.Hash(password)
	if err != nil {
		return finish(c, err)
	}
	cfg.Admin.Users = []*config.User{{Name: "admin", Password: hash, Access: "full"}}
	cfg.Logging.Level = "warn"
	cfg.Engine.Drain = time.Second
	s := config.NewService("demo")
	s.Listen = []config.Listen{{Address: demoAddress}}
	g := config.NewGroup("servers")
	g.Enabled = true
	g.Scheduler = "roundr"
	for _, name := range []string{"red", "green", "blue"} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return finish(c, err)
		}
		server := &http.Server{Handler: page(name), ReadHeaderTimeout: 5 * time.Second}
		go func() { _ = server.Serve(ln) }() // ends with Close
		defer func() { _ = server.Close() }()
		g.Hosts = append(g.Hosts, config.NewHost(name, ln.Addr().String()))
	}
	s.Groups = []*config.Group{g}
	cfg.Services = []*config.Service{s}

	fmt.Fprintf(c.out, `txlb demo: three small web servers, red, green and blue, behind one address.

  curl http://%[1]s/                    one of them answers; ask again for the next
  for i in 1 2 3 4 5 6; do curl -s http://%[1]s/; done
  curl -s http://%[2]s/metrics | grep txlb_sessions_total

The admin page is http://%[3]s/, for this run with the user admin and the password %[4]s

  curl -u admin:%[4]s http://%[3]s/running.txt
  curl -u admin:%[4]s http://%[3]s/api/v1/setHost -d 'service=demo&group=servers&name=red&state=drain'

Stop it with Ctrl-C. For your own servers: docs/configuration.md and txlb run -c FILE.
`, demoAddress, demoMetrics, demoPage, password)
	if c.out.err != nil { // the password is nowhere else
		return exitFailed
	}
	return finish(c, serve(ctx, beginning{config: cfg}))
}

// page is one of the demo's web servers.
func page(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintf(w, "hello from %s\n", name)
	})
}
