package explain

import (
	"encoding/json"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/sched"
)

// nothing is the story of a session to which nothing has happened yet.
func nothing() engine.Story {
	return engine.Story{
		ID: 0x1e00400003, Service: "web", Stage: engine.StageLooking, Accepted: time.Date(2026, 11, 28, 3, 4, 11, 208e6, time.UTC),
		Heard: -1, Queued: -1, Asked: -1, Connected: -1, FirstIn: -1, FirstOut: -1, Closed: -1,
	}
}

func host(t *testing.T, name, addr string) *sched.Host {
	t.Helper()
	a, err := sched.ParseAddr(addr)
	if err != nil {
		t.Fatal(err)
	}
	return sched.NewHost(name, a)
}

const ms = time.Millisecond

// told is a session that has been through a lot.
func told(t *testing.T) engine.Story {
	s := nothing()
	a, b := host(t, "a", "10.0.0.1:5432"), host(t, "b", "10.0.0.2:5432")
	s.Stage, s.Age, s.Termination = engine.StageEnded, 63*time.Second, "SD"
	s.Client, s.Proxied, s.To = netip.MustParseAddrPort("192.0.2.7:35990"), true, netip.MustParseAddrPort("198.51.100.1:5432")
	s.Heard, s.ServerName = 2*ms, "db.example"
	s.Queued, s.Waited, s.Before = 2*ms, 1200*ms, 3
	s.Tries = []engine.Try{{Host: a, At: 1202 * ms, Took: 300 * time.Microsecond, Result: engine.TryRefused, Times: 1}}
	s.Host, s.Asked, s.Connected = b, 1203*ms, 1204*ms
	s.FirstIn, s.FirstOut, s.In, s.Out = 1205*ms, 1210*ms, 79, 1352
	s.Stalled = [2]time.Duration{2300 * ms, 0}
	s.Turns = engine.Turnarounds{Count: 12, Median: 5 * ms, Worst: 80 * ms, Total: 140 * ms}
	s.First, s.Closed, s.Reset = engine.OfHost, 62*time.Second, true
	s.TCP[0] = engine.TCPInfo{Known: true, RTT: 31 * ms, Retransmits: 3, Unacked: 1, NotSent: 700}
	return s
}

const lines = `session 1e00400003 of service web, host b (10.0.0.2:5432) of group main: ended SD
     +0 ms  Client 192.0.2.7:35990, as its PROXY header says, came to service web on 28 November 2026 at 03:04:11.208, to 198.51.100.1:5432.
     +2 ms  Its PROXY header had come, and its TLS asked for db.example.
     +2 ms  It waited in the queue of group main for 1200 ms, behind 3 other clients: every host had as many sessions as it may.
  +1202 ms  Host a (10.0.0.1:5432) refused the connection, after 0.3 ms.
  +1204 ms  Host b (10.0.0.2:5432) of group main answered, 1 ms after it was asked.
  +1205 ms  The first byte from the client was sent to the host.
  +1210 ms  The first byte from the host was sent to the client.
     +1m2s  The host reset the connection first.
     +1m3s  SD: the session ended because the host reset the connection while data moved.
  It moved 79 bytes from the client and 1352 bytes to it.
  The host answered 12 times: half of the answers came within 5 ms, the slowest after 80 ms; the client waited for 140 ms in all.
  The client kept the host waiting: for 2300 ms it did not take what there was for it.
  TCP with the client: round trip 31 ms, 3 segments sent again, 1 segment not acknowledged, 700 bytes not sent yet.
  Look at the log of the host: its program may have crashed, restarted, or refused the request.
`

func TestLines(t *testing.T) {
	s := told(t)
	got := strings.Join(Of(&s, "1e00400003", "main").Lines(), "\n") + "\n"
	if got != lines {
		t.Errorf("%s\nwant\n%s", got, lines)
	}
}

// A session tells how long its group held it.
func TestHeldSessions(t *testing.T) {
	s := told(t)
	for held, want := range map[time.Duration]string{
		s.Waited:         "for 1200 ms, behind 3 other clients: the group held its clients.",
		s.Waited * 3 / 4: "for 1200 ms, behind 3 other clients: the group held its clients for 900 ms of that, and else every host had as many sessions as it may.",
	} {
		s.Held = held
		e := Of(&s, "1", "main")
		if text := strings.Join(e.Lines(), "\n"); !strings.Contains(text, want) || e.Queue.Held != millis(held) {
			t.Errorf("%q is not told, %+v:\n%s", want, e.Queue, text)
		}
	}
}

