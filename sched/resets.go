package sched

import (
	"net/netip"
	"sync/atomic"
)

// resetsInARow is how many clients in a row have to be reset before the first
// byte of an answer, each from another address, until a host is suspect.
const resetsInARow = 3

// earlyResets counts the sessions that a host has reset before the first byte of
// an answer.
type earlyResets struct {
	total atomic.Uint64
	row   atomic.Pointer[resetRow] // those since the last answer; nil: none
}

// resetRow holds the networks of the clients, each once. It is immutable.
type resetRow struct {
	clients [resetsInARow]netip.Prefix
	n       int
}

// ResetEarly counts a session that the host has reset before the first byte of an
// answer. It reports whether the host is suspect now: three clients in a row, from
// three addresses, were reset, and no client got an answer in between. So a single
// client that sends garbage does not make a host suspect. After a report the row
// starts again.
//
// Addresses of one IPv6 network of 64 bits count as one, and clients without an
// address of TCP belong to no row. Nor do sessions whose connect began in an
// earlier era of the host, see [Host.Era].
func (h *Host) ResetEarly(era uint32, client Addr) (suspect bool) {
	h.resets.total.Add(1)
	network, ok := ClientNetwork(client.IP().Addr())
	if !ok || era != h.Era() {
		return false
	}
	for {
		old := h.resets.row.Load()
		row := new(resetRow)
		if old != nil {
			*row = *old
		}
		for _, known := range row.clients[:row.n] {
			if known == network {
				return false
			}
		}
		row.clients[row.n] = network
		row.n++
		full := row.n == resetsInARow
		if full {
			row = nil
		}
		if h.resets.row.CompareAndSwap(old, row) {
			return full
		}
	}
}

// ClientNetwork returns what counts as one client: an IPv4 address, or an IPv6 network of 64
// bits. ok is false for a client without an address, such as one of a UNIX socket.
func ClientNetwork(ip netip.Addr) (network netip.Prefix, ok bool) {
	if !ip.IsValid() {
		return network, false
	}
	bits := 32
	if ip = ip.Unmap(); ip.Is6() {
		bits = 64
	}
	network, _ = ip.WithZone("").Prefix(bits)
	return network, true
}

// Answered notes that the host has sent the first byte of an answer, or ended a
// session without one as it should: a row of early resets is over.
func (h *Host) Answered() {
	if h.resets.row.Load() != nil {
		h.resets.row.Store(nil)
	}
}
