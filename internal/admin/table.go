package admin

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/admin/users"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/status"
	"github.com/txlb/txlb/internal/words"
)

// alters is a verb that changes the model.
func alters(name, help string, edit func(*edit) error, params ...Param) Verb {
	return Verb{
		Name: name, Help: help, Role: users.Full, Changes: true, edit: edit,
		Params: append(params, confirm(), generation(), dryRun()),
	}
}

// orders is a verb that changes something else than the model.
func orders(name, help string, call func(*call) (Result, error), params ...Param) Verb {
	return Verb{Name: name, Help: help, Role: users.Full, Changes: true, call: call, Params: params}
}

// reads is a verb that changes nothing.
func reads(name, help string, call func(*call) (Result, error), params ...Param) Verb {
	return Verb{Name: name, Help: help, Role: users.Readonly, call: call, Params: params}
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
		reads("status", "show state and problems", (*call).status),
		reads("show services", "list services with their sessions and bytes", (*call).showServices, optional(service())),
		reads("show hosts", "list hosts with state, health and sessions", (*call).showHosts, optional(service()), optional(group())),
		reads("show access", "list the access rules of services in their order", (*call).showAccess, optional(service())),
		reads("show routes", "list the routes of services in their order, with the clients that each has had", (*call).showRoutes, optional(service())),
		reads("show mirrors", "list the mirrors of groups, with the copies that each has got and lost", (*call).showMirrors, optional(service())),
		reads("show sessions", "list open sessions, oldest first", (*call).showSessions,
			optional(service()), optional(group()), optional(host()), most(usualSessions, 10_000_000),
			Param{Name: "ended", Kind: Flag, Option: true, Help: "list the last sessions that have ended instead, newest first"}),
		reads("show clients", "list clients by open sessions, most first: an IPv4 address or an IPv6 /64 network each", (*call).showClients,
			optional(service()), most(usualSessions, maxClients)),
		reads("show config", "show the running configuration; password hashes and what checks send only for full users", (*call).showConfig),
		reads("show stored", "show the configuration file; password hashes and what checks send only for full users", (*call).showStored),
		reads("show diff", "show changes that are not in the file, as verbs", (*call).showDiff),
		reported("show metrics", "show the Prometheus metrics", "the metrics"),
		reads("show events", "list changes with their users, and hosts that went down with the reason; newest last", (*call).showEvents,
			most(manyEvents, 1000)),
		reported("show log", "show the last lines of the log", "the log"),
		reported("show fleet", "list the nodes of the fleet with version, readiness, generation, lag and sessions", "the fleet"),
		reads("help", "list all verbs, or explain one, or one parameter of it", (*call).help,
			Param{Name: "verb", Kind: VerbName}, Param{Name: "word", Kind: Text}, Param{Name: "parameter", Kind: Text}),
		reads("explain", "tell what happened to a session that is open, or has ended lately", (*call).explain,
			Param{Name: "id", Kind: AnySession, Required: true, Help: "as show sessions and the access log in JSON have it"}),

		alias(alters("addService", "add a service that listens on an address; then add a group", addService, slices.Concat([]Param{
			{Name: "name", Aliases: []string{"service"}, Required: true}, labelled("Listens on", listen()),
		}, settings("listen"))...), "newService").
			offer(Offer{Label: "Add service", Note: "Then add a group and a host."}),
		destructive(alters("delService", "close the listeners of a service and delete it; its sessions finish, at most until drain is over", delService, service(), drain())).
			offer(Offer{
				Label: "Delete service", Note: "Its listeners close; sessions finish.",
				Title: "Delete service {service}?",
				Lines: []string{"Its listeners close and new clients are refused. {sessions}{finish}."},
				When:  func(s *Scene) bool { return len(s.Services) > 1 }, Warn: servesClients,
			}),
		alters("addListen", "add a listen address to a service", addListen, slices.Concat(
			[]Param{service(), listen()}, settings("listen"))...).
			offer(Offer{Label: "Add listener", Note: "Clients can connect here too."}),
		destructive(alters("delListen", "close a listener; connections already in its queue are served; sessions finish, at most until drain is over", delListen,
			service(), existing("address", "listen", "ip"), drain())).
			offer(Offer{
				Label: "Close listener", Note: "Sessions continue.",
				Title: "Close listener {address} of service {service}?",
				Lines: []string{"The system refuses new connections to this address. Sessions continue."},
				When:  func(s *Scene) bool { return len(s.Service.Config.Listen) > 1 },
			}),
		alters("switchPort", "move a service to another address, or to another port of the same address", switchPort,
			service(), Param{
				Name: "address", Aliases: []string{"listen", "ip", "port"}, Required: true, Label: "To", Help: "an address, or only a port",
			}, labelled("From", optional(existing("old"))), drain()).
			offer(Offer{Label: "Move listener", Note: "New clients connect to the new address; sessions continue."}),
		alters("setService", "change timeouts and limits of a service", setService, slices.Concat(
			[]Param{service()}, settings("timeouts", "limits"))...).
			offer(Offer{Label: "Change settings"}).
			undoneBy(setBack("setService", "timeouts", "limits")),
		alias(alters("addGroup", "add a group; the first group of a service is active at once", addGroup, slices.Concat([]Param{
			service(), {Name: "name", Aliases: []string{"group"}, Required: true}, positional(setting(config.Find("group", "scheduler"))),
		}, but("scheduler", settings("group")))...), "newGroup").
			offer(Offer{Label: "Add group", Note: "The first group of a service is active at once; further groups are standby."}),
		alters("setGroup", "change scheduler and failure handling of a group", setGroup, slices.Concat(
			[]Param{service(), group()}, settings("group"))...).
			offer(Offer{Label: "Change settings"}).
			undoneBy(setBack("setGroup", "group")),
		alters("addAccess", "allow or deny some clients of a service; the first rule that matches decides, and sessions continue", addAccess,
			service(), Param{Name: "action", Kind: Choice, Required: true, Choices: []string{"allow", "deny"}, Help: "what becomes of clients that match"},
			setting(config.Find("allow", "net")), setting(config.Find("allow", "file")), optionOf(ruleNumber("at"))).
			offer(Offer{Label: "Add access rule", Note: "The first rule that matches a new client decides; sessions continue."}),
		destructive(alters("delAccess", "delete an access rule; sessions continue", delAccess, service(), labelled("Access rule", required(ruleNumber("number"))))).
			offer(Offer{
				Label: "Delete access rule", Note: "Sessions continue.",
				Title: "Delete access rule {number} of service {service}?",
				Lines: []string{"The next rule that matches decides about new clients; without one they are let in. Sessions continue."},
				When:  hasRules,
			}),
		alters("addRoute", "send clients that match to another group than the active one; the first route that matches decides", addRoute, slices.Concat(
			[]Param{service(), group()}, but("group", settings("route")), []Param{optionOf(routeNumber("at"))})...).
			offer(Offer{Label: "Add route to this group", Note: "New clients that match come to this group, whichever is active."}),
		alters("setRoute", "change whom a route sends where; sessions stay", setRoute, slices.Concat(
			[]Param{service(), labelled("Route", required(routeNumber("number")))}, settings("route"))...).
			offer(Offer{Label: "Change route", When: hasRoutes}),
		destructive(alters("delRoute", "delete a route; sessions stay", delRoute, service(), labelled("Route", required(routeNumber("number"))))).
			offer(Offer{
				Label: "Delete route", Note: "Sessions continue.",
				Title: "Delete route {number} of service {service}?",
				Lines: []string{"New clients that match it go to the next route that they match, else to the active group. Sessions continue."},
				When:  hasRoutes,
			}),
		destructive(alters("delGroup", "delete a standby group; its sessions finish, at most until drain is over", delGroup, service(), group(), drain())).
			offer(Offer{
				Label: "Delete group", Note: "With its hosts.",
				Title: "Delete group {group} of service {service}?",
				Lines: []string{"Its {hosts} will be deleted too. {sessions} on them{finish}."},
				When:  unused,
			}),
		alters("enableGroup", "make a group active: all new clients go to it at once; sessions on the old group finish, at most until drain is over",
			enableGroup, service(), group(), labelled("Close the other group's sessions after", drain()), force()).
			offer(Offer{
				Label: "Make active", Note: "All new clients of the service go to this group at once.",
				Title:  "Make group {group} the active group of service {service}?",
				Lines:  []string{"All new clients go to group {group} from now on.", "{active} now.", "{serving}."},
				Preset: []words.Word{{Key: "confirm", Value: "60s"}},
				When:   standby, Warn: noneServing,
			}).
			undoneBy(groupBack),
		orders("hold", "make new clients of a group wait, unread and in their order, until release, or until for is over; sessions go on", (*call).hold,
			service(), group(),
			Param{Name: "for", Kind: Duration, Option: true, Low: int64(time.Millisecond), High: int64(longestHold), Label: "At most for", Help: "when it ends by itself, and they are released; default 30s"},
			Param{Name: "max", Kind: Number, Option: true, Low: 1, High: mostHeld, Label: "At most so many clients", Help: fmt.Sprintf("how many may wait at once, further ones are rejected; default %d", director.DefaultMostHeld)},
			generation(), dryRun()).
			offer(Offer{
				Label: "Hold clients", Note: "New clients wait, while you restart its hosts; sessions continue.",
				Title: "Hold new clients of group {group} of service {service}?",
				Lines: []string{"They wait, connected and unread, until you release them, or until the time is over. {serving}."},
				When:  func(s *Scene) bool { return s.Group.Group.Hold() == nil },
			}),
		orders("release", "let the held clients of a group go on to its hosts, in their order", (*call).release,
			service(), group(),
			Param{Name: "over", Kind: Duration, Option: true, High: int64(longestHold), Label: "Evenly over", Help: "how long it takes to let all out, evenly; those who come meanwhile are behind them. Default: all at once"},
			generation(), dryRun()).
			offer(Offer{
				Label: "Release clients", Note: "Held clients go on to its hosts, in their order.",
				When: func(s *Scene) bool { return s.Group.Group.Hold() != nil },
			}),
		alters("changeScheduler", "change how a group chooses hosts", changeScheduler,
			service(), group(), required(setting(config.Find("group", "scheduler")))).
			offer(Offer{Label: "Change scheduler", Note: "Sessions stay on their hosts; new ones use the new scheduler."}).
			undoneBy(setBack("changeScheduler", "group")),
		alters("addHost", "add a host to a group", addHost, slices.Concat([]Param{
			service(), group(), {Name: "name", Aliases: []string{"host"}, Required: true},
			{Name: "ip", Aliases: []string{"address"}, Kind: Address, Required: true, Label: "Address"},
		}, but("ip", settings("host")))...).
			offer(Offer{Label: "Add host"}),
		destructive(alters("delHost", "delete a host, given by name or address; its sessions finish, at most until drain is over", delHost,
			service(), group(), Param{Name: "name", Aliases: []string{"host", "ip", "address"}, Kind: Host, Required: true},
			drain(), force())).
			offer(Offer{
				Label: "Delete host", Note: "Removes it from the configuration.",
				Title: "Delete host {name}?",
				Lines: []string{"It is removed from the configuration. {sessions} on it."},
				Warn:  withoutLast,
			}),
		destructive(alters("delAllHosts", "delete all hosts of a standby group; their sessions finish, at most until drain is over", delAllHosts, service(), group(), drain())).
			offer(Offer{
				Label: "Delete all its hosts", Note: "The group stays, empty.",
				Title: "Delete all {hosts} of group {group}?",
				Lines: []string{"The group stays, empty. {sessions} on them{finish}."},
				When:  unused,
			}),
		alters("addMirror", "copy what the clients of a group send to another address, whose answers are dropped", addMirror, slices.Concat([]Param{
			service(), group(), {Name: "ip", Aliases: []string{"mirror", "address"}, Kind: Address, Required: true, Label: "Address"},
		}, settings("mirror"))...).
			offer(Offer{Label: "Add mirror", Note: "It gets a copy of what new clients of the group send, writes included. Its answers are dropped."}),
		alters("setMirror", "change a mirror of a group, for new sessions", setMirror, slices.Concat(
			[]Param{service(), group(), mirror()}, settings("mirror"))...).
			offer(Offer{Label: "Change mirror", When: hasMirrors}),
		destructive(alters("delMirror", "copy new sessions of a group to a mirror no more; copies under way go on", delMirror, service(), group(), mirror())).
			offer(Offer{
				Label: "Delete mirror", Note: "Sessions continue.",
				Title: "Delete mirror {ip} of group {group}?",
				Lines: []string{"It gets no copies of new sessions. Sessions continue."},
				When:  hasMirrors,
			}),
		alters("setHost", "change weight, state, role or address of a host; drain is for one that takes no new clients", setHost, slices.Concat(
			[]Param{service(), group(), host()}, settings("host"), []Param{drain()})...).
			offer(Offer{
				Label: "Set weight", Note: "Its share of new clients, relative to the other hosts; 0: none.",
				Fields: []string{"weight"},
			}).
			offer(Offer{Label: "Change settings"}).
			offer(Offer{
				Label: "Drain", Note: "No new clients; its sessions finish.",
				Title: "Drain host {name}?",
				Lines: []string{"It gets no new clients. {sessions} on it{finish}."},
				Set:   []words.Word{{Key: "state", Value: "drain"}}, Fields: []string{"drain"}, When: stateIsNot("drain"), Warn: withoutHost,
			}).
			undoneBy(setBack("setHost", "host")),
		alters("hostAdminDown", "put a host into maintenance: no new clients, no health checks; sessions finish, at most until drain is over", hostAdminDown,
			service(), group(), host(), drain()).
			offer(Offer{
				Label: "Start maintenance", Note: "No new clients, no health checks; its sessions finish.",
				Title: "Put host {name} into maintenance?",
				Lines: []string{"It gets no new clients and no health checks. {sessions} on it{finish}."},
				When:  stateIsNot("maint"), Warn: withoutHost,
			}).
			undoneBy(stateBack),
		alters("hostAdminUp", "make a host ready again after maintenance or drain", hostAdminUp, service(), group(), host()).
			offer(Offer{Label: "Set ready", When: stateIsNot("ready")}).
			undoneBy(stateBack),
		orders("retryHost", "mark a host that is down as up now", (*call).retryHost, service(), group(), host(), generation(), dryRun()).
			offer(Offer{
				Label: "Mark up now", Note: "Mark it up without waiting for a check; the next failure marks it down again.",
				When: func(s *Scene) bool { return s.Host.Health == status.Down || s.Host.Health == status.Part },
			}),
		destructive(orders("forgetClients", "forget which hosts the clients of a group come back to, or of one host; for schedulers with ,sticky",
			(*call).forgetClients, service(), group(), optional(host()), generation(), dryRun())).
			offer(Offer{
				Label: "Forget clients", Note: "The scheduler chooses again for its clients, with their next session.",
				Title: "Forget the clients of {place}?",
				Lines: []string{"The scheduler chooses again for each of them, with their next session. Sessions continue."},
				When:  func(s *Scene) bool { return s.Group.Sticky != nil },
			}),
		destructive(orders("shutdownSessions", "close the sessions of a service, a group or a host now", (*call).shutdownSessions,
			service(), optional(group()), optional(host()), generation(), dryRun())).
			offer(Offer{
				Label: "Close all its sessions", Note: "They are closed now.",
				Title: "Close the sessions of {place} now?",
				Lines: []string{"{sessions}.{reconnect}"},
			}),
		destructive(orders("moveSessions", "close a part of a host's sessions, drawn by lot, so that their clients reconnect to other hosts; rounded up", (*call).moveSessions,
			service(), group(), host(), Param{
				Name: "percent", Kind: Number, Option: true, Required: true, Low: 1, High: 100, Label: "Percent of its sessions",
				Help: "how many of each hundred sessions, from 1 to 100",
			}, force(), generation(), dryRun())).
			offer(Offer{
				Label: "Move sessions", Note: "Some are closed, so that their clients reconnect to other hosts.",
				Title: "Close a part of the sessions of {place} now?",
				Lines: []string{"{sessions}. Which ones are closed is drawn by lot. Their clients may reconnect at once."},
				Warn:  nowhereElse,
			}),
		destructive(orders("shutdownSession", "close one session now, by its ID in show sessions", (*call).shutdownSession,
			Param{Name: "id", Kind: Session, Required: true, Help: "as show sessions has it"})).
			offer(Offer{
				Label: "Close session",
				Title: "Close session {id}?",
				Lines: []string{"The connection is closed now. The client may reconnect at once."},
			}),
		alters("addUser", "add a user for page and SSH; page, SSH and ctl ask for the password if there is no hash", addUser,
			Param{Name: "name", Aliases: []string{"user"}, Required: true}, required(hash()), required(access())).
			offer(Offer{Label: "Add user", Note: "Lost when txlb stops, unless saved."}),
		alters("setUser", "change password or access of a user; page, SSH and ctl ask for the password if nothing else is to be set", setUser,
			existingUser(), hash(), access()).
			offer(Offer{
				Label: "Change user", Note: "Lost when txlb stops, unless saved.",
				When: func(s *Scene) bool { return len(s.State.Config.Admin.Users) > 0 },
			}),
		destructive(alters("delUser", "delete a user", delUser, existingUser())).
			offer(Offer{
				Label: "Delete user", Note: "It loses access.",
				Title: "Delete user {name}?",
				Lines: []string{"Anyone logged in as this user loses access with the next command."},
			}),

		orders("confirm", "keep a change that is undone otherwise (see confirm=), by its generation; without one, the only such change", (*call).confirm,
			Param{Name: "change", Word: "generation", Kind: Unconfirmed, Low: 1, High: math.MaxInt64, Help: "the generation that the change has made"}).
			offer(Offer{
				Label: "Confirm", Note: "Keep the change that waits to be confirmed.", Fields: []string{},
				When: func(s *Scene) bool { return len(s.State.Pending()) == 1 },
			}),
		alias(orders("saveConfig", "write the running configuration to its file, without changes that wait to be confirmed", (*call).save, generation(), dryRun()), "save").
			offer(Offer{
				Label: "Save", Note: "Write the running configuration to its file.",
				When: func(s *Scene) bool { return s.HasFile && len(s.Unsaved) > 0 },
			}),
		orders("reload", "read the file again; run-time changes stay, unless discarded", (*call).reload,
			Param{Name: "discard", Kind: Flag, Option: true, Label: "Discard run-time changes", Help: "discard run-time changes"},
			Param{Name: "force", Kind: Flag, Option: true, Label: "Discard them on all nodes", Help: "discard them on all nodes of a fleet"}, confirm(), generation(), dryRun()).
			offer(Offer{
				Label: "Reload", Note: "Read the configuration file again.",
				Title: "Reload the configuration file?",
				Lines: []string{"The changes in the file take effect. Run-time changes stay, unless you discard them."},
				When:  func(s *Scene) bool { return s.HasFile }, Warn: discards,
			}),
		destructive(orders("rollback", "undo the last change, or the last N", (*call).rollback,
			Param{Name: "n", Kind: Number, Low: 1, High: 10_000}, confirm(), generation(), dryRun())).
			offer(Offer{
				Label: "Undo last change", Note: "Restores the configuration as it was before.",
				Title: "Undo the last change?",
				Lines: []string{"{last}", "The undo is itself a change and can be undone."},
				When:  func(s *Scene) bool { return s.State.Generation > 1 },
			}),
		ofProcess(orders("closeLog", "reopen the log files", (*call).closeLog)).
			offer(Offer{Label: "Reopen log files", Note: "After log rotation."}),
		ofFleet(ofProcess(orders("upgrade", "start the installed program and hand listeners and sessions over to it; no client is refused", (*call).upgrade, slices.Concat([]Param{
			{Name: "fleet", Kind: Flag, Option: true, Help: "on all nodes of the fleet, one after the other, each when the one before is ready; it stops where one is not"},
		}, cancels())...))).
			offer(cancelOffer()).
			offer(Offer{
				Label: "Upgrade the fleet", Note: "One node after the other hands over to its installed program.",
				Title: "Upgrade all nodes of the fleet, one after the other?",
				Lines: []string{
					"Each node hands over to the program that is installed on it. No client is refused.",
					"The next one begins when the one before is ready with the same version and configuration. It stops where a node is not.",
				},
				Set: []words.Word{{Key: "fleet", Value: "yes"}}, Fields: []string{}, When: inFleet,
			}).
			offer(Offer{
				Label: "Upgrade node", About: "node", Fields: []string{},
				Title: "Hand over to the installed program on node {node}?",
				Lines: []string{
					"The program that is installed on it takes over listeners, configuration, counters and sessions. No client is refused.",
					"If it does not start, the one that runs goes on.",
				},
				When: aboutNode,
			}).
			offer(Offer{
				Label: "Upgrade", Note: "Hand over to the installed program.", Fields: []string{},
				Title: "Hand over to the installed program?",
				Lines: []string{
					"The program that is installed now takes over listeners, configuration, counters and sessions. No client is refused.",
					"If it does not start, this one goes on. Users of page and SSH connect again.",
				},
			}),
		destructive(ofFleet(ofProcess(orders("shutdown", "drain and shut down", (*call).shutdown)))).
			offer(Offer{
				Label: "Shut down node", About: "node", Fields: []string{},
				Title: "Shut down node {node}?",
				Lines: []string{
					"Its /readyz says 503, and after <engine grace> it refuses new clients. Sessions still open at the drain timeout are closed.",
					"Then its process ends. Another node cannot start it again.",
				},
				When: aboutNode,
			}).
			offer(Offer{
				Label: "Shut down", Note: "Drain and shut down.", Fields: []string{},
				Title: "Shut down txlb?",
				Lines: []string{
					"New clients are refused at once. {sessions}. Sessions still open at the drain timeout are closed.",
					"Then the process ends, and so does the admin page.",
				},
				Warn: endsAll,
			}),
	}
}

// Reference gives the table of verbs for the documentation, in Markdown.
func Reference() string {
	var b strings.Builder
	b.WriteString("| verb | role | does |\n|---|---|---|\n")
	verbs := Verbs()
	for i := range verbs {
		v := &verbs[i]
		help := v.Help
		if len(v.Aliases) > 0 {
			help += "; also `" + strings.Join(v.Aliases, "`, `") + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", strings.ReplaceAll(short(v).Syntax(), "|", `\|`), v.Role, help)
	}
	return b.String()
}

// short leaves out what nearly every changing verb takes.
func short(v *Verb) *Verb {
	s := *v
	s.Params = slices.DeleteFunc(slices.Clone(v.Params), func(p Param) bool { return p.everywhere() })
	return &s
}
