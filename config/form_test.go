package config

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

func TestEncodings(t *testing.T) {
	for name, test := range map[string]struct{ head, name, want string }{
		"ISO-8859-1":   {`<?xml version="1.0" encoding="ISO-8859-1"?>`, "caf\xe9", "café"},
		"lower case":   {`<?xml version="1.0" encoding="iso-8859-1"?>`, "\xfcber", "über"},
		"US-ASCII":     {`<?xml version="1.0" encoding="US-ASCII"?>`, "cafe", "cafe"},
		"UTF-8":        {`<?xml version="1.0" encoding="UTF-8"?>`, "café", "café"},
		"not said":     {``, "café", "café"},
		"UTF-8 marked": {"\xef\xbb\xbf<?xml version=\"1.0\"?>", "café", "café"},
		"CRLF":         {"<?xml version=\"1.0\"?>\r\n", "cafe", "cafe"},
	} {
		c := parse(t, test.head+`<config><service name="`+test.name+`"><listen ip=":1"/></service></config>`)
		if got := c.Services[0].Name; got != test.want {
			t.Errorf("%s: the name is %q, want %q", name, got, test.want)
		}
	}
	// Lines are counted the same behind a decoder.
	_, problems := Parse("c.xml", []byte("<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?>\n<config>\n<!-- \xe9\n -->\n<wrong/></config>"))
	if len(problems) != 1 || problems[0].Line != 5 {
		t.Errorf("problems %v, want one in line 5", problems)
	}
}

// Comments, CDATA and processing instructions may hold what looks like a tag,
// or a lonely quote, and be as long as they like.
func TestWhatPeopleWriteIsSkipped(t *testing.T) {
	long := strings.Repeat("<x y='", maxTag)
	parse(t, "<config><!-- "+long+" --><note><![CDATA["+long+"]]></note><?note "+long+"?>it's <service name=\"a\">don't<listen ip=\":1\"/></service>"+
		strings.Repeat("<!-- x -->\n", maxTag/8)+"</config>")
}

func TestHostileFilesAreRefusedQuickly(t *testing.T) {
	testkit.Long(t)
	for name, test := range map[string]struct{ doc, want string }{
		"large":           {strings.Repeat("\x00", MaxSize+1), "larger than 8 MiB"},
		"deep":            {strings.Repeat("<config>", 100_000), "nested more than 16 deep"},
		"many elements":   {"<config>" + strings.Repeat("<a/>", maxElements) + "</config>", "more than 100000 elements"},
		"one long tag":    {"<config " + strings.Repeat(`a="1" `, 1_300_000) + "/>", "a tag of more than 64 KiB"},
		"quoted brackets": {"<config " + strings.Repeat(`a=">" `, 1_300_000) + "/>", "a tag of more than 64 KiB"},
		"many attributes": {"<config>" + strings.Repeat("<a "+distinctAttributes(7000)+"/>", 120) + "</config>", "more than 64 attributes"},
		"some attributes": {"<config>" + strings.Repeat("<a "+distinctAttributes(64)+"/>", 2000) + "</config>", "unknown element <a>"},
		"billion laughs":  {"<!DOCTYPE c [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;\">]><config>&b;</config>", "c.xml:1: a document type with declarations"},
		"outside entity":  {"<!DOCTYPE c SYSTEM \"file:///etc/passwd\"><config>&c;</config>", "invalid character entity"},
		"long names":      {"<config><service name=\"a\"><listen ip=\":1\"/><" + strings.Repeat("x", 60_000) + "/></service></config>", "unknown element <xxx"},
		"many listeners":  {manyListeners(maxElements / 2), "listens on *:80, which service \"a\" has taken"},
		"many mistakes":   {"<config>" + strings.Repeat("<wrong wrong='1'/>", maxElements-1) + "</config>", "and 99899 more errors"},
		"many warnings":   {"<config>" + strings.Repeat("<service name=' '/>", maxElements-1) + "</config>", "listens nowhere"},
		"binary":          {strings.Repeat("\x00\x01\x02\xfe", 1<<16), "c.xml:1: not well-formed XML"},
		"long comment":    {"<config>\n<!--" + strings.Repeat("- x", 1<<18), "not well-formed XML"},
		"many comments":   {"<config>" + strings.Repeat("<!---->", 100_000), "not well-formed XML"},
		"brackets":        {strings.Repeat("<", 8<<20), "c.xml:1: "},
		"entities":        {"<config>" + strings.Repeat("&lt;", 1<<18) + "</config>", "there is no <service>"},
	} {
		clock := testkit.NewClock(t)
		c, problems := Parse("c.xml", []byte(test.doc))
		took := clock.Now()
		text := problems.Error()
		if c != nil || !strings.Contains(text, test.want) {
			t.Errorf("%s: said %.300s\nwant %s", name, text, test.want)
		}
		if len(problems) > 2*(maxProblems+1) || len(text) > 1<<20 {
			t.Errorf("%s: %d problems in %d bytes are told", name, len(problems), len(text))
		}
		// At most some 200 ms on an idle machine, of which the race detector
		// makes ten times as many; work that grows with the square of the size
		// takes minutes.
		if took > 30*time.Second {
			t.Errorf("%s: refused after %v", name, took)
		}
	}
}

// manyListeners all share a port, and only the last is in the way.
func manyListeners(n int) string {
	var doc strings.Builder
	doc.WriteString(`<config><service name="a">`)
	for i := range n {
		fmt.Fprintf(&doc, `<listen ip="127.%d.%d.%d:80"/>`, 1+i>>16, i>>8&255, i&255)
	}
	doc.WriteString(`<listen ip="*:80"/></service></config>`)
	return doc.String()
}

func distinctAttributes(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "a%x='' ", i)
	}
	return b.String()
}
