// Command txlb is the program: commands, signals, limits of the process, and
// the wiring of all parts. See README.md for what it does and
// docs/operations.md for running it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the linker (make build).
var version = "unknown"

// Exit statuses.
const (
	exitOK     = 0
	exitFailed = 1 // failed while running
	exitUsage  = 2 // wrong usage or configuration
)

// console is where a command talks to the person who called it.
type console struct {
	out, err io.Writer
}

// command is one word that may follow txlb.
type command struct {
	name, args, help string
	run              func(ctx context.Context, c console, args []string) int
}

// commands lists them in the order in which the usage shows them.
func commands() []command {
	return []command{
		{"run", "[-c FILE]", "run in the foreground", runCommand},
		{"demo", "", "balance three small web servers inside on 127.0.0.1:8080", demoCommand},
		{"check", "[-c FILE]", "say what is wrong with a configuration", checkCommand},
		{"diff", "OLD NEW", "print the runtime commands that make one configuration into another", diffCommand},
		{"ctl", "[-s SOCKET] WORDS…", "one runtime command to a running txlb; without words, those of standard input", ctlCommand},
		{"top", "[-s SOCKET]", "a live view of a running txlb in the terminal", topCommand},
		{"passwd", "", "read a password, print the hash for <user password=\"…\">", passwdCommand},
		{"completion", "bash|zsh|fish", "print the script that completes txlb in a shell", completionCommand},
		{"version", "", "print the version", versionCommand},
	}
}

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	go func() {
		// The first signal asks the command to end in good order. Signals are
		// not held back any longer then: the second ends the process at once.
		<-signals
		signal.Stop(signals)
		cancel()
	}()
	os.Exit(dispatch(ctx, console{os.Stdout, os.Stderr}, os.Args[1:]))
}

// dispatch runs the command that args name and returns the exit status.
func dispatch(ctx context.Context, c console, args []string) int {
	if len(args) == 0 {
		usage(c.err)
		return exitUsage
	}
	switch args[0] {
	case "help", "-h", "-help", "--help":
		usage(c.out)
		return exitOK
	case completeWord: // called by the scripts of completion
		return completeCommand(ctx, c, args[1:])
	}
	for _, cmd := range commands() {
		if cmd.name == args[0] {
			return cmd.run(ctx, c, args[1:])
		}
	}
	fmt.Fprintf(c.err, "txlb: there is no command %q\n", args[0])
	usage(c.err)
	return exitUsage
}

func usage(w io.Writer) {
	fmt.Fprintln(w, "usage:")
	for _, cmd := range commands() {
		fmt.Fprintf(w, "  txlb %-10s %-18s %s\n", cmd.name, cmd.args, cmd.help)
	}
	fmt.Fprintln(w, "without -c the configuration is ./etc/config.xml, else /etc/txlb/config.xml")
}

// parseFlags reads a command's flags and refuses other words.
func parseFlags(c console, name string, flags *flag.FlagSet, args []string) (status int, ok bool) {
	flags.SetOutput(c.err)
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return exitOK, false
		}
		return exitUsage, false
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(c.err, "txlb %s: %q is one word too many\n", name, flags.Arg(0))
		return exitUsage, false
	}
	return exitOK, true
}

// configFlag adds -c and returns where its value will be.
func configFlag(flags *flag.FlagSet) *string {
	return flags.String("c", "", "configuration `FILE`")
}

// configPath returns the file to read: the one asked for, else the first of
// the two usual ones that exists.
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

func versionCommand(_ context.Context, c console, args []string) int {
	if status, ok := parseFlags(c, "version", flag.NewFlagSet("txlb version", flag.ContinueOnError), args); !ok {
		return status
	}
	fmt.Fprintln(c.out, "txlb", version)
	return exitOK
}
