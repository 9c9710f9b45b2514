//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// This file has what the tests of faults share: the program with its metrics,
// backends, streams whose every byte is known, and the look at what is left
// afterwards. The tests are in the files faults_*_test.go.

// balancer is a running program whose metrics are read over one connection
// that stays open: a scrape needs no descriptor that a fault may have taken.
type balancer struct {
	*process
	metrics string
	client  *http.Client
	dialer  func(address string) (net.Conn, error)
	files   int // open files when it had nothing to do, pipes left out
}

// balance runs the program with a document that has the services; the metrics
// and a host check that is too slow to undo what a test looks for are added.
func balance(t *testing.T, services string) *balancer {
	t.Helper()
	doc, metrics := withMetrics(t, services)
	return attach(t, txlb(t, doc), metrics, dial)
}

func withMetrics(t *testing.T, services string) (doc, metrics string) {
	t.Helper()
	metrics = fmt.Sprintf("127.0.0.1:%d", freePort(t))
	if !strings.Contains(services, "<engine") {
		// strace does not see what goes through the ring.
		services = `<engine ring="off"/>` + services
	}
	return fmt.Sprintf(`<config>%s<admin><metrics listen="%s"/></admin>
		<manager><hostCheck interval="1000"/></manager></config>`, services, metrics), metrics
}

// attach wraps a program that is ready.
func attach(t *testing.T, p *process, metrics string, dialer func(string) (net.Conn, error)) *balancer {
	t.Helper()
	b := &balancer{process: p, metrics: metrics, dialer: dialer}
	transport := &http.Transport{
		MaxConnsPerHost: 1,
		Dial:            func(_, address string) (net.Conn, error) { return dialer(address) },
	}
	t.Cleanup(transport.CloseIdleConnections)
	b.client = &http.Client{Transport: transport, Timeout: patience}
	// With the connection for the metrics, as it mostly is: on a busy machine net/http
	// may close it after an answer and open another, and the program may still have
	// a file open for a moment.
	seen := map[int]int{}
	for range 7 {
		b.samples()
		n := b.openFiles()
		if seen[n]++; seen[n] > seen[b.files] || b.files == 0 {
			b.files = n
		}
	}
	return b
}

func dial(address string) (net.Conn, error) { return net.DialTimeout("tcp", address, patience) }

// read returns every sample of a scrape.
func (b *balancer) read() (map[string]float64, error) {
	resp, err := b.client.Get("http://" + b.metrics + "/metrics")
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	all := map[string]float64{}
	for line := range strings.Lines(string(body)) {
		i := strings.LastIndexByte(line, ' ')
		if i < 0 || line[0] == '#' {
			continue
		}
		if v, err := strconv.ParseFloat(strings.TrimSpace(line[i:]), 64); err == nil {
			all[line[:i]] = v
		}
	}
	return all, nil
}

func (b *balancer) samples() map[string]float64 {
	b.t.Helper()
	all, err := b.read()
	if err != nil {
		b.t.Fatalf("no metrics: %v", err)
	}
	return all
}

// sample returns the one sample of that name; one that is not there fails the
// test, so that a misspelt name cannot pass for 0.
func (b *balancer) sample(name string) float64 {
	b.t.Helper()
	v, ok := b.samples()[name]
	if !ok {
		b.t.Fatalf("there is no sample %s", name)
	}
	return v
}

// sum adds up the samples of a metric, whatever their labels.
func sum(all map[string]float64, metric string) (total float64) {
	for name, v := range all {
		if strings.HasPrefix(name, metric+"{") {
			total += v
		}
	}
	return total
}

// ended and its neighbours name a sample of the service "web".
func ended(how string) string {
	return `txlb_sessions_ended_total{service="web",termination="` + how + `"}`
}
func refusedFor(why string) string {
	return `txlb_sessions_refused_total{service="web",reason="` + why + `"}`
}
func connectFailed(why string) string {
	return `txlb_connect_failures_total{service="web",reason="` + why + `"}`
}
func hostSample(metric, host string) string {
	return metric + `{service="web",group="g",host="` + host + `"}`
}

func (b *balancer) pid() int { return b.cmd.Process.Pid }

// openFiles counts the program's descriptors.
func (b *balancer) openFiles() int {
	b.t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", b.pid()))
	if err != nil {
		b.t.Fatal(err)
	}
	return len(list)
}

// sparePipes is how many empty pipes each loop may keep.
const sparePipes = 16

