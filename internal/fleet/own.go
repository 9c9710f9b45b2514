package fleet

import (
	"cmp"
	"slices"

	"github.com/txlb/txlb/config"
)

// commands are the programs that groups run when they begin to hold, <group onHold>. They are
// the node's own: a group that the fleet deletes takes its command with it, from what runs and
// then from the file, and gets it back from here when the fleet brings it back. Those of groups
// that are gone are in the node's memory. Node.mu protects them.
type commands map[[2]string]string

// ownCommand is a command in the memory of a node.
type ownCommand struct {
	Service string `json:"service"`
	Group   string `json:"group"`
	OnHold  string `json:"onHold"`
}

// maxOwn is how many commands of groups that are gone a node remembers.
const maxOwn = 256

// recall takes in what the memory has.
func (k commands) recall(list []ownCommand) {
	for _, c := range list {
		k[[2]string{c.Service, c.Group}] = c.OnHold
	}
}

// gone returns the commands of groups that a configuration has not, by name.
func (k commands) gone(c *config.Config) (list []ownCommand) {
	if len(k) == 0 {
		return nil
	}
	there := groupsOf(c)
	for key, command := range k {
		if !there[key] {
			list = append(list, ownCommand{key[0], key[1], command})
		}
	}
	slices.SortFunc(list, func(a, b ownCommand) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Group, b.Group))
	})
	return list[:min(len(list), maxOwn)]
}

func groupsOf(c *config.Config) map[[2]string]bool {
	there := map[[2]string]bool{}
	for _, s := range c.Services {
		for _, g := range s.Groups {
			there[[2]string{s.Name, g.Name}] = true
		}
	}
	return there
}

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
	there := groupsOf(before)
	for _, s := range c.Services {
		for _, g := range s.Groups {
			if key := [2]string{s.Name, g.Name}; !there[key] && k[key] != "" {
				g.OnHold = k[key]
			}
		}
	}
}
