package admin

import (
	"math"
	"slices"

	"github.com/txlb/txlb/config"
)

// Parameters that many verbs have.

func service() Param { return Param{Name: "service", Kind: Service, Required: true} }
func group() Param   { return Param{Name: "group", Kind: Group, Required: true} }
func host() Param {
	return Param{Name: "name", Aliases: []string{"host"}, Kind: Host, Required: true}
}
func force() Param { return Param{Name: "force", Kind: Flag, Option: true} }
func drain() Param { return Param{Name: "drain", Kind: Duration, Option: true} }
func generation() Param {
	return Param{Name: "generation", Kind: Number, Option: true, Low: 1, High: math.MaxInt64}
}
func dryRun() Param { return Param{Name: "dry-run", Kind: Flag, Option: true} }

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

// edits is a verb that changes the model.
func edits(name, help string, edit func(*edit) error, params ...Param) Verb {
	return Verb{
		Name: name, Help: help, Role: Full, Changes: true, edit: edit,
		Params: append(params, generation(), dryRun()),
	}
}

// orders is a verb that changes something else than the model.
func orders(name, help string, call func(*call) (Result, error), params ...Param) Verb {
	return Verb{Name: name, Help: help, Role: Full, Changes: true, call: call, Params: params}
}

// reads is a verb that changes nothing.
func reads(name, help string, call func(*call) (Result, error), params ...Param) Verb {
	return Verb{Name: name, Help: help, Role: Readonly, call: call, Params: params}
}

// reported is a reading verb whose answer another part has.
func reported(name, help, part string) Verb {
	v := reads(name, help, (*call).report)
	v.Part = part
	return v
}

func destructive(v Verb) Verb {
	v.Destructive = true
	return v
}

func alias(v Verb, names ...string) Verb {
	v.Aliases = names
	return v
}

// ofProcess is a verb about the process itself.
func ofProcess(v Verb) Verb {
	v.Part = "the program"
	return v
}

