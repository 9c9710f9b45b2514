package director

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/txlb/txlb/config"
)

const (
	// lookupTimeout bounds one look-up of a name, those of the hosts that SRV
	// records name included.
	lookupTimeout = 5 * time.Second
	// firstWait is how long a server of <dns servers> has for its answer before
	// the next one is asked.
	firstWait = time.Second
	// targetsAtOnce is how many hosts of one name's SRV records are looked up at
	// once.
	targetsAtOnce = 4
)

// Resolver looks names up; *net.Resolver is one. LookupNetIP is asked for one
// family at a time, LookupSRV for whole names, so that service and proto are "".
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupSRV(ctx context.Context, service, proto, name string) (cname string, records []*net.SRV, err error)
}

// source is where names are looked up.
type source struct {
	servers  []string         // of <dns>
	addrs    []netip.AddrPort // the same; none: those of /etc/resolv.conf
	resolver Resolver         // instead of any server; nil in the program
}

// newSource returns the source of names that a configuration wants. If it names no
// servers, that is instead, or the system's servers if instead is nil.
func newSource(dns *config.DNS, instead Resolver) *source {
	s := &source{servers: dns.Servers}
	for _, text := range dns.Servers {
		if addr, err := config.DNSServer(text); err == nil { // Check has made sure
			s.addrs = append(s.addrs, addr)
		}
	}
	if len(s.addrs) == 0 {
		s.resolver = instead
	}
	return s
}

// inquiry is one look-up under way.
type inquiry struct {
	Resolver
	// names returns the names that one stands for, all complete, in the order in
	// which they are looked up; nil: Resolver takes any name.
	names func(string) []string
}

func (s *source) inquiry() inquiry {
	switch {
	case s.resolver != nil:
		return inquiry{Resolver: s.resolver}
	case runtime.GOOS == "windows" && len(s.addrs) == 0: // where servers are in no file
		return inquiry{Resolver: &net.Resolver{PreferGo: true, StrictErrors: true}}
	}
	conf := readResolvConf()
	addrs := s.addrs
	if len(addrs) == 0 {
		addrs = conf.servers
	}
	return inquiry{&servers{list: addrs}, conf.names}
}

// endpoint is one address that a name stands for. All but ip come from SRV
// records, and are zero without them.
type endpoint struct {
	ip               netip.Addr
	target           string // the host's name in the record
	port             uint16
	priority, weight uint16
}

// look looks up a name. before is the previous result: if only some of the hosts in
// SRV records resolve, the others keep their previous addresses, and the error
// names them.
func (s *source) look(ctx context.Context, host string, before []endpoint) ([]endpoint, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	q := s.inquiry()
	var ends []endpoint
	var err error
	if config.IsSRV(host) {
		ends, err = q.lookSRV(ctx, host, before)
	} else {
		var ips []netip.Addr
		ips, err = q.lookIP(ctx, host)
		for _, ip := range ips {
			ends = append(ends, endpoint{ip: ip})
		}
	}
	slices.SortFunc(ends, endpoint.compare)
	return slices.Compact(ends), err
}

func (e endpoint) compare(f endpoint) int {
	return cmp.Or(cmp.Compare(e.priority, f.priority), strings.Compare(e.target, f.target),
		cmp.Compare(e.port, f.port), cmp.Compare(e.weight, f.weight), e.ip.Compare(f.ip))
}

