package fleet

import "github.com/txlb/txlb/config"

// commands are the programs that groups run when they begin to hold, <group onHold>. They are
// the node's own: a group that the fleet deletes takes its command with it, from what runs and
// then from the file, and gets it back from here when the fleet brings it back. They are
// forgotten when the process ends. Node.mu protects them.
type commands map[[2]string]string

// learn notes the commands of all groups of a configuration, and that others have none.
func (k commands) learn(c *config.Config) {
	for _, s := range c.Services {
		for _, g := range s.Groups {
			if key := [2]string{s.Name, g.Name}; g.OnHold != "" {
				k[key] = g.OnHold
			} else {
				delete(k, key)
			}
		}
	}
}

// giveBack gives groups that a configuration lacks in before their commands.
func (k commands) giveBack(c, before *config.Config) {
	if len(k) == 0 {
		return
	}
	there := map[[2]string]bool{}
	for _, s := range before.Services {
		for _, g := range s.Groups {
			there[[2]string{s.Name, g.Name}] = true
		}
	}
	for _, s := range c.Services {
		for _, g := range s.Groups {
			if key := [2]string{s.Name, g.Name}; !there[key] && k[key] != "" {
				g.OnHold = k[key]
			}
		}
	}
}