// settled waits until all is as it was before the first session: no session
// is counted anywhere, every descriptor is back, and at most the spare pipes
// are open. It is the resource baseline behind every test.
func (b *balancer) settled() {
	b.t.Helper()
	var state string
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		state = ""
		all := b.samples()
		for _, gauge := range []string{"txlb_service_sessions", "txlb_sessions", "txlb_loop_sessions"} {
			if n := sum(all, gauge); n != 0 {
				state += fmt.Sprintf("%s is %v; ", gauge, n)
			}
		}
		pipes := int(sum(all, "txlb_pipes"))
		for name, n := range all {
			if strings.HasPrefix(name, "txlb_pipes{") && n > sparePipes {
				state += fmt.Sprintf("%s is %v; ", name, n)
			}
		}
		if files := b.openFiles(); files != b.files+2*pipes {
			state += fmt.Sprintf("%d files are open, want %d and %d pipes", files, b.files, pipes)
		}
		if state == "" {
			return
		}
		if time.Now().After(end) {
			b.t.Errorf("not as it was within %v: %s; open: %v", patience, state, b.whatIsOpen())
			return
		}
	}
}

// whatIsOpen names the program's open files.
func (b *balancer) whatIsOpen() (names []string) {
	dir := fmt.Sprintf("/proc/%d/fd", b.pid())
	files, err := os.ReadDir(dir)
	if err != nil {
		return []string{err.Error()}
	}
	for _, f := range files {
		name, _ := os.Readlink(filepath.Join(dir, f.Name()))
		names = append(names, f.Name()+"="+name)
	}
	return names
}

// hostsUp fails the test if a host is, or ever was, marked down.
func (b *balancer) hostsUp() {
	b.t.Helper()
	all := b.samples()
	for name, v := range all {
		if strings.HasPrefix(name, "txlb_host_up{") && v != 1 {
			b.t.Errorf("%s is %v", name, v)
		}
	}
	if strings.Contains(b.out.String(), `msg="host down"`) {
		b.t.Error("a host was marked down")
	}
}

// cpu returns the processor time that the program has used, to the nanosecond.
func (p *process) cpu() time.Duration {
	p.t.Helper()
	var ts unix.Timespec
	const schedClock = 2 // CPUCLOCK_SCHED, what clock_getcpuclockid(3) makes of a pid
	if err := unix.ClockGettime(int32(^p.cmd.Process.Pid<<3|schedClock), &ts); err != nil {
		p.t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

// busy returns which share of one core the program uses over d.
func (b *balancer) busy(d time.Duration) float64 {
	b.t.Helper()
	before, start := b.cpu(), time.Now()
	time.Sleep(d) // the time measured, no synchronisation
	return float64(b.cpu()-before) / float64(time.Since(start))
}

// random is what streams are cut from.
var random = sync.OnceValue(func() []byte {
	p := make([]byte, 16<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(p)
	return p
})

// stream returns size bytes that no other seed gives.
func stream(size, seed int) []byte {
	all := random()
	at := seed * 4099 % (len(all) - size)
	return all[at : at+size]
}

// cut tells how a stream ended before its last byte.
type cut struct {
	got, size int
	how       error
}

func (c *cut) Error() string {
	return fmt.Sprintf("%d of %d bytes came, then: %v", c.got, c.size, c.how)
}

var errWrongBytes = errors.New("other bytes came")

// exchange sends data, ends, and takes in what comes to the end, which must be
// want. Both directions move at once.
func exchange(c net.Conn, data, want []byte) error {
	_ = c.SetDeadline(time.Now().Add(patience))
	var sender sync.WaitGroup
	sender.Go(func() {
		// If this fails, so does the reading, which tells.
		if _, err := c.Write(data); err == nil {
			_ = c.(interface{ CloseWrite() error }).CloseWrite()
		}
	})
	defer sender.Wait()
	buf := make([]byte, 32<<10)
	for got := 0; ; {
		n, err := c.Read(buf)
		if n > len(want)-got || !bytes.Equal(buf[:n], want[got:got+n]) {
			_ = c.Close()
			return errWrongBytes
		}
		got += n
		switch {
		case err == io.EOF && got == len(want):
			return nil
		case err != nil:
			_ = c.Close()
			return &cut{got, len(want), err}
		}
	}
}

// session opens one to the service "web" and exchanges size bytes with an echo.
func (b *balancer) session(size, seed int) error {
	c, err := b.dialer(b.addr("web", 0))
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	data := stream(size, seed)
	return exchange(c, data, data)
}

// together runs n sessions at once and returns how each ended.
func (b *balancer) together(n, size int) []error {
	results := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { results[i] = b.session(size, i) })
	}
	wg.Wait()
	return results
}

// serves checks that the program serves as if nothing had been.
func (b *balancer) serves() {
	b.t.Helper()
	for i, err := range b.together(40, 200<<10) {
		if err != nil {
			b.t.Errorf("session %d after the fault: %v", i, err)
		}
	}
}

// bystanders are sessions that are there before a fault and must not notice.
type bystanders struct {
	t     *testing.T
	conns []net.Conn
}

func (b *balancer) bystanders(n int) *bystanders {
	b.t.Helper()
	s := &bystanders{t: b.t}
	for range n {
		c, err := b.dialer(b.addr("web", 0))
		if err != nil {
			b.t.Fatal(err)
		}
		b.t.Cleanup(func() { _ = c.Close() })
		// One after the other, so that their turns are known.
		if err := ask(c, "hello"); err != nil {
			b.t.Fatal(err)
		}
		s.conns = append(s.conns, c)
	}
	return s
}

// ping makes each of them say a word and hear it.
func (s *bystanders) ping() {
	s.t.Helper()
	for i, c := range s.conns {
		if err := ask(c, fmt.Sprintf("word %d", i)); err != nil {
			s.t.Errorf("bystander %d: %v", i, err)
		}
	}
}

// chorus makes all of them say a word before it hears the first.
func (s *bystanders) chorus() error {
	for _, c := range s.conns {
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := c.Write([]byte("word")); err != nil {
			return err
		}
	}
	for _, c := range s.conns {
		if _, err := io.ReadFull(c, make([]byte, len("word"))); err != nil {
			return err
		}
	}
	return nil
}

func (s *bystanders) close() {
	for _, c := range s.conns {
		_ = c.Close()
	}
}

// fresh opens sessions, all of which have been heard within half of the idle time since
// a moment that it returns. Where the machine is busy it takes longer to open them: so
// those that are open speak now and then, and if some have rightly ended, all begin again.
func (b *balancer) fresh(n int, idle time.Duration) (all *bystanders, since time.Time) {
	b.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		all, since = b.bystanders(0), time.Now()
		for {
			if len(all.conns) < n {
				all.conns = append(all.conns, b.bystanders(n/10).conns...)
			}
			began := time.Now()
			if err := all.chorus(); err != nil {
				if silent := time.Since(since); silent < idle {
					b.t.Fatalf("a session ended after %v at most: %v", silent, err)
				}
				break
			}
			since = began
			if len(all.conns) >= n && time.Since(since) < idle/2 {
				return all, since
			}
		}
		all.close()
	}
	b.t.Fatalf("this machine cannot hear %d clients within %v", n, idle/2)
	return nil, since
}

