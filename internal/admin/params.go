package admin

import (
	"fmt"
	"math"
	"slices"

	"github.com/txlb/txlb/config"
)

// Parameters that verbs have in common, and what changes them for one verb.

func service() Param { return Param{Name: "service", Kind: Service, Required: true} }

func group() Param { return Param{Name: "group", Kind: Group, Required: true} }

func host() Param {
	return Param{Name: "name", Aliases: []string{"host"}, Kind: Host, Required: true}
}

func force() Param {
	return Param{Name: "force", Kind: Flag, Option: true, Label: "Do it anyway", Help: "do it even if clients may find no host"}
}

func drain() Param {
	return Param{
		Name: "drain", Kind: Duration, Option: true, Label: "Close its sessions after",
		Help: "a duration such as 30s; sessions still open then are closed; without it they may finish",
	}
}

func generation() Param {
	return Param{
		Name: "generation", Kind: Number, Option: true, Low: 1, High: math.MaxInt64,
		Help: "apply only if the configuration still has this generation",
	}
}

func confirm() Param {
	return Param{
		Name: "confirm", Kind: Duration, Option: true, Label: "Undo unless confirmed within",
		Help: "a duration such as 60s; the change is undone then, unless confirm comes before; without it the change stays",
	}
}

func dryRun() Param {
	return Param{Name: "dry-run", Kind: Flag, Option: true, Help: "report what would happen, and do nothing"}
}

func most(usual, high int64) Param {
	return Param{
		Name: "max", Kind: Number, Option: true, Low: 1, High: high,
		Help: fmt.Sprintf("maximum number of rows; default %d", usual),
	}
}

func listen() Param {
	return Param{Name: "address", Aliases: []string{"listen", "ip"}, Kind: Listen, Required: true}
}

// settings are the attributes of elements that verbs can change, as options.
func settings(elements ...string) []Param {
	var params []Param
	for _, element := range elements {
		rows := config.Attributes(element)
		for i := range rows {
			if rows[i].Runtime {
				params = append(params, setting(&rows[i]))
			}
		}
	}
	return params
}

func setting(a *config.Attribute) Param {
	p := Param{Name: a.Name, Kind: kindOf[a.Type], Option: true, Low: a.Low, High: a.High, Choices: a.Choices, attribute: a}
	if a.Type == config.TypeTarget {
		p.Aliases = []string{"address"}
	}
	return p
}

// kindOf says what a parameter is that sets an attribute.
var kindOf = map[config.Type]Kind{
	config.TypeBool: Bool, config.TypeNumber: Number, config.TypeDuration: Duration, config.TypeChoice: Choice,
	config.TypeScheduler: Scheduler, config.TypeTarget: Address, config.TypeListen: Listen,
	config.TypeFile: Text,
}

// but leaves a parameter out that a verb takes in another way.
func but(name string, params []Param) []Param {
	return slices.DeleteFunc(params, func(p Param) bool { return p.Name == name })
}

// optional makes a parameter one that may be left out.
func optional(p Param) Param {
	p.Required = false
	return p
}

// positional makes an option one that needs no name.
func positional(p Param) Param {
	p.Option = false
	return p
}

func required(p Param) Param {
	p = positional(p)
	p.Required = true
	return p
}

func optionOf(p Param) Param {
	p.Option = true
	return p
}

func labelled(label string, p Param) Param {
	p.Label = label
	return p
}

// existing is the address of a listener that is there.
func existing(name string, aliases ...string) Param {
	return Param{Name: name, Aliases: aliases, Kind: Listener, Required: true}
}

func existingUser() Param {
	return Param{Name: "name", Aliases: []string{"user"}, Kind: User, Required: true}
}

func hash() Param {
	return Param{Name: "hash", Aliases: []string{"password"}, Kind: Hash, Option: true, Label: "Password"}
}

func access() Param {
	return Param{Name: "access", Kind: Choice, Option: true, Choices: config.Find("user", "access").Choices}
}
