package director

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/txlb/txlb/internal/testkit"
)

// dnsServer is a DNS server of the test's own, over UDP and TCP on one port of
// loopback.
type dnsServer struct {
	addr    string
	udp     net.PacketConn
	tcp     net.Listener
	ended   chan struct{} // closed when the server goes
	running sync.WaitGroup

	mu     sync.Mutex
	addrs  map[string][]netip.Addr
	srv    map[string][]dnsmessage.SRVResource
	how    map[string]manner // by name, or by type and name such as "TypeA a.test."
	asked  map[string]int    // questions, by name
	byTCP  int               // questions over TCP
	period time.Duration     // that a slow answer takes
}

// manner is how a server answers.
type manner int

const (
	well manner = iota
	silently
	slowly
	fails     // SERVFAIL
	refuses   // REFUSED
	cut       // over UDP with the mark that the rest did not fit, and nothing else
	rubbish   // with what is no DNS message
	strangely // with the answer to another question first
)

// startDNS runs a server until the test ends.
func startDNS(t *testing.T) *dnsServer { return startDNSOn(t, "127.0.0.1:0") }

// startDNSOn is startDNS for an address of the test's choice.
func startDNSOn(t *testing.T, addr string) *dnsServer {
	t.Helper()
	s := &dnsServer{
		ended: make(chan struct{}),
		addrs: map[string][]netip.Addr{}, srv: map[string][]dnsmessage.SRVResource{},
		how: map[string]manner{}, asked: map[string]int{},
	}
	// One port for both: the second may be taken, so try again then.
	for range 20 {
		tcp, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		udp, err := net.ListenPacket("udp", tcp.Addr().String())
		if err == nil {
			s.tcp, s.udp, s.addr = tcp, udp, tcp.Addr().String()
			break
		}
		_ = tcp.Close()
	}
	if s.udp == nil {
		t.Fatal("no port is free for UDP and TCP")
	}
	s.running.Go(s.serveUDP)
	s.running.Go(s.serveTCP)
	t.Cleanup(func() {
		close(s.ended)
		_ = s.udp.Close()
		_ = s.tcp.Close()
		s.running.Wait()
	})
	return s
}

// resolves changes what a name stands for.
func (s *dnsServer) resolves(name string, addrs ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addrs[name] = nil
	for _, a := range addrs {
		s.addrs[name] = append(s.addrs[name], netip.MustParseAddr(a))
	}
}

// answers says how the questions for a name are answered, or those of one type.
func (s *dnsServer) answers(name string, how manner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.how[name] = how
}

// questions returns how often a name was asked for.
func (s *dnsServer) questions(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[name]
}

func (s *dnsServer) serveUDP() {
	buf := make([]byte, 4096)
	for {
		n, from, err := s.udp.ReadFrom(buf)
		if err != nil {
			return
		}
		question := append([]byte(nil), buf[:n]...)
		s.running.Go(func() {
			for _, answer := range s.answer(question, "udp") {
				_, _ = s.udp.WriteTo(answer, from)
			}
		})
	}
}

func (s *dnsServer) serveTCP() {
	for {
		c, err := s.tcp.Accept()
		if err != nil {
			return
		}
		s.running.Go(func() {
			defer func() { _ = c.Close() }()
			_ = c.SetDeadline(time.Now().Add(testkit.Patience))
			var length [2]byte
			if _, err := io.ReadFull(c, length[:]); err != nil {
				return
			}
			question := make([]byte, binary.BigEndian.Uint16(length[:]))
			if _, err := io.ReadFull(c, question); err != nil {
				return
			}
			for _, answer := range s.answer(question, "tcp") {
				_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
			}
		})
	}
}

// answer returns the messages that answer a question.
func (s *dnsServer) answer(question []byte, network string) [][]byte {
	var q dnsmessage.Message
	if err := q.Unpack(question); err != nil || len(q.Questions) != 1 {
		return nil
	}
	name, kind := q.Questions[0].Name.String(), q.Questions[0].Type
	s.mu.Lock()
	s.asked[name]++
	if network == "tcp" {
		s.byTCP++
	}
	how := max(s.how[name], s.how[kind.String()+" "+name])
	wait := s.period
	a := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: q.ID, Response: true, RecursionDesired: q.RecursionDesired, RecursionAvailable: true},
		Questions: q.Questions,
	}
	head := dnsmessage.ResourceHeader{Name: q.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 60}
	for _, ip := range s.addrs[name] {
		switch {
		case kind == dnsmessage.TypeA && ip.Is4():
			a.Answers = append(a.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AResource{A: ip.As4()}})
		case kind == dnsmessage.TypeAAAA && ip.Is6():
			a.Answers = append(a.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AAAAResource{AAAA: ip.As16()}})
		}
	}
	if kind == dnsmessage.TypeSRV {
		for _, r := range s.srv[name] {
			a.Answers = append(a.Answers, dnsmessage.Resource{Header: head, Body: &r})
		}
	}
	if len(s.addrs[name]) == 0 && len(s.srv[name]) == 0 {
		a.RCode = dnsmessage.RCodeNameError
	}
	s.mu.Unlock()
	var before [][]byte
	switch how {
	case silently:
		return nil
	case slowly:
		select {
		case <-time.After(wait):
		case <-s.ended:
			return nil
		}
	case fails:
		a.RCode, a.Answers = dnsmessage.RCodeServerFailure, nil
	case refuses:
		a.RCode, a.Answers = dnsmessage.RCodeRefused, nil
	case cut:
		if network == "udp" {
			a.Truncated, a.Answers = true, nil
		}
	case rubbish:
		return [][]byte{[]byte(strings.Repeat("rubbish", 9))}
	case strangely:
		other := a
		other.ID++
		other.Answers = []dnsmessage.Resource{{Header: head, Body: &dnsmessage.AResource{A: [4]byte{192, 0, 2, 66}}}}
		if packed, err := other.Pack(); err == nil {
			before = append(before, packed)
		}
	}
	packed, err := a.Pack()
	if err != nil {
		return nil
	}
	return append(before, packed)
}
