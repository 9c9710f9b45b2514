//go:build linux

// Command fleet runs a fleet on one machine, in network namespaces: a router, three nodes of
// txlb, three members of etcd, five hosts and real clients. It kills a node, cuts one off from
// the store, takes the quorum away, upgrades all nodes, stops some of them, and tells what
// clients have noticed.
//
//	go run ./soak/fleet                    a minute without a quorum
//	go run ./soak/fleet -without 10s       a shorter one
//
// A node is killed twice: behind a router with plain ECMP, and behind one with resilient next
// hops. Of the second, only the sessions of the dead node may end. A node is stopped behind a
// router that remembers connections, by an order and by a signal, and behind one that does not:
// there its sessions end. In all else clients must not notice anything; if they do, the exit
// status is 1.
//
// Limits: it needs root and Linux 5.13 or newer, and installs from Debian what is missing.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/txlb/txlb/internal/servers"
)

// patience bounds every wait for what must come soon.
const patience = servers.Patience

func main() {
	if len(os.Args) == 4 && os.Args[1] == roleHost {
		fmt.Fprintln(os.Stderr, "fleet: the host:", serveHost(os.Args[2], os.Args[3]))
		os.Exit(1)
	}
	opt := options{plain: true}
	flag.DurationVar(&opt.without, "without", time.Minute, "how long there is no quorum")
	flag.IntVar(&opt.sessions, "sessions", 300, "`NUMBER` of sessions that last")
	flag.BoolVar(&opt.keep, "keep", false, "keep the folder with the logs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	_, err := run(ctx, opt, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

// until calls ready, again and again, until it returns nil, ctx ends or patience is over.
func until(ctx context.Context, ready func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// roleHost makes this program a host: ADDRESS NAME.
const roleHost = "role-host"

// serveHost is a host: on one port it tells who has connected and then sends back what comes, on
// the other it is a web server. It returns when one of them fails.
func serveHost(address, name string) error {
	echoes, err := net.Listen("tcp", net.JoinHostPort(address, echoPort))
	if err != nil {
		return err
	}
	failed := make(chan error, 2)
	go func() {
		for {
			c, err := echoes.Accept()
			if err != nil {
				failed <- err
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				who, _, _ := net.SplitHostPort(c.RemoteAddr().String())
				if _, err := io.WriteString(c, who+"\n"); err == nil {
					_, _ = io.Copy(c, c)
				}
			}()
		}
	}()
	go func() {
		failed <- http.ListenAndServe(net.JoinHostPort(address, webPort), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, name+"\n")
		}))
	}()
	return <-failed
}
