//go:build linux

package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/txlb/txlb/bench/internal/floor"
)

// peer is one way from the client to the backend.
type peer struct {
	name    string
	about   string
	role    role
	needs   []string // programs, as in programs (programs.go)
	fds     int      // open files for an idle session, 2 if not said
	admin   bool     // it has admin interfaces
	reports bool     // it says what it has allocated, see [reportAllocations]
	of      []group  // work of which it is the floor
	// config returns the configuration file, nil for a peer without one;
	// argv its command line, nil for no process at all.
	config func(place) string
	argv   func(place) []string
}

// role is what a peer is for.
type role int

const (
	extra     role = iota // measured only if asked for by name
	shape                 // txlb in another shape: beside it where a workload says so
	unproxied             // no proxy: what is left of a latency without one
	bare                  // a relay without features: what the kernel asks of any proxy
	subject               // txlb, as it starts by itself
	installed             // a rival as Debian or its authors set it
	tuned                 // a rival with larger buffers, or spliced
)

func (p peer) key() string { return p.name }

// rival reports whether txlb has to be measured against p.
func (p peer) rival() bool { return p.role >= installed }

// place is where a peer or a backend runs.
type place struct {
	programs  map[string]string // by the names in needs
	dir, file string            // a folder of its own, and the configuration in it
	routes    []route           // one, or two for work beside other work
	files     uint64            // limit of open files
	threads   int               // that move bytes
	front     *certificate      // TLS with clients; nil: plain
	back      *certificate      // TLS with hosts that have this one; nil: plain
}

// route is an address to listen on and one to pass on to, both host:port.
type route struct{ listen, target string }

// The names of peers that others speak of.
const ours, direct, plain, spliced, large, other = "txlb", "direct", "haproxy", "haproxy-splice", "haproxy-64k", "other"

// peers returns all of them in the order of the report. All have the same number of
// threads. Everything else that a peer does not set is as Debian or its authors set
// it.
func peers() []peer {
	all := []peer{
		{name: direct, about: "no proxy: the load goes to the backend", role: unproxied},
		txlbDaemon(ours, "as it starts by itself", ""),
		haproxy(plain, "as installed", installed, 2, "", ""),
		{
			name: "nginx", about: "nginx's stream module, reuseport", role: installed,
			needs:  []string{"nginx", "nginx-stream"},
			config: nginxStream,
			argv:   nginxArgv,
		},
		haproxy(large, "with tune.bufsize 65536", tuned, 2, "    tune.bufsize 65536\n", ""),
		haproxy(spliced, "with splice-request and splice-response", tuned, 3, "", "    option splice-request\n    option splice-response\n"),
		relay("bare", floor.Ring, "recv, then all sends, registrations and closes of a turn in one call of io_uring", flows, rates),
		relay("bare-plain", floor.Copy, "recv, then send"), // dearer: 22 instead of 15 µs a request of keep64
		relay("bare-splice", floor.Splice, "splice through a pipe", bulks, files),
		{
			name: "go", about: "a plain Go proxy: two goroutines with io.Copy a connection",
			fds: 6, reports: true, // io.Copy holds a pipe for each direction while it waits
			argv: func(p place) []string {
				cert, key := "", ""
				if p.front != nil {
					cert, key = p.front.cert, p.front.key
				}
				argv := []string{p.programs["bench"], roleProxy, strconv.Itoa(p.threads), cert, key}
				for _, r := range p.routes {
					argv = append(argv, r.listen, r.target)
				}
				return argv
			},
		},
		txlbDaemon("txlb-always", "with splice always", `splice="always"`),
		txlbDaemon("txlb-never", "with splice never", `splice="never"`),
		{
			name: other, about: "another build of txlb: see -other", needs: []string{other},
			config: func(p place) string { return txlbConfig(p, "", "") },
			argv:   func(p place) []string { return []string{p.programs[other], "run", "-c", p.file} },
		},
	}
	return append(all, shapes()...)
}

// txlbDaemon is this program, with attributes of <engine> if given.
func txlbDaemon(name, about, engine string) peer {
	p := peer{
		name: name, about: about, needs: []string{"txlb"}, admin: true,
		config: func(p place) string { return txlbConfig(p, engine, "") },
		argv:   func(p place) []string { return []string{p.programs["txlb"], "run", "-c", p.file} },
	}
	if engine == "" {
		p.role = subject
	}
	return p
}

// relay is the relay of package floor, and the floor of some groups of work.
func relay(name string, way floor.Way, about string, of ...group) peer {
	p := peer{
		name: name, about: "a relay that does no more than it has to: " + about, of: of,
		argv: func(p place) []string {
			argv := []string{p.programs["bench"], roleBare, string(way), strconv.Itoa(p.threads)}
			for _, r := range p.routes {
				argv = append(argv, r.listen, r.target)
			}
			return argv
		},
	}
	if len(of) > 0 {
		p.role = bare
	}
	return p
}

// haproxy is HAProxy in TCP mode, with lines more in its global section and among
// its defaults. With splicing it keeps files back for pipes, so that it takes
// fewer sessions under the same limit: fds is larger then.
func haproxy(name, about string, role role, fds int, global, defaults string) peer {
	return peer{
		name: name, about: "HAProxy " + about, role: role, fds: fds,
		needs:  []string{"haproxy"},
		config: func(p place) string { return haproxyConfig(p, global, defaults) },
		argv:   func(p place) []string { return []string{p.programs["haproxy"], "-db", "-f", p.file} },
	}
}

func haproxyConfig(p place, global, defaults string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `global
    nbthread %d
%sdefaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
%s`, p.threads, global, defaults)
	for i, r := range p.routes {
		fmt.Fprintf(&b, "listen bench%d\n    bind %s%s\n    server backend %s%s\n", i, r.listen, p.haproxyBind(), r.target, p.haproxyServer())
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
worker_processes %d;
worker_rlimit_nofile %d;
events { worker_connections %d; }
stream {
    proxy_timeout 1h;
`, p.programs["nginx-stream"], p.threads, p.files, p.files)
	option, lines := p.nginxFront("        ")
	for _, r := range p.routes {
		fmt.Fprintf(&b, "    server {\n        listen %s reuseport%s;\n%s        proxy_pass %s;\n%s    }\n", r.listen, option, lines, r.target, p.nginxBack("        "))
	}
	return b.String() + "}\n"
}

// txlbConfig has attributes of <engine> and elements of each service, if given.
func txlbConfig(p place, engine, more string) string {
	var b strings.Builder
	b.WriteString("<config>\n")
	fmt.Fprintf(&b, "  <engine %s/>\n", strings.TrimSpace(fmt.Sprintf("loops=\"%d\" %s", p.threads, engine)))
	for i, r := range p.routes {
		fmt.Fprintf(&b, `  <service name="bench%d">
    <listen ip=%s%s/>
    <group name="main" enable="true">
      <host name="backend" ip=%s%s/>
    </group>
%s  </service>
`, i, strconv.Quote(r.listen), p.txlbListen(), strconv.Quote(r.target), p.txlbHost(), more)
	}
	return b.String() + "</config>\n"
}