// docs/explain.md shows what TestLines expects.
func TestDocumentationHasTheExample(t *testing.T) {
	page, err := os.ReadFile("../../docs/explain.md")
	if err != nil || !strings.Contains(string(page), "```text\n"+lines+"```\n") {
		t.Errorf("docs/explain.md has another example, %v; want\n%s", err, lines)
	}
}

// JSON has the facts, and the words beside them.
func TestJSON(t *testing.T) {
	s := told(t)
	b, err := json.Marshal(Of(&s, "1e00400003", "main"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"id":"1e00400003"`, `"stage":"ended"`, `"accepted":"2026-11-28T03:04:11.208Z"`, `"heard_ms":2`, `"queue":{"at_ms":2,"for_ms":1200,"before":3}`,
		`"tries":[{"host":"a","address":"10.0.0.1:5432","at_ms":1202,"took_ms":0.3,"result":"refused","times":1}]`, `"first":"host"`, `"reset":true`,
		`"client_tcp":{"rtt_ms":31,`, `"client_stalled_ms":2300`, `{"at_ms":1202,"text":"Host a (10.0.0.1:5432) refused the connection, after 0.3 ms."}`,
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("%s is missing in %s", want, b)
		}
	}
	if strings.Contains(string(b), "host_tcp") {
		t.Errorf("something is said of a socket that nobody has asked about: %s", b)
	}
}

// Whatever way a session ends, for whatever reason it is rejected, and whatever becomes of a
// connect: it is said in words, and what helps.
func TestEveryFaultIsNamed(t *testing.T) {
	say := func(s *engine.Story) string { return strings.Join(Of(s, "1", "main").Lines(), "\n") }
	for _, end := range engine.Terminations() {
		s := nothing()
		s.Stage, s.Termination = engine.StageEnded, end.Code
		if text := say(&s); !strings.Contains(text, end.Code+": the session "+end.Meaning) || !strings.Contains(text, end.Advice) {
			t.Errorf("%s:\n%s", end.Code, text)
		}
	}
	for _, why := range engine.Rejections() {
		s := nothing()
		s.Stage, s.Termination, s.Rejected = engine.StageEnded, "PR", why.Reason
		if text := say(&s); !strings.Contains(text, "The reason of the rejection is "+why.Reason) || !strings.Contains(text, why.Meaning) || !strings.Contains(text, why.Remedy) {
			t.Errorf("%s:\n%s", why.Reason, text)
		}
	}
	words := map[engine.TryResult]string{
		engine.TryRefused: "refused the connection", engine.TryTimeout: "did not answer within", engine.TryUnreachable: "could not be reached",
		engine.TryDropped: "reset it before the first byte", engine.TryLocal: "this machine had no descriptor", engine.TryForbidden: "was forbidden",
		engine.TryTLS: "the TLS handshake failed", engine.TryNoTLS: "did not agree to TLS", engine.TryOther: "could not be connected to",
		engine.TryAbandoned: "had not answered when the session gave up",
	}
	for result, want := range words {
		s := nothing()
		s.Tries = []engine.Try{{Host: host(t, "a", "10.0.0.1:80"), Took: ms, Result: result, Why: "this and that", Times: 3}}
		text := say(&s)
		for _, want := range []string{want, ": this and that", ", 3 times in a row"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: %q is missing in\n%s", result, want, text)
			}
		}
	}
	seen := map[string]bool{}
	for _, stage := range []engine.Stage{
		engine.StageHeader, engine.StageHello, engine.StageHandshake, engine.StageLooking, engine.StageQueued, engine.StageConnecting,
		engine.StageSecuring, engine.StageConnected, engine.StageRejected, engine.StageClosing,
	} {
		s := nothing()
		s.Stage = stage
		lines := Of(&s, "1", "main").Lines()
		i := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, "Now: ") })
		if i < 0 || seen[lines[i]] {
			t.Errorf("%s: %q", stage, lines)
			continue
		}
		seen[lines[i]] = true
	}
}

// Who ended first is known from what was seen, else from the code.
func TestWhoEndedFirst(t *testing.T) {
	for code, want := range map[string]string{"--": "", "LR": "", "CC": "client", "SC": "host", "sD": "txlb", "KD": "txlb", "PD": "txlb"} {
		s := nothing()
		s.Stage, s.Termination = engine.StageEnded, code
		if got := Of(&s, "1", "").First; got != want {
			t.Errorf("%s: %q, want %q", code, got, want)
		}
		s.First = engine.OfClient
		if got := Of(&s, "1", "").First; got != "client" {
			t.Errorf("%s: %q, though the client was seen to end", code, got)
		}
	}
}
