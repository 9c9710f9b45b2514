package convert

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

var update = flag.Bool("update", false, "write testdata and the tables of docs/migrating.md")

// later are rows of the schema that the golden files do without, whether the schema
// has them or not.
var later = []string{
	"listen proxyProtocol", "listen proxyFrom",
	"timeouts hello",
	"host proxyProtocol",
	"allow net", "allow file", "deny net", "deny file", "group scheduler ewma",
}

// today is a schema that does not change when rows join it.
func today(element, attribute, value string) bool {
	return lacksRow(element, attribute, value) || slices.Contains(later, element+" "+attribute) ||
		slices.Contains(later, element+" "+attribute+" "+value)
}

// dialect is one of the two.
type dialect struct {
	name    string
	inputs  string
	convert func(*converter, []byte) (*Result, error)
	public  func(string, []byte) (*Result, error)
}

var dialects = []dialect{
	{"haproxy", "testdata/haproxy/*.cfg", haproxy, HAProxy},
	{"nginx", "testdata/nginx/*.conf", nginx, Nginx},
}

// files returns the sources of a dialect.
func (d dialect) files(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob(d.inputs)
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files of %s: %v", len(files), d.name, err)
	}
	return files
}

// Each source becomes the document beside it: go test ./internal/convert -update.
func TestGolden(t *testing.T) {
	for _, d := range dialects {
		for _, file := range d.files(t) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c := newConverter(filepath.Base(file))
			c.lacks = today
			r, err := d.convert(c, text)
			if err != nil {
				t.Errorf("%s: %v", file, err)
				continue
			}
			golden := file + ".xml"
			if *update {
				if err := os.WriteFile(golden, r.Document, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil || string(want) != string(r.Document) {
				t.Errorf("%s: %v; go test ./internal/convert -update writes it again:\n%s", golden, err, r.Document)
			}
		}
	}
}

// With the schema as it is, every result is a configuration without errors.
func TestResultsPassTheCheck(t *testing.T) {
	for _, d := range dialects {
		for _, file := range d.files(t) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			r, err := d.public(file, text)
			if err != nil {
				t.Errorf("%s: %v", file, err)
				continue
			}
			model, problems := config.Parse("result", r.Document)
			if model == nil || problems.Err() != nil {
				t.Errorf("%s: %v\n%s", file, problems, r.Document)
				continue
			}
			if len(model.Services) != r.Services {
				t.Errorf("%s: %d services in the document, %d counted", file, len(model.Services), r.Services)
			}
		}
	}
}

// ended returns a source with some lines, and what they need around them.
func ended(dialect, lines string) string {
	if dialect == "haproxy" {
		return "listen it\n bind 127.0.0.1:80\n server s 127.0.0.1:81\n" + lines
	}
	return "server { listen 80; proxy_pass 127.0.0.1:81; }\n" + lines
}

// A mistake of the source is an error with its file and line.
func TestMistakesHaveFileAndLine(t *testing.T) {
	for _, test := range []struct{ dialect, lines, want string }{
		{"haproxy", " timeout connect soon", `F:4: timeout connect: "soon" is not a time`},
		{"haproxy", " timeout connect", "F:4: timeout connect needs a time"},
		{"haproxy", " server s", "F:4: server needs a name and an address"},
		{"haproxy", " server t 127.0.0.1:1 weight", "F:4: server option weight needs a value"},
		{"haproxy", ` log-format "a`, `F:4: the quote " has no end`},
		{"haproxy", "listen it\n", `F:4: a second listen "it"`},
		{"haproxy", " default_backend none\n", `F:4: there is no backend "none"`},
		{"haproxy", "frontend f from nobody\n", `F:4: frontend f from nobody: there is no defaults section "nobody"`},
		{"haproxy", " .if defined(X)\n", "F:4: .if: conditional blocks are not evaluated"},
		{"haproxy", " server t name:1 resolvers r\n", `F:4: there is no resolvers section "r"`},
		{"nginx", "server { listen 81 }", `F:2: "listen" has no ;`},
		{"nginx", "server { listen 81;", "F:2: a block has no }"},
		{"nginx", "}", "F:2: a } without its {"},
		{"nginx", `server { listen "81; }`, `F:2: the quote " has no end`},
		{"nginx", "server { proxy_timeout later; }", `F:2: proxy_timeout: "later" is not a time`},
		{"nginx", "server { proxy_timeout; }", "F:2: proxy_timeout needs a value"},
		{"nginx", "upstream a { }\nupstream a { }", `F:3: a second upstream "a"`},
	} {
		d := dialects[slices.IndexFunc(dialects, func(d dialect) bool { return d.name == test.dialect })]
		r, err := d.public("F", []byte(ended(test.dialect, test.lines)))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v, want %s; %v", test.lines, err, test.want, r)
		}
	}
}

