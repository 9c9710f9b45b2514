package web

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// What a reverse proxy says of the requests that it passes on. All links of the
// pages are relative, and so are redirections: they work below any prefix without
// the page knowing it.

const (
	forwardedFor    = "X-Forwarded-For"
	forwardedHost   = "X-Forwarded-Host"
	forwardedPrefix = "X-Forwarded-Prefix"
)

// forwarded gives a request that comes from a trusted proxy the address and the
// host that its client has, and returns the prefix of the path that the client
// asked for: "/lb", or "". Of others the headers are ignored.
func (s *server) forwarded(r *http.Request) (prefix string) {
	if s.opt.Proxies == nil {
		return ""
	}
	trusted := s.opt.Proxies()
	peer, ok := readAddr(r.RemoteAddr)
	if !ok || !within(trusted, peer.Addr()) {
		return ""
	}
	if from := clientOf(r.Header.Values(forwardedFor), trusted); from != "" {
		r.RemoteAddr = from
	}
	// Of several values the last one is the proxy's own: others it may have had
	// from its client.
	if host := last(r.Header.Values(forwardedHost)); host != "" {
		r.Host = host
	}
	return cleanPrefix(last(r.Header.Values(forwardedPrefix)))
}

// clientOf returns the last address that is not a trusted proxy's: what stands
// before it, the client may have made up. If all are trusted it is the first one,
// "" if there is none.
func clientOf(values []string, trusted []netip.Prefix) (from string) {
	for _, word := range slices.Backward(strings.Split(strings.Join(values, ","), ",")) {
		a, ok := readAddr(strings.TrimSpace(word))
		if !ok {
			break
		}
		if from = a.Addr().String(); a.Port() != 0 {
			from = a.String()
		}
		if !within(trusted, a.Addr()) {
			break
		}
	}
	return from
}

// readAddr reads an address with a port or without, which is 0 then.
func readAddr(s string) (netip.AddrPort, bool) {
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
		if err != nil {
			return a, false
		}
		a = netip.AddrPortFrom(ip, 0)
	}
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port()), true
}

func within(networks []netip.Prefix, ip netip.Addr) bool {
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// last returns the last element of a header that is a list.
func last(values []string) string {
	all := strings.Join(values, ",")
	return strings.TrimSpace(all[strings.LastIndexByte(all, ',')+1:])
}

// cleanPrefix returns a prefix as /lb or /a/b, and "" for what is none.
func cleanPrefix(s string) string {
	s = strings.TrimSuffix(s, "/")
	if len(s) > 200 {
		return ""
	}
	for i, segment := range strings.Split(s, "/") {
		if i == 0 != (segment == "") || segment == "." || segment == ".." || strings.Trim(segment, segmentLetters) != "" {
			return ""
		}
	}
	return s
}

const segmentLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~"
