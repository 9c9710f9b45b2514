package accesslog

import (
	"strings"
	"testing"
)

// lines are of both formats, of HAProxy, and wrong ones.
const lines = `Nov 28 03:04:21 lb1 txlb[812]: 192.0.2.7:35990 [28/Nov/2026:03:04:11.208] web web.main/b 5001/-1/10003 0 sC 212/198/0/0/+1 0/0

127.0.0.1:54374 [28/Nov/2026:14:24:03.165] my#20shop my#20shop/<NOSRV> -1/-1/0 0 SC 1/1/0/0/0 0/0
{"accepted":"2026-11-28T14:24:03.695Z","client":"[2001:db8::1]:35870","proxied":true,"server_name":"db.example","service":"web","group":"main","host":"a","address":"127.0.0.1:18111","wait_ms":0,"connect_ms":0.213,"total_ms":62296.5,"bytes_in":79,"bytes_out":1352,"termination":"--","rejected":null,"retries":0,"sessions":1,"service_sessions":1,"group_sessions":0,"host_sessions":0,"host_queue":2,"group_queue":3}
something else
2001:db8::1:53686 [28/Nov/2026:14:03:52.415] fe~ be/a 1/0/+0 +5 PC 1/1/0/0/2 0/0
127.0.0.1:1 [28/Nov/2026:14:03:52.415] fe be/a 1/0/x 5 -- 1/1/0/0/0 0/0
{"accepted":"2026-11-28T14:24:03.695Z"}
unix:1 [28/Nov/2026:14:03:52.415] fe fe/<NOSRV> -1/-1/0 0 PR 1/1/0/0/0 0/0`

const sentences = `log:1
  Client 192.0.2.7:35990 came to service web on 28 November 2026 at 03:04:11.208.
  The last host that was asked is b of group main, after 5001 ms, which did not answer; one host before it had failed.
  It ended after 10s, with 0 bytes to the client.
  sC: the session was rejected: no host answered in time.
  Look at the network to the hosts, and at <timeouts connect> and <timeouts total>.
  Sessions open when it ended: 212 in all, 198 of the service; and 0 others of the group, 0 of the host.
log:3
  Client 127.0.0.1:54374 came to service my shop on 28 November 2026 at 14:24:03.165.
  It was not sent to a host.
  It ended after 0 ms, with 0 bytes to the client.
  SC: the session was rejected: no host accepted the connection.
  Look at ` + "`txlb ctl show hosts`" + `: all hosts are down or refuse connections.
  Sessions open when it ended: 1 in all, 1 of the service; and 0 others of the group, 0 of the host.
log:4
  Client [2001:db8::1]:35870, as its PROXY header says, came to service web on 28 November 2026 at 14:24:03.695.
  Its TLS asked for db.example.
  It was sent to host a (127.0.0.1:18111) of group main, at once, which answered after 0.213 ms.
  It ended after 1m2.3s, with 79 bytes from the client and 1352 bytes to it.
  --: the session ended normally: both sides closed it.
  Sessions open when it ended: 1 in all, 1 of the service; and 0 others of the group, 0 of the host.
  Clients that waited before it: 2 for the host, and 3 for the group.
log:6
  Client 2001:db8::1:53686 came to service fe on 28 November 2026 at 14:03:52.415.
  It was sent to host a of group be, after 1 ms, which answered after 0 ms; 2 connects before had failed.
  It ended after 0 ms, with 5 bytes to the client.
  PC is not a code of txlb. HAProxy's manual explains it under "Session state at disconnection".
  Sessions open when it ended: 1 in all, 1 of the service; and 0 others of the group, 0 of the host.
log:9
  A client of a UNIX socket came to service fe on 28 November 2026 at 14:03:52.415.
  It was not sent to a host.
  It ended after 0 ms, with 0 bytes to the client.
  PR: the session was rejected before a host was chosen: by an access rule, by a limit, for its PROXY header, or because its TLS handshake failed.
  Look at <access>, <limits>, and what stands before this listener: it must send a right PROXY header. Lines in JSON, and the command status, have the reason.
  Sessions open when it ended: 1 in all, 1 of the service; and 0 others of the group, 0 of the host.
`

const mistakes = `log:5: is not a line of an access log in format tcplog or json
log:7: the times "1/0/x": "x" is not a number
log:8: is an object without accepted, service or termination, which an access log has
log:10: is longer than 64 KiB
`

func TestExplain(t *testing.T) {
	for name, ending := range map[string]string{"": "", "CRLF": "\r"} {
		var out, problems strings.Builder
		text := strings.ReplaceAll(lines, "\n", ending+"\n") + "\n" + strings.Repeat("x", 100<<10) + "\n"
		bad, err := Explain(&out, &problems, "log", strings.NewReader(text))
		if bad != 4 || err != nil || out.String() != sentences || problems.String() != mistakes {
			t.Errorf("%s: %d bad, %v\n%s\n%s", name, bad, err, out.String(), problems.String())
		}
	}
}

// Whatever a line says, reading it ends, and what was read can be said.
func FuzzParseLine(f *testing.F) {
	for line := range strings.Lines(lines) {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		e, err := ParseLine(line)
		if (e == nil) == (err == nil) {
			t.Fatalf("entry %v, error %v", e, err)
		}
		if e == nil {
			return
		}
		if e.Wait < -1 || e.Connect < -1 || e.Total < -1 || len(e.Termination) != 2 {
			t.Errorf("entry %+v", e)
		}
		if len(e.Sentences()) < 4 {
			t.Errorf("sentences %q", e.Sentences())
		}
	})
}

// A line with the reason of a rejection says what it means and what helps, in place of the advice
// for all that are rejected.
func TestExplainSaysWhyAClientWasRejected(t *testing.T) {
	e := Entry{Termination: "PR", Rejected: "tls_alert", Service: "web"}
	text := strings.Join(e.Sentences(), "\n")
	for _, want := range []string{"they may not trust the certificate", "What helps: look at whether the certificate"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if strings.Contains(text, "PROXY header.") {
		t.Errorf("it speaks of a PROXY header:\n%s", text)
	}
}
