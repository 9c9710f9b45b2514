package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/convert"
	"github.com/txlb/txlb/internal/words"
)

const convertHelp = `FILE is a haproxy.cfg with proxies in mode tcp, or a configuration of nginx with a
stream block; - is standard input. Comments name each line without an equivalent.
  txlb convert haproxy /etc/haproxy/haproxy.cfg > config.xml && txlb check -c config.xml`

// convertCommand prints a configuration made of one of HAProxy or nginx.
func convertCommand(_ context.Context, c console, args []string) int {
	from := map[string]func(string, []byte) (*convert.Result, error){"haproxy": convert.HAProxy, "nginx": convert.Nginx}[args[0]]
	text, err := readSource(args[1])
	if err != nil {
		fmt.Fprintln(c.err, "txlb convert:", err)
		return exitUsage
	}
	r, err := from(args[1], text)
	if err != nil {
		fmt.Fprintln(c.err, err)
		return exitUsage
	}
	_, _ = c.out.Write(r.Document)
	fmt.Fprintf(c.err, "%s: %s, %s, %s\n", args[1], words.Count(r.Services, "service"), words.Count(r.Hosts, "host"),
		words.Count(r.Comments, "comment"))
	return exitOK
}

// readSource reads a file or standard input, at most as much as a configuration has.
func readSource(path string) ([]byte, error) {
	file := os.Stdin
	if path != "-" {
		opened, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer func() { _ = opened.Close() }()
		file = opened
	}
	text, err := io.ReadAll(io.LimitReader(file, config.MaxSize+1))
	switch {
	case err != nil:
		return nil, err
	case len(text) > config.MaxSize:
		return nil, fmt.Errorf("%s is larger than %d MiB, which no configuration needs", path, config.MaxSize>>20)
	}
	return text, nil
}
