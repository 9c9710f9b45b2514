package main

import (
	"bytes"
	"compress/gzip"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// file is a file of a package or an archive.
type file struct {
	path     string // where it is installed
	mode     fs.FileMode
	text     []byte
	link     string // of a symbolic link: where it leads
	conffile bool   // the administrator's, see dpkg(1)
	folder   bool
}

const (
	unitFolder       = "/usr/lib/systemd/system/"
	builtFor         = "/usr/local/bin/txlb" // where the units of the source have the program
	installedProgram = "/usr/bin/txlb"
	docFolder        = "/usr/share/doc/txlb/"
)

// files returns what the Debian package of a processor has.
func (j *job) files(arch string) ([]file, error) {
	l := layout{job: j}
	binary, err := j.binary(arch)
	if err != nil {
		return nil, err
	}
	modules, err := j.inside(binary)
	if err != nil {
		return nil, err
	}
	l.put(installedProgram, 0o755, l.at(binary))
	l.systemd()
	l.put("/usr/share/man/man1/txlb.1.gz", 0o644, packed(l.page("txlb.1")))
	l.put("/usr/share/man/man5/txlb.xml.5.gz", 0o644, packed(l.page("txlb.xml.5")))
	l.put("/usr/share/bash-completion/completions/txlb", 0o644, l.page("bash"))
	l.put("/usr/share/zsh/vendor-completions/_txlb", 0o644, l.page("zsh"))
	l.put("/usr/share/fish/vendor_completions.d/txlb.fish", 0o644, l.page("fish"))

	l.put("/usr/share/txlb/config.xml", 0o644, l.source("etc/config.xml"))
	l.list = append(l.list,
		file{path: "/etc/txlb", mode: 0o755, folder: true},
		file{path: "/etc/logrotate.d/txlb", mode: 0o644, text: l.source("etc/package/debian/txlb.logrotate"), conffile: true},
		file{path: docFolder + "examples/config.xml", link: "../../../txlb/config.xml"})
	l.put("/usr/share/lintian/overrides/txlb", 0o644, l.source("etc/package/debian/lintian-overrides"))

	changes, err := debianChangelog(l.source("CHANGELOG.md"), debianVersion(j.version), j.when)
	if err != nil {
		return nil, err
	}
	l.put(docFolder+"changelog.Debian.gz", 0o644, packed(changes))
	l.put(docFolder+"changelog.gz", 0o644, packed(l.source("CHANGELOG.md")))
	l.put(docFolder+"copyright", 0o644, copyright(l.source("LICENSE"), modules, true))
	l.documentation(docFolder)
	return l.list, l.err
}

// layout gathers files. The first error is kept.
type layout struct {
	job  *job
	list []file
	err  error
}

func (l *layout) put(at string, mode fs.FileMode, text []byte) {
	l.list = append(l.list, file{path: at, mode: mode, text: text})
}

// keep notes an error.
func (l *layout) keep(err error) {
	if l.err == nil {
		l.err = err
	}
}

// at returns what is in a file.
func (l *layout) at(name string) []byte {
	text, err := os.ReadFile(name)
	l.keep(err)
	return text
}

// source returns what is in a file of the source.
func (l *layout) source(name string) []byte { return l.at(filepath.Join(l.job.root, name)) }

func (l *layout) page(name string) []byte {
	text, err := l.job.page(name)
	l.keep(err)
	return text
}

// below returns the names of the files of a folder of the source, and of the folders in it.
func (l *layout) below(folder string) (names []string) {
	root := filepath.Join(l.job.root, folder)
	l.keep(filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			relative, _ := filepath.Rel(root, name)
			names = append(names, filepath.ToSlash(relative))
		}
		return err
	}))
	return names
}

// systemd puts the files for systemd where it looks for them, and the drop-ins, which an
// administrator may want, among the examples.
func (l *layout) systemd() {
	for _, name := range l.below("etc/systemd") {
		text := bytes.ReplaceAll(l.source("etc/systemd/"+name), []byte(builtFor), []byte(installedProgram))
		if strings.Contains(name, "/") {
			l.put(docFolder+"examples/"+name, 0o644, text)
		} else {
			l.put(unitFolder+name, 0o644, text)
		}
	}
	for _, folder := range []string{"sysusers.d", "tmpfiles.d"} {
		for _, name := range l.below("etc/" + folder) {
			l.put("/usr/lib/"+folder+"/"+name, 0o644, l.source("etc/"+folder+"/"+name))
		}
	}
}

// documentation puts the documentation into a folder: the pages, and what they show.
func (l *layout) documentation(to string) {
	for _, name := range []string{"README.md", "SECURITY.md", "BENCHMARKS.md"} {
		l.put(to+name, 0o644, l.source(name))
	}
	for _, name := range l.below("docs") {
		l.put(to+"docs/"+name, 0o644, l.source("docs/"+name))
	}
	for _, name := range []string{"etc/grafana/txlb.json", "etc/prometheus/txlb.rules.yml"} {
		l.put(to+"examples/"+path.Base(name), 0o644, l.source(name))
	}
	for _, name := range l.below("etc/ha") {
		l.put(to+"examples/ha/"+name, 0o644, l.source("etc/ha/"+name))
	}
}

// packed compresses as `gzip -9n` does: no name and no time.
func packed(text []byte) []byte {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		panic(err) // the level is right
	}
	_, _ = w.Write(text) // a Buffer takes everything
	_ = w.Close()
	return out.Bytes()
}
