package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/txlb/txlb/internal/container"
	"github.com/txlb/txlb/internal/testkit"
)

// block is a fenced code block of a page. CONTRIBUTING.md says what its marks mean.
type block struct {
	page          string
	line          int // of its fence
	language      string
	text          string
	output        string // the block of output behind it
	hasOutput     bool
	notRun        string // why, "" if it is run
	before, after string // commands
	exit          int
	continued     bool
}

func (b *block) String() string { return fmt.Sprintf("%s:%d", b.page, b.line) }

var (
	fenceLine   = regexp.MustCompile("^( *)```+ *([^ `]*) *$")
	listItem    = regexp.MustCompile(`^ *(?:[-*+]|\d+[.)]) +`)
	htmlComment = regexp.MustCompile(`(?s)^\s*<!--\s*(.*?)\s*-->\s*$`)
)

// readBlocks returns the fenced blocks of a page, and the lines where indented ones begin.
func readBlocks(page, text string) (blocks []*block, indented []int) {
	var (
		marks   block  // of the comments that stand before the next block
		comment string // that has begun and not ended
		open    *block
		margin  string // of the fence that is open
		last    *block // the block that ended with nothing behind it so far
		lists   []int  // where the text of the items begins that the line may be in
		empty   = true // the line before has nothing
		inside  bool   // in an indented block
	)
	for i, line := range strings.Split(text, "\n") {
		if open != nil {
			if strings.HasPrefix(strings.TrimSpace(line), "```") {
				if last != nil && last.language == "sh" && open.language == "text" {
					last.output, last.hasOutput = open.text, true
				}
				blocks, last, open = append(blocks, open), open, nil
				continue
			}
			open.text += strings.TrimPrefix(line, margin) + "\n"
			continue
		}
		if comment != "" || strings.HasPrefix(strings.TrimSpace(line), "<!--") {
			comment += line + "\n"
			if m := htmlComment.FindStringSubmatch(comment); m != nil {
				marks.mark(strings.Join(strings.Fields(m[1]), " "))
				comment = ""
			}
			continue
		}
		if m := fenceLine.FindStringSubmatch(line); m != nil {
			b := marks
			b.page, b.line, b.language = page, i+1, m[2]
			open, margin, marks = &b, m[1], block{}
			empty, inside = false, false
			continue
		}
		if strings.TrimSpace(line) == "" {
			empty = true
			continue
		}
		marks, last = block{}, nil
		indent := len(line) - len(strings.TrimLeft(line, " "))
		for len(lists) > 0 && indent < lists[len(lists)-1] {
			lists = lists[:len(lists)-1]
		}
		base := 0
		if len(lists) > 0 {
			base = lists[len(lists)-1]
		}
		if indent >= base+4 && (empty || inside) {
			if !inside {
				indented = append(indented, i+1)
			}
			inside = true
			continue
		}
		inside, empty = false, false
		if m := listItem.FindString(line); m != "" {
			lists = append(lists, len(m))
		}
	}
	return blocks, indented
}

// mark takes in a comment. Comments for others are no marks.
func (b *block) mark(comment string) {
	name, value, _ := strings.Cut(comment, ":")
	value = strings.TrimSpace(value)
	switch name {
	case "not run":
		b.notRun = value
		if value == "" {
			b.notRun = "?"
		}
	case "before":
		b.before = value
	case "after":
		b.after = value
	case "exit":
		b.exit, _ = strconv.Atoi(value)
	case "continued":
		b.continued = true
	}
}

// docsBlocks reads all pages whose commands are run, and README.md first.
func docsBlocks(t *testing.T) (all []*block) {
	t.Helper()
	const root = "../../"
	pages, err := filepath.Glob(root + "docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("no pages: %v", err)
	}
	for _, path := range append([]string{root + "README.md"}, pages...) {
		page := strings.TrimPrefix(path, root)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		blocks, indented := readBlocks(page, string(text))
		for _, line := range indented {
			t.Errorf("%s:%d: an indented block: fence it and name its language (CONTRIBUTING.md, Commands in the documentation)", page, line)
		}
		all = append(all, blocks...)
	}
	return all
}

