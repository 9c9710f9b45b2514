// Package control answers which client a connection to a backend belongs to. A
// backend sees txlb as its peer; it asks here with the peer's address and gets
// the client's.
//
// On one socket three ways of asking are understood, told apart by how a
// request begins; a connection may ask as often as it likes.
//
// A line of text, and a line in answer:
//
//	GetClientAddress 127.0.0.1:43210
//	192.0.2.7:51234
//	GetClientAddress 127.0.0.1:1
//	error UNKNOWN_PORT: 127.0.0.1:1 is not a connection to a backend
//
// An object of JSON on one line, and one in answer:
//
//	{"command":"GetClientAddress","host":"127.0.0.1","port":43210}
//	{"host":"192.0.2.7","port":51234,"service":"web","name":"a","backend":"127.0.0.1:80"}
//	{"error":"UNKNOWN_PORT","text":"…"}
//
// A box of AMP, Twisted's Asynchronous Messaging Protocol: the command
// GetClientAddress with the arguments host and port, the same two in the
// answer, and the error UNKNOWN_PORT. This is what txLoadBalancer's control
// socket spoke.
//
// The kernel uses one local port for connections to several backends at once.
// Where that has happened the answer is AMBIGUOUS_PORT (to AMP, UNKNOWN_PORT),
// unless the backend adds the address on which it was reached itself, as second
// word or as "backend", host:port.
//
// Limits: a client on a UNIX socket has no address, nor has a backend on one a
// peer. When there are as many connections as [guard.Control] may have, one more
// evicts the one idle longest. A request that has begun must be complete
// within five seconds, a line within 1 KiB, a box within 4 KiB.
package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/guard"
)

const (
	requestTime = 5 * time.Second // for a request that has begun, and for its answer
	maxLine     = 1 << 10
)

// Options are what a server works on.
type Options struct {
	// Find returns the sessions with that address toward their backend.
	Find func(local netip.AddrPort) []engine.SessionInfo
	Log  *slog.Logger // nil: slog.Default
}

// Serve answers on ln until ctx ends, closes ln and the connections, and returns
// nil then.
func Serve(ctx context.Context, ln net.Listener, opt Options) error {
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	s := &server{opt: opt, open: map[net.Conn]bool{}}
	guarded := guard.On(guard.Control, ln, opt.Log)
	stop := context.AfterFunc(ctx, func() {
		_ = guarded.Close()
		s.closeAll()
	})
	defer s.running.Wait()
	defer func() { _ = guarded.Close() }() // closed already, maybe; then this waits until that is done
	defer stop()
	defer s.closeAll()
	for {
		conn, err := guarded.Accept()
		switch {
		case err == nil:
			if s.add(conn) {
				s.running.Go(func() { s.serve(conn.(*guard.Conn)) })
			}
		case ctx.Err() != nil:
			return nil
		default:
			return fmt.Errorf("control socket: %w", err)
		}
	}
}

type server struct {
	opt     Options
	running sync.WaitGroup

	mu     sync.Mutex
	open   map[net.Conn]bool
	closed bool
}

// add takes in a connection. It closes one that comes too late.
func (s *server) add(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = conn.Close()
		return false
	}
	s.open[conn] = true
	return true
}

func (s *server) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for c := range s.open {
		_ = c.Close()
	}
}

// serve is the goroutine of a connection. It ends with it.
func (s *server) serve(conn *guard.Conn) {
	defer func() {
		s.mu.Lock()
		delete(s.open, conn)
		s.mu.Unlock()
		_ = conn.Close()
	}()
	r := bufio.NewReaderSize(conn, maxBox)
	for {
		if _, err := r.Peek(1); err != nil {
			return
		}
		_ = conn.SetDeadline(time.Now().Add(requestTime))
		answer, err := s.request(r)
		if len(answer) > 0 {
			if _, err := conn.Write(answer); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
		_ = conn.SetDeadline(time.Time{})
		conn.Used()
	}
}

// request reads one request and returns its answer, which may be empty. After
// an error there is nothing more to read.
func (s *server) request(r *bufio.Reader) ([]byte, error) {
	first, err := r.Peek(1)
	if err != nil {
		return nil, err
	}
	if first[0] == 0 { // the first length of a box is below 256
		asked, err := readBox(r)
		if err != nil {
			return nil, err
		}
		return s.amp(asked), nil
	}
	line, err := readLine(r)
	switch {
	case errors.Is(err, errLongLine):
		return []byte(errLongLine.Error() + "\n"), err
	case err != nil:
		return nil, err
	case len(line) == 0:
		return nil, nil
	case line[0] == '{':
		return s.json(line), nil
	}
	return s.text(string(line)), nil
}

var errLongLine = refused{"BAD_REQUEST", fmt.Sprintf("the line is longer than %d bytes", maxLine)}

// readLine reads a line and leaves the blanks around it out. The last one need
// not have an end.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		c, err := r.ReadByte()
		if err == io.EOF && len(line) > 0 {
			break
		}
		if err != nil {
			return nil, err
		}
		if c == '\n' {
			break
		}
		if line = append(line, c); len(line) > maxLine {
			return nil, errLongLine
		}
	}
	return bytes.TrimSpace(line), nil
}

