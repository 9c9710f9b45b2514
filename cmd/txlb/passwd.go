package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/passwd"
)

// passwdCommand reads a password and prints its hash, and nothing else, on
// standard output.
func passwdCommand(ctx context.Context, c console, _ []string) int {
	password, err := readPassword(ctx, os.Stdin, c.err)
	var hash string
	if err == nil {
		hash, err = passwd.Hash(password)
	}
	if err != nil {
		fmt.Fprintln(c.err, "txlb passwd:", err)
		return exitFailed
	}
	fmt.Fprintln(c.out, hash)
	return exitOK
}

// readPassword reads one line; from a terminal it reads it twice, without echo.
func readPassword(ctx context.Context, in *os.File, prompt io.Writer) (string, error) {
	fd := int(in.Fd())
	if !term.IsTerminal(fd) {
		return firstLine(in)
	}
	was, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("the terminal: %w", err)
	}
	lines, failed := make(chan string), make(chan error, 1)
	// Only input wakes a goroutine that reads a terminal. After a signal it ends
	// with the process.
	go readUnseen(fd, prompt, lines, failed)
	var read []string
	for len(read) < 2 {
		select {
		case line := <-lines:
			read = append(read, line)
		case err := <-failed:
			return "", err
		case <-ctx.Done():
			// Otherwise the terminal would stay without echo.
			if err := term.Restore(fd, was); err != nil {
				return "", fmt.Errorf("the terminal: %w", err)
			}
			fmt.Fprintln(prompt)
			return "", errors.New("interrupted")
		}
	}
	if read[0] != read[1] {
		return "", errors.New("the passwords do not match")
	}
	return read[0], nil
}

// readUnseen reads two lines from a terminal without echo.
func readUnseen(fd int, prompt io.Writer, lines chan<- string, failed chan<- error) {
	for _, ask := range []string{"Password: ", "Again: "} {
		fmt.Fprint(prompt, ask)
		line, err := term.ReadPassword(fd)
		fmt.Fprintln(prompt)
		if err != nil {
			failed <- fmt.Errorf("read the password: %w", err)
			return
		}
		lines <- string(line)
	}
}

// firstLine reads the first line. Of a line that is too long it reads just enough to
// refuse it.
func firstLine(in io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(in, passwd.MaxPassword+3)).ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the password: %w", err)
	}
	line = bytes.TrimSuffix(line, []byte("\n"))
	return string(bytes.TrimSuffix(line, []byte("\r"))), nil
}

// badHashes warns of passwords that nobody can log in with. The reader of the
// configuration has already warned of those that are not a hash.
func badHashes(file string, c *config.Config) (warnings config.Problems) {
	for _, u := range c.Admin.Users {
		if !config.IsHash(u.Password) {
			continue
		}
		if err := passwd.Check(u.Password); err != nil {
			warnings = append(warnings, config.Problem{
				File: file, Line: u.Pos.Line, Warning: true,
				Text: fmt.Sprintf("the password of user %q is not valid: %v", u.Name, err),
			})
		}
	}
	return warnings
}