// Every block of commands is one that TestDocsCommands runs, or says why not.
func TestDocsBlocks(t *testing.T) {
	run, marked := 0, 0
	for _, b := range docsBlocks(t) {
		switch {
		case b.language == "":
			t.Errorf("%s: the block has no language", b)
		case b.language == "bash", b.language == "shell", b.language == "console":
			t.Errorf("%s: blocks of commands have the language sh", b)
		case b.language != "sh":
		case b.notRun == "":
			run++
			if strings.Contains("\n"+b.text, "\n$ ") {
				t.Errorf("%s: commands stand without a prompt, and their output in a block of its own", b)
			}
		case len(b.notRun) < 10:
			t.Errorf("%s: the mark gives no reason", b)
		case !testsExist(t, b.notRun):
			t.Errorf("%s: the mark names a test that there is not: %s", b, b.notRun)
		default:
			marked++
			t.Logf("%s is not run: %s", b, b.notRun)
		}
	}
	t.Logf("%d blocks are run, %d are not", run, marked)
}

// testsExist tells whether there are the tests that a text names.
func testsExist(t *testing.T, text string) bool {
	t.Helper()
	all, err := docsTests()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(text, -1) {
		if !all[name] {
			return false
		}
	}
	return true
}

// docsTests are the names of all tests of the module, read once.
var docsTests = sync.OnceValues(func() (map[string]bool, error) {
	all := map[string]bool{}
	return all, filepath.WalkDir("../..", func(path string, _ os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, "func Test"); ok {
				name, _, _ := strings.Cut(rest, "(")
				all["Test"+name] = true
			}
		}
		return err
	})
})

// What CONTRIBUTING.md says of blocks is what the test reads.
func TestDocsBlocksAreFound(t *testing.T) {
	const page = "# A\n\ntext\n\n    indented\n\n- item\n\n  more\n\n      indented in it\n\n  <!-- before: a;\n  b -->\n  ```sh\n  one\n    two\n  ```\n\n" +
		"1. first\n\n    of the item\n\n<!-- not run: why -->\n<!-- exit: 3 -->\n```sh\nthree\n```\n\n```text\nsaid\n```\nend\n\n```sh\nfour\n```\nnot directly\n```text\nno output\n```\n"
	blocks, indented := readBlocks("p", page)
	var got []string
	for _, b := range blocks {
		got = append(got, fmt.Sprintf("%d %s %q %q %q %q %d", b.line, b.language, b.text, b.output, b.notRun, b.before, b.exit))
	}
	want := []string{
		`15 sh "one\n  two\n" "" "" "a; b" 0`, `26 sh "three\n" "said\n" "why" "" 3`, `30 text "said\n" "" "" "" 0`,
		`35 sh "four\n" "" "" "" 0`, `39 text "no output\n" "" "" "" 0`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("blocks:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if !slices.Equal(indented, []int{5, 11}) {
		t.Errorf("indented blocks begin at %v", indented)
	}
}

// docsMachine is the container where commands of the documentation are run.
type docsMachine struct{ *container.Machine }

// docsStubs are programs that ask a person, and those that only change the user.
var docsStubs = map[string]string{
	"sudo":   "#!/bin/sh\nexec \"$@\"\n",
	"editor": "#!/bin/sh\ntest -w \"$1\"\n",
}

// docsReset brings the machine into the state that every block finds.
const docsReset = `
rm -rf /tmp/docs /etc/systemd/system/txlb.*.d
mkdir -p /tmp/docs
find /etc/txlb -mindepth 1 -delete
install -o txlb -g txlb -m 640 /etc/docs/config.xml /etc/txlb/config.xml
if [ "$(systemctl show -P NeedDaemonReload txlb.service)" = yes ]; then systemctl daemon-reload; fi
systemctl stop txlb.socket 2>/dev/null || true # without an address it cannot be loaded
if systemctl is-active -q txlb; then
	txlb ctl reload --discard || systemctl restart txlb
else
	systemctl reset-failed txlb 2>/dev/null || true
	systemctl start txlb
fi
`

func newDocsMachine(t *testing.T) *docsMachine {
	t.Helper()
	bin := binFolder(t)
	for name, text := range docsStubs {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	files := map[string]string{"etc/txlb/keep": ""}
	add := func(to, from string) {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		files[to] = string(text)
	}
	for to, from := range map[string]string{
		"etc/systemd/system/txlb.service": "systemd/txlb.service", "etc/systemd/system/txlb.socket": "systemd/txlb.socket",
		"etc/systemd/system/txlb-keeper.service": "systemd/txlb-keeper.service",
		"etc/sysusers.d/txlb.conf":               "sysusers.d/txlb.conf", "etc/tmpfiles.d/txlb.conf": "tmpfiles.d/txlb.conf",
	} {
		add(to, "../../etc/"+from)
	}
	files["etc/ssl/openssl.cnf"] = "[req]\ndistinguished_name = dn\n[dn]\n"
	given, err := filepath.Glob("testdata/docs/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range given {
		add("etc/docs/"+filepath.Base(path), path)
	}
	for name, dir := range map[string]string{"haproxy.cfg": "etc/haproxy/", "nginx.conf": "etc/nginx/"} {
		files[dir+name] = files["etc/docs/"+name]
	}
	files["etc/systemd/system/txlb.service.d/limit.conf"] = "[Unit]\nStartLimitIntervalSec=0\n"
	m := &docsMachine{container.Boot(t, container.Root(t, files), bin+":/usr/local/bin")}
	for _, address := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "192.0.2.1"} {
		m.Run("ip", "address", "add", address+"/32", "dev", "lo")
	}
	for _, address := range []string{"10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080"} {
		ln, err := m.Listen(address)
		if err != nil {
			t.Fatal(err)
		}
		serveOn(t, ln, docsBackend)
	}
	m.Run("systemd-sysusers")
	m.Run("systemd-tmpfiles", "--create", "/etc/tmpfiles.d/txlb.conf")
	return m
}

// docsBackend answers requests of HTTP.
func docsBackend(c net.Conn) {
	in := bufio.NewReader(c)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		if strings.TrimSpace(line) == "" {
			_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n")
		}
	}
}

