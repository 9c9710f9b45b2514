// Package packaging tests what users install: the Debian package and the container image.
package packaging

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/testkit"
)

// root is that of the source.
const root = "../.."

// epoch is the time that what is made here has.
const epoch = "1800000000"

// fetched makes sure that the libraries of the packager are here; without a network they
// may not be.
var fetched = sync.OnceValue(func() error {
	out, err := exec.Command("go", "-C", root+"/etc/package", "list", "-deps", ".").CombinedOutput()
	if err != nil {
		return fmt.Errorf("the libraries of etc/package cannot be fetched: %w\n%s", err, out)
	}
	return nil
})

// made makes a target of the Makefile, of a version of txlb, in a folder.
func made(t testing.TB, target, version, out string) {
	t.Helper()
	testkit.Long(t)
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		t.Skipf("there is no package for %s", runtime.GOARCH)
	}
	debian.NeedFor(t, "make")
	if err := fetched(); err != nil {
		t.Skip(err)
	}
	cmd := exec.Command("make", "--no-print-directory", "-C", root, target, "VERSION="+version, "ARCH="+runtime.GOARCH, "SOURCE_DATE_EPOCH="+epoch, "DIST="+out, "IMAGE="+out)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make %s: %v\n%s", target, err, text)
	}
}

// shared is a folder for what all tests use.
var shared string

