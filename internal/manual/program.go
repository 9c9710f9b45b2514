// Package manual writes the manual pages: txlb(1) of the commands of the program and
// the table of runtime verbs, and txlb.xml(5) of the schema of the configuration. It
// writes mdoc(7), which groff and mandoc show.
package manual

import (
	"slices"
	"strings"
	"time"

	"github.com/txlb/txlb/internal/admin"
)

// Command is a command of the program.
type Command struct {
	Name  string
	Words string // behind the flags: names of arguments, "a|b" for a choice, "WORDS…" for any number
	Help  string // one line, without a full stop
	Exits string // its exit statuses, in one line
	Flags []Flag
}

// Flag is a flag of a command.
type Flag struct {
	Name  string // with its dashes
	Value string // the name of its value, "" if it takes none
	Help  string
}

// Row is what the pages say of a name.
type Row struct{ Name, Does string }

// Signals are the signals that the running program obeys, in Markdown.
func Signals() []Row { return signals }

var signals = []Row{
	{"SIGTERM, SIGINT", "drain and shut down: new clients are still accepted for `<engine grace>` (0), while `/readyz` says 503; then the listeners close, connections already in their queues are served, sessions may finish for `<engine drain>` (30 s), the rest is closed; exit status 0. A second signal ends the process at once"},
	{"SIGHUP", "reloads the configuration, see [Reload](changes.md#reload), and reopens the log file"},
	{"SIGUSR1", "reopens the log file, for logrotate"},
}

// environment are the variables that the program reads.
var environment = []Row{
	{"STATE_DIRECTORY", "The folder for files that txlb makes, such as the certificate of the page and the host key of SSH. Without it, they are made beside the configuration. systemd sets it for `StateDirectory=`."},
	{"NOTIFY_SOCKET", "Where txlb tells systemd that it is ready, reloads or stops, and its figures and problems."},
	{"WATCHDOG_USEC, WATCHDOG_PID", "Set by systemd for `WatchdogSec=`: how often txlb has to say that every loop and the director answer."},
	{"LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES", "Set by systemd: the listening sockets that `txlb.socket` and the descriptor store have for txlb."},
	{"FDSTORE", "If it is set, txlb keeps its listening sockets in the descriptor store of systemd."},
	{"RUNTIME_DIRECTORY", "Where `txlb reload` waits for the result. systemd sets it for `RuntimeDirectory=`."},
	{"LISTEN_FDS, LISTEN_PID", "Listeners that systemd has opened, for `txlb.socket`: a `<listen>` of the same address takes them over."},
	{"WATCHDOG_USEC, WATCHDOG_PID", "How often systemd wants to hear that every loop and the director respond, for `WatchdogSec=`."},
	{"TXLB_KEEPER", "The UNIX socket where `txlb keeper` listens, and where txlb reaches it. Without it, /run/txlb-keeper/keeper.sock."},
	{"JOURNAL_STREAM", "Set by systemd if standard error is the journal: the log then has no times of its own, and its lines have the levels of syslog."},
	{"GOMAXPROCS", "How many threads run at once. Without it, txlb sets it to fit the number of loops."},
	{"NO_COLOR, TERM", "`txlb top` shows no colours if NO_COLOR is set, or if TERM is dumb."},
}

// files are the files of an installed program.
var files = []Row{
	{"./etc/config.xml, /etc/txlb/config.xml", "The configuration, if `-c` names none: the first that exists."},
	{"/run/txlb/admin.sock", "The socket of `txlb ctl` and `txlb top`, unless the configuration names another."},
	{"/var/lib/txlb", "What the service makes and keeps: the certificate of the page, the host key of SSH."},
	{"/var/log/txlb", "For log files that the configuration names. Without them, the journal has the log."},
}