// each asks for each complete name that a name stands for, until the answer is
// anything but "no such name". A failure ends the search: the same name in the next
// domain of the search list would be another host.
func (q inquiry) each(name string, question func(name string) error) error {
	if q.names == nil {
		return question(name)
	}
	err := notFound(name, "no such host")
	for _, full := range q.names(name) {
		if err = question(full); err == nil || !denied(err) {
			break
		}
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok { // told of the name that was asked for
		told := *dns
		told.Name = name
		err = &told
	}
	return err
}

func notFound(name, text string) error { return &net.DNSError{Err: text, Name: name, IsNotFound: true} }

// lookIP returns the addresses of one family: otherwise a host that listens on IPv4
// alone would look half dead if its name has both. It asks for IPv6 only after the
// answer that there is no IPv4 address: after a mere failure, a server's hiccup
// would send the sessions to the other family.
func (q inquiry) lookIP(ctx context.Context, host string) ([]netip.Addr, error) {
	if q.names != nil {
		if addrs := inHosts(ctx, host); len(addrs) > 0 {
			return addrs, nil
		}
	}
	var addrs []netip.Addr
	err := q.each(host, func(name string) (err error) {
		for _, network := range [...]string{"ip4", "ip6"} {
			addrs, err = q.LookupNetIP(ctx, network, name)
			if err == nil && len(addrs) > 0 || err != nil && !denied(err) {
				return err
			}
		}
		if err == nil {
			err = notFound(name, "no address")
		}
		return err
	})
	if err != nil {
		return nil, plain(err)
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs, nil
}

// lookSRV returns the addresses of the hosts that SRV records name.
func (q inquiry) lookSRV(ctx context.Context, name string, before []endpoint) ([]endpoint, error) {
	var records []*net.SRV
	var malformed error // beside records: some of them are
	err := q.each(name, func(name string) (err error) {
		_, records, err = q.LookupSRV(ctx, "", "", name)
		if len(records) > 0 {
			malformed, err = err, nil
		}
		return err
	})
	records = slices.DeleteFunc(records, func(s *net.SRV) bool {
		return s.Port == 0 || s.Target == "." // RFC 2782: not to be had
	})
	if err == nil {
		err = malformed
	}
	if len(records) == 0 {
		if err == nil {
			err = notFound(name, "no SRV record")
		}
		return nil, plain(err)
	}
	type found struct {
		ips []netip.Addr
		err error
	}
	targets := map[string]*found{}
	for _, s := range records {
		targets[s.Target] = &found{}
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, targetsAtOnce)
	for target, f := range targets {
		slots <- struct{}{}
		wg.Go(func() {
			f.ips, f.err = q.lookIP(ctx, target)
			<-slots
		})
	}
	wg.Wait()
	var ends []endpoint
	for _, s := range records {
		f := targets[s.Target]
		for _, ip := range f.ips {
			ends = append(ends, endpoint{ip, s.Target, s.Port, s.Priority, s.Weight})
		}
		for _, old := range before {
			if f.err != nil && old.target == s.Target && old.port == s.Port {
				ends = append(ends, endpoint{old.ip, s.Target, s.Port, s.Priority, s.Weight})
			}
		}
	}
	// The error of the target that comes first by name, so that it does not
	// change from one look-up to the next.
	first := ""
	for target, f := range targets {
		if f.err != nil && (first == "" || target < first) {
			first, err = target, fmt.Errorf("%s: %w", name, f.err)
		}
	}
	return ends, err
}

// denied tells whether an error is the answer that the name does not exist.
func denied(err error) bool {
	if _, ok := errors.AsType[*net.AddrError](err); ok {
		return true // /etc/hosts has it, but with no address of the family
	}
	dns, ok := errors.AsType[*net.DNSError](err)
	return ok && dns.IsNotFound
}

// plain removes from the error of a look-up what differs each time: the source
// ports.
func plain(err error) error {
	dns, ok := errors.AsType[*net.DNSError](err)
	if !ok {
		return err
	}
	short := *dns
	switch {
	case dns.IsNotFound:
	case dns.IsTimeout:
		short.Err = "no answer in time"
	default:
		short.Err = strings.TrimSpace(dns.Err[strings.LastIndex(dns.Err, ": ")+1:])
	}
	return &short
}

// servers are the servers that one look-up asks. A question goes to each in turn
// until one answers, also with "no such name"; one that is silent or fails is
// skipped. After the last one, all are asked once more, with more time. The next
// question begins with the server that has answered, so that a silent one costs a
// look-up its time once.
type servers struct {
	list []netip.AddrPort
	good atomic.Int32 // in list: has answered last
}

// LookupNetIP implements Resolver.
func (s *servers) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	return ask(ctx, s, func(ctx context.Context, r *net.Resolver) ([]netip.Addr, error) {
		return r.LookupNetIP(ctx, network, host)
	})
}

// LookupSRV implements Resolver. The canonical name is left out.
func (s *servers) LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error) {
	records, err := ask(ctx, s, func(ctx context.Context, r *net.Resolver) ([]*net.SRV, error) {
		_, records, err := r.LookupSRV(ctx, service, proto, name)
		if len(records) > 0 {
			err = nil // the malformed ones beside them are no reason to ask on
		}
		return records, err
	})
	return "", records, err
}

// ask puts a question to the servers in turn. The time that ctx leaves is
// shared: each server has its part, but no more than firstWait in the first
// round.
func ask[T any](ctx context.Context, s *servers, question func(context.Context, *net.Resolver) (T, error)) (answer T, err error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(lookupTimeout)
	}
	n, first := len(s.list), int(s.good.Load())
	for tries := 2 * n; tries > 0; tries-- {
		wait := time.Until(deadline) / time.Duration(tries)
		if tries > n {
			wait = min(wait, firstWait)
		}
		i := (first + 2*n - tries) % n
		answer, err = askOne(ctx, s.list[i], wait, question)
		if err == nil || denied(err) {
			s.good.Store(int32(i))
			break
		}
		if ctx.Err() != nil {
			break
		}
	}
	return answer, err
}

// askOne puts a question to one server. Each call makes a new resolver: one that is
// kept shares equal questions, and would continue them after the timeout.
func askOne[T any](ctx context.Context, server netip.AddrPort, wait time.Duration, question func(context.Context, *net.Resolver) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	answer, err := question(ctx, &net.Resolver{
		PreferGo:     true,
		StrictErrors: true, // a failure is an error, and no answer that there is nothing
		Dial: func(dial context.Context, network, _ string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(dial, network, server.String())
			if err == nil {
				// The resolver would otherwise read until its own timeout.
				context.AfterFunc(ctx, func() { _ = conn.Close() })
			}
			return conn, err
		},
	})
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		told := *dns // the resolver takes it for one of the system's
		told.Server = server.String()
		err = &told
	}
	return answer, err
}
