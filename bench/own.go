//go:build linux

package main

import "strconv"

// What txlb costs in other shapes, beside the daemon whose loops do the work.
const (
	embedded   = "embedded"       // package txlb in a program with the GOMAXPROCS that Go gives it
	spare      = "embedded-spare" // the same with the GOMAXPROCS of the daemon
	goroutines = "goroutines"     // the daemon, whose sessions run on goroutines
	ownTCP     = "own-tcp"        // a program that accepts TCP itself and hands it over
	ownConns   = "own-conns"      // a program whose connections do not show that they are TCP
)

// shapes are txlb as a part of a program, and txlb with sessions on goroutines.
func shapes() []peer {
	program := func(name, about, procs, accepts string) peer {
		return peer{
			name: name, about: "a Go program with package txlb: " + about, role: shape, reports: true,
			argv: func(p place) []string {
				n := procs
				if procs == procsSpare {
					n = strconv.Itoa(p.threads + 1)
				}
				argv := []string{p.programs["bench"], roleEmbed, strconv.Itoa(p.threads), n, accepts}
				for _, r := range p.routes {
					argv = append(argv, r.listen, r.target)
				}
				return argv
			},
		}
	}
	daemon := txlbDaemon(goroutines, "with sessions on goroutines, as where a host has TLS", "")
	daemon.role = shape
	daemon.config = func(p place) string { return txlbConfig(p, "", standby) }
	return []peer{
		program(embedded, "GOMAXPROCS is as many as there are cores", procsUsual, acceptsLoops),
		program(spare, "GOMAXPROCS is one more than loops, as in the daemon", procsSpare, acceptsLoops),
		program(ownTCP, "it accepts itself, and its connections move onto loops", procsUsual, acceptsItself),
		program(ownConns, "it accepts itself, and its connections are no *net.TCPConn", procsUsual, acceptsHidden),
		daemon,
	}
}

// What roleEmbed is told: its GOMAXPROCS, 0 for as it is, and who accepts.
const (
	procsUsual    = "0"
	procsSpare    = "spare"
	acceptsLoops  = "loops"
	acceptsItself = "itself"
	acceptsHidden = "hidden"
)

// standby is a group that no client of a measurement goes to. Because a host of it has
// TLS, all sessions of the service run on goroutines.
const standby = `    <group name="standby">
      <host name="secure" ip="127.0.0.1:1" tls="unverified"/>
    </group>
    <route net="192.0.2.1" group="standby"/>
`

// ownRounds is how many slices each shape has: they are few, and no goal has them
// visited again.
const ownRounds = 10

// ownWorkloads compare the shapes with the daemon.
func ownWorkloads() []workload {
	of := func(name string, w workload) workload {
		w.name, w.suite, w.own, w.once, w.with, w.controls, w.quick = name, tlsWork, true, true, []string{embedded, spare, ownTCP, goroutines, ownConns}, nil, false
		w.group = others
		return w
	}
	timed := func(name string, w workload) workload {
		w = of(name, w)
		w.rounds = ownRounds
		return w
	}
	held := of("own-idle", idleLoad())
	held.run = fewIdle
	return []workload{
		timed("own-short0", flowLoad("", "Short connections, reply without a body", "empty", lanes, true)),
		timed("own-keep64", flowLoad("", "64 kept-alive connections, reply of 100 bytes", "small", lanes, false)),
		timed("own-bulk4", bulkLoad(4)),
		held,
	}
}
