//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

// slowServer answers requests for a page as delay says: number n is told
// before it is answered. It ends with the test.
func slowServer(t *testing.T, answer string, delay func(n int) time.Duration) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	n := 0
	serve := func(c net.Conn) {
		defer c.Close()
		for r := bufio.NewReader(c); ; {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			// One at a time, as a proxy with one loop: what comes while it
			// is slow waits.
			mu.Lock()
			if d := delay(n); d > 0 {
				time.Sleep(d)
			}
			n++
			mu.Unlock()
			if _, err := io.WriteString(c, answer); err != nil {
				return
			}
		}
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { serve(c) })
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return l.Addr().String()
}

const fine = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

// generate runs a generator against address. The latencies are in the order
// of the answers.
func generate(t *testing.T, address string, lanes int, rate float64, length time.Duration) (outcome, []time.Duration) {
	t.Helper()
	g, err := newGenerator(address, lanes, "small", false)
	if err != nil {
		t.Fatal(err)
	}
	o, err := g.run(rate, length)
	if err != nil {
		t.Error(err)
	}
	if err := g.close(); err != nil {
		t.Error(err)
	}
	return o, g.latencies
}

// A known delay is what the generator measures.
func TestLatencyOfAKnownDelay(t *testing.T) {
	const delay = 5 * time.Millisecond
	address := slowServer(t, fine, func(int) time.Duration { return delay })
	testkit.BestOf(t, 10, func() error {
		o, _ := generate(t, address, 4, 40, 500*time.Millisecond)
		if o.Answered != 20 || o.Failed+o.Late != 0 || o.P50 < delay || o.P50 > 10*delay || o.P99 < o.P50 || o.Slowest < o.P99 || o.Mean < delay {
			return fmt.Errorf("%+v: want 20 answers after %v each", o, delay)
		}
		return nil
	})
}

// A server that stops is charged for every request that should have been sent
// meanwhile, not for the few that it held up: no coordinated omission.
func TestAStopCountsForAllThatWait(t *testing.T) {
	const stop = 200 * time.Millisecond
	testkit.BestOf(t, 5, func() error {
		var once sync.Once
		address := slowServer(t, fine, func(n int) (d time.Duration) {
			if n == 5 {
				once.Do(func() { d = stop })
			}
			return d
		})
		// 400 requests, 200 of which fall into the stop; two connections, so that
		// a closed loop would have seen two slow requests.
		o, latencies := generate(t, address, 2, 1000, 400*time.Millisecond)
		if o.Answered != 400 || o.Failed+o.Late != 0 || o.Slowest < stop*9/10 {
			return fmt.Errorf("%+v: want 400 answers, the slowest after about %v", o, stop)
		}
		// 100 were to be sent in the first half of the stop, and waited for the
		// second half at least.
		long := 0
		for _, l := range latencies {
			if l >= stop/2 {
				long++
			}
		}
		if long < 90 {
			return fmt.Errorf("%d requests took %v or more, want about 100: those that had to wait are left out", long, stop/2)
		}
		return nil
	})
}

// Without a rate the load takes what it can get.
func TestClosedLoop(t *testing.T) {
	address := slowServer(t, fine, func(int) time.Duration { return 0 })
	length := 100 * time.Millisecond
	testkit.BestOf(t, 6, func() error {
		o, _ := generate(t, address, 4, 0, length)
		if o.Answered < 100 || o.Failed+o.Late != 0 || o.P50 <= 0 {
			length *= 2
			return fmt.Errorf("%+v: want many answers", o)
		}
		return nil
	})
}

// A connection for each request: each is new, carries one request that says so, and
// is closed.
func TestConnectionForEachRequest(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var accepted, wrong atomic.Int64
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			all.Go(func() {
				defer c.Close()
				r := bufio.NewReader(c)
				req, err := http.ReadRequest(r)
				if err != nil || !req.Close {
					wrong.Add(1)
					return
				}
				_, _ = io.WriteString(c, fine)
				if _, err := r.ReadByte(); err == nil {
					wrong.Add(1)
				}
			})
		}
	})
	defer func() { l.Close(); all.Wait() }()
	testkit.BestOf(t, 5, func() error {
		before := accepted.Load()
		g, err := newGenerator(l.Addr().String(), 3, "small", true)
		if err != nil {
			t.Fatal(err)
		}
		o, err := g.run(0, 100*time.Millisecond)
		if err := errors.Join(err, g.close()); err != nil {
			t.Error(err)
		}
		// One more is for learning what a reply looks like.
		if n := accepted.Load() - before; o.Answered < 3 || o.Failed+o.Late != 0 || n != int64(o.Answered)+1 || wrong.Load() != 0 {
			return fmt.Errorf("%+v over %d connections, %d of them wrong", o, n, wrong.Load())
		}
		return nil
	})
}

// Wrong answers and lost connections fail; they are no quick answers.
func TestWrongAnswersFail(t *testing.T) {
	n := 0
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bad := "HTTP/1.1 500 NO\r\nContent-Length: 5\r\n\r\nhello"
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			first := n == 0 // what the generator learns from
			n++
			all.Go(func() {
				defer c.Close()
				if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
					return
				}
				if first {
					_, _ = io.WriteString(c, fine)
				} else {
					_, _ = io.WriteString(c, bad)
				}
			})
		}
	})
	defer func() { l.Close(); all.Wait() }()
	g, err := newGenerator(l.Addr().String(), 3, "small", false)
	if err != nil {
		t.Fatal(err)
	}
	o, err := g.run(1000, 50*time.Millisecond)
	if err == nil {
		t.Errorf("every connection failed, but: %+v", o)
	}
	if err := g.close(); err != nil || g.failed != 3 || len(g.latencies) != 0 {
		t.Errorf("failed %d, answered %d, %v; want 3 and none", g.failed, len(g.latencies), err)
	}
	if _, err := newGenerator("127.0.0.1:1", 1, "small", false); err == nil {
		t.Error("nobody listens, and nobody said so")
	}
}

// The process of a generator, as the trials use it.
func TestLoaderProcess(t *testing.T) {
	address := slowServer(t, fine, func(int) time.Duration { return 0 })
	var out bytes.Buffer
	in, words := io.Pipe()
	go func() {
		to := json.NewEncoder(words)
		_ = to.Encode(order{Address: address, Page: "small", Lanes: 3, Threads: 2, Rate: 200, Length: 100 * time.Millisecond})
		_ = to.Encode("go")
	}()
	if err := playLoad(in, &out); err != nil {
		t.Fatal(err)
	}
	var word string
	var o outcome
	from := json.NewDecoder(&out)
	if err := from.Decode(&word); err != nil || word != "ready" {
		t.Errorf("it said %q, %v", word, err)
	}
	if err := from.Decode(&o); err != nil || o.Answered != 20 {
		t.Errorf("outcome %+v, %v", o, err)
	}
}
