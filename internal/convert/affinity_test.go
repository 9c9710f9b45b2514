package convert

import (
	"strings"
	"testing"
)

// What makes clients come back to their hosts, in both dialects.
func TestClientsThatComeBack(t *testing.T) {
	const table = " stick-table type ip size 10k expire 1h\n"
	for lines, want := range map[string]string{
		" balance source\n":         `scheduler="maglev"`,
		" balance hash src\n":       `scheduler="maglev"`,
		table + " stick on src\n":   `scheduler="roundr,sticky" enable="true" allDown="refuse" maxFails="0" stickySize="10240" stickyFor="1h"`,
		table + " stick on dst\n":   `scheduler="roundr"`,
		table + " balance source\n": `scheduler="maglev"`,
		table + " balance leastconn\n stick match src\n stick store-request src\n": `scheduler="leastc,sticky"`,
		table + " balance source\n stick on src\n":                                 `scheduler="maglev,sticky"`,
		" stick-table type string size 10k\n stick on src\n":                       `scheduler="roundr" `,
	} {
		r, err := HAProxy("F", []byte(ended("haproxy", lines)))
		if err != nil || !strings.Contains(string(r.Document), want) {
			t.Errorf("%q: no %s (%v) in\n%s", lines, want, err, r.Document)
		}
	}
	for lines, want := range map[string]string{
		"hash $remote_addr consistent;": `scheduler="maglev"`, "hash $remote_addr;": `scheduler="maglev"`, "hash $binary_remote_addr consistent;": `scheduler="maglev"`,
		"hash $remote_port;": `scheduler="roundr"`,
	} {
		r, err := Nginx("F", []byte("upstream u { "+lines+" server 127.0.0.1:81; server 127.0.0.1:82; }\nserver { listen 80; proxy_pass u; }\n"))
		if err != nil || !strings.Contains(string(r.Document), want) {
			t.Errorf("%q: no %s (%v) in\n%s", lines, want, err, r.Document)
		}
	}
}
