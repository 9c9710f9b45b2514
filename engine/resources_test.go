package engine_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// memAvailable returns MemAvailable of /proc/meminfo in bytes.
func memAvailable(t *testing.T) int64 {
	t.Helper()
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Skipf("this system does not tell what memory is available: %v", err)
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, "MemAvailable:"); ok {
			n, err := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Skip("this kernel has no MemAvailable")
	return 0
}

// B10: 500 clients that never read cost at most 1.5 MiB each, in all of the
// machine; pipes stay within their bound; the others are served as before.
func TestB10StalledReadersCostBoundedMemory(t *testing.T) {
	testkit.Long(t)
	const readers, bound, pipeMemory = 500, 1536 << 10, 64 << 20
	eachMode(t, func(t *testing.T, opt setup) {
		opt.PipeMemory = pipeMemory
		stop := make(chan struct{})
		defer close(stop)
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
			one := make([]byte, 1)
			if _, err := io.ReadFull(p, one); err != nil {
				return
			}
			if one[0] != 'S' {
				enginetest.Echo(p)
				return
			}
			// What waits in the backend's own queue is not the engine's.
			_ = p.Conn.(*net.TCPConn).SetWriteBuffer(64 << 10)
			block := make([]byte, 64<<10)
			for {
				if _, err := p.Write(block); err != nil {
					return
				}
			}
		}))
		asker := r.Dial()
		asker.Send([]byte("E"))
		// What others on the machine take meanwhile can only make it look
		// worse, so the best of a few counts.
		var costs []int64
		for range 6 {
			quick := p99(asker)
			before := memAvailable(t)
			clients := make([]*enginetest.Peer, readers)
			for i := range clients {
				clients[i] = r.Dial()
				clients[i].Send([]byte("S"))
			}
			r.Standstill()
			cost := (before - memAvailable(t)) / readers
			slow := p99(asker)
			if pipes := r.PipeFDs() / 2; pipes*core.DefaultPipeSize > pipeMemory {
				t.Errorf("%d pipes are open, more than %d bytes", pipes, pipeMemory)
			}
			for _, c := range clients {
				c.Rst()
			}
			testkit.Eventually(t, "the stalled sessions end", func() bool { return r.Stats().Active == 1 })
			costs = append(costs, cost)
			if cost <= bound && slow <= 2*quick+5*time.Millisecond {
				t.Logf("a stalled reader costs %d KiB; p99 %v before, %v beside them", cost>>10, quick, slow)
				return
			}
			t.Logf("a stalled reader costs %d KiB; p99 %v before, %v beside them", cost>>10, quick, slow)
		}
		t.Errorf("a stalled reader costs %v bytes, at most %d are allowed, or it holds up others", costs, bound)
	})
}

// p99 returns the 99th percentile of 300 round trips to an echo.
func p99(p *enginetest.Peer) time.Duration {
	clock := testkit.NewClock(p.T)
	defer clock.Stop()
	var times []time.Duration
	for i := range 300 {
		start := clock.Now()
		p.Send([]byte{byte(i)})
		p.Expect([]byte{byte(i)})
		times = append(times, clock.Since(start))
	}
	slices.Sort(times)
	return times[len(times)*99/100]
}

// B21: sessions that wait for something use no processor.
func TestB21NoBusyLoop(t *testing.T) {
	testkit.Long(t)
	for name, opt := range modesToTest {
		if name == "auto" || name == "portable" {
			t.Run(name, func(t *testing.T) { noBusyLoop(t, opt) })
		}
	}
}

func noBusyLoop(t *testing.T, opt setup) {
	const each, window = 100, 5 * time.Second
	// A processor to spare, as the program has, or the runtime's own monitor
	// does not come to rest.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(3))
	r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
		kind := make([]byte, 1)
		if _, err := io.ReadFull(p, kind); err != nil {
			return
		}
		switch kind[0] {
		case 'S': // the client never reads
			_, _ = p.Write(make([]byte, 8<<20))
		case 'B': // the backend ends and waits for the client
			p.Fin()
		}
		_, _ = io.Copy(io.Discard, struct{ io.Reader }{p})
		if kind[0] == 'H' { // the client has ended and waits for the backend
			<-t.Context().Done()
		}
	}))
	for range each {
		r.Dial() // says nothing
		for _, kind := range []string{"S", "B", "H"} {
			c := r.Dial()
			c.Send([]byte(kind))
			if kind == "H" {
				c.Fin()
			}
		}
	}
	testkit.Eventually(t, "all are there", func() bool { return r.Stats().Active == 4*each && r.Stats().In == 3*each })
	r.Standstill()
	// What is done once, as the options that a session gets after a while, is no
	// busy loop: the best of a few windows counts.
	var used [6]time.Duration
	for i := range used {
		runtime.GC()
		start := cpuTime(t)
		<-time.NewTimer(window).C
		if used[i] = cpuTime(t) - start; used[i] <= window/100 {
			t.Logf("processor time in each window: %v", used[:i+1])
			return
		}
	}
	t.Errorf("%d sessions that wait used %v of a processor in %v", 4*each, used, window)
}

