package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/term"

	"github.com/txlb/txlb/config/document"
	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/admin/socket"
	"github.com/txlb/txlb/internal/passwd"
	"github.com/txlb/txlb/internal/words"
)

// ctl is one call of txlb ctl.
type ctl struct {
	console
	ctx    context.Context
	client *socket.Client
	in     *os.File
	json   bool // every answer
	yes    bool // do not ask
}

// ctlCommand sends runtime commands to a running txlb over its local socket.
func ctlCommand(flags *flag.FlagSet) action {
	to := socketFlags(flags)
	k := &ctl{in: os.Stdin}
	flags.BoolVar(&k.json, "json", false, "print each answer as one JSON object per line")
	flags.BoolVar(&k.yes, "yes", false, "do not ask before commands that cannot be undone")
	return func(ctx context.Context, c console, words []string) int {
		k.console, k.ctx = c, ctx
		return k.run(to, words)
	}
}

func (k *ctl) run(to target, words []string) int {
	if i := slices.Index(words, "--yes"); i >= 0 {
		k.yes, words = true, slices.Delete(words, i, i+1)
	}
	path, err := to.path()
	if err != nil {
		fmt.Fprintln(k.err, "txlb ctl:", err)
		return exitUsage
	}
	if k.client, err = socket.Dial(path); err != nil {
		fmt.Fprintln(k.err, "txlb ctl:", err)
		return exitFailed
	}
	defer func() { _ = k.client.Close() }()
	if len(words) > 0 {
		return k.do(commandLine(words))
	}
	return k.lines()
}

// target is which txlb a command talks to, as its flags say.
type target struct{ socket, file *string }

// socketFlags adds the flags of a target.
func socketFlags(flags *flag.FlagSet) target {
	return target{
		flags.String("s", "", "`SOCKET` of the running txlb (default: that of the configuration, else "+socket.DefaultPath+")"),
		configFlag(flags),
	}
}

func (t target) path() (string, error) { return socketPath(*t.socket, *t.file) }

// socketPath returns the socket to use: that of -s, else that of the configuration,
// else the default. A configuration must exist only if -c names it.
func socketPath(asked, file string) (string, error) {
	if asked != "" {
		return asked, nil
	}
	doc, problems := document.Open(configPath(file))
	switch {
	case doc == nil && file != "":
		return "", fmt.Errorf("%s is not a valid configuration: %s", file, strings.ReplaceAll(problems.Error(), "\n", "; "))
	case doc == nil:
		return socket.DefaultPath, nil
	case doc.Config.Admin.Socket == nil && file != "":
		return "", fmt.Errorf("%s has no <socket>; add <socket path=%q/> to its <admin>, or say -s SOCKET", file, socket.DefaultPath)
	case doc.Config.Admin.Socket == nil:
		return socket.DefaultPath, nil
	}
	return doc.Config.Admin.Socket.Path, nil
}

// commandLine joins words that a shell has split into a line. A single word with
// blanks already is a line.
func commandLine(args []string) string {
	if len(args) == 1 {
		return args[0]
	}
	return words.Join(args)
}

// lines sends the lines of standard input. It stops at the first one that fails,
// except on a terminal.
func (k *ctl) lines() int {
	person := term.IsTerminal(int(k.in.Fd()))
	prompt := func() {
		if person {
			fmt.Fprint(k.out, "> ")
		}
	}
	in := bufio.NewReader(k.in)
	status := exitOK
	for prompt(); ; prompt() {
		line, err := k.readLine(in)
		if err != nil && line == "" {
			if person {
				fmt.Fprintln(k.out)
			}
			if err != io.EOF {
				fmt.Fprintln(k.err, "txlb ctl:", err)
				return exitFailed
			}
			return status
		}
		switch line = strings.TrimRight(line, "\r\n"); line {
		case "":
			continue
		case "quit", "exit":
			return status
		}
		status = k.ask(line, in)
		if status != exitOK && !person {
			return status
		}
	}
}

// readLine waits for a line or the end of ctx. After that the reader must not be
// used: the process is about to end.
func (k *ctl) readLine(in *bufio.Reader) (string, error) {
	type result struct {
		line string
		err  error
	}
	read := make(chan result, 1)
	go func() {
		line, err := in.ReadString('\n')
		read <- result{line, err}
	}()
	select {
	case r := <-read:
		return r.line, r.err
	case <-k.ctx.Done():
		return "", k.ctx.Err()
	}
}

