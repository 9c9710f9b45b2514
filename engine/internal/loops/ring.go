//go:build linux

package loops

import (
	"github.com/txlb/txlb/internal/uring"
)

// A ring makes many operations of a turn in one system call. For sends it saves less the
// calls than the switches between them: a send wakes its receiver, which takes the
// processor from the loop; in one call it does so once for the whole batch.
type ring struct{ *uring.Ring }

// send makes the sends of a batch and puts the answers into it. It returns how
// many were made, from the first on; the rest is for plain calls.
func (r ring) send(batch []sendOp) (made int) {
	for made < len(batch) && !r.Late() {
		part := batch[made:min(len(batch), made+uring.Size)]
		for i := range part {
			op := &part[i]
			r.Put(i, uring.Send(op.fd, op.p, sendFlags(op.last)))
		}
		n := r.Submit(len(part))
		for i := range part[:n] {
			part[i].n, part[i].errno = r.Result(i)
		}
		made += n
		if n < len(part) {
			break
		}
	}
	return made
}

// tidy does what the end of a turn has to do, as linux.tidy. It returns how much of it
// was done, the watches first.
func (r ring) tidy(ep int, watches []watchOp, fds []int32) (made int) {
	for all := len(watches) + len(fds); made < all && !r.Late(); {
		part := min(all-made, uring.Size)
		for i := range part {
			if at := made + i; at < len(watches) {
				w := &watches[at]
				r.Put(i, uring.Add(ep, w.fd, &w.event))
			} else {
				r.Put(i, uring.CloseFD(fds[at-len(watches)]))
			}
		}
		n := r.Submit(part)
		for i := range n {
			if at := made + i; at < len(watches) {
				_, watches[at].errno = r.Result(i)
			}
		}
		made += n
		if n < part {
			break
		}
	}
	return made
}
