// Command package makes what is released of txlb: Debian packages, archives, the list of
// what is in them (SBOM), and checksums. `make deb` and `make release` run it.
//
// It is a module of its own, so that its libraries are none of txlb's. The same commit gives
// the same bytes: nothing here asks for the time, the user or the machine.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// architectures are what is released.
var architectures = []string{"amd64", "arm64"}

func main() {
	j := &job{root: "../..", goTool: os.Getenv("GO")}
	flag.StringVar(&j.version, "version", "", "`VERSION` of txlb, as git describe has it")
	seconds := flag.String("time", "", "`SECONDS` since 1970 that everything has as its time")
	flag.StringVar(&j.out, "out", "", "`FOLDER` for what is made")
	arch := flag.String("arch", strings.Join(architectures, ","), "`LIST` of processors")
	flag.Parse()
	if err := run(j, *seconds, *arch, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "package:", err)
		os.Exit(1)
	}
}

func run(j *job, seconds, arch string, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("say what to make: deb, image or release")
	}
	n, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return fmt.Errorf("-time: %q is not a number of seconds", seconds)
	}
	j.when = time.Unix(n, 0).UTC()
	if j.out == "" || j.version == "" {
		return fmt.Errorf("-out and -version are needed")
	}
	if j.goTool == "" {
		j.goTool = "go"
	}
	temporary, err := os.MkdirTemp("", "txlb-package-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(temporary) }()
	j.work = temporary
	switch args[0] {
	case "deb":
		return j.each(strings.Split(arch, ","), j.deb)
	case "image":
		return j.image(strings.Split(arch, ",")[0])
	case "release":
		if j.version, err = releaseVersion(j.root); err != nil {
			return err
		}
		return j.release(strings.Split(arch, ","))
	}
	return fmt.Errorf("%q is not deb, image or release", args[0])
}

// job is what one call makes.
type job struct {
	root    string // of the source
	out     string
	work    string // a folder that is removed at the end
	version string
	when    time.Time
	goTool  string

	pages    map[string][]byte // what the program writes of itself, by name
	binaries map[string]string // by processor
}

// each makes something for each processor.
func (j *job) each(architectures []string, make func(arch string) error) error {
	if err := os.MkdirAll(j.out, 0o755); err != nil {
		return err
	}
	for _, arch := range architectures {
		if err := make(arch); err != nil {
			return err
		}
	}
	return nil
}

// flags of the compiler: no paths of this machine, and no tables that only debuggers read.
// Stack traces and profiles do without them.
func (j *job) flags() []string {
	return []string{"-trimpath", "-ldflags", "-s -w -X main.version=" + j.version}
}

// binary builds the program for a processor and returns its path. It is static: without cgo,
// Go's linker makes it so. docs/design/packaging.md says why it is not PIE.
func (j *job) binary(arch string) (string, error) {
	if path := j.binaries[arch]; path != "" {
		return path, nil
	}
	path := filepath.Join(j.work, "txlb-"+arch)
	args := append([]string{"build"}, j.flags()...)
	if _, err := j.goRun([]string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + arch}, append(args, "-o", path, "./cmd/txlb")...); err != nil {
		return "", err
	}
	if j.binaries == nil {
		j.binaries = map[string]string{}
	}
	j.binaries[arch] = path
	return path, nil
}

// page returns what the program writes about itself: txlb.1, txlb.xml.5, bash, zsh, fish.
// The program for this machine says it, for any processor. So this has to be Linux.
func (j *job) page(name string) ([]byte, error) {
	if j.pages == nil {
		program, err := j.binary(runtime.GOARCH)
		if err != nil {
			return nil, err
		}
		j.pages = map[string][]byte{}
		seconds := strconv.FormatInt(j.when.Unix(), 10)
		for name, args := range map[string][]string{
			"txlb.1":     {"__manual", "txlb.1", seconds},
			"txlb.xml.5": {"__manual", "txlb.xml.5", seconds},
			"bash":       {"completion", "bash"},
			"zsh":        {"completion", "zsh"},
			"fish":       {"completion", "fish"},
		} {
			text, err := output(exec.Command(program, args...))
			if err != nil {
				return nil, err
			}
			j.pages[name] = text
		}
	}
	return j.pages[name], nil
}

// goRun runs the go command at the root of the source.
func (j *job) goRun(env []string, args ...string) ([]byte, error) {
	cmd := exec.Command(j.goTool, args...)
	cmd.Dir = j.root
	cmd.Env = append(os.Environ(), env...)
	return output(cmd)
}

// output runs a command; its error has what the command complained of.
func output(cmd *exec.Cmd) ([]byte, error) {
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(complaints.String()))
	}
	return out, nil
}
