// Command systems tells whether all programs and tests of a module compile for other
// systems: it type-checks them, in a tenth of the time that compiling takes.
//
//	go run ./internal/systems linux/arm windows/amd64 linux/amd64/portable
//
// Each argument is GOOS/GOARCH, and build tags may follow. It checks the module in the
// working folder, function bodies and tests included. Of what that imports it looks at the
// declarations alone. It finds what the front of the compiler finds: types, constants that
// overflow on 32 bits, and imports and variables that are not used.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
)

func main() {
	failed := false
	for i, problems := range checkAll(".", os.Args[1:]) {
		if len(problems) == 0 {
			fmt.Printf("%s: compiles, tests too\n", os.Args[1+i])
		}
		for _, p := range problems {
			failed = true
			fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[1+i], p)
		}
	}
	if failed {
		os.Exit(1)
	}
}

// checkAll checks the module in a folder for systems, and returns the problems of each.
func checkAll(dir string, systems []string) [][]error {
	all := make([][]error, len(systems))
	room := make(chan struct{}, runtime.GOMAXPROCS(0))
	var under sync.WaitGroup
	for i, s := range systems {
		under.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			all[i] = check(dir, s)
		})
	}
	under.Wait()
	return all
}

// pkg is what go list says of a package.
type pkg struct {
	ImportPath, Dir, Name, ForTest string
	GoFiles                        []string
	ImportMap                      map[string]string
	Standard                       bool
	Module                         *struct {
		Main      bool
		GoVersion string
	}
	Error *struct{ Err string }
}

// ours tells whether the package is the module's own.
func (p *pkg) ours() bool { return p.Module != nil && p.Module.Main }

// list returns the packages of the module in dir, their tests and all that they import. A
// package stands behind those that it imports.
func list(dir, system string) (list []pkg, arch string, err error) {
	goos, rest, _ := strings.Cut(system, "/")
	arch, tags, _ := strings.Cut(rest, "/")
	cmd := exec.Command("go", "list", "-deps", "-test", "-tags="+tags, "-json=ImportPath,Dir,Name,ForTest,GoFiles,ImportMap,Standard,Module,Error", "./...")
	cmd.Dir = dir
	cmd.Env = append(cmd.Environ(), "GOOS="+goos, "GOARCH="+arch, "CGO_ENABLED=0")
	var says strings.Builder
	cmd.Stderr = &says
	out, err := cmd.Output()
	if err != nil {
		return nil, "", fmt.Errorf("go list: %w\n%s", err, says.String())
	}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		switch err := dec.Decode(&p); {
		case errors.Is(err, io.EOF):
			return list, arch, nil
		case err != nil:
			return nil, "", fmt.Errorf("go list: %w", err)
		case p.Error != nil:
			return nil, "", errors.New(p.Error.Err)
		}
		list = append(list, p)
	}
}

// mostProblems is how many are told of one system.
const mostProblems = 50

// check returns what the compiler would have against the module in a folder.
func check(dir, system string) (problems []error) {
	all, arch, err := list(dir, system)
	if err != nil {
		return []error{err}
	}
	sizes := types.SizesFor("gc", arch)
	if sizes == nil {
		return []error{fmt.Errorf("unknown processor %q", arch)}
	}
	here, _ := filepath.Abs(dir)
	checked := map[string]*types.Package{"unsafe": types.Unsafe}
	fset := token.NewFileSet()
	for i := range all {
		p := &all[i]
		if p.ImportPath == "unsafe" || p.Name == "main" && strings.HasSuffix(p.ImportPath, ".test") { // the latter is generated
			continue
		}
		var files []*ast.File
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				return append(problems, err)
			}
			files = append(files, f)
		}
		c := types.Config{
			Importer: importer{p, checked}, Sizes: sizes, IgnoreFuncBodies: !p.ours(),
			Error: func(err error) {
				if fault, ok := errors.AsType[types.Error](err); ok && len(problems) < mostProblems {
					at := fset.Position(fault.Pos)
					if file, err := filepath.Rel(here, at.Filename); err == nil {
						at.Filename = file
					}
					problems = append(problems, fmt.Errorf("%v: %s", at, fault.Msg))
				}
			},
		}
		if p.Module != nil && p.Module.GoVersion != "" {
			c.GoVersion = "go" + p.Module.GoVersion
		}
		checked[p.ImportPath], _ = c.Check(p.ImportPath, fset, files, nil)
	}
	return problems
}

// importer finds the packages that one imports.
type importer struct {
	by      *pkg
	checked map[string]*types.Package
}

func (i importer) Import(path string) (*types.Package, error) {
	if to := i.by.ImportMap[path]; to != "" {
		path = to
	}
	if p := i.checked[path]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("go list does not have %s", path)
}
