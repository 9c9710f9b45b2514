//go:build linux

package servers

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/txlb/txlb/internal/debian"
)

// Patroni is a PostgreSQL with replicas, whose leader Patroni chooses, and the etcd in which
// it notes that. It has two nodes, a and b, on addresses of their own and on the same ports.
type Patroni struct {
	Nodes []*PatroniNode
	etcd  *Server
}

// PatroniNode is a PostgreSQL with its Patroni.
type PatroniNode struct {
	*Server
	DB   string // address of PostgreSQL, whose user is postgres, without a password
	REST string // address of Patroni's API
	data string
}

// PatroniNeeds are the programs of a cluster, for debian.Need.
var PatroniNeeds = []string{"patroni", "etcd", Initdb}

// NewPatroni starts a cluster below a folder, and returns when a is the leader and b follows
// it. It ends with Stop.
func NewPatroni(ctx context.Context, dir string, as *syscall.Credential) (p *Patroni, err error) {
	var ports [4]string
	for i := range ports {
		addr, err := FreeAddr()
		if err != nil {
			return nil, err
		}
		_, ports[i], _ = net.SplitHostPort(addr)
	}
	p = new(Patroni)
	defer func() {
		if err != nil {
			p.Stop()
		}
	}()
	if p.etcd, err = New(dir, "etcd", "127.0.0.1:"+ports[0], as); err != nil {
		return p, err
	}
	client, peer := "http://"+p.etcd.Addr, "http://127.0.0.1:"+ports[1]
	p.etcd.Argv = []string{
		debian.Path("etcd"), "--name", "e", "--data-dir", p.etcd.in("data"), "--log-level", "error",
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "e=" + peer,
	}
	p.etcd.End = syscall.SIGTERM
	p.etcd.Probe = func(addr string) error {
		_, err := fetch(ctx, http.MethodGet, "http://"+addr+"/health", "")
		return err
	}
	if err := p.etcd.Start(ctx); err != nil {
		return p, err
	}
	for i, name := range []string{"a", "b"} {
		host := fmt.Sprintf("127.0.0.%d", 2+i)
		s, err := New(dir, name, net.JoinHostPort(host, ports[2]), as)
		if err != nil {
			return p, err
		}
		n := &PatroniNode{Server: s, DB: s.Addr, REST: net.JoinHostPort(host, ports[3]), data: s.in("data")}
		// JSON is YAML.
		text, err := json.MarshalIndent(n.configuration(name, host, p.etcd.Addr), "", " ")
		if err != nil {
			return p, err
		}
		if err := s.write("patroni.yml", string(text)); err != nil {
			return p, err
		}
		s.Argv, s.End = []string{debian.Path("patroni"), s.in("patroni.yml")}, syscall.SIGTERM
		role := []string{"primary", "replica"}[i]
		s.Probe = func(string) error { return n.Is(ctx, role) }
		p.Nodes = append(p.Nodes, n)
		if err := s.Start(ctx); err != nil {
			return p, err
		}
	}
	return p, nil
}

// configuration is that of a node's Patroni.
func (n *PatroniNode) configuration(name, host, etcd string) map[string]any {
	type m = map[string]any
	return m{
		"scope": "txlb", "name": name,
		"restapi": m{"listen": n.REST, "connect_address": n.REST},
		"etcd3":   m{"host": etcd},
		"bootstrap": m{
			"dcs": m{
				"ttl": 20, "loop_wait": 1, "retry_timeout": 3,
				"postgresql": m{"parameters": m{"fsync": "off", "max_connections": 50, "shared_buffers": "16MB", "wal_keep_size": "64MB"}},
			},
			"initdb": []any{m{"encoding": "UTF8"}, m{"locale": "C"}, m{"auth": "trust"}, "no-sync"},
			"pg_hba": []string{"local all all trust", "host all all 127.0.0.0/8 trust", "host replication all 127.0.0.0/8 trust"},
		},
		"postgresql": m{
			"listen": n.DB, "connect_address": n.DB, "data_dir": n.data, "bin_dir": filepath.Dir(InPostgreSQL("postgres")),
			"pgpass": n.in("pgpass"), "parameters": m{"unix_socket_directories": ""},
			"authentication": m{
				"superuser": m{"username": "postgres", "password": "secret"}, "replication": m{"username": "replicator", "password": "secret"},
			},
		},
	}
}

// Is returns nil if the node has a role: primary or replica.
func (n *PatroniNode) Is(ctx context.Context, role string) error {
	_, err := fetch(ctx, http.MethodGet, "http://"+n.REST+"/"+role, "")
	return err
}

// Leader returns the leader, and the other node if that follows it.
func (p *Patroni) Leader(ctx context.Context) (leader, other *PatroniNode, err error) {
	for i, n := range p.Nodes {
		if err = n.Is(ctx, "primary"); err != nil {
			continue
		}
		other := p.Nodes[1-i]
		return n, other, other.Is(ctx, "replica")
	}
	return nil, nil, fmt.Errorf("there is no leader: %w", err)
}

// Switch makes the other node the leader. It returns when Patroni says that it is.
func (p *Patroni) Switch(ctx context.Context, from, to *PatroniNode) error {
	_, err := fetch(ctx, http.MethodPost, "http://"+from.REST+"/switchover", fmt.Sprintf(`{"leader":%q,"candidate":%q}`, from.Name, to.Name))
	return err
}

// Stop ends all. What Patroni has started ends with it, or is killed.
func (p *Patroni) Stop() {
	for _, n := range p.Nodes {
		n.Server.Stop()
		text, err := os.ReadFile(filepath.Join(n.data, "postmaster.pid"))
		if err != nil {
			continue // it has ended
		}
		first, _, _ := strings.Cut(string(text), "\n")
		if pid, err := strconv.Atoi(first); err == nil && pid > 1 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	if p.etcd != nil {
		p.etcd.Stop()
	}
}

// fetch makes a request, which has to be answered by 200.
func fetch(ctx context.Context, method, url, body string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: Patience}
	answer, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	switch {
	case err != nil:
		return "", err
	case answer.StatusCode != http.StatusOK:
		return "", fmt.Errorf("%s %s: %s: %s", method, url, answer.Status, Tail(string(text)))
	}
	return string(text), nil
}
