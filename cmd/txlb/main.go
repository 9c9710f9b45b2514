// Command txlb is the program: commands, signals, limits of the process, and
// the wiring of all parts. See README.md for what it does and
// docs/README.md for all pages of its documentation.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/txlb/txlb/config"
	view "github.com/txlb/txlb/internal/admin/console"
)

// version is set by the linker (make build).
var version = "unknown"

// Exit statuses.
const (
	exitOK     = 0
	exitFailed = 1 // failed while running
	exitUsage  = 2 // wrong usage or configuration
)

// console is the output of a command.
type console struct {
	out *answers
	err io.Writer
}

// answers is standard output. A write that fails is kept, so that no command has
// to look for it: dispatch makes it the exit status.
type answers struct {
	to  io.Writer
	err error // of the first write that failed
}

// legible is a terminal as a writer of text. It shows no control characters, those
// of bidirectional text included: names, logs and answers of strangers could steer
// the terminal with them, or show what is not there.
type legible struct{ io.Writer }

func (l legible) Write(p []byte) (int, error) {
	if _, err := io.WriteString(l.Writer, view.Clean(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// toTerminal tells whether somebody sees what is written.
func toTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// Write writes until a write has failed.
func (o *answers) Write(p []byte) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.to.Write(p)
	o.err = err
	return n, err
}

// terminal tells whether it is a terminal.
func (o *answers) terminal() bool {
	_, ok := o.to.(legible)
	return ok
}

// command is a command of txlb. Usage, help, errors and completion come from its row
// here and its flags.
type command struct {
	name  string
	words string // behind the flags: names of arguments, "a|b" for a choice, "WORDS…" for any number
	help  string
	exits string // its exit statuses, for the manual
	// setup defines the flags and returns what does the command once they are
	// parsed and the words are counted.
	setup func(*flag.FlagSet) action
}

// action does a command and returns the exit status.
type action func(ctx context.Context, c console, words []string) int

// commands lists them in the order in which the usage shows them.
func commands() []command {
	return []command{
		{"run", "", "run in the foreground; the default if flags come first", "0 after SIGTERM or Ctrl-C, 1 failed, 2 wrong usage or configuration", runCommand},
		{"demo", "", "run a demo: three small web servers behind 127.0.0.1:8080", "as run", plainly(demoCommand)},
		{"check", "", "check a configuration, its files and its permissions", "0 valid (maybe with warnings), 2 not valid", checkCommand},
		{"diff", "OLD NEW", "print the runtime commands that turn configuration OLD into NEW", "0 the same, 1 different, 2 a file is not valid", plainly(diffCommand)},
		{"convert", "haproxy|nginx FILE", "print a configuration made of one of HAProxy or nginx", "0, 2 the file has mistakes or nothing to convert", plainly(convertCommand)},
		{"explain", "FILE", "say in sentences what the lines of an access log mean", "0, 1 some lines were not readable, 2 wrong usage", plainly(explainCommand)},
		{"ctl", "WORDS…", "send runtime commands to a running txlb; without WORDS, those of standard input", "0 done, 1 rejected or failed, 2 wrong usage", ctlCommand},
		{"top", "", "show a live view of a running txlb in the terminal", "0, 1 no txlb or no terminal, 2 wrong usage", topCommand},
		{"passwd", "", "read a password and print its hash for <user password=\"…\">", "0, 1 the two differ, or it is empty or too long", plainly(passwdCommand)},
		{"reload", "PID", "check the configuration, make process PID reload it, and wait for the result: for ExecReload= of systemd", "0 reloaded, 1 the reload failed, 2 the file is not valid", reloadCommand},
		{"keeper", "", "keep the sessions of a txlb with <engine keeper=\"yes\"> if it dies: for txlb-keeper.service", "0 after SIGTERM, 1 failed", keeperCommand},
		{"completion", "bash|zsh|fish", "print the completion script for a shell", "0", plainly(completionCommand)},
		{"version", "", "print the version", "0", plainly(versionCommand)},
	}
}

// plainly is the setup of a command without flags.
func plainly(do action) func(*flag.FlagSet) action {
	return func(*flag.FlagSet) action { return do }
}

// flags returns the flags of a command and what does it.
func (cmd command) flags() (*flag.FlagSet, action) {
	flags := flag.NewFlagSet("txlb "+cmd.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	return flags, cmd.setup(flags)
}

// arguments returns the names of the words that a command takes; any tells
// that it takes any number.
func (cmd command) arguments() (names []string, any bool) {
	return strings.Fields(cmd.words), strings.HasSuffix(cmd.words, "…")
}

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	go func() {
		// The first signal asks the command to end. After that, signals have their
		// default effect: the second one ends the process at once.
		<-signals
		signal.Stop(signals)
		cancel()
	}()
	os.Exit(dispatch(ctx, os.Stdout, os.Stderr, os.Args[1:]))
}

// dispatch runs the command that args name, closes its output and returns the exit
// status. An answer that could not be written is a failure.
func dispatch(ctx context.Context, stdout io.WriteCloser, stderr io.Writer, args []string) int {
	out := &answers{to: stdout}
	if toTerminal(stdout) {
		out.to = legible{stdout}
	}
	if toTerminal(stderr) {
		stderr = legible{stderr}
	}
	status := runArgs(ctx, console{out, stderr}, args)
	if err := stdout.Close(); out.err == nil {
		out.err = err // NFS may tell only now
	}
	if out.err == nil {
		return status
	}
	fmt.Fprintln(stderr, "txlb: cannot write the answer:", out.err)
	if status == exitOK {
		return exitFailed
	}
	return status
}

// runArgs runs the command that args name and returns its exit status.
func runArgs(ctx context.Context, c console, args []string) int {
	if len(args) == 0 {
		usage(c.err)
		fmt.Fprintln(c.err, "txlb: missing argument COMMAND")
		return exitUsage
	}
	switch args[0] {
	case "help", "-h", "-help", "--help":
		usage(c.out)
		return exitOK
	case "-version", "--version":
		args[0] = "version"
	case completeWord: // called by the scripts of completion
		return completeCommand(ctx, c, args[1:])
	case manualWord: // called when a package is built
		return manualCommand(c, args[1:])
	}
	if strings.HasPrefix(args[0], "-") {
		args = append([]string{"run"}, args...)
	}
	i := slices.IndexFunc(commands(), func(cmd command) bool { return cmd.name == args[0] })
	if i < 0 {
		var names []string
		for _, cmd := range commands() {
			names = append(names, cmd.name)
		}
		fmt.Fprintf(c.err, "For help: txlb help\ntxlb: unknown command %q%s\n", args[0], config.Suggest(args[0], names))
		return exitUsage
	}
	cmd := commands()[i]
	flags, do := cmd.flags()
	err := flags.Parse(args[1:])
	if errors.Is(err, flag.ErrHelp) {
		cmd.usage(c.out)
		return exitOK
	}
	if err == nil {
		err = cmd.count(flags.Args())
	}
	if err != nil {
		message := strings.Replace(err.Error(), "flag provided but not defined:", "unknown flag", 1)
		fmt.Fprintf(c.err, "For help: txlb %s -h\ntxlb %[1]s: %s\n", cmd.name, message)
		return exitUsage
	}
	return do(ctx, c, flags.Args())
}

// count tells whether a command takes these words.
func (cmd command) count(words []string) error {
	names, any := cmd.arguments()
	switch {
	case any:
		return nil
	case len(words) > len(names):
		return fmt.Errorf("unexpected argument %q", words[len(names)])
	case len(words) < len(names):
		return fmt.Errorf("missing argument %s", names[len(words)])
	}
	for i, name := range names {
		if choices := strings.Split(name, "|"); len(choices) > 1 && !slices.Contains(choices, words[i]) {
			return fmt.Errorf("%q is not one of %s", words[i], strings.Join(choices, ", "))
		}
	}
	return nil
}

// usage lists the commands.
func usage(w io.Writer) {
	const column = 30
	fmt.Fprintln(w, "usage: txlb COMMAND")
	for _, cmd := range commands() {
		line := "  " + cmd.synopsis()
		if utf8.RuneCountInString(line) >= column {
			line += "\n"
			fmt.Fprint(w, line)
			line = ""
		}
		fmt.Fprintf(w, "%-*s%s\n", column, line, cmd.help)
	}
	fmt.Fprintln(w, "Without -c, the configuration is ./etc/config.xml, else /etc/txlb/config.xml.\nFor the flags of a command: txlb COMMAND -h")
}

// synopsis is how a command is called, without the name of the program.
func (cmd command) synopsis() string {
	parts := []string{cmd.name}
	flags, _ := cmd.flags()
	flags.VisitAll(func(f *flag.Flag) {
		value, _ := flag.UnquoteUsage(f)
		parts = append(parts, "["+strings.TrimSpace(dashed(f.Name)+" "+value)+"]")
	})
	if cmd.words != "" {
		parts = append(parts, cmd.words)
	}
	return strings.Join(parts, " ")
}

// usage tells what a command does and its flags.
func (cmd command) usage(w io.Writer) {
	fmt.Fprintf(w, "usage: txlb %s\n%s\n", cmd.synopsis(), cmd.help)
	flags, _ := cmd.flags()
	flags.VisitAll(func(f *flag.Flag) {
		value, help := flag.UnquoteUsage(f)
		fmt.Fprintf(w, "  %-12s %s\n", dashed(f.Name)+" "+value, help)
	})
	if more := moreHelp[cmd.name]; more != "" {
		fmt.Fprintln(w, more)
	}
}

// moreHelp is what the help of a command says at its end.
var moreHelp = map[string]string{
	"ctl":        "For the runtime commands: txlb ctl help",
	"completion": completionHelp,
	"convert":    convertHelp,
	"explain":    explainHelp,
}

// dashed writes the name of a flag: one dash before a letter, two before a word.
func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// configFlag adds -c and returns where its value will be.
func configFlag(flags *flag.FlagSet) *string {
	return flags.String("c", "", "configuration `FILE`")
}

// configPath returns the file to read: that of -c, else the first of the two default
// paths that exists.
func configPath(asked string) string {
	if asked != "" {
		return asked
	}
	const local, system = "etc/config.xml", "/etc/txlb/config.xml"
	if _, err := os.Stat(local); err == nil {
		return local
	}
	return system
}

func versionCommand(_ context.Context, c console, _ []string) int {
	fmt.Fprintln(c.out, "txlb", version)
	return exitOK
}
