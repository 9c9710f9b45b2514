package main

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"
)

// described is what git describe says: a version, the commits since, and whether files
// differ from the commit.
var described = regexp.MustCompile(`^(\d.*?)(?:-(\d+)-g([0-9a-f]+))?(-dirty)?$`)

// debianVersion returns the version of a package, which sorts as dpkg wants it:
// 0.6.0~rc1-1, then 0.6.0-1, then 0.6.0+12.g3416292-1 twelve commits later.
func debianVersion(version string) string {
	const revision = "-1" // of the packaging, which changes with the source alone
	m := described.FindStringSubmatch(version)
	if m == nil { // no version is known: older than all
		return "0~" + regexp.MustCompile(`[^0-9A-Za-z.]+`).ReplaceAllString(version, ".") + revision
	}
	v := strings.ReplaceAll(m[1], "-", "~")
	if m[2] != "" {
		v += "+" + m[2] + ".g" + m[3]
	}
	if m[4] != "" {
		v += "+dirty"
	}
	return v + revision
}

// releaseVersion returns the version of the tag that is checked out. Only a tag is
// released, and nothing that is not in it.
func releaseVersion(root string) (string, error) {
	git := func(args ...string) (string, error) {
		out, err := output(exec.Command("git", append([]string{"-C", root}, args...)...))
		return strings.TrimSpace(string(out)), err
	}
	changed, err := git("status", "--porcelain")
	if err != nil {
		return "", err
	}
	if changed != "" {
		return "", fmt.Errorf("the tree has changes that are in no commit; commit them or stash them:\n%s", changed)
	}
	tag, err := git("describe", "--tags", "--exact-match", "--match", "v[0-9]*")
	if err != nil {
		return "", fmt.Errorf("no tag such as v1.2.3 is on this commit; check one out, or make one with git tag -a: %w", err)
	}
	return strings.TrimPrefix(tag, "v"), nil
}
