package config

// Element is one element of a document: where it stands and what it is for. Its
// attributes are those of [Attributes].
type Element struct {
	Name  string
	In    string // the element that it stands in, "" for the root
	Often string // how often it stands there: "one", "at most one", "any number" or "one or more"
	Help  string // what it is for, in one sentence of Markdown
}

// Elements returns the elements in the order in which documentation shows them: each
// behind the one that it stands in. The forms of earlier versions are not among them.
// The caller must not change the list.
func Elements() []Element { return elements }

var elements = []Element{
	{"config", "", "one", "The root. In a file from PythonDirector it is `<pdconfig>`."},
	{"engine", "config", "at most one", "What the process may use. A change needs a restart."},
	{"fleet", "config", "at most one", "Makes this node one of several that have one configuration, which etcd keeps, see [Fleet](fleet.md). A change needs a restart."},
	{"service", "config", "one or more", "Everything about one kind of client: where they connect, and the hosts for them."},
	{"listen", "service", "one or more", "An address where clients of the service connect."},
	{"timeouts", "service", "at most one", "How long the service waits, for what."},
	{"limits", "service", "at most one", "How many sessions the service takes, and how fast."},
	{"access", "service", "at most one", "Who may connect: the first of its rules that matches a client decides. A client that none matches is let in."},
	{"allow", "access", "any number", "A rule for clients that are let in."},
	{"deny", "access", "any number", "A rule for clients that are reset."},
	{"route", "service", "any number", "Sends clients to another group than the enabled one. What a route says must all hold; the first route that matches decides."},
	{"group", "service", "any number", "Hosts that do the same. One group of a service is enabled and has the clients that no route takes."},
	{"check", "group", "at most one", "How the hosts of the group are checked. Without it, `<hostCheck>` and `<heartbeat>` do it."},
	{"host", "group", "any number", "A server that gets clients."},
	{"mirror", "group", "any number", "Gets a copy of what the clients of the group send; its answers are dropped, see [Mirrors](mirrors.md)."},
	{"admin", "config", "at most one", "Where and by whom txlb is watched and changed."},
	{"metrics", "admin", "at most one", "Serves Prometheus text at `/metrics`, over plain HTTP and without a login."},
	{"web", "admin", "at most one", "The admin page and the API."},
	{"ssh", "admin", "at most one", "The runtime commands over SSH."},
	{"socket", "admin", "at most one", "The UNIX socket of `txlb ctl`, and of tools for HAProxy."},
	{"user", "admin", "any number", "Who may log in to the page and over SSH."},
	{"key", "user", "any number", "Its text is a public key of the user for SSH, as in `~/.ssh/id_ed25519.pub`."},
	{"manager", "config", "at most one", "Tasks that are done again and again."},
	{"hostCheck", "manager", "at most one", "Checks of hosts that are down, in groups without a `<check>`."},
	{"heartbeat", "manager", "at most one", "Checks of hosts that are up, in groups without a `<check>`."},
	{"configCheck", "manager", "at most one", "Saves run-time changes to the file."},
	{"dns", "config", "at most one", "Who is asked for the names of hosts."},
	{"control", "config", "at most one", "A UNIX socket that tells which client a connection to a host belongs to."},
	{"logging", "config", "at most one", "Where the logs go."},
}
