package director

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/sched"
)

// custom is a scheduler of the program.
type custom struct {
	*sched.Custom
	told uint64    // faults that the log has told
	at   time.Time // of its last line
}

// newCustoms takes in the program's schedulers.
func newCustoms(given map[string]sched.Scheduler) (map[string]*custom, error) {
	all := make(map[string]*custom, len(given))
	for name, s := range given {
		if _, ok := sched.CustomName("custom:" + name); !ok {
			return nil, fmt.Errorf("scheduler %q: a name has 1 to 64 characters: letters, digits, - _ or a point", name)
		}
		if s == nil {
			return nil, fmt.Errorf("scheduler %q is nil", name)
		}
		all[name] = &custom{Custom: sched.NewCustom(s)}
	}
	return all, nil
}

// checkCustoms tells which group has a scheduler that the program has not given.
func (d *Director) checkCustoms(cfg *config.Config) error {
	for _, s := range cfg.Services {
		for _, g := range s.Groups {
			name, own := sched.CustomName(g.Scheduler)
			switch {
			case !own || d.customs[name] != nil:
			case len(d.customs) == 0:
				return fmt.Errorf("group %q of service %q: scheduler %q is a program's own, and this program has none", g.Name, s.Name, g.Scheduler)
			default:
				return fmt.Errorf("group %q of service %q: scheduler %q is not one that the program has given%s",
					g.Name, s.Name, g.Scheduler, config.Suggest(name, slices.Sorted(maps.Keys(d.customs))))
			}
		}
	}
	return nil
}

// customOf returns the program's scheduler for a group, nil if it has one of txlb's.
func (d *Director) customOf(g *config.Group) *sched.Custom {
	if name, own := sched.CustomName(g.Scheduler); own {
		return d.customs[name].Custom
	}
	return nil
}

// tellFaultsEvery is the least time between two lines of the log about one scheduler.
const tellFaultsEvery = 10 * time.Second

// tellFaults logs what goes wrong in the program's schedulers: at once, and then a summary
// while it goes on. The loops only count.
func (d *Director) tellFaults(now time.Time) {
	for _, name := range slices.Sorted(maps.Keys(d.customs)) {
		c := d.customs[name]
		if now.Sub(c.at) < tellFaultsEvery {
			continue
		}
		n, what := c.Custom.Faults()
		if n == c.told {
			continue
		}
		d.log.Error("scheduler failed, took the next host instead", "scheduler", "custom:"+name, "times", n-c.told, "err", what)
		c.told, c.at = n, now
	}
}

// SchedulerFaults returns how often each of the program's schedulers has failed: it has
// panicked, or returned no index of a host. Any goroutine may call it.
func (d *Director) SchedulerFaults() map[string]uint64 {
	all := make(map[string]uint64, len(d.customs))
	for name, c := range d.customs {
		all[name] = c.Count()
	}
	return all
}
