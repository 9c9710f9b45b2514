// Package health probes hosts and reports what it found. It decides nothing:
// how often to probe and what a result means is the director's.
//
// [Run] makes one probe, of any type. [Connect] makes many TCP probes together, at
// about half the cost of dialling each. The deadline is for the whole probe: a host
// that accepts and then trickles bytes cannot hold it past its timeout. A probe
// ends with a reset, so that it leaves no socket in TIME_WAIT on either side.
//
// A TLS probe sends its own ClientHello and ends at the ServerHello. So a working
// host does not look down because of a certificate or a key exchange that
// crypto/tls rejects. With Verify, crypto/tls makes the handshake. Other probes of a host
// with TLS (Secure) make a whole handshake first, as clients do: a TCP probe ends with it,
// and HTTP and Expect ask inside it.
//
// Limits: of an HTTP answer only the status line is read, 4 KiB at most, and the
// interim answers before it, 64 KiB together; of what a host says to an expect
// probe 64 KiB. A line of an interim answer has 4 KiB at most.
package health

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/txlb/txlb/internal/connect"
	"github.com/txlb/txlb/internal/proxyproto"
	"github.com/txlb/txlb/internal/zone"
	"github.com/txlb/txlb/sched"
)

// Type is what a probe asks of a host.
type Type uint8

const (
	TCP    Type = iota // that it accepts a connection
	HTTP               // that it answers a GET with a status that passes
	TLS                // that it answers a ClientHello, or that the whole handshake completes
	Expect             // that it says something, after it was sent something or not
)

// Status is the HTTP statuses from Low to High, both included.
type Status struct{ Low, High int }

// Probe is what to ask of which host.
type Probe struct {
	Addr sched.Addr
	// Source is the address to connect from; not valid if the kernel is to choose. The
	// connection goes out by Interface, "" for that of the route.
	Source    netip.Addr
	Interface string
	// Proxy is the version of the PROXY header that the host expects first; 0: none.
	// Version 2 says that the connection is the prober's own. Version 1 has no word for
	// that which every host takes, and tells the addresses of the connection, as
	// HAProxy's checks do.
	Proxy int
	// Secure is how the connection begins TLS, before anything is asked; nil: it is plain,
	// or a TLS probe, which makes its own.
	Secure *tls.Config
	Type   Type
	// Timeout bounds the probe as a whole. Connect bounds the connect within it;
	// 0 means that nothing else does.
	Timeout, Connect time.Duration

	Path   string   // HTTP: what to get, from / on
	Host   string   // HTTP: the Host header, "" for the address; TLS: the name asked for (SNI), "" for none
	Status []Status // HTTP: the statuses that pass
	Send   string   // Expect: sent first
	Expect string   // Expect: has to be in what comes

	// Verify makes a TLS probe complete the handshake and verify the certificate,
	// for Host or else the address. CA is a file of certificates in PEM to trust
	// instead of the system's.
	Verify bool
	CA     string
}

// connectWithin returns how long the connect may take.
func (p *Probe) connectWithin() time.Duration {
	if p.Connect > 0 {
		return min(p.Connect, p.Timeout)
	}
	return p.Timeout
}

// Code says how a probe ended, in HAProxy's words: L4 is the connect, L6 the
// TLS handshake, L7 what is said over the connection.
type Code uint8

const (
	Unknown  Code = iota // no probe has ended
	SockErr              // this machine could not make the probe, which says nothing about the host
	L4OK                 // connected
	L4Tout               // no answer to the connect in time
	L4Con                // the connect was refused, or no way led there
	L6OK                 // the handshake is done, as far as it was asked for
	L6Tout               // it was not done in time
	L6Rsp                // the handshake failed
	L7OK                 // the answer passes
	L7Tout               // no answer in time, or not all of it
	L7Rsp                // no answer, or one that makes no sense
	L7Sts                // HTTP: a status that does not pass
	numCodes             // how many codes there are
)

// Codes is how many codes there are: a code is a number below it.
const Codes = int(numCodes)

// CodeOf returns the code that HAProxy writes so.
func CodeOf(name string) (c Code, known bool) {
	for c := range numCodes {
		if c.String() == name {
			return c, true
		}
	}
	return Unknown, false
}

// String returns the code as HAProxy writes it.
func (c Code) String() string {
	return [...]string{
		"UNK", "SOCKERR", "L4OK", "L4TOUT", "L4CON", "L6OK", "L6TOUT", "L6RSP", "L7OK", "L7TOUT", "L7RSP", "L7STS",
	}[c]
}

// Result is how a probe ended.
type Result struct {
	Code Code
	Text string        // for an operator; "" where the code says it all
	Took time.Duration // from the first call to the answer
	// Late is how long after its timeout a failed probe ended: a moment, or as long as
	// this process stood still.
	Late time.Duration
}

// OK tells whether the host passed.
func (r Result) OK() bool { return r.Code == L4OK || r.Code == L6OK || r.Code == L7OK }

// Tells tells whether the result says anything about the host.
func (r Result) Tells() bool { return r.Code != Unknown && r.Code != SockErr }

// String is the code and the text.
func (r Result) String() string {
	if r.Text == "" {
		return r.Code.String()
	}
	return r.Code.String() + ": " + r.Text
}

