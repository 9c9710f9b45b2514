package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/goreleaser/nfpm/v2"
	"github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
)

const (
	homepage   = "https://github.com/txlb/txlb"
	maintainer = "The txlb authors <txlb@users.noreply.github.com>"
)

// deb writes the Debian package for a processor.
func (j *job) deb(arch string) error {
	info, err := j.debInfo(arch)
	if err != nil {
		return err
	}
	name := filepath.Join(j.out, fmt.Sprintf("txlb_%s_%s.deb", debianVersion(j.version), arch))
	out, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	if err := deb.Default.Package(info, out); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Println(name)
	return out.Close()
}

func (j *job) debInfo(arch string) (*nfpm.Info, error) {
	list, err := j.files(arch)
	if err != nil {
		return nil, err
	}
	stage := filepath.Join(j.work, "stage-"+arch)
	contents, err := j.stage(stage, list)
	if err != nil {
		return nil, err
	}
	script := func(name string) string { return filepath.Join(j.root, "etc/package/debian", name) }
	info := nfpm.WithDefaults(&nfpm.Info{
		Name: "txlb", Arch: arch, Platform: "linux", Version: debianVersion(j.version), VersionSchema: "none",
		Section: "net", Priority: "optional", Maintainer: maintainer, Homepage: homepage, License: "MIT", MTime: j.when,
		Description: "TCP load balancer\n" +
			"txlb accepts clients on the addresses of its services, picks a host for each,\n" +
			"and passes the bytes on. If a host does not answer, the next one is tried\n" +
			"before the client notices.\n" +
			"\n" +
			"Everything can be changed while it runs: from a page, an API, SSH or the\n" +
			"command line. It has health checks, routes by TLS name, the PROXY protocol,\n" +
			"limits, an access log and metrics for Prometheus. It reads the configurations\n" +
			"of txLoadBalancer and PythonDirector, and converts those of HAProxy and nginx.",
		Overridables: nfpm.Overridables{
			// Each is there with systemd; the others are for machines without it.
			Depends: []string{
				"init-system-helpers (>= 1.52)", "systemd | systemd-standalone-sysusers | systemd-sysusers",
				"systemd | systemd-standalone-tmpfiles | systemd-tmpfiles",
			},
			Recommends: []string{"ca-certificates"},
			Suggests:   []string{"logrotate", "bash-completion"},
			Contents:   contents,
			Scripts:    nfpm.Scripts{PostInstall: script("postinst"), PreRemove: script("prerm"), PostRemove: script("postrm")},
			Deb:        nfpm.Deb{Compression: "gzip"},
		},
	})
	if err := nfpm.PrepareForPackager(info, "deb"); err != nil {
		return nil, err
	}
	return info, nil
}

// stage writes files below a folder, for the packager to read.
func (j *job) stage(folder string, list []file) (contents files.Contents, err error) {
	for _, f := range list {
		c := &files.Content{Destination: f.path, FileInfo: &files.ContentFileInfo{Owner: "root", Group: "root", Mode: f.mode, MTime: j.when}}
		switch {
		case f.folder:
			c.Type = files.TypeDir
		case f.link != "":
			c.Type, c.Source = files.TypeSymlink, f.link
		default:
			c.Source = filepath.Join(folder, f.path)
			if f.conffile {
				c.Type = files.TypeConfig
			}
			if err := os.MkdirAll(filepath.Dir(c.Source), 0o755); err != nil {
				return nil, err
			}
			if err := os.WriteFile(c.Source, f.text, 0o644); err != nil {
				return nil, err
			}
		}
		contents = append(contents, c)
	}
	return contents, nil
}
