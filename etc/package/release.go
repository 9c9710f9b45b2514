package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// release makes all that is published of a version: packages, archives, what is in them,
// and their checksums.
func (j *job) release(architectures []string) error {
	if left, err := os.ReadDir(j.out); err == nil && len(left) > 0 {
		return fmt.Errorf("%s is not empty; remove it, so that nothing older gets a checksum", j.out)
	}
	err := j.each(architectures, func(arch string) error {
		if err := j.deb(arch); err != nil {
			return err
		}
		if err := j.archive(arch); err != nil {
			return err
		}
		binary, err := j.binary(arch)
		if err != nil {
			return err
		}
		list, err := j.sbom(binary, arch)
		if err != nil {
			return err
		}
		return j.write(j.named(arch)+".cdx.json", list)
	})
	if err != nil {
		return err
	}
	return j.checksums()
}

// named is the name of what is made for a processor, without its ending.
func (j *job) named(arch string) string { return "txlb-" + j.version + "-linux-" + arch }

func (j *job) write(name string, text []byte) error {
	name = filepath.Join(j.out, name)
	fmt.Println(name)
	return os.WriteFile(name, text, 0o644)
}

// archive writes the program with its documentation as a .tar.gz, for systems without dpkg.
func (j *job) archive(arch string) error {
	list, err := j.files(arch)
	if err != nil {
		return err
	}
	binary, err := j.binary(arch)
	if err != nil {
		return err
	}
	modules, err := j.inside(binary)
	if err != nil {
		return err
	}
	l := layout{job: j, list: list}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	top := j.named(arch)
	add := func(name string, mode fs.FileMode, text []byte) {
		l.keep(w.WriteHeader(&tar.Header{
			Typeflag: tar.TypeReg, Name: top + "/" + name, Mode: int64(mode), Size: int64(len(text)), ModTime: j.when, Uname: "root", Gname: "root", Format: tar.FormatPAX,
		}))
		_, err := w.Write(text)
		l.keep(err)
	}
	add("txlb", 0o755, l.at(binary))
	add("LICENSE", 0o644, copyright(l.source("LICENSE"), modules, false))
	add("CHANGELOG.md", 0o644, l.source("CHANGELOG.md"))
	add("config.xml", 0o644, l.source("etc/config.xml"))
	add("man/txlb.1", 0o644, l.page("txlb.1"))
	add("man/txlb.xml.5", 0o644, l.page("txlb.xml.5"))
	add("completions/txlb.bash", 0o644, l.page("bash"))
	add("completions/_txlb", 0o644, l.page("zsh"))
	add("completions/txlb.fish", 0o644, l.page("fish"))
	for _, folder := range []string{"systemd", "sysusers.d", "tmpfiles.d"} {
		for _, name := range l.below("etc/" + folder) {
			add(folder+"/"+name, 0o644, l.source("etc/"+folder+"/"+name))
		}
	}
	for _, f := range list { // README, docs and examples as in the package
		name, ours := strings.CutPrefix(f.path, docFolder)
		if ours && f.link == "" && !strings.HasSuffix(name, ".gz") && name != "copyright" && !strings.HasPrefix(name, "examples/txlb.service") {
			add(name, 0o644, f.text)
		}
	}
	l.keep(w.Close())
	if l.err != nil {
		return l.err
	}
	return j.write(top+".tar.gz", packed(out.Bytes()))
}

// checksums writes SHA256SUMS, which `sha256sum -c` reads.
func (j *job) checksums() error {
	entries, err := os.ReadDir(j.out)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	for _, e := range entries { // in the order of their names
		text, err := os.ReadFile(filepath.Join(j.out, e.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "%x  %s\n", sha256.Sum256(text), e.Name())
	}
	return j.write("SHA256SUMS", out.Bytes())
}

// image makes what the Dockerfile copies: root, which has the program and what it needs to
// trust certificates, and state, which has the folders that the program writes to.
func (j *job) image(arch string) error {
	binary, err := j.binary(arch)
	if err != nil {
		return err
	}
	modules, err := j.inside(binary)
	if err != nil {
		return err
	}
	l := layout{job: j}
	l.put(installedProgram, 0o755, l.at(binary))
	l.put(docFolder+"copyright", 0o644, copyright(l.source("LICENSE"), modules, false))
	l.put(trusted, 0o644, l.at(trusted))
	for _, f := range l.list {
		name := filepath.Join(j.out, "root", f.path)
		l.keep(os.MkdirAll(filepath.Dir(name), 0o755))
		l.keep(os.WriteFile(name, f.text, f.mode))
	}
	for _, folder := range []string{"/run/txlb", "/var/lib/txlb"} {
		l.keep(os.MkdirAll(filepath.Join(j.out, "state", folder), 0o755))
	}
	return l.err
}

// trusted are the certificates that Debian trusts.
const trusted = "/etc/ssl/certs/ca-certificates.crt"