// Run makes one probe and returns when it has ended, within its time-out, or
// when ctx has; that says nothing about the host. It may be called from any
// goroutine.
func Run(ctx context.Context, p Probe) Result {
	begun := time.Now()
	r := run(ctx, &p, begun)
	if ctx.Err() != nil && !r.OK() {
		r = Result{Code: SockErr, Text: "the check was given up"}
	}
	r.Took = time.Since(begun)
	allowed := p.Timeout
	if r.Code == L4Tout {
		allowed = p.connectWithin()
	}
	if !r.OK() {
		r.Late = max(0, r.Took-allowed)
	}
	return r
}

func run(ctx context.Context, p *Probe, begun time.Time) Result {
	conn, r := dial(ctx, p)
	if conn == nil {
		return r
	}
	defer reset(conn) // the connection itself, which other kinds of net.Conn wrap below
	if p.Proxy != 0 {
		conn = &prefaced{Conn: conn, header: p.header(nil, localOf(conn))}
	}
	if p.Type == TCP && p.Secure == nil {
		_, _ = conn.Write(nil) // that the host has taken the connection is enough
		return Result{Code: L4OK}
	}
	if err := conn.SetDeadline(begun.Add(p.Timeout)); err != nil {
		return Result{Code: SockErr, Text: err.Error()}
	}
	// The end of ctx is a deadline that has passed.
	timed := conn // conn is wrapped below, while this may run
	stop := context.AfterFunc(ctx, func() { _ = timed.SetDeadline(begun) })
	defer stop()
	conn = &lastLook{Conn: conn}
	if p.Secure != nil && p.Type != TLS {
		secure := tls.Client(conn, p.Secure)
		if r := shaken(secure.Handshake(), p); !r.OK() || p.Type == TCP {
			return r
		}
		conn = secure
	}
	switch p.Type {
	case HTTP:
		return askHTTP(conn, p)
	case TLS:
		if p.Verify {
			return verify(conn, p)
		}
		return greet(conn, p)
	}
	return await(conn, p)
}

// header appends what the host expects first. local is our side of the connection.
func (p *Probe) header(b []byte, local netip.AddrPort) []byte {
	if p.Proxy == int(proxyproto.V1) {
		return proxyproto.Append(b, proxyproto.V1, local, p.Addr.IP())
	}
	if p.Proxy == int(proxyproto.V2) {
		return proxyproto.AppendLocal(b)
	}
	return b
}

// localOf returns our address of a connection, not valid for a UNIX socket.
func localOf(conn net.Conn) netip.AddrPort {
	if tcp, ok := conn.LocalAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort()
	}
	return netip.AddrPort{}
}

// prefaced is a connection whose first write, or the first read if that comes before
// it, sends a header ahead.
type prefaced struct {
	net.Conn
	header []byte
}

func (c *prefaced) Write(p []byte) (int, error) {
	if c.header == nil {
		return c.Conn.Write(p)
	}
	ahead := len(c.header)
	n, err := c.Conn.Write(append(c.header, p...))
	c.header = nil
	return max(n-ahead, 0), err
}

func (c *prefaced) Read(p []byte) (int, error) {
	if c.header != nil {
		if _, err := c.Write(nil); err != nil {
			return 0, err
		}
	}
	return c.Conn.Read(p)
}

// lastLook is a connection that reads once more after its deadline. After the
// process stood still, deadlines have passed before anybody could read the answer.
type lastLook struct {
	net.Conn
	looked bool
}

// lookFor is how long the last look takes where nothing is there.
const lookFor = 5 * time.Millisecond

func (c *lastLook) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n == 0 && !c.looked && timedOut(err) {
		c.looked = true
		_ = c.SetReadDeadline(time.Now().Add(lookFor))
		n, err = c.Conn.Read(p)
	}
	return n, err
}

// dial connects, or says why not.
func dial(ctx context.Context, p *Probe) (net.Conn, Result) {
	to, err := zone.Numbered(p.Addr.IP())
	if err != nil {
		return nil, Result{Code: L4Con, Text: err.Error()}
	}
	network, address := "tcp", to.String()
	if path := p.Addr.Path(); path != "" {
		network, address = "unix", path
	}
	within := p.connectWithin()
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: false}, KeepAlive: -1}
	if network != "unix" {
		connect.From(&d, p.from(), p.Addr.IP().Addr())
	}
	conn, err := connect.Dial(ctx, d, network, address, within)
	if err == nil {
		return conn, Result{}
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return nil, p.connectFailed(errno)
	}
	if timedOut(err) {
		return nil, Result{Code: L4Tout, Text: silent(within)}
	}
	return nil, Result{Code: L4Con, Text: err.Error()}
}

// silent is the text of a time-out.
func silent(within time.Duration) string { return fmt.Sprintf("no answer within %v", within) }

func timedOut(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}

// reset closes a connection so that no side keeps it in TIME_WAIT, and so that
// a host that is still talking stops.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// from returns where the connection comes from.
func (p *Probe) from() connect.Source { return connect.Source{Addr: p.Source, Interface: p.Interface} }

// connectFailed is the result of a connect(2), or of a call before it, that failed.
// ENOSPC means that there is no room in the poller (epoll_ctl(2)).
func (p *Probe) connectFailed(errno syscall.Errno) Result {
	text := connect.Reason(errno, p.from()).Error()
	switch {
	case connect.Ours(errno) || errno == syscall.ENOSPC:
		return Result{Code: SockErr, Text: text}
	case errno == syscall.ETIMEDOUT:
		return Result{Code: L4Tout, Text: text}
	}
	return Result{Code: L4Con, Text: text}
}