func TestMain(m *testing.M) {
	var err error
	if shared, err = os.MkdirTemp("", "txlb-packaging-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(shared)
	os.Exit(code)
}

// first and second are packages of versions 9.8.7 and 9.8.8, which are made once.
func first(t testing.TB) string  { return once(t, "9.8.7") }
func second(t testing.TB) string { return once(t, "9.8.8") }

func once(t testing.TB, version string) string {
	t.Helper()
	dir := shared + "/" + version
	if _, err := os.Stat(dir); err != nil {
		made(t, "deb", version, dir)
	}
	return only(t, dir)
}

// deb makes the package of a version and returns its path.
func deb(t testing.TB, version string) string {
	t.Helper()
	dir := t.TempDir()
	made(t, "deb", version, dir)
	return only(t, dir)
}

// only returns the one package in a folder.
func only(t testing.TB, dir string) string {
	t.Helper()
	found, err := filepath.Glob(dir + "/txlb_*.deb")
	if err != nil || len(found) != 1 {
		t.Fatalf("make deb has made %q: %v", found, err)
	}
	return found[0]
}

// inside are the files of a package by their paths, as tar has them.
func inside(t *testing.T, pkg string) (headers map[string]*tar.Header, texts map[string][]byte) {
	t.Helper()
	debian.NeedFor(t, "dpkg-deb")
	data, err := exec.Command("dpkg-deb", "--fsys-tarfile", pkg).Output()
	if err != nil {
		t.Fatal(err)
	}
	headers, texts = map[string]*tar.Header{}, map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return headers, texts
		}
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(strings.TrimPrefix(h.Name, "."), "/")
		headers[name] = h
		if texts[name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

func unpacked(t *testing.T, text []byte) string {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(plain)
}

// The same source gives the same bytes, and they are what a package of Debian has to be.
func TestPackage(t *testing.T) {
	pkg := first(t)
	t.Run("is reproducible", func(t *testing.T) {
		a, errA := os.ReadFile(pkg)
		b, errB := os.ReadFile(deb(t, "9.8.7"))
		if err := errors.Join(errA, errB); err != nil {
			t.Fatal(err)
		}
		if sha256.Sum256(a) != sha256.Sum256(b) {
			t.Error("the same source gave two packages that differ")
		}
	})
	headers, texts := inside(t, pkg)
	t.Run("has all files", func(t *testing.T) {
		for _, name := range []string{
			"/usr/bin/txlb", "/usr/lib/systemd/system/txlb.service", "/usr/lib/systemd/system/txlb.socket", "/usr/lib/sysusers.d/txlb.conf", "/usr/lib/tmpfiles.d/txlb.conf",
			"/usr/share/man/man1/txlb.1.gz", "/usr/share/man/man5/txlb.xml.5.gz", "/usr/share/bash-completion/completions/txlb",
			"/usr/share/zsh/vendor-completions/_txlb", "/usr/share/fish/vendor_completions.d/txlb.fish", "/etc/logrotate.d/txlb", "/usr/share/txlb/config.xml",
			"/usr/share/doc/txlb/copyright", "/usr/share/doc/txlb/changelog.Debian.gz", "/usr/share/doc/txlb/README.md", "/usr/share/doc/txlb/docs/install.md",
			"/usr/share/doc/txlb/examples/config.xml", "/usr/share/doc/txlb/examples/txlb.service.d/client-source.conf",
			"/usr/share/doc/txlb/examples/ha/keepalived.conf", "/usr/share/doc/txlb/examples/ha/txlb-announce",
		} {
			if headers[name] == nil {
				t.Errorf("there is no %s", name)
			}
		}
		for name, h := range headers {
			want := int64(0o644)
			switch {
			case name == "/usr/bin/txlb" || h.Typeflag == tar.TypeDir:
				want = 0o755
			case h.Typeflag == tar.TypeSymlink:
				continue
			}
			if h.Mode&0o7777 != want || h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != mustEpoch(t) {
				t.Errorf("%s: mode %o, owner %d:%d, time %v", name, h.Mode, h.Uid, h.Gid, h.ModTime)
			}
		}
	})
	t.Run("is static", func(t *testing.T) {
		program, err := elf.NewFile(bytes.NewReader(texts["/usr/bin/txlb"]))
		if err != nil {
			t.Fatal(err)
		}
		if needs, err := program.ImportedLibraries(); err != nil || len(needs) > 0 {
			t.Errorf("it needs %q: %v", needs, err)
		}
		if slices.ContainsFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
			t.Error("it needs a dynamic linker")
		}
	})
	t.Run("has paths of the package", func(t *testing.T) {
		unit := string(texts["/usr/lib/systemd/system/txlb.service"])
		if !strings.Contains(unit, "\nExecStart=/usr/bin/txlb ") || strings.Contains(unit, "/usr/local") {
			t.Errorf("the unit runs another program:\n%s", unit)
		}
	})
	t.Run("has only the conffiles that txlb never writes", func(t *testing.T) {
		out, err := exec.Command("dpkg-deb", "-I", pkg, "conffiles").CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != "/etc/logrotate.d/txlb" {
			t.Errorf("conffiles: %q, %v", got, err)
		}
	})
	t.Run("tells licences and changes", func(t *testing.T) {
		copyright := string(texts["/usr/share/doc/txlb/copyright"])
		for _, want := range []string{"MIT License", "golang.org/x/sys v", "github.com/beevik/etree v", "(BSD-3-Clause)", "htmx.org ", "uplot ", "Copyright 2009 The Go Authors"} {
			if !strings.Contains(copyright, want) {
				t.Errorf("copyright has no %q", want)
			}
		}
		if text := unpacked(t, texts["/usr/share/doc/txlb/changelog.Debian.gz"]); !strings.HasPrefix(text, "txlb (9.8.7-1) unstable; ") {
			t.Errorf("the changelog begins with %.60q", text)
		}
	})
	t.Run("has manual pages", func(t *testing.T) {
		for name, want := range map[string]string{"man1/txlb.1": ".Dd January 15, 2027", "man5/txlb.xml.5": ".Dt TXLB.XML 5"} {
			if text := unpacked(t, texts["/usr/share/man/"+name+".gz"]); !strings.Contains(text, want) || !strings.Contains(text, "txlb 9.8.7") {
				t.Errorf("%s has no %s:\n%.200s", name, want, text)
			}
		}
	})
	t.Run("satisfies lintian", func(t *testing.T) {
		if _, err := exec.LookPath("lintian"); err != nil {
			t.Skip("lintian is not here; apt-get install lintian")
		}
		out, err := exec.Command("lintian", "--allow-root", "--fail-on", "error,warning", "--tag-display-limit", "0", pkg).CombinedOutput()
		if err != nil {
			t.Errorf("lintian: %v\n%s", err, out)
		}
	})
}

func mustEpoch(t *testing.T) int64 {
	t.Helper()
	var n int64
	if _, err := fmt.Sscan(epoch, &n); err != nil {
		t.Fatal(err)
	}
	return n
}