// What nobody knows becomes a comment with its line, whatever it contains.
func TestUnknownLinesBecomeComments(t *testing.T) {
	for _, test := range []struct{ dialect, lines, want string }{
		{"haproxy", " wonderful -- thing", "<!-- line 4: wonderful - - thing: no equivalent -->"},
		{"haproxy", " wonderful thing-", "<!-- line 4: wonderful thing-: no equivalent -->"},
		{"haproxy", " wonderful \x01\xff", "line 4: wonderful \uFFFD"},
		{"haproxy", " server t 127.0.0.1:82 superb check", "superb is not known here"},
		{"haproxy", " bind 127.0.0.1:90 superb", "<!-- line 4: bind 127.0.0.1:90 superb: no equivalent: superb -->"},
		{"haproxy", " bind 127.0.0.1:80", "left out: service &#34;it&#34;"},
		{"haproxy", "global\n wonderful", "<!-- line 5: wonderful: no equivalent -->"},
		{"haproxy", "ring r\n size 1", "<!-- lines 4 to 5: ring r: no equivalent"},
		{"haproxy", " stats auth boss:sesame", "stats auth …: no equivalent"},
		{"haproxy", " server u 127.0.0.1:70000", "left out: host"},
		{"nginx", "wonderful -- thing;", "<!-- line 2: wonderful - - thing: no equivalent -->"},
		{"nginx", "include x;", "<!-- line 2: include x: not followed"},
		{"nginx", "server { listen 82 superb; proxy_pass 127.0.0.1:1; }", "no equivalent: superb"},
		{"nginx", "server { listen 83; proxy_pass 127.0.0.1:70000; }", "left out: host"},
	} {
		d := dialects[slices.IndexFunc(dialects, func(d dialect) bool { return d.name == test.dialect })]
		r, err := d.public("F", []byte(ended(test.dialect, test.lines)))
		if err != nil {
			t.Errorf("%q: %v", test.lines, err)
			continue
		}
		want := strings.ReplaceAll(test.want, "&#34;", `"`)
		if !strings.Contains(string(r.Document), want) || strings.Contains(string(r.Document), "sesame") {
			t.Errorf("%q: no %s in\n%s", test.lines, want, r.Document)
		}
	}
}

// An attribute that the schema does not have is a comment; once it has the row, it is
// written.
func TestRowsJoinWithoutCode(t *testing.T) {
	source := []byte(ended("haproxy", " server t 127.0.0.1:82 slowstart 10s"))
	with, err := haproxy(newConverter("F"), source)
	if err != nil || !strings.Contains(string(with.Document), `slowStart="10s"`) {
		t.Fatalf("%v: %+v", err, with)
	}
	c := newConverter("F")
	c.lacks = func(element, attribute, value string) bool {
		return attribute == "slowStart" || lacksRow(element, attribute, value)
	}
	without, err := haproxy(c, source)
	if err != nil || !strings.Contains(string(without.Document), `no equivalent yet: <host slowStart="10s">`) {
		t.Fatalf("%v: %+v", err, without)
	}
}

// nginx's least_time, of whatever time, becomes ewma; with weights as well.
func TestLeastTimeBecomesEWMA(t *testing.T) {
	for _, of := range []string{"connect", "first_byte", "last_byte inflight"} {
		r, err := Nginx("F", []byte("stream {\n upstream u { least_time "+of+"; server 10.0.0.1:80 weight=3; server 10.0.0.2:80; }\n server { listen 81; proxy_pass u; }\n}\n"))
		if err != nil || !strings.Contains(string(r.Document), `scheduler="ewma"`) || strings.Contains(string(r.Document), ": no equivalent") {
			t.Errorf("least_time %s: %v\n%s", of, err, r.Document)
		}
	}
}

// A list of who may connect is written whole or not at all: a part of it would let in
// or reject others.
func TestPartsOfAccessListsAreNotWritten(t *testing.T) {
	c := newConverter("F")
	c.lacks = func(element, attribute, value string) bool {
		return element == "allow" && attribute == "file" || element != "allow" && element != "deny" && lacksRow(element, attribute, value)
	}
	r, err := haproxy(c, []byte(ended("haproxy", " tcp-request connection reject if !{ src -f friends }\n")))
	if err != nil || strings.Contains(string(r.Document), "\n    <access>") {
		t.Errorf("%v: %s", err, r.Document)
	}
}

