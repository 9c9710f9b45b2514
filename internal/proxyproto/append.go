package proxyproto

import (
	"encoding/binary"
	"net/netip"
	"strconv"
)

// MaxAppend is how many bytes Append writes at most.
const MaxAppend = maxLine

// Append appends a header of a version to b: a client at from has connected to to. If
// one of them is not valid, as those of UNIX sockets are not, the header says that the
// client is not known: UNKNOWN in version 1 and LOCAL in version 2, as HAProxy does. If
// one is of IPv4 and the other of IPv6, both are written as IPv6. Zones mean nothing to
// another machine and are left out. The version Off appends nothing.
func Append(b []byte, v Version, from, to netip.AddrPort) []byte {
	known := from.IsValid() && to.IsValid()
	a1, a2 := from.Addr().Unmap().WithZone(""), to.Addr().Unmap().WithZone("")
	if known && a1.Is4() != a2.Is4() {
		a1, a2 = netip.AddrFrom16(a1.As16()), netip.AddrFrom16(a2.As16())
	}
	switch v {
	case V1:
		return append1(b, known, a1, a2, from.Port(), to.Port())
	case V2:
		return append2(b, known, a1, a2, from.Port(), to.Port())
	}
	return b
}

// AppendLocal appends a header of version 2 for a connection that the proxy makes for
// itself, such as a health check.
func AppendLocal(b []byte) []byte {
	return append2(b, false, netip.Addr{}, netip.Addr{}, 0, 0)
}

func append1(b []byte, known bool, from, to netip.Addr, fromPort, toPort uint16) []byte {
	if !known {
		return append(b, "PROXY UNKNOWN\r\n"...)
	}
	b = append(b, "PROXY TCP6 "...)
	if from.Is4() {
		b[len(b)-2] = '4'
	}
	b = append(from.AppendTo(b), ' ')
	b = append(to.AppendTo(b), ' ')
	b = append(strconv.AppendUint(b, uint64(fromPort), 10), ' ')
	return append(strconv.AppendUint(b, uint64(toPort), 10), "\r\n"...)
}

func append2(b []byte, known bool, from, to netip.Addr, fromPort, toPort uint16) []byte {
	b = append(b, signature2...)
	switch {
	case !known:
		return append(b, 2<<4|cmdLocal, famUnspec, 0, 0)
	case from.Is4():
		a1, a2 := from.As4(), to.As4()
		b = append(b, 2<<4|cmdProxy, famINET<<4|1, 0, addrINET)
		b = append(append(b, a1[:]...), a2[:]...)
	default:
		a1, a2 := from.As16(), to.As16()
		b = append(b, 2<<4|cmdProxy, famINET6<<4|1, 0, addrINET6)
		b = append(append(b, a1[:]...), a2[:]...)
	}
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, fromPort), toPort)
}
