package txlb

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// pages returns the Markdown files of the tree as they are, by their names.
func pages(t *testing.T) map[string]string {
	t.Helper()
	out, err := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md").Output()
	if err != nil {
		t.Skipf("git ls-files: %v", err) // the tree is not a checkout
	}
	all := map[string]string{}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		text, err := os.ReadFile(name)
		if os.IsNotExist(err) { // deleted, and not committed yet
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		all[name] = string(text)
	}
	return all
}

var (
	fenced  = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	inCode  = regexp.MustCompile("`[^`\n]*`")
	heading = regexp.MustCompile(`(?m)^#{1,6} +(.*)$`)
	linked  = regexp.MustCompile(`\[[^\]]*\]\(([^()\s]+)\)`)
	named   = regexp.MustCompile(`\[([^\]]*)\]\([^()]*\)`)
	scheme  = regexp.MustCompile(`^[a-z]+:`)
)

// withoutCode leaves out fenced blocks, but not their lines, so that numbers stay right.
func withoutCode(text string) string {
	return fenced.ReplaceAllStringFunc(text, func(block string) string { return strings.Repeat("\n", strings.Count(block, "\n")) })
}

// anchors returns the names under which the headings of a page can be linked to.
// Source: https://github.com/gjtorikian/html-pipeline, toc_filter.rb.
func anchors(text string) map[string]bool {
	all, seen := map[string]bool{}, map[string]int{}
	for _, m := range heading.FindAllStringSubmatch(withoutCode(text), -1) {
		name := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-', r == '_', unicode.IsLetter(r), unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, strings.TrimSpace(named.ReplaceAllString(m[1], "$1")))
		if n := seen[name]; n > 0 {
			all[fmt.Sprintf("%s-%d", name, n)] = true
		} else {
			all[name] = true
		}
		seen[name]++
	}
	return all
}

// TestLinksResolve holds the links of all pages: files exist, and headings.
func TestLinksResolve(t *testing.T) {
	all := pages(t)
	for page, text := range all {
		text = inCode.ReplaceAllString(withoutCode(text), "")
		for _, m := range linked.FindAllStringSubmatchIndex(text, -1) {
			link := text[m[2]:m[3]]
			if scheme.MatchString(link) {
				continue
			}
			line := 1 + strings.Count(text[:m[2]], "\n")
			file, anchor, _ := strings.Cut(link, "#")
			target := page
			if file != "" {
				target = path.Join(path.Dir(page), file)
				if _, err := os.Stat(filepath.FromSlash(target)); err != nil {
					t.Errorf("%s:%d: %s leads to no file", page, line, link)
					continue
				}
			}
			if anchor != "" && !anchors(all[target])[anchor] {
				t.Errorf("%s:%d: %s: %s has no such heading", page, line, link, target)
			}
		}
	}
}

// TestPagesAreListed: docs/README.md leads to every page of docs, so that it is found.
func TestPagesAreListed(t *testing.T) {
	all := pages(t)
	for page := range all {
		if dir, name := path.Split(page); dir == "docs/" && name != "README.md" && !strings.Contains(all["docs/README.md"], "]("+name+")") {
			t.Errorf("docs/README.md does not list %s", name)
		}
	}
}
