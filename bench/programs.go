//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/txlb/txlb/internal/debian"
)

// program is something that the bench does not contain: one that Debian has,
// or one built from this module.
type program struct {
	name      string
	installed string   // command, or the path of a file; "" if built
	source    string   // Go package; "" if installed
	version   []string // arguments that make it print one
}

func programs() []program {
	return []program{
		{name: "haproxy", installed: "haproxy", version: []string{"-v"}},
		{name: "nginx", installed: "nginx", version: []string{"-v"}},
		{name: "nginx-stream", installed: "/usr/lib/nginx/modules/ngx_stream_module.so"},
		{name: "ab", installed: "ab", version: []string{"-V"}},
		{name: "wrk", installed: "wrk", version: []string{"-v"}},
		{name: "postgres", installed: "/usr/lib/postgresql/*/bin/postgres", version: []string{"--version"}},
		{name: "redis-server", installed: "redis-server", version: []string{"--version"}},
		{name: "redis-benchmark", installed: "redis-benchmark", version: []string{"--version"}},
		{name: "txlb", source: "github.com/txlb/txlb/cmd/txlb", version: []string{"version"}},
	}
}

// provide finds, installs or builds the programs needed. It returns their
// paths and, for each that cannot be had, why. This program is always there,
// as "bench".
func provide(ctx context.Context, needed []string, dir string, progress io.Writer) (paths, missing map[string]string, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	paths, missing = map[string]string{"bench": self}, map[string]string{}
	have := func(p program) bool {
		paths[p.name] = debian.Path(p.installed)
		return paths[p.name] != ""
	}
	var absent []program
	for _, p := range programs() {
		switch {
		case !slices.Contains(needed, p.name):
		case p.source != "":
			fmt.Fprintln(progress, "building", p.source)
			if paths[p.name], err = build(ctx, p, dir); err != nil {
				missing[p.name] = err.Error()
			}
		case !have(p):
			absent = append(absent, p)
		}
	}
	if len(absent) == 0 {
		return paths, missing, ctx.Err()
	}
	want := make([]string, len(absent))
	for i, p := range absent {
		want[i] = p.installed
	}
	fmt.Fprintln(progress, "asking Debian for", strings.Join(want, ", "))
	if debian.Need(want...) != nil && len(want) > 1 {
		fmt.Fprintln(progress, "not all of them can be had; asking for each alone")
	}
	for _, p := range absent {
		if err := debian.Need(p.installed); err != nil {
			missing[p.name] = err.Error()
		} else if !have(p) {
			missing[p.name] = p.installed + " is not there"
		}
	}
	return paths, missing, ctx.Err()
}

func build(ctx context.Context, p program, dir string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	path := filepath.Join(dir, p.name)
	// With the settings of a plain "go build", so that what is built already
	// is used again.
	argv := []string{"go", "build", "-o", path}
	// Outside a checkout the program says that it does not know its version.
	if id, err := command(ctx, "git", "describe", "--always").Output(); err == nil {
		version := strings.TrimSpace(string(id))
		// Data and reports that the bench itself has written change no program.
		if command(ctx, "git", "diff", "--quiet", "HEAD", "--", ":(top)*.go", ":(top)go.*").Run() != nil {
			version += "-dirty"
		}
		argv = append(argv, "-ldflags", "-X main.version="+version)
	}
	out, err := command(ctx, append(argv, p.source)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build %s: %w: %s", p.source, err, strings.TrimSpace(string(out)))
	}
	return path, nil
}

// versions asks the programs, whose first line tells.
func versions(ctx context.Context, paths map[string]string) []fact {
	facts := []fact{{"Go", runtime.Version()}}
	for _, p := range programs() {
		path := paths[p.name]
		if path == "" || p.version == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		// wrk prints its version and fails.
		out, _ := command(ctx, append([]string{path}, p.version...)...).CombinedOutput()
		cancel()
		line, _, _ := strings.Cut(string(out), "\n")
		line, _, _ = strings.Cut(line, " Copyright")
		facts = append(facts, fact{p.name, strings.TrimSpace(line)})
	}
	return facts
}

// machineFacts says where the run takes place.
func machineFacts(files uint64) []fact {
	return []fact{
		{"Processor", fmt.Sprintf("%s, %d cores used", lineOf("/proc/cpuinfo", "model name"), runtime.NumCPU())},
		{"Memory", lineOf("/proc/meminfo", "MemTotal")},
		{"Kernel", wordOf("/proc/sys/kernel/osrelease")},
		{"System", strings.Trim(lineOf("/etc/os-release", "PRETTY_NAME"), `"`)},
		{"Open files allowed", fmt.Sprint(files)},
		{"Outgoing ports", wordOf("/proc/sys/net/ipv4/ip_local_port_range")},
		{"tcp_tw_reuse", wordOf("/proc/sys/net/ipv4/tcp_tw_reuse")},
		{"tcp_congestion_control", wordOf("/proc/sys/net/ipv4/tcp_congestion_control")},
		{"somaxconn", wordOf("/proc/sys/net/core/somaxconn")},
	}
}

// lineOf returns the value of the first line "name: value" or "name=value" of
// a file, "unknown" if there is none.
func lineOf(path, name string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(text)) {
		at := strings.IndexAny(line, ":=")
		if at >= 0 && strings.TrimSpace(line[:at]) == name {
			return strings.TrimSpace(line[at+1:])
		}
	}
	return "unknown"
}

func wordOf(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(text)), " ")
}