func (k *ctl) do(line string) int { return k.ask(line, bufio.NewReader(k.in)) }

// ask sends a line. On a terminal it asks before destructive commands, and before
// one that takes the last usable host of a service away.
func (k *ctl) ask(line string, in *bufio.Reader) int {
	terminal := k.out.terminal()
	commands, err := words.Parse(line)
	asks := err == nil && terminal && term.IsTerminal(int(k.in.Fd())) && !k.yes
	if asks && len(commands) > 1 { // one by one, so that what was done is not done again
		for _, c := range commands {
			if status := k.ask(c.String(), in); status != exitOK {
				return status
			}
		}
		return exitOK
	}
	if err == nil && len(commands) == 1 && terminal && term.IsTerminal(int(k.in.Fd())) {
		if with, needed := admin.NeedsPassword(commands[0]); needed {
			password, err := readPassword(k.ctx, k.in, k.err)
			hash := ""
			if err == nil {
				hash, err = passwd.Hash(password)
			}
			if err != nil {
				fmt.Fprintln(k.err, "txlb ctl:", err)
				return exitFailed
			}
			commands[0] = with(hash)
			line = commands[0].String()
		}
	}
	if !asks && !k.yes && slices.ContainsFunc(commands, endsProcess) {
		fmt.Fprintln(k.err, "txlb ctl: shutdown ends txlb and there is no terminal to ask on; add --yes")
		return exitUsage
	}
	what, destructive := socket.Destructive(line)
	// The running txlb knows the consequences. Another version may not know the
	// flag.
	knows := len(commands) == 1 && (destructive || len(commands[0].Words) > 0) && k.client.Version == "txlb "+version
	first := line
	switch {
	case asks && knows:
		first = commands[0].String() + " --ask"
	case asks && destructive && !k.sure(what, in):
		return exitFailed
	}
	a, err := k.client.Do(k.ctx, first)
	if err == nil && a.Kind == "confirm" {
		about := a.Error
		if destructive {
			fmt.Fprintln(k.out, a.Error)
			about = what
		}
		if !k.sure(about, in) {
			return exitFailed
		}
		a, err = k.client.Do(k.ctx, line)
	}
	if err != nil {
		fmt.Fprintln(k.err, "txlb ctl:", err)
		return exitFailed
	}
	err = a.Err()
	switch {
	case k.json || wantsJSON(line):
		enc := json.NewEncoder(k.out)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(a)
	case a.Raw != nil && terminal:
		err = fmt.Errorf("the answer is a binary file of %d bytes; write it to a file: txlb ctl %s > FILE", len(a.Raw), line)
	case a.Raw != nil:
		_, _ = k.out.Write(a.Raw) // dispatch tells what fails
	case a.Text != "":
		fmt.Fprintln(k.out, strings.TrimSuffix(a.Text, "\n"))
	}
	if err != nil {
		fmt.Fprintln(k.err, "txlb ctl:", err)
		return exitFailed
	}
	if k.out.err != nil { // a script must not go on when nobody sees what it does
		return exitFailed
	}
	return exitOK
}

// endsProcess tells whether a command is shutdown. It takes no words, unlike
// HAProxy's "shutdown session".
func endsProcess(c words.Command) bool {
	return strings.EqualFold(c.Verb, "shutdown") && len(c.Words) == 0
}

// sure asks for confirmation.
func (k *ctl) sure(what string, in *bufio.Reader) bool {
	fmt.Fprintf(k.out, "%s: continue? [y/N] ", what)
	said, err := k.readLine(in)
	if said = strings.ToLower(strings.TrimSpace(said)); err != nil || said != "y" && said != "yes" {
		fmt.Fprintln(k.err, "txlb ctl: nothing was done")
		return false
	}
	return true
}

// wantsJSON tells whether a line has --json.
func wantsJSON(line string) bool {
	commands, err := words.Parse(line)
	return err == nil && slices.ContainsFunc(commands, func(c words.Command) bool {
		return slices.Contains(c.Words, words.Word{Key: "json", Value: "yes"})
	})
}