// refused is why there is no address.
type refused struct{ code, text string }

func (r refused) Error() string { return "error " + r.code + ": " + r.text }

const (
	unknown   = "UNKNOWN_PORT"
	ambiguous = "AMBIGUOUS_PORT"
	bad       = "BAD_REQUEST"
)

const wanted = "want GetClientAddress HOST:PORT [HOST:PORT], the backend's peer and the address of the backend itself"

// find returns the session that a backend asks for, with the address of its
// client.
func (s *server) find(local, backend netip.AddrPort) (engine.SessionInfo, error) {
	var found []engine.SessionInfo
	for _, i := range s.opt.Find(local) {
		if i.Host != nil && (!backend.IsValid() || i.Host.Addr().IP() == backend) {
			found = append(found, i)
		}
	}
	switch {
	case len(found) == 0:
		return engine.SessionInfo{}, refused{unknown, fmt.Sprintf("%v is not a connection to a backend", local)}
	case len(found) > 1:
		return engine.SessionInfo{}, refused{ambiguous, fmt.Sprintf("%v is the address of %d connections; add the backend's own address", local, len(found))}
	case !found[0].Client.IsValid():
		return engine.SessionInfo{}, refused{unknown, fmt.Sprintf("the client behind %v has no address", local)}
	}
	return found[0], nil
}

// readAddress reads an address as find wants it.
func readAddress(s string) (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(s)
	if err != nil || a.Port() == 0 {
		return a, refused{bad, fmt.Sprintf("%.80q is not an address; %s", s, wanted)}
	}
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port()), nil
}

// text answers a line.
func (s *server) text(line string) []byte {
	words := strings.Fields(line)
	if !strings.EqualFold(words[0], command) || len(words) < 2 || len(words) > 3 {
		return []byte(refused{bad, wanted}.Error() + "\n")
	}
	var ends [2]netip.AddrPort
	for i, w := range words[1:] {
		var err error
		if ends[i], err = readAddress(w); err != nil {
			return []byte(err.Error() + "\n")
		}
	}
	i, err := s.find(ends[0], ends[1])
	if err != nil {
		return []byte(err.Error() + "\n")
	}
	return []byte(i.Client.String() + "\n")
}

// command is the one that there is.
const command = "GetClientAddress"

// jsonRequest and jsonAnswer are the objects of JSON.
type jsonRequest struct {
	Command string `json:"command"` // may be left out
	Host    string `json:"host"`
	Port    uint16 `json:"port"`
	Backend string `json:"backend"` // host:port; may be left out
}

type jsonAnswer struct {
	Host    string `json:"host,omitempty"`
	Port    uint16 `json:"port,omitempty"`
	Service string `json:"service,omitempty"`
	Name    string `json:"name,omitempty"`    // of the host
	Backend string `json:"backend,omitempty"` // its address
	Error   string `json:"error,omitempty"`   // a code
	Text    string `json:"text,omitempty"`    // what it means
}

func (s *server) json(line []byte) []byte {
	var asked jsonRequest
	var answer jsonAnswer
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&asked)
	switch {
	case err != nil:
		err = refused{bad, fmt.Sprintf("not a request: %.200s", err.Error())}
	case decoder.More():
		err = refused{bad, "more than one object on a line"}
	case asked.Command != "" && asked.Command != command:
		err = refused{bad, fmt.Sprintf("unknown command %.80q; want %s", asked.Command, command)}
	default:
		var i engine.SessionInfo
		if i, err = s.ask(asked.Host, fmt.Sprint(asked.Port), asked.Backend); err == nil {
			answer = jsonAnswer{
				Host: i.Client.Addr().String(), Port: i.Client.Port(), Service: i.Service, Name: i.Host.Name(), Backend: i.Host.Addr().String(),
			}
		}
	}
	if r, is := errors.AsType[refused](err); is {
		answer = jsonAnswer{Error: r.code, Text: r.text}
	}
	data, err := json.Marshal(answer)
	if err != nil {
		panic(err) // strings and a number can be written
	}
	return append(data, '\n')
}

// ask is find for words.
func (s *server) ask(host, port, backend string) (engine.SessionInfo, error) {
	local, err := readAddress(net.JoinHostPort(host, port))
	if err != nil {
		return engine.SessionInfo{}, err
	}
	var own netip.AddrPort
	if backend != "" {
		if own, err = readAddress(backend); err != nil {
			return engine.SessionInfo{}, err
		}
	}
	return s.find(local, own)
}