// finish moves a stream over each to its end.
func (s *bystanders) finish() {
	s.t.Helper()
	for i, c := range s.conns {
		data := stream(300<<10, i)
		if err := exchange(c, data, data); err != nil {
			s.t.Errorf("bystander %d: %v", i, err)
		}
		_ = c.Close()
	}
	s.conns = nil
}

// ask sends a word to an echo and reads it back.
func ask(c net.Conn, word string) error {
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, word); err != nil {
		return err
	}
	got := make([]byte, len(word))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if string(got) != word {
		return errWrongBytes
	}
	return nil
}

// backend runs handle for every connection to a loopback address of its own.
// The end of the test closes what is open and waits for the handlers.
func backend(t *testing.T, handle func(c *net.TCPConn)) (address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return backendOn(t, ln, handle)
}

func backendOn(t *testing.T, ln net.Listener, handle func(c *net.TCPConn)) (address string) {
	t.Helper()
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{} // nil once the test is over
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			if over := open == nil; over {
				_ = c.Close()
			} else {
				open[c] = true
			}
			mu.Unlock()
			wg.Go(func() {
				handle(c.(*net.TCPConn))
				_ = c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		open = nil
		mu.Unlock()
		wg.Wait()
	})
	return ln.Addr().String()
}

// echo sends back what comes, then ends. It hides that the ends are sockets:
// the net package would splice, and the test needs few descriptors.
func echo(c *net.TCPConn) {
	_, _ = io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{c}, make([]byte, 32<<10))
}

// silent reads what comes and says nothing until the peer ends.
func silent(c *net.TCPConn) { _, _ = io.Copy(io.Discard, struct{ io.Reader }{c}) }

// hold keeps the connection open until the end of the test: it neither reads
// nor writes.
func hold(t *testing.T) func(c *net.TCPConn) {
	return func(*net.TCPConn) { <-t.Context().Done() }
}

// reset makes closing c send an RST.
func reset(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// group is the service "web" with hosts h0, h1 … in round robin order.
func group(more string, addresses ...string) string {
	doc := `<service name="web"><listen ip="127.0.0.1:0"/>` + more + `<group name="g" scheduler="roundr">`
	for i, a := range addresses {
		doc += fmt.Sprintf(`<host name="h%d" ip="%s"/>`, i, a)
	}
	return doc + `</group></service>`
}