// TestDocsCommands runs the commands of the documentation as readers would.
func TestDocsCommands(t *testing.T) {
	testkit.Long(t)
	t.Parallel()
	blocks := slices.DeleteFunc(docsBlocks(t), func(b *block) bool { return b.language != "sh" || b.notRun != "" })
	if len(blocks) == 0 {
		t.Fatal("no page has blocks of commands")
	}
	m := newDocsMachine(t)
	for _, b := range blocks {
		if !b.continued {
			m.Run("bash", "-euo", "pipefail", "-c", docsReset)
		}
		script := "cd /tmp/docs\n"
		if b.after != "" {
			script += "trap '" + strings.ReplaceAll(b.after, "'", `'\''`) + "' EXIT\n"
		}
		const begins = "-- the block --"
		out, status := m.Try("timeout", "-k", "1", "60", "bash", "-euo", "pipefail", "-c", script+b.before+"\necho "+begins+"\n"+b.text)
		if status != b.exit {
			t.Errorf("%s: exit status %d, want %d\n%s%s", b, status, b.exit, b.text, indent(out))
			continue
		}
		if _, out, _ = strings.Cut(out, begins+"\n"); b.hasOutput && !sameShape(b.output, out) {
			t.Errorf("%s: the page shows\n%sand the commands wrote\n%s", b, indent(b.output), indent(out))
		}
	}
	if t.Failed() {
		t.Logf("the journal:\n%s", m.Journal("txlb.service"))
	}
}

func indent(text string) string {
	return "\t" + strings.TrimSuffix(strings.ReplaceAll(text, "\n", "\n\t"), "\t")
}

var (
	shapeNumber = regexp.MustCompile(`\b(?:\d[\w.:µ%+/-]*|[0-9a-f]{9,})`) // the latter are IDs
	shapeBlanks = regexp.MustCompile(`[ \t]+`)
)

// sameShape tells whether what a page shows is what came out, but for numbers and blanks.
func sameShape(shown, got string) bool {
	shape := func(text string) string {
		return shapeBlanks.ReplaceAllString(shapeNumber.ReplaceAllString(text, "#"), " ")
	}
	pattern := `\A`
	for line := range strings.Lines(strings.TrimSpace(shown)) {
		line = strings.TrimSpace(line)
		if line == "…" {
			pattern += `(?:.*\n)*`
			continue
		}
		pattern += ` ?` + strings.ReplaceAll(regexp.QuoteMeta(shape(line)), "…", ".*") + ` ?\n`
	}
	return regexp.MustCompile(pattern + `\z`).MatchString(strings.TrimSpace(shape(got)) + "\n")
}

func TestShape(t *testing.T) {
	for _, c := range []struct {
		shown, got string
		same       bool
	}{
		{"up 3m2s, 2 hosts\n", "up 1.5s, 17 hosts\n", true},
		{"a  10.0.0.1:80\n", "a 192.0.2.7:8080\n", true},
		{"a up\n", "a down\n", false},
		{"first\n…\nlast\n", "first\nx\ny\nlast\n", true},
		{"first\n…\n", "second\n", false},
		{"a (…)\n", "a (b c)\n", true},
		{"a\n", "a\nb\n", false},
	} {
		if sameShape(c.shown, c.got) != c.same {
			t.Errorf("%q and %q: the same is not %v", c.shown, c.got, c.same)
		}
	}
}
