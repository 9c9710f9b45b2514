package director

import (
	"context"
	"fmt"
	"time"
)

// Retry marks a host up at once, without a probe, and gives it clients again if it is
// ejected. It returns how many of its addresses were down or ejected. A client's connect takes
// one out again if it fails.
func (d *Director) Retry(ctx context.Context, service, group, host string) (wasDown int, err error) {
	if err := d.order(ctx, func() { wasDown, err = d.retry(service, group, host) }); err != nil {
		return 0, err
	}
	return wasDown, err
}

// Respond returns when Run has answered, or has returned: it does not hang.
func (d *Director) Respond() { _ = d.order(context.Background(), func() {}) }

// order runs f on the goroutine of Run, and returns when it has. The error is ErrStopped, or that
// of ctx: f does not run then. ctx says how long the order may wait to be taken.
func (d *Director) order(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case d.orders <- func() { f(); close(done) }:
		<-done
		return nil
	case <-d.stopped:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
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
			d.up(t, time.Now())
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
