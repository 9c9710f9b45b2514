//go:build linux

package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/txlb/txlb"
)

// playEmbed is the program with package txlb: THREADS PROCS ACCEPTS, then LISTEN TARGET,
// once or more.
func playEmbed(args []string) error {
	var n [2]int
	for i := range n {
		var err error
		if n[i], err = strconv.Atoi(args[i]); err != nil {
			return err
		}
	}
	threads, procs, accepts := n[0], n[1], args[2]
	if procs > 0 {
		runtime.GOMAXPROCS(procs)
	}
	answerAllocations()
	cfg := txlb.Config{Engine: txlb.Engine{Loops: threads}, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	own := map[string]net.Listener{}
	for pair := range slices.Chunk(args[3:], 2) {
		s := txlb.Service{Name: pair[0], Hosts: []txlb.Host{{Addr: pair[1]}}}
		if accepts == acceptsLoops {
			s.Listen = pair[:1]
		} else {
			l, err := net.Listen("tcp", pair[0])
			if err != nil {
				return err
			}
			if accepts == acceptsHidden {
				l = hiding{l}
			}
			own[s.Name] = l
		}
		cfg.Services = append(cfg.Services, s)
	}
	within, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	lb, err := txlb.Start(within, cfg)
	if err != nil {
		return err
	}
	failed := make(chan error, len(own)+1)
	for name, l := range own {
		go func() { failed <- lb.Service(name).Serve(l) }()
	}
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	select {
	case <-asked:
		return lb.Close()
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	}
}

// hiding is a listener whose connections do not show that they are TCP, as those of TLS
// or SSH do not.
type hiding struct{ net.Listener }

type hidden struct{ net.Conn }

func (l hiding) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return hidden{c}, nil
}

// CloseWrite ends one direction, as that of a tls.Conn does.
func (h hidden) CloseWrite() error { return h.Conn.(*net.TCPConn).CloseWrite() }
