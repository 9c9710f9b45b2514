package director

import (
	"context"
	"fmt"
)

// frost is why changes are refused.
type frost struct{ why error }

// Freeze makes Do, Reload, Rollback and Save fail with an error until thaw is called; dry
// runs go on. A change that waits for its names fails as well. What was begun before has
// ended when Freeze returns.
func (d *Director) Freeze(why error) (thaw func()) {
	thaw, _ = d.FreezeIn(context.Background(), why) // it waits as long as it takes
	return thaw
}

// FreezeIn is Freeze that waits until ctx ends at most. The error says that something which was
// begun before has not ended, such as a write of the file to a disk that hangs; then changes are
// not refused.
func (d *Director) FreezeIn(ctx context.Context, why error) (thaw func(), err error) {
	f := &frost{why}
	d.frozen.Store(f)
	thaw = func() { d.frozen.CompareAndSwap(f, nil) }
	var over <-chan struct{} // of a change that others may have accepted: it is not ours to drop
	_ = d.order(context.Background(), func() {
		switch p := d.underway; {
		case p == nil || p.change.DryRun:
		case p.committing != nil:
			over = p.over
		default:
			d.drop(why)
		}
	})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if over != nil {
			<-over
		}
		d.files.mu.Lock() // a Save
		defer d.files.mu.Unlock()
	}()
	select {
	case <-ended:
		return thaw, nil
	case <-ctx.Done():
		thaw()
		return nil, fmt.Errorf("a change, or a write of the configuration file, has not ended: %w", ctx.Err())
	}
}

// refused returns why changes are refused, nil if they are not.
func (d *Director) refused() error {
	if f := d.frozen.Load(); f != nil {
		return f.why
	}
	return nil
}
