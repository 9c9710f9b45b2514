package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// What <web names>, <web trustedProxies> and <listen proxyFrom> may say.

// IsDNSName tells whether a name can be that of a host.
func IsDNSName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}

// parseHostNames reads names as browsers send them, in lower case.
func parseHostNames(s string) ([]string, error) {
	var names []string
	for _, word := range strings.Fields(s) {
		name := strings.ToLower(strings.TrimSuffix(word, "."))
		if !IsDNSName(name) {
			return nil, fmt.Errorf("%q is not a host name; want a name such as ops.example, without scheme, port and path", word)
		}
		names = append(names, name)
	}
	return names, nil
}

// Proxies returns TrustedProxies as networks.
func (a *AdminListen) Proxies() []netip.Prefix {
	var all []netip.Prefix
	for _, s := range a.TrustedProxies {
		if p, err := parseNetwork(s); err == nil { // it was checked when it was read
			all = append(all, p)
		}
	}
	return all
}

// parseProxySources reads the networks of <listen proxyFrom>.
func parseProxySources(s string) (Networks, error) {
	if strings.TrimSpace(s) == "" {
		return "", nil
	}
	list, err := parseNetworks(s)
	if err != nil {
		return "", err
	}
	if list == "" || slices.ContainsFunc(list.Prefixes(), func(p netip.Prefix) bool { return p.Bits() == 0 }) {
		return "", fmt.Errorf("%q has every address: anybody could claim to be anybody; name the proxies", s)
	}
	return list, nil
}

// parseProxies reads addresses and networks. A network of every address is an
// error.
func parseProxies(s string) ([]string, error) {
	var list []string
	for _, word := range strings.Fields(s) {
		p, err := parseNetwork(word)
		if err != nil {
			return nil, err
		}
		if p.Bits() == 0 {
			return nil, fmt.Errorf("%s is every address: anybody could claim to come from anywhere; name the proxies", word)
		}
		list = append(list, strings.TrimSuffix(p.String(), fmt.Sprintf("/%d", p.Addr().BitLen())))
	}
	return list, nil
}