// B64: a thousand reloads, each with hosts and a listener that come and go,
// lose no client and leave nothing behind.
func TestB64ThousandReloads(t *testing.T) {
	testkit.Long(t)
	reloads := 1000
	eachMode(t, func(t *testing.T, opt setup) {
		times := reloads
		reloads = 250 // in the other modes, which reload in the same way
		backends := []sched.Addr{enginetest.BackendServer(t, answer("a")), enginetest.BackendServer(t, answer("b")), enginetest.BackendServer(t, answer("c"))}
		r := newRig(t, opt, engine.Route{}, backends...)
		all, goroutines := r.Hosts, runtime.NumGoroutine()
		plan := func(i int) {
			hosts := append([]*sched.Host{sched.NewHost(fmt.Sprint("new", i), backends[i%3])}, all[:1+i%3]...)
			var members []sched.Member
			for _, h := range hosts {
				members = append(members, sched.Member{Host: h, Weight: 1 + i%5})
			}
			table, err := sched.NewTable(sched.Policy{Scheduler: []string{"roundr", "leastc", "weightr"}[i%3]}, members)
			if err != nil {
				t.Fatal(err)
			}
			listen := []string{"127.0.0.1:0"}
			if i%2 == 1 {
				listen = append(listen, "127.0.0.1:0")
			}
			r.Apply(engine.Service{Name: "web", Listen: listen, Route: &engine.Route{Table: table, Timeouts: enginetest.TestTimeouts}})
		}
		plan(0)
		stop := make(chan struct{})
		var clients sync.WaitGroup
		var visit sync.RWMutex // of a client
		ask := func() error {
			visit.RLock()
			defer visit.RUnlock()
			c, err := net.Dial("tcp", r.Addr)
			if err != nil {
				return err
			}
			defer func() { _ = c.Close() }()
			_, err = c.Write([]byte("?"))
			got, rerr := io.ReadAll(c)
			if err != nil || rerr != nil || len(got) != 1 || !bytes.Contains([]byte("abc"), got) {
				return fmt.Errorf("got %q, %v, %v", got, err, rerr)
			}
			return nil
		}
		for range 4 {
			clients.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if err := ask(); err != nil {
						t.Errorf("a client: %v", err)
						return
					}
				}
			})
		}
		heapBetweenClients := func() int64 { // what sessions have in their hands comes and goes
			visit.Lock()
			defer visit.Unlock()
			r.Quiet()
			return heapBytes()
		}
		for i := 0; i < 50 || r.Stats().Sessions < 3000; i++ {
			plan(i)
		}
		fds := testkit.OpenFDs() - r.PipeFDs()
		// What a reload leaves behind grows each time. What is bounded grows once: the last 1,000
		// stories of each loop, and of those what only some sessions have.
		for left := 3; ; left-- {
			heap := heapBetweenClients()
			for i := range times {
				plan(i)
			}
			grown := heapBetweenClients() - heap
			t.Logf("%d reloads, %d sessions: the heap has grown by %d bytes", times, r.Stats().Sessions, grown)
			if grown <= 256<<10 {
				break
			} else if left == 0 {
				t.Errorf("the heap has grown by %d bytes", grown)
				break
			}
		}
		close(stop)
		clients.Wait()
		plan(0)
		r.Quiet()
		testkit.Eventually(t, "descriptors are back", func() bool { return testkit.OpenFDs()-r.PipeFDs() <= fds })
		testkit.Eventually(t, "goroutines are back", func() bool { return runtime.NumGoroutine() <= goroutines })
	})
}

func heapBytes() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// B65: random scripts on real sockets. Every byte arrives, whatever the order
// in which the sides send, read and end.
func TestB65RandomScenes(t *testing.T) {
	r := rand.New(rand.NewPCG(65, 65))
	var scenes []scene
	for i := range 30 {
		var sends [2]string
		var total [2]int64
		for side := range sends {
			for range 1 + r.IntN(4) {
				n := int64(1) << r.IntN(21)
				n += r.Int64N(n)
				sends[side] += fmt.Sprintf("send %d, ", n)
				total[side] += n
				if r.IntN(8) == 0 {
					sends[side] += "pause 1ms, "
				}
			}
		}
		side := func(own int) string {
			stall := ""
			if r.IntN(10) == 0 {
				stall = "stall | "
			}
			return fmt.Sprintf("[%s fin] | %sexpect %d | eof", sends[own], stall, total[1-own])
		}
		sc := scene{name: fmt.Sprint(i), client: side(clientSide), backend: side(backendSide)}
		if r.IntN(3) == 0 { // one side breaks off in the middle
			if r.IntN(2) == 0 {
				sc.client, sc.ended = fmt.Sprintf("expect %d | rst | tell broken", total[backendSide]/2), "CD"
				sc.backend = fmt.Sprintf("try %d | wait broken | gone", total[backendSide])
			} else {
				sc.backend, sc.ended = fmt.Sprintf("expect %d | rst | tell broken", total[clientSide]/2), "SD"
				sc.client = fmt.Sprintf("try %d | wait broken | gone", total[clientSide])
			}
		}
		scenes = append(scenes, sc)
	}
	play(t, scenes...)
}
