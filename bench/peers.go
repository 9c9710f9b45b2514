//go:build linux

package main

import (
	"fmt"
	"strconv"
)

// peer is one way from the client to the backend.
type peer struct {
	name  string
	about string
	rival bool     // one that txlb has to be measured against
	needs []string // programs, as in programs (programs.go)
	fds   int      // open files for an idle session, 2 if not said
	// config returns the configuration file, nil for a peer without one;
	// argv its command line, nil for no process at all.
	config func(place) string
	argv   func(place) []string
}

func (p peer) key() string { return p.name }

// place is where a peer runs.
type place struct {
	programs       map[string]string // by the names in needs
	dir, file      string            // a folder of its own, and the configuration in it
	listen, target string            // host:port
	files          uint64            // limit of open files
}

const ours, plain = "txlb", "haproxy"

// peers returns all of them in the order of the report. Everything that a
// peer does not set is as Debian or its authors set it.
func peers() []peer {
	return []peer{
		{name: "direct", about: "no proxy: the load goes to the backend"},
		haproxy(plain, "as installed", 2, "", ""),
		haproxy("haproxy-splice", "with splice-request and splice-response", 3, "", "    option splice-request\n    option splice-response\n"),
		haproxy("haproxy-64k", "with tune.bufsize 65536", 2, "global\n    tune.bufsize 65536\n", ""),
		haproxy("haproxy-1", "with nbthread 1", 2, "global\n    nbthread 1\n", ""),
		{
			name: "nginx", about: "nginx stream module, worker_processes auto, reuseport", rival: true,
			needs:  []string{"nginx", "nginx-stream"},
			config: nginxStream,
			argv:   nginxArgv,
		},
		{
			name: "go", about: "a plain Go proxy: two goroutines with io.Copy a connection",
			fds:  6, // io.Copy holds a pipe for each direction while it waits
			argv: func(p place) []string { return []string{p.programs["bench"], roleProxy, p.listen, p.target} },
		},
		{
			name: ours, about: "as it starts by itself",
			needs:  []string{"txlb"},
			config: txlbConfig,
			argv:   func(p place) []string { return []string{p.programs["txlb"], "run", "-c", p.file} },
		},
	}
}

// haproxy is HAProxy in TCP mode, with a global section and lines more among
// its defaults. With splicing it keeps files back for pipes, so that it takes
// fewer sessions under the same limit: fds is larger then.
func haproxy(name, about string, fds int, global, defaults string) peer {
	return peer{
		name: name, about: "HAProxy " + about, rival: true, fds: fds,
		needs: []string{"haproxy"},
		config: func(p place) string {
			return fmt.Sprintf(`%sdefaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
%slisten bench
    bind %s
    server backend %s
`, global, defaults, p.listen, p.target)
		},
		argv: func(p place) []string { return []string{p.programs["haproxy"], "-db", "-f", p.file} },
	}
}

// nginxArgv takes the folder as the prefix of all that nginx writes.
func nginxArgv(p place) []string {
	return []string{p.programs["nginx"], "-e", "stderr", "-p", p.dir, "-c", p.file}
}

func nginxStream(p place) string {
	return fmt.Sprintf(`load_module %s;
daemon off;
pid nginx-stream.pid;
error_log stderr error;
worker_processes auto;
worker_rlimit_nofile %d;
events { worker_connections %d; }
stream {
    server {
        listen %s reuseport;
        proxy_pass %s;
        proxy_timeout 1h;
    }
}
`, p.programs["nginx-stream"], p.files, p.files, p.listen, p.target)
}

func txlbConfig(p place) string {
	return fmt.Sprintf(`<config>
  <service name="bench">
    <listen ip=%s/>
    <group name="main" enable="true">
      <host name="backend" ip=%s/>
    </group>
  </service>
</config>
`, strconv.Quote(p.listen), strconv.Quote(p.target))
}