// Program returns the page txlb(1).
func Program(version string, date time.Time, commands []Command) string {
	p := newPage("TXLB", "1", "txlb", "TCP load balancer", "txlb "+version, date)
	p.section("SYNOPSIS")
	for _, c := range commands {
		p.macro("Nm")
		p.call(c)
	}
	p.section("DESCRIPTION")
	p.macro("Nm")
	p.text("accepts clients on the addresses of its services, picks a host for each, and passes the bytes on. " +
		"Its configuration, txlb.xml(5), names the services, the hosts, and how txlb is watched and changed.")
	p.paragraph()
	p.text("It runs in the foreground: `txlb run`. Everything else is done by the running txlb, which `txlb ctl` asks, or concerns files alone.")
	p.section("COMMANDS")
	p.list(func() {
		for _, c := range commands {
			p.command(c)
		}
	})
	p.paragraph()
	p.text("Flags without a command belong to **run**. `txlb help` lists the commands, `txlb COMMAND -h` explains one.")
	p.verbs()
	p.section("SIGNALS")
	p.rows("Dv", signals)
	p.section("ENVIRONMENT")
	p.rows("Ev", environment)
	p.section("FILES")
	p.rows("Pa", files)
	p.section("EXIT STATUS")
	p.list(func() {
		p.item("0", "", "Done.")
		p.item("1", "", "Failed while running, or an answer could not be written.")
		p.item("2", "", "Wrong usage, or a configuration that is not valid.")
	})
	p.paragraph()
	p.text("Some commands have others: see there.")
	p.section("EXAMPLES")
	for i, e := range [][2]string{
		{"Run a demo, which needs no configuration:", "txlb demo"},
		{"See whether a configuration is right, and run it:", "txlb check -c /etc/txlb/config.xml\ntxlb run -c /etc/txlb/config.xml"},
		{"Add a host, and take another out when its sessions have ended:", "txlb ctl addHost web main c 10.0.0.3:80 weight=5\ntxlb ctl setHost web main a state=drain"},
		{"Write changes made at run time to the file:", "txlb ctl saveConfig"},
		{"See what a changed file would do before it is loaded, and load it:", "txlb ctl reload --dry-run\ntxlb ctl reload"},
		{"Move from HAProxy:", "txlb convert haproxy /etc/haproxy/haproxy.cfg > config.xml"},
	} {
		if i > 0 {
			p.paragraph()
		}
		p.text(e[0])
		p.example(e[1])
	}
	p.section("SEE ALSO")
	p.macro("Xr", "txlb.xml", "5")
	p.paragraph()
	p.text("The documentation in /usr/share/doc/txlb and at https://github.com/txlb/txlb.")
	return p.String()
}

// call writes how a command is called.
func (p *page) call(c Command) {
	p.macro("Ic", quoted(c.Name))
	for _, f := range c.Flags {
		args := []string{"Fl", quoted(strings.TrimPrefix(f.Name, "-"))}
		if f.Value != "" {
			args = append(args, "Ar", quoted(f.Value))
		}
		p.macro("Op", args...)
	}
	for _, word := range strings.Fields(c.Words) {
		if several := strings.TrimSuffix(word, "…"); several != word {
			p.macro("Ar", quoted(several), "...")
			continue
		}
		for i, choice := range strings.Split(word, "|") {
			if i > 0 {
				p.macro("No", `\(ba`)
			}
			if strings.Contains(word, "|") {
				p.macro("Ic", quoted(choice))
			} else {
				p.macro("Ar", quoted(choice))
			}
		}
	}
}

// command writes what a command does.
func (p *page) command(c Command) {
	p.item(c.Name, strings.ReplaceAll(c.Words, "…", " ..."), sentence(c.Help))
	if c.Exits != "" {
		p.text("Exit status: " + c.Exits + ".")
	}
	if len(c.Flags) == 0 {
		return
	}
	p.macro("Bl", "-tag", "-width", "Ds", "-compact")
	for _, f := range c.Flags {
		args := []string{"Fl", quoted(strings.TrimPrefix(f.Name, "-"))}
		if f.Value != "" {
			args = append(args, "Ar", quoted(f.Value))
		}
		p.macro("It", args...)
		p.text(sentence(f.Help))
	}
	p.macro("El")
}

// Options that nearly every verb that changes something takes.
var everywhereOptions = []string{"generation", "dry-run", "confirm"}

// verbs writes the runtime commands.
func (p *page) verbs() {
	p.section("RUNTIME COMMANDS")
	p.text("`txlb ctl`, the page, the API and SSH take the same commands. Words are in the order shown, or named (`service=web`). " +
		"Options have their names: `weight=5`. `--force` is the same as `force=yes`. A command is applied completely or not at all. " +
		"A user with the role readonly may only use those marked so.")
	p.paragraph()
	p.text("Each command that changes something also takes `--dry-run`, which says what the command would do, " +
		"and `generation=N`, which applies it only if the configuration still has that generation. " +
		"A command that changes the configuration takes `confirm=DUR`: it is undone after that time, unless `confirm` comes before. " +
		"`txlb ctl help VERB` explains a command with each of its parameters.")
	p.list(func() {
		for _, v := range admin.Verbs() {
			v.Params = slices.DeleteFunc(slices.Clone(v.Params), func(p admin.Param) bool { return slices.Contains(everywhereOptions, p.Name) })
			role := ""
			if !v.Changes {
				role = "Readonly."
			}
			also := ""
			if len(v.Aliases) > 0 {
				also = "Also called `" + strings.Join(v.Aliases, "`, `") + "`."
			}
			p.item(v.Name, strings.TrimSpace(strings.TrimPrefix(v.Syntax(), v.Name)), sentence(v.Help), also, role)
		}
	})
}

// rows writes a list of names, each in a macro.
func (p *page) rows(macro string, rows []Row) {
	p.list(func() {
		for _, r := range rows {
			args := []string{}
			for i, name := range strings.Split(r.Name, ", ") {
				if i > 0 {
					args = append(args, ",")
				}
				args = append(args, macro, quoted(name))
			}
			p.macro("It", args...)
			p.text(sentence(r.Does))
		}
	})
}