// Without anything to convert there is an error that says why.
func TestNothingToConvert(t *testing.T) {
	_, err := HAProxy("F", []byte("listen web\n mode http\n bind :80\n server s 127.0.0.1:81\n"))
	if err == nil || !strings.Contains(err.Error(), "nothing to convert") || !strings.Contains(err.Error(), "F:1: warning: listen web: left out: it is in mode http") {
		t.Error(err)
	}
	_, err = Nginx("F", []byte("http { }\n"))
	if err == nil || !strings.Contains(err.Error(), "nothing to convert") {
		t.Error(err)
	}
}

// The tables of docs/migrating.md are made of the converter's.
func TestDocumentationHasTheTables(t *testing.T) {
	testkit.Tables(t, "../../docs/migrating.md", *update, "go test ./internal/convert -run TestDocumentationHasTheTables -update", map[string]string{
		"table: haproxy global":     tableOf(haGlobal),
		"table: haproxy proxies":    tableOf(haDirectives),
		"table: haproxy bind":       tableOf(haBindOptions),
		"table: haproxy server":     tableOf(haServerOptions),
		"table: haproxy schedulers": tableOfSchedulers(),
		"table: nginx main":         tableOf(ngMain),
		"table: nginx stream":       tableOf(ngDirectives),
		"table: nginx listen":       tableOf(ngListenOptions),
		"table: nginx upstream":     tableOf(ngUpstreamRows),
		"table: nginx server":       tableOf(ngServerOptions),
	})
}

func tableOf[T any](rows []row[T]) string {
	var b strings.Builder
	b.WriteString("| theirs | txlb | how, or why not |\n|---|---|---|\n")
	for _, r := range rows {
		to := "–"
		if r.to != "" {
			to = "`<" + r.to + ">`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", r.name, to, strings.ReplaceAll(r.say, "|", `\|`))
	}
	return b.String()
}

func tableOfSchedulers() string {
	var b strings.Builder
	b.WriteString("| balance | equal weights | other weights | remark |\n|---|---|---|---|\n")
	for _, s := range schedulers {
		weighted, _ := sched.Weighted(s.ours)
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", s.theirs, s.ours, weighted, s.say)
	}
	return b.String()
}

// Names of rows are unique, and those that become something name an attribute that
// has, or is to have, a row.
func TestTables(t *testing.T) {
	check := func(table string, rows []struct{ name, to, say string }) {
		seen := map[string]bool{}
		for _, r := range rows {
			if seen[r.name] {
				t.Errorf("%s: %s is there twice", table, r.name)
			}
			seen[r.name] = true
			element, attribute, _ := strings.Cut(r.to, " ")
			if r.to != "" && config.Find(element, attribute) == nil && !slices.Contains(later, r.to) {
				t.Errorf("%s: %s becomes <%s>, which is no attribute", table, r.name, r.to)
			}
			if r.to == "" && r.say == "" {
				t.Errorf("%s: %s becomes nothing and does not say why", table, r.name)
			}
		}
	}
	check("global", plainRows(haGlobal))
	check("proxies", plainRows(haDirectives))
	check("bind", plainRows(haBindOptions))
	check("server", plainRows(haServerOptions))
	check("main", plainRows(ngMain))
	check("stream", plainRows(ngDirectives))
	check("listen", plainRows(ngListenOptions))
	check("upstream", plainRows(ngUpstreamRows))
	check("upstream server", plainRows(ngServerOptions))
}

func plainRows[T any](rows []row[T]) (plain []struct{ name, to, say string }) {
	for _, r := range rows {
		plain = append(plain, struct{ name, to, say string }{r.name, r.to, r.say})
	}
	return plain
}

func FuzzHAProxy(f *testing.F) { fuzz(f, dialects[0]) }

func FuzzNginx(f *testing.F) { fuzz(f, dialects[1]) }

// fuzz holds what is true of any source: an error with a text, or a document without
// errors.
func fuzz(f *testing.F, d dialect) {
	for _, file := range d.files(f) {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, source []byte) {
		r, err := d.public("fuzzed", source)
		if err != nil {
			if problems, ok := errors.AsType[config.Problems](err); !ok || len(problems) == 0 || problems.Err() == nil {
				t.Errorf("the error %v says nothing", err)
			}
			return
		}
		if _, problems := config.Parse("result", r.Document); problems.Err() != nil {
			t.Errorf("%v\n%s", problems, r.Document)
		}
	})
}
