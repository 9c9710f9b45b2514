package main

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

// A node with a shared limit starts without its store, two seconds later at most. While it is
// upgraded the limit is full: no client gets in beside the sessions that move, and all move.
func TestFleetUpgradeWithAFullLimit(t *testing.T) {
	testkit.Long(t)
	const limit = 8
	fleet := fmt.Sprintf(`<fleet name="edge" node="a" store="http://%s" listen="127.0.0.1:%d" secret="7d1c0f4b9a52e6838f0b64c2d95e7a13"/>`, testkit.Nobody(t), freePort(t))
	service := fmt.Sprintf(`<service name="web"><listen ip="127.0.0.1:0"/><limits sessions="%d" scope="fleet"/><group name="g"><host name="h" ip=%q/></group></service>`, limit, answering(t, repeat))
	if _, err := binary(); err != nil { // it takes time
		t.Fatal(err)
	}
	var line *lineage
	testkit.BestOf(t, 3, func() error { // the program itself may start slowly on a machine at work
		if line != nil {
			if status, out := line.ctl("shutdown"); status != 0 {
				t.Fatalf("status %d: %s", status, out)
			}
			line.ends(line.pid)
		}
		began := time.Now()
		line = newLineage(t, fleet+service, "", "STATE_DIRECTORY="+t.TempDir())
		took := time.Since(began)
		t.Logf("ready after %v", took)
		if took > partsWithin+3*time.Second {
			return fmt.Errorf("ready after %v", took)
		}
		return nil
	})
	addr := line.addr("web")
	// enter returns a session, nil if the client is rejected.
	enter := func() net.Conn {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return nil // it is reset while it connects
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		if !speaks(c) {
			_ = c.Close()
			return nil
		}
		return c
	}
	var full []net.Conn
	for range limit {
		c := enter()
		if c == nil {
			t.Fatalf("session %d of %d is rejected", len(full)+1, limit)
		}
		defer func() { _ = c.Close() }()
		full = append(full, c)
	}
	var clients sync.WaitGroup
	var stop atomic.Bool
	var tried atomic.Int64
	for range 4 {
		clients.Go(func() {
			for !stop.Load() {
				if c := enter(); c != nil {
					t.Error("a session more than the limit")
					_ = c.Close()
				}
				tried.Add(1)
			}
		})
	}
	status, out := line.ctl("upgrade")
	after := tried.Load()
	eventually(t, "clients go on", func() bool { return tried.Load() > after+20 })
	stop.Store(true)
	clients.Wait()
	if status != 0 {
		t.Fatalf("status %d: %s", status, out)
	}
	t.Logf("%d clients are rejected", tried.Load())
	for i, c := range full {
		_ = c.SetDeadline(time.Now().Add(patience))
		if !speaks(c) {
			t.Errorf("session %d has ended", i)
		}
	}
	_ = full[0].Close()
	eventually(t, "the place is free", func() bool {
		c := enter()
		if c != nil {
			defer func() { _ = c.Close() }()
		}
		return c != nil
	})
}

// speaks tells whether what is sent comes back.
func speaks(c net.Conn) bool {
	got := make([]byte, 2)
	if _, err := c.Write([]byte("hi")); err != nil {
		return false
	}
	n, err := c.Read(got)
	return err == nil && n > 0
}
