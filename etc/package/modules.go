package main

import (
	"bytes"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/google/licensecheck"
)

// module is what is in the program that others have written: a Go module, or a package of
// npm, which the admin page brings to browsers.
type module struct {
	registry      string // golang or npm
	path, version string
	sum           string // as go.sum has it
	id            string // of its licence, as SPDX has it
	licence       []byte // its text
	notice        []byte // what its authors want to be passed on with it
}

// inside returns the modules in a program that was built, the standard library first, and
// what the page has, with their licences.
func (j *job) inside(binary string) ([]module, error) {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	goroot, err := j.goRun(nil, "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	std := module{registry: "golang", path: "std", version: strings.TrimPrefix(info.GoVersion, "go")}
	if err := std.read(strings.TrimSpace(string(goroot))); err != nil {
		return nil, err
	}
	list := []module{std}
	folders, err := j.folders()
	if err != nil {
		return nil, err
	}
	for _, d := range info.Deps {
		if d.Replace != nil {
			d = d.Replace
		}
		m := module{registry: "golang", path: d.Path, version: d.Version, sum: d.Sum}
		if err := m.read(folders[d.Path]); err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	page, err := vendored(filepath.Join(j.root, "internal/admin/web/page/static/vendored"))
	return append(list, page...), err
}

// named finds what the README of the vendored files says is there: htmx.org 2.0.11 (htmx.min.js.
var named = regexp.MustCompile(`([\w.]+) (\d[\d.]*) \((\w+)\.`)

// vendored returns the packages whose files are in a folder.
func vendored(folder string) (list []module, err error) {
	text, err := os.ReadFile(filepath.Join(folder, "README"))
	if err != nil {
		return nil, err
	}
	found := named.FindAllSubmatch(text, -1)
	licences, err := filepath.Glob(filepath.Join(folder, "*.LICENSE"))
	if err != nil || len(found) != len(licences) {
		return nil, fmt.Errorf("%s: its README names %d packages, and there are %d licences: %w", folder, len(found), len(licences), err)
	}
	for _, f := range found {
		m := module{registry: "npm", path: string(f[1]), version: string(f[2])}
		text, err := os.ReadFile(filepath.Join(folder, string(f[3])+".LICENSE"))
		if err == nil {
			err = m.under(text)
		}
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, nil
}

// folders returns where the source of each module of the program is.
func (j *job) folders() (map[string]string, error) {
	out, err := j.goRun([]string{"CGO_ENABLED=0", "GOOS=linux"}, "list", "-deps", "-f", "{{with .Module}}{{.Path}}\t{{.Dir}}{{end}}", "./cmd/txlb")
	if err != nil {
		return nil, err
	}
	list := map[string]string{}
	for line := range strings.Lines(string(out)) {
		path, folder, _ := strings.Cut(strings.TrimSpace(line), "\t")
		list[path] = folder
	}
	return list, nil
}

// read reads the licence of a module from its folder.
func (m *module) read(folder string) error {
	for _, name := range []string{"LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "COPYING"} {
		text, err := os.ReadFile(filepath.Join(folder, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := m.under(text); err != nil {
			return err
		}
		m.notice, err = os.ReadFile(filepath.Join(folder, "NOTICE"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	return fmt.Errorf("%s has no licence in %s; it cannot be passed on", m.path, folder)
}

// under notes the licence of a module.
func (m *module) under(text []byte) error {
	found := licensecheck.Scan(text)
	if len(found.Match) == 0 {
		return fmt.Errorf("the licence of %s is none that is known", m.path)
	}
	m.id, m.licence = found.Match[0].ID, text
	return nil
}

// copyright returns the file of that name: the licence of txlb and those of all that is in
// the program. On Debian, where shared is true, the Apache licence is a file of the system.
func copyright(own []byte, modules []module, shared bool) []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "txlb, from %s\n\n%s\n", homepage, bytes.TrimSpace(own))
	out.WriteString("\nThe program contains these Go modules, and these packages of npm:\n\n")
	for _, m := range modules {
		fmt.Fprintf(&out, "  %s %s (%s)\n", m.path, m.version, m.id)
	}
	for _, m := range modules {
		text := bytes.TrimSpace(m.licence)
		if shared && m.id == "Apache-2.0" {
			text = []byte("Licensed under the Apache License, Version 2.0. On Debian systems, its full text is\nin /usr/share/common-licenses/Apache-2.0.")
		}
		fmt.Fprintf(&out, "\n%s\n%s\n\n%s\n", m.path, strings.Repeat("-", len(m.path)), text)
		if len(m.notice) > 0 {
			fmt.Fprintf(&out, "\n%s\n", bytes.TrimSpace(m.notice))
		}
	}
	return out.Bytes()
}
