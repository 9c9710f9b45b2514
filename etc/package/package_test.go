package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestDebianVersion(t *testing.T) {
	for _, test := range []struct{ described, want string }{
		{"0.5.0", "0.5.0-1"},
		{"0.5.0-274-g4e41a28", "0.5.0+274.g4e41a28-1"},
		{"0.5.0-274-g4e41a28-dirty", "0.5.0+274.g4e41a28+dirty-1"},
		{"0.5.0-dirty", "0.5.0+dirty-1"},
		{"0.6.0-rc1", "0.6.0~rc1-1"},
		{"0.6.0-rc1-3-gabcdef0", "0.6.0~rc1+3.gabcdef0-1"},
		{"unknown", "0~unknown-1"},
		{"fe41a28-dirty", "0~fe41a28.dirty-1"},
	} {
		if got := debianVersion(test.described); got != test.want {
			t.Errorf("%s: %s, want %s", test.described, got, test.want)
		}
	}
}

// The versions sort as they come out.
func TestVersionsSortForDpkg(t *testing.T) {
	if _, err := exec.LookPath("dpkg"); err != nil {
		t.Skip(err)
	}
	inOrder := []string{"unknown", "0.5.0", "0.5.0-274-g4e41a28", "0.6.0-rc1", "0.6.0-rc1-3-gabcdef0", "0.6.0-rc2", "0.6.0", "0.6.0-2-gabcdef0", "0.6.1"}
	for i := range inOrder[1:] {
		a, b := debianVersion(inOrder[i]), debianVersion(inOrder[i+1])
		if err := exec.Command("dpkg", "--compare-versions", a, "lt", b).Run(); err != nil {
			t.Errorf("%s is not before %s: %v", a, b, err)
		}
	}
}

func TestDebianChangelog(t *testing.T) {
	when := time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
	for _, test := range []struct{ name, markdown, version, want string }{
		{"unreleased", "# Changelog\n\nText.\n\n## Unreleased\n\n### Added\n\n- A long entry, which goes on for so long that it does not fit into one line of\n  eighty columns.\n- Another.\n\n## 0.5.0 – 2026-11-25\n\n- Old.\n", "0.5.0+2.gabc-1",
			`txlb (0.5.0+2.gabc-1) unstable; urgency=medium

  [ Added ]
  * A long entry, which goes on for so long that it does not fit into one line
    of eighty columns.
  * Another.

 -- ` + maintainer + `  Tue, 01 Dec 2026 12:00:00 +0000

txlb (0.5.0-1) unstable; urgency=medium

  * Old.

 -- ` + maintainer + `  Wed, 25 Nov 2026 00:00:00 +0000
`},
		{"the version itself", "## 0.5.0 – 2026-11-25\n\n- Old.\n", "0.5.0-1", "txlb (0.5.0-1) unstable; urgency=medium\n\n  * Old.\n\n -- " + maintainer + "  Tue, 01 Dec 2026 12:00:00 +0000\n"},
		{"nothing about it", "## 0.5.0 – 2026-11-25\n\n- Old.\n", "0.5.0+1.gabc-1", "txlb (0.5.0+1.gabc-1) unstable; urgency=medium\n\n  * Nothing that users notice.\n"},
	} {
		got, err := debianChangelog([]byte(test.markdown), test.version, when)
		if err != nil || !strings.HasPrefix(string(got), test.want) {
			t.Errorf("%s: %v\n%s\nwant\n%s", test.name, err, got, test.want)
		}
	}
	if _, err := debianChangelog([]byte("nothing"), "1-1", when); err == nil {
		t.Error("a changelog without versions is accepted")
	}
	own, err := os.ReadFile("../../CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	text, err := debianChangelog(own, "9.9.9-1", when)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 80 && strings.Contains(strings.TrimSpace(line), " ") && !strings.HasPrefix(line, " -- ") {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if _, err := exec.LookPath("dpkg-parsechangelog"); err == nil {
		name := filepath.Join(t.TempDir(), "changelog")
		if err := os.WriteFile(name, text, 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("dpkg-parsechangelog", "-l", name, "--all")
		var out, warnings strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &warnings
		if err := cmd.Run(); err != nil || warnings.Len() > 0 || !strings.Contains(out.String(), "Version: 9.9.9-1") {
			t.Errorf("dpkg-parsechangelog: %v\n%s%s", err, &warnings, &out)
		}
	}
}

// Only a tag is released, from a tree without changes.
func TestReleaseNeedsATag(t *testing.T) {
	dir := t.TempDir()
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false"}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
	}
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip(err)
	}
	write := func(text string) {
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	git("init", "-q")
	write("one")
	git("add", ".")
	git("commit", "-q", "-m", "one")
	if _, err := releaseVersion(dir); err == nil || !strings.Contains(err.Error(), "no tag such as v1.2.3 is on this commit") {
		t.Errorf("without a tag: %v", err)
	}
	git("tag", "-a", "v1.2.3", "-m", "one")
	if v, err := releaseVersion(dir); v != "1.2.3" || err != nil {
		t.Errorf("on a tag: %q, %v", v, err)
	}
	write("two")
	if _, err := releaseVersion(dir); err == nil || !strings.Contains(err.Error(), "the tree has changes that are in no commit") {
		t.Errorf("with a changed file: %v", err)
	}
	git("commit", "-q", "-a", "-m", "two")
	if _, err := releaseVersion(dir); err == nil {
		t.Error("a commit behind the tag is released")
	}
}
