package main

import (
	"flag"
	"fmt"
	"strconv"
	"time"

	"github.com/txlb/txlb/internal/manual"
)

// manualWord is the hidden command that writes the manual pages while a package is
// built: a page, and the time that it shows, in seconds since 1970.
const manualWord = "__manual"

func manualCommand(c console, args []string) int {
	if len(args) != 2 {
		fmt.Fprintln(c.err, "usage: txlb", manualWord, "PAGE SECONDS")
		return exitUsage
	}
	seconds, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		fmt.Fprintf(c.err, "txlb: %q is not a number of seconds\n", args[1])
		return exitUsage
	}
	date := time.Unix(seconds, 0)
	switch args[0] {
	case "txlb.1":
		fmt.Fprint(c.out, manual.Program(version, date, described()))
	case "txlb.xml.5":
		fmt.Fprint(c.out, manual.Configuration(version, date))
	default:
		fmt.Fprintf(c.err, "txlb: %q is not txlb.1 or txlb.xml.5\n", args[0])
		return exitUsage
	}
	return exitOK
}

// described returns the commands as the manual wants them.
func described() []manual.Command {
	var list []manual.Command
	for _, cmd := range commands() {
		m := manual.Command{Name: cmd.name, Words: cmd.words, Help: cmd.help, Exits: cmd.exits}
		flags, _ := cmd.flags()
		flags.VisitAll(func(f *flag.Flag) {
			value, help := flag.UnquoteUsage(f)
			m.Flags = append(m.Flags, manual.Flag{Name: dashed(f.Name), Value: value, Help: help})
		})
		list = append(list, m)
	}
	return list
}
