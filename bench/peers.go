//go:build linux

package main

import (
	"fmt"
	"strconv"
	"strings"
)

// peer is one way from the client to the backend.
type peer struct {
	name    string
	about   string
	rival   bool     // one that txlb has to be measured against
	variant bool     // measured where it matters only, if not asked for
	needs   []string // programs, as in programs (programs.go)
	fds     int      // open files for an idle session, 2 if not said
	admin   bool     // it has an admin page
	// config returns the configuration file, nil for a peer without one;
	// argv its command line, nil for no process at all.
	config func(place) string
	argv   func(place) []string
}

func (p peer) key() string { return p.name }

// place is where a peer or a backend runs.
type place struct {
	programs  map[string]string // by the names in needs
	dir, file string            // a folder of its own, and the configuration in it
	routes    []route           // one, or two for work beside other work
	admin     string            // where to serve the admin page; "" for nowhere
	files     uint64            // limit of open files
}

// route is an address to listen on and one to pass on to, both host:port.
type route struct{ listen, target string }

// The names of peers that goals speak of.
const ours, plain, spliced = "txlb", "haproxy", "haproxy-splice"

// peers returns all of them in the order of the report. Everything that a
// peer does not set is as Debian or its authors set it.
func peers() []peer {
	return []peer{
		{name: "direct", about: "no proxy: the load goes to the backend"},
		haproxy(plain, "as installed", 2, "", ""),
		haproxy(spliced, "with splice-request and splice-response", 3, "", "    option splice-request\n    option splice-response\n"),
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
			fds: 6, // io.Copy holds a pipe for each direction while it waits
			argv: func(p place) []string {
				argv := []string{p.programs["bench"], roleProxy}
				for _, r := range p.routes {
					argv = append(argv, r.listen, r.target)
				}
				return argv
			},
		},
		txlb(ours, "as it starts by itself", ""),
		txlb("txlb-always", "with splice always", `splice="always"`),
		txlb("txlb-never", "with splice never", `splice="never"`),
		txlb("txlb-1", "with one loop", `loops="1"`),
		txlb("txlb-2", "with two loops", `loops="2"`),
	}
}

// txlb is this program, with attributes of <engine> if given: then it is a
// variant.
func txlb(name, about, engine string) peer {
	return peer{
		name: name, about: about, needs: []string{"txlb"}, variant: engine != "", admin: true,
		config: func(p place) string { return txlbConfig(p, engine) },
		argv:   func(p place) []string { return []string{p.programs["txlb"], "run", "-c", p.file} },
	}
}

// haproxy is HAProxy in TCP mode, with a global section and lines more among
// its defaults. With splicing it keeps files back for pipes, so that it takes
// fewer sessions under the same limit: fds is larger then.
func haproxy(name, about string, fds int, global, defaults string) peer {
	return peer{
		name: name, about: "HAProxy " + about, rival: true, fds: fds,
		needs:  []string{"haproxy"},
		config: func(p place) string { return haproxyConfig(p, global, defaults) },
		argv:   func(p place) []string { return []string{p.programs["haproxy"], "-db", "-f", p.file} },
	}
}

func haproxyConfig(p place, global, defaults string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `%sdefaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
%s`, global, defaults)
	for i, r := range p.routes {
		fmt.Fprintf(&b, "listen bench%d\n    bind %s\n    server backend %s\n", i, r.listen, r.target)
	}
	return b.String()
}

// nginxArgv takes the folder as the prefix of all that nginx writes.
func nginxArgv(p place) []string {
	return []string{p.programs["nginx"], "-e", "stderr", "-p", p.dir, "-c", p.file}
}

func nginxStream(p place) string {
	var b strings.Builder
	fmt.Fprintf(&b, `load_module %s;
daemon off;
pid nginx-stream.pid;
error_log stderr error;
worker_processes auto;
worker_rlimit_nofile %d;
events { worker_connections %d; }
stream {
    proxy_timeout 1h;
`, p.programs["nginx-stream"], p.files, p.files)
	for _, r := range p.routes {
		fmt.Fprintf(&b, "    server {\n        listen %s reuseport;\n        proxy_pass %s;\n    }\n", r.listen, r.target)
	}
	return b.String() + "}\n"
}

func txlbConfig(p place, engine string) string {
	var b strings.Builder
	b.WriteString("<config>\n")
	if engine != "" {
		fmt.Fprintf(&b, "  <engine %s/>\n", engine)
	}
	for i, r := range p.routes {
		fmt.Fprintf(&b, `  <service name="bench%d">
    <listen ip=%s/>
    <group name="main" enable="true">
      <host name="backend" ip=%s/>
    </group>
  </service>
`, i, strconv.Quote(r.listen), strconv.Quote(r.target))
	}
	if p.admin != "" {
		fmt.Fprintf(&b, "  <admin><web listen=%s secure=\"false\"/></admin>\n", strconv.Quote(p.admin))
	}
	return b.String() + "</config>\n"
}
