//go:build linux

package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// An answer that cannot be written is a failure, whichever command gives it.
func TestFailedWriteIsAnError(t *testing.T) {
	name, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(socketFolder(t), "a.sock")
	p := txlb(t, socketDoc(socket, ""))
	file := write(t, socketDoc(socket, ""))
	other := write(t, strings.Replace(socketDoc(socket, ""), `name="x"`, `name="y"`, 1))
	const full = "txlb: cannot write the answer: write /dev/stdout: no space left on device\n"
	type try struct {
		args   []string
		in     string
		status int
		says   string
	}
	tries := map[string][]try{ // of each row of the table
		"run":   {{status: 2, args: []string{"run", "-c", "/none"}, says: "/none"}}, // it says nothing on standard output
		"demo":  {{args: []string{"demo"}, status: 1, says: full}},
		"check": {{args: []string{"check", "-c", file}, status: 1, says: full}, {args: []string{"check", "-c", "/none"}, status: 2, says: full}},
		"diff":  {{args: []string{"diff", file, other}, status: 2, says: full}},
		"convert": {
			{args: []string{"convert", "haproxy", "-"}, in: "listen a\n bind :1\n server b 127.0.0.1:2\n", status: 1, says: full},
		},
		"explain": {{args: []string{"explain", "-"}, in: "127.0.0.1:1 [28/Nov/2026:14:24:03.142] w w.g/a 0/0/3 1 -- 1/1/0/0/0 0/0\n", status: 1, says: full}},
		"ctl": {
			{args: []string{"ctl", "-s", socket, "show", "config"}, status: 1, says: full},
			{args: []string{"ctl", "-s", socket, "--json", "show", "config"}, status: 1, says: full},
			{args: []string{"ctl", "-s", socket, "show pprof heap"}, status: 1, says: full},
			{args: []string{"ctl", "-s", socket}, in: "show config\nsetHost web main a weight=7\n", status: 1, says: full},
		},
		"keeper":     {{args: []string{"keeper", "x"}, status: 2, says: "unexpected argument"}},  // it writes nothing but a log
		"reload":     {{args: []string{"reload", "-c", "/none", "1"}, status: 2, says: "/none"}}, // nor does it
		"top":        {{args: []string{"top", "-s", socket}, status: 1, says: "terminal"}},
		"passwd":     {{args: []string{"passwd"}, in: "secret\n", status: 1, says: full}},
		"completion": {{args: []string{"completion", "bash"}, status: 1, says: full}},
		"version":    {{args: []string{"version"}, status: 1, says: full}, {args: []string{"--version"}, status: 1, says: full}},
	}
	all := []try{
		{args: []string{"help"}, status: 1, says: full},
		{args: []string{completeWord, "zsh", "c"}, status: 1, says: full},
	}
	for _, cmd := range commands() {
		if tries[cmd.name] == nil {
			t.Errorf("no test for txlb %s", cmd.name)
		}
		all = append(append(all, tries[cmd.name]...), try{args: []string{cmd.name, "-h"}, status: 1, says: full})
	}
	sink, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sink.Close() }()
	for _, try := range all {
		var errs bytes.Buffer
		cmd := exec.Command(name, try.args...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(try.in), sink, &errs
		if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != try.status || !strings.Contains(errs.String(), try.says) {
			t.Errorf("txlb %v: %v, status %d, %q", try.args, err, cmd.ProcessState.ExitCode(), errs.String())
		}
	}
	// A script ends with the first answer that it cannot write.
	if said := ctlOf(t, "", "-s", socket, "show", "config"); strings.Contains(said.out, `weight="7"`) {
		t.Error("a script went on after a write had failed")
	}
	p.signal(syscall.SIGTERM)
	p.wait()
}

// A reader that has enough, such as head, ends a command as it ends any other:
// quietly, by SIGPIPE.
func TestBrokenPipeIsQuiet(t *testing.T) {
	name, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(socketFolder(t), "a.sock")
	p := txlb(t, socketDoc(socket, ""))
	for _, args := range [][]string{{"ctl", "-s", socket, "show", "config"}, {"help"}, {"version"}} {
		from, to, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		_ = from.Close()
		var errs bytes.Buffer
		cmd := exec.Command(name, args...)
		cmd.Stdout, cmd.Stderr = to, &errs
		exit, ok := errors.AsType[*exec.ExitError](cmd.Run())
		_ = to.Close()
		if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGPIPE || errs.Len() > 0 {
			t.Errorf("txlb %v: %v, %q", args, exit, errs.String())
		}
	}
	p.signal(syscall.SIGTERM)
	p.wait()
}
