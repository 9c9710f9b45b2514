//go:build linux

package servers

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/txlb/txlb/internal/debian"
)

// Nginx makes the server an nginx of one process, so that killing the process kills
// the server. http is what stands in the section http beside the basics.
func (s *Server) Nginx(http string) error {
	s.Argv = []string{debian.Path("nginx"), "-c", s.in("nginx.conf"), "-p", s.Dir, "-e", "stderr"}
	return s.write("nginx.conf", fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log stderr;
events { worker_connections 2048; }
http {
access_log off; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p;
fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
%[2]s
}
`, s.Dir, http))
}

// NginxStream is Nginx with a section stream, of the module in [StreamModule], instead
// of http.
func (s *Server) NginxStream(stream string) error {
	s.Argv = []string{debian.Path("nginx"), "-c", s.in("nginx.conf"), "-p", s.Dir, "-e", "stderr"}
	return s.write("nginx.conf", fmt.Sprintf(`load_module %[3]s; daemon off; master_process off; pid %[1]s/pid; error_log stderr;
events { worker_connections 2048; }
stream {
%[2]s
}
`, s.Dir, stream, StreamModule))
}

// StreamModule is where Debian keeps nginx's module for TCP.
const StreamModule = "/usr/lib/nginx/modules/ngx_stream_module.so"

// HAProxy makes the server a HAProxy with a configuration.
func (s *Server) HAProxy(config string) error {
	s.Argv = []string{debian.Path("haproxy"), "-db", "-f", s.in("haproxy.cfg")}
	return s.write("haproxy.cfg", config)
}

// Redis makes the server a Redis that keeps nothing on disk.
func (s *Server) Redis(options ...string) error {
	host, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return err
	}
	s.Argv = append([]string{
		debian.Path("redis-server"), "--bind", host, "--port", port, "--save", "", "--appendonly", "no", "--dir", s.Dir,
	}, options...)
	return nil
}

// PostgreSQL makes the server a PostgreSQL without fsync, and its database: it
// belongs to user, who logs in with the password in a file, or without one if file
// is "". It does not run as root.
func (s *Server) PostgreSQL(ctx context.Context, user, file string, options ...string) error {
	host, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return err
	}
	data := s.in("data")
	initdb := []string{InPostgreSQL("initdb"), "-D", data, "-U", user, "-E", "UTF8", "--locale=C", "--no-sync"}
	if file == "" {
		initdb = append(initdb, "-A", "trust")
	} else {
		initdb = append(initdb, "-A", "scram-sha-256", "--pwfile", file)
	}
	if _, err := Call(ctx, s.Dir, s.User, nil, initdb...); err != nil {
		return err
	}
	s.Argv = append([]string{InPostgreSQL("postgres"), "-D", data, "-h", host, "-p", port, "-k", "", "-F"}, options...)
	s.End = syscall.SIGINT // it ends its sessions; killed, it would leave shared memory behind
	s.Probe = func(string) error {
		_, err := Call(ctx, s.Dir, s.User, nil, InPostgreSQL("pg_isready"), "-q", "-h", host, "-p", port)
		return err
	}
	return nil
}

// Initdb is where Debian keeps the programs of PostgreSQL, of any version: out of
// the search path, or wrapped for its own clusters.
const Initdb = "/usr/lib/postgresql/*/bin/initdb"

// InPostgreSQL returns where a program of PostgreSQL is.
func InPostgreSQL(program string) string {
	return filepath.Join(filepath.Dir(debian.Path(Initdb)), program)
}

// in returns the path of a file of the server.
func (s *Server) in(name string) string { return filepath.Join(s.Dir, name) }

func (s *Server) write(name, text string) error {
	return os.WriteFile(s.in(name), []byte(text), 0o644)
}
