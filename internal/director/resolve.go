package director

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
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
	servers  []string // of <dns>
	resolver Resolver
}

// newSource returns what a configuration wants to be asked. system serves where
// it says nothing.
func newSource(dns *config.DNS, system Resolver) *source {
	s := &source{dns.Servers, system}
	var addrs servers
	for _, text := range dns.Servers {
		if addr, err := config.DNSServer(text); err == nil { // Check has made sure
			addrs = append(addrs, addr)
		}
	}
	if len(addrs) > 0 {
		s.resolver = addrs
	}
	return s
}

// endpoint is one address that a name stands for. All but ip come from SRV
// records, and are zero without them.
type endpoint struct {
	ip               netip.Addr
	target           string // the host's name in the record
	port             uint16
	priority, weight uint16
}

// look looks up a name. before is what was known of it: where only some of the
// hosts that SRV records name resolve, the others keep the addresses that they
// had, and the error tells of them.
func (s *source) look(ctx context.Context, host string, before []endpoint) ([]endpoint, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	var ends []endpoint
	var err error
	if config.IsSRV(host) {
		ends, err = lookSRV(ctx, s.resolver, host, before)
	} else {
		var ips []netip.Addr
		ips, err = lookIP(ctx, s.resolver, host)
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

// lookIP returns the addresses of one family: a host that listens on IPv4 alone
// would otherwise look half dead under a name that has both. IPv6 is asked for
// only after an answer that there is no IPv4 address; if a failure would do, a
// server's hiccup would send the sessions to the other family.
func lookIP(ctx context.Context, r Resolver, host string) ([]netip.Addr, error) {
	var err error
	for _, network := range [...]string{"ip4", "ip6"} {
		var addrs []netip.Addr
		addrs, err = r.LookupNetIP(ctx, network, host)
		if err == nil && len(addrs) > 0 {
			for i := range addrs {
				addrs[i] = addrs[i].Unmap()
			}
			return addrs, nil
		}
		if err != nil && !denied(err) {
			break
		}
	}
	if err == nil {
		err = &net.DNSError{Err: "no address", Name: host, IsNotFound: true}
	}
	return nil, plain(err)
}

// lookSRV returns the addresses of the hosts that SRV records name.
func lookSRV(ctx context.Context, r Resolver, name string, before []endpoint) ([]endpoint, error) {
	// An error beside records is that some of them are malformed.
	_, records, err := r.LookupSRV(ctx, "", "", name)
	records = slices.DeleteFunc(records, func(s *net.SRV) bool {
		return s.Port == 0 || s.Target == "." // RFC 2782: not to be had
	})
	if len(records) == 0 {
		if err == nil {
			err = &net.DNSError{Err: "no SRV record", Name: name, IsNotFound: true}
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
			f.ips, f.err = lookIP(ctx, r, target)
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

// denied tells whether an error is an answer, the one that there is nothing by
// that name.
func denied(err error) bool {
	dns, ok := errors.AsType[*net.DNSError](err)
	return ok && dns.IsNotFound
}

// plain takes out of the error of a look-up what differs each time: the ports
// that the question went from.
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

// servers are the servers of <dns>. A question goes to them in turn until one
// answers, be it that there is nothing by that name; one that is silent or says
// that it cannot tell is passed over. After the last comes the first once more,
// with more time.
type servers []netip.AddrPort

// LookupNetIP implements Resolver.
func (s servers) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	return ask(ctx, s, func(ctx context.Context, r *net.Resolver) ([]netip.Addr, error) {
		return r.LookupNetIP(ctx, network, host)
	})
}

// LookupSRV implements Resolver. The canonical name is left out.
func (s servers) LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error) {
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
func ask[T any](ctx context.Context, s servers, question func(context.Context, *net.Resolver) (T, error)) (answer T, err error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(lookupTimeout)
	}
	for tries := 2 * len(s); tries > 0; tries-- {
		wait := time.Until(deadline) / time.Duration(tries)
		if tries > len(s) {
			wait = min(wait, firstWait)
		}
		server := s[(2*len(s)-tries)%len(s)]
		answer, err = askOne(ctx, server, wait, question)
		if err == nil || denied(err) || ctx.Err() != nil {
			break
		}
	}
	return answer, err
}

// askOne puts a question to one server. The resolver is made anew each time:
// one that is kept shares questions that are alike, and would go on with them
// after the time is over.
func askOne[T any](ctx context.Context, server netip.AddrPort, wait time.Duration, question func(context.Context, *net.Resolver) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	answer, err := question(ctx, &net.Resolver{
		PreferGo: true,
		// Else a failure under one domain of the search list would lead to
		// another host of that name under the next.
		StrictErrors: true,
		Dial: func(dial context.Context, network, _ string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(dial, network, server.String())
			if err == nil {
				// The resolver would go on reading until a time-out of its own.
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
