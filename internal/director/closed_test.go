package director

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/testkit"
)

// occupied is an engine's world in which other programs hold addresses.
type occupied struct {
	*world
	held map[string]bool
}

func (o *occupied) Apply(p engine.Plan) error {
	var problems []error
	o.mu.Lock()
	for _, s := range p.Services {
		for _, l := range s.Listen {
			if o.held[l] {
				problems = append(problems, &engine.ListenError{Service: s.Name, Listen: l, Err: fmt.Errorf("listen on %s: %w", l, syscall.EADDRINUSE)})
			}
		}
	}
	o.mu.Unlock()
	if len(problems) > 0 {
		return errors.Join(problems...)
	}
	return o.world.Apply(p)
}

// open is where the engine listens.
func (o *occupied) open() string {
	var all []string
	for _, l := range o.Listeners() {
		all = append(all, l.Listen)
	}
	return strings.Join(all, " ")
}

const threeListeners = `<config><service name="web"><listen ip="127.0.0.1:81"/><listen ip="127.0.0.1:82"/><listen ip="127.0.0.1:83"/></service></config>`

// A process of a fleet starts without listeners that it cannot open, and opens them when it
// can. Any other refuses to start.
func TestStartsWithoutListenersOfOthers(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		cfg, problems := config.Parse("c.xml", []byte(threeListeners))
		if cfg == nil {
			t.Fatal(problems)
		}
		o := &occupied{newWorld(), map[string]bool{"127.0.0.1:81": true, "127.0.0.1:83": true}}
		opt := Options{Log: o.logger(), Resolver: o, Probe: o.probe}
		_, err := New(cfg, o, opt)
		if one := (*engine.ListenError)(nil); !errors.As(err, &one) {
			t.Errorf("alone it starts, or says %v", err)
		}
		opt.Commit = newCourt().commit
		d, err := New(cfg, o, opt)
		if err != nil {
			t.Fatal(err)
		}
		want := []Closed{{"web", "127.0.0.1:81", "listen on 127.0.0.1:81: address already in use"}, {"web", "127.0.0.1:83", "listen on 127.0.0.1:83: address already in use"}}
		if got := d.Closed(); fmt.Sprint(got) != fmt.Sprint(want) || o.open() != "127.0.0.1:82" {
			t.Errorf("closed %v, open %s", got, o.open())
		}
		stop := runDirector(t, d)
		o.set(o.held, "127.0.0.1:83", false)
		time.Sleep(reopenEvery + 2*scanEvery)
		synctest.Wait()
		if got := d.Closed(); len(got) != 1 || o.open() != "127.0.0.1:82 127.0.0.1:83" {
			t.Errorf("closed %v, open %s", got, o.open())
		}

		// A process that takes its place knows what is closed, and opens the rest or nothing.
		exported, err := d.Export()
		if err != nil {
			t.Fatal(err)
		}
		stop()
		if opt.Inherited, err = ReadState(exported); err != nil {
			t.Fatal(err)
		}
		o.set(o.held, "127.0.0.1:82", true)
		if _, err := New(cfg, o, opt); err == nil {
			t.Error("it takes the place of one that listens where it cannot")
		}
		o.set(o.held, "127.0.0.1:82", false)
		if opt.Inherited, err = ReadState(exported); err != nil {
			t.Fatal(err)
		}
		if d, err = New(cfg, o, opt); err != nil {
			t.Fatal(err)
		}
		if got := d.Closed(); len(got) != 1 {
			t.Errorf("closed %v", got)
		}
		runDirector(t, d)
		o.set(o.held, "127.0.0.1:81", false)
		time.Sleep(reopenEvery)
		synctest.Wait()
		if got := d.Closed(); len(got) != 0 || o.open() != "127.0.0.1:81 127.0.0.1:82 127.0.0.1:83" {
			t.Errorf("closed %v, open %s", got, o.open())
		}
	})
}

// What is wrong beside a listener is no reason to leave that out.
func TestUnopened(t *testing.T) {
	one, other := &engine.ListenError{Service: "a"}, &engine.ListenError{Service: "b"}
	for _, test := range []struct {
		err  error
		want int
	}{
		{one, 1},
		{errors.Join(one, other), 2},
		{errors.Join(one, errors.Join(other, one)), 3},
		{errors.Join(one, syscall.EPERM), 0},
		{fmt.Errorf("service: %w", one), 0},
		{syscall.EADDRINUSE, 0},
		{nil, 0},
	} {
		if got := unopened(test.err); len(got) != test.want {
			t.Errorf("%v: %v", test.err, got)
		}
	}
}
