package director

import (
	"context"
	"fmt"
	"time"
)

// Retry marks a host up at once, without a probe, and gives it clients again if it is
// ejected. It returns how many of its addresses were down or ejected. A client's connect takes one out again if it fails.
func (d *Director) Retry(ctx context.Context, service, group, host string) (wasDown int, err error) {
	type result struct {
		wasDown int
		err     error
	}
	reply := make(chan result, 1)
	order := func() {
		n, err := d.retry(service, group, host)
		reply <- result{n, err}
	}
	select {
	case d.orders <- order:
	case <-d.stopped:
		return 0, ErrStopped
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	r := <-reply // Run has taken it and will answer
	return r.wasDown, r.err
}

// Respond returns when Run has answered, or has returned: it does not hang.
func (d *Director) Respond() {
	reply := make(chan struct{})
	select {
	case d.orders <- func() { close(reply) }:
		<-reply
	case <-d.stopped:
	}
}

func (d *Director) retry(service, group, host string) (wasDown int, err error) {
	found := false
	for key, t := range d.targets {
		if key.service != service || key.group != group || key.host != host {
			continue
		}
		found = true
		// The engine may have marked it down without the report having come.
		switch {
		case !t.Host.Up() || !t.Status().Up:
			wasDown++
			d.up(t)
		case t.grey.ejection.out():
			wasDown++
			d.readmit(t, t.grey.over(time.Now()))
		}
	}
	if !found {
		return 0, fmt.Errorf("host %q of group %q of service %q has no address to retry", host, group, service)
	}
	return wasDown, nil
}