// Verbs returns the table of all verbs, in the order in which help shows them.
func Verbs() []Verb {
	return []Verb{
		reads("status", "what runs, and what is wrong with it", (*call).status),
		reads("show services", "services with their sessions and bytes", (*call).showServices, optional(service())),
		reads("show hosts", "hosts with state, health and sessions", (*call).showHosts, optional(service()), optional(group())),
		reads("show sessions", "sessions that are open, the oldest first", (*call).showSessions,
			optional(service()), optional(group()), optional(host()), Param{Name: "max", Kind: Number, Option: true, Low: 1, High: 10_000_000}),
		reads("show config", "the running configuration; password hashes for full users only", (*call).showConfig),
		reads("show stored", "the stored configuration, as its file says it; password hashes for full users only", (*call).showStored),
		reads("show diff", "what runs and the file does not say, as verbs", (*call).showDiff),
		reported("show metrics", "the figures that Prometheus gets", "the metrics"),
		reads("show events", "who changed what, and which host went down why, the newest last", (*call).showEvents,
			Param{Name: "max", Kind: Number, Option: true, Low: 1, High: 1000}),
		reported("show log", "the last lines of the log", "the log"),
		reads("help", "all verbs, or one", (*call).help, Param{Name: "verb", Kind: VerbName}, Param{Name: "word", Kind: Text}),

		alias(edits("addService", "a new service that listens on an address; it needs a group next", addService, slices.Concat([]Param{
			{Name: "name", Aliases: []string{"service"}, Required: true}, listen(),
		}, settings("listen"))...), "newService"),
		destructive(edits("delService", "close the listeners of a service and forget it; its sessions go on", delService, service())),
		edits("addListen", "one more address for the clients of a service", addListen, slices.Concat(
			[]Param{service(), listen()}, settings("listen"))...),
		destructive(edits("delListen", "close a listener; what waits in its queue is served", delListen, service(), listen())),
		edits("switchPort", "move a service to another address, or to another port of the same", switchPort,
			service(), Param{Name: "address", Aliases: []string{"listen", "ip", "port"}, Required: true},
			Param{Name: "old", Kind: Listen}),
		edits("setService", "change timeouts and limits of a service", setService, slices.Concat(
			[]Param{service()}, settings("timeouts", "limits"))...),
		alias(edits("addGroup", "a new group; the first of a service takes its clients at once", addGroup, slices.Concat([]Param{
			service(), {Name: "name", Aliases: []string{"group"}, Required: true}, {Name: "scheduler", Kind: Scheduler},
		}, but("scheduler", settings("group")))...), "newGroup"),
		edits("setGroup", "change how a group chooses hosts and judges them", setGroup, slices.Concat(
			[]Param{service(), group()}, settings("group"))...),
		destructive(edits("delGroup", "forget a group that takes no clients", delGroup, service(), group())),
		edits("enableGroup", "give the clients of a service to another group, all at once; sessions finish where they are, or until drain is over",
			enableGroup, service(), group(), drain(), force()),
		edits("changeScheduler", "choose hosts in another way from now on", changeScheduler,
			service(), group(), Param{Name: "scheduler", Kind: Scheduler, Required: true}),
		edits("addHost", "one more host for a group", addHost, slices.Concat([]Param{
			service(), group(), {Name: "name", Aliases: []string{"host"}, Required: true},
			{Name: "ip", Aliases: []string{"address"}, Kind: Address, Required: true},
		}, but("ip", settings("host")))...),
		destructive(edits("delHost", "no more clients for a host, given by name or address; its sessions finish, or until drain is over", delHost,
			service(), group(), Param{Name: "name", Aliases: []string{"host", "ip", "address"}, Kind: Host, Required: true},
			drain(), force())),
		destructive(edits("delAllHosts", "empty a group that takes no clients", delAllHosts, service(), group())),
		edits("setHost", "change weight, state, role or address of a host", setHost, slices.Concat(
			[]Param{service(), group(), host()}, settings("host"))...),
		edits("hostAdminDown", "take a host out for maintenance: no clients, no probes; sessions go on", hostAdminDown, service(), group(), host()),
		edits("hostAdminUp", "give a host clients again after maintenance or draining", hostAdminUp, service(), group(), host()),
		orders("retryHost", "count a host that is down as up, at once", (*call).retryHost, service(), group(), host(), generation(), dryRun()),
		destructive(orders("shutdownSessions", "end the sessions of a service, a group or a host now", (*call).shutdownSessions,
			service(), optional(group()), optional(host()), generation(), dryRun())),
		destructive(orders("shutdownSession", "end one session now, by its ID in show sessions", (*call).shutdownSession,
			Param{Name: "id", Required: true})),
		edits("addUser", "one more user of the admin", addUser, Param{Name: "name", Aliases: []string{"user"}, Required: true},
			Param{Name: "hash", Aliases: []string{"password"}, Kind: Hash, Required: true},
			Param{Name: "access", Kind: Choice, Required: true, Choices: []string{"full", "readonly"}}),
		destructive(edits("delUser", "forget a user", delUser, Param{Name: "name", Aliases: []string{"user"}, Kind: User, Required: true})),

		alias(orders("saveConfig", "write the running configuration to its file", (*call).save, generation(), dryRun()), "save"),
		orders("reload", "read the file again; what was changed since by verbs stays, unless discarded", (*call).reload,
			Param{Name: "discard", Kind: Flag, Option: true}, generation(), dryRun()),
		destructive(orders("rollback", "undo the last change, or the last N", (*call).rollback,
			Param{Name: "n", Kind: Number, Low: 1, High: 10_000}, generation(), dryRun())),
		ofProcess(orders("closeLog", "open the log files anew", (*call).closeLog)),
		destructive(ofProcess(orders("shutdown", "take leave of the clients and end the process", (*call).shutdown))),
	}
}
