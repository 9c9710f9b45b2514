package main

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// heading is that of a version in CHANGELOG.md: ## 0.5.0 – 2026-11-25, or ## Unreleased.
var heading = regexp.MustCompile(`^## (\S+)(?: – (\d{4}-\d\d-\d\d))?$`)

// release is a version of CHANGELOG.md with its entries.
type release struct {
	version string // of the package
	when    time.Time
	lines   []string // "[ Added ]", or an entry that begins with "* "
}

// debianChangelog turns CHANGELOG.md into the form of deb-changelog(5). The version that is
// packaged stands on top, even if CHANGELOG.md has only "Unreleased" for it, or nothing.
func debianChangelog(markdown []byte, version string, when time.Time) ([]byte, error) {
	releases, err := releasesOf(markdown, version, when)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for i, r := range releases {
		if i > 0 {
			out.WriteString("\n")
		}
		fmt.Fprintf(&out, "txlb (%s) unstable; urgency=medium\n\n", r.version)
		for _, line := range r.lines {
			wrap(&out, line)
		}
		if len(r.lines) == 0 {
			out.WriteString("  * Nothing that users notice.\n")
		}
		fmt.Fprintf(&out, "\n -- %s  %s\n", maintainer, r.when.Format(time.RFC1123Z))
	}
	return out.Bytes(), nil
}

func releasesOf(markdown []byte, version string, when time.Time) (list []release, err error) {
	var current *release
	fresh := true // the next line begins an entry
	for line := range strings.Lines(string(markdown)) {
		line = strings.TrimSpace(line)
		if m := heading.FindStringSubmatch(line); m != nil {
			r := release{version: version, when: when}
			if m[2] != "" {
				if r.when, err = time.Parse(time.DateOnly, m[2]); err != nil {
					return nil, fmt.Errorf("CHANGELOG.md: %w", err)
				}
				r.version = debianVersion(m[1])
			}
			switch {
			case len(list) > 0:
			case r.version == version:
				r.when = when
			default:
				list = append(list, release{version: version, when: when})
			}
			list = append(list, r)
			current, fresh = &list[len(list)-1], true
			continue
		}
		switch {
		case current == nil:
		case line == "":
			fresh = true
		case strings.HasPrefix(line, "### "):
			current.lines = append(current.lines, "[ "+strings.TrimPrefix(line, "### ")+" ]")
			fresh = true
		case strings.HasPrefix(line, "- "):
			current.lines = append(current.lines, "* "+strings.TrimPrefix(line, "- "))
			fresh = false
		case fresh:
			current.lines = append(current.lines, "* "+line)
			fresh = false
		default:
			current.lines[len(current.lines)-1] += " " + line
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("CHANGELOG.md has no version: a line such as ## 0.5.0 – 2026-11-25")
	}
	return list, nil
}

// wrap writes an entry, at most 80 columns wide.
func wrap(out *bytes.Buffer, text string) {
	line := " "
	for _, word := range strings.Fields(text) {
		if len([]rune(line))+1+len([]rune(word)) > 80 {
			out.WriteString(line + "\n")
			line = "   "
		}
		line += " " + word
	}
	out.WriteString(line + "\n")
}
