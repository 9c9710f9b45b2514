package core

import (
	"bytes"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/sched"
)

// FuzzSMTP: however the words of a client and a host are cut into pieces, they mean the
// same; waits are for more, takes are of what has come, no host is asked before STARTTLS,
// and none gets a client unless it has agreed with nothing behind it.
func FuzzSMTP(f *testing.F) {
	const host = "220-a\r\n220 b\r\n|250-a\r\n250-starttls\r\n250 b\r\n|220 go\r\n"
	for _, says := range []string{"EHLO a\r\nSTARTTLS\r\n", "STARTTLS\r\n", "QUIT\r\n", "STARTTLS a\nnoop\n\nSTARTTLS\r\nx", strings.Repeat("RSET\r\n", 12), strings.Repeat("a", 600)} {
		f.Add([]byte(says), []byte(host), uint8(1))
		f.Add([]byte(says), []byte("220 a\r\n|250 b\r\n|220 c\r\n"), uint8(3))
	}
	f.Add([]byte("STARTTLS\r\n"), []byte("220\n|250 STARTTLS\n|220\n250 injected\r\n"), uint8(200))
	f.Add([]byte("STARTTLS\r\n"), []byte(strings.Repeat("220-aaaaaaaaaa\r\n", 300)), uint8(200))
	f.Fuzz(func(t *testing.T, says, host []byte, piece uint8) {
		size := int(piece) + 1
		told, step, a := smtpClient(t, says, size)
		if i := bytes.Index(says, []byte("\n")); i >= 0 && i+1 == len(says) {
			// Nothing is behind the line, so pieces make no difference.
			if told2, step2, _ := smtpClient(t, says, len(says)); told2 != told || step2.Do != step.Do {
				t.Errorf("%q in pieces of %d: %q and %d; at once: %q and %d", says, size, told, step.Do, told2, step2.Do)
			}
		}
		if step.Do != Connect {
			return
		}
		if !strings.HasSuffix(told, smtpReady) {
			t.Fatalf("a host is asked after %q", told)
		}
		smtpHost(t, a, host, size)
	})
}

// smtpClient lets a client say bytes in pieces, and the ClientHello once it is ready.
func smtpClient(t *testing.T, says []byte, size int) (told string, step Step, a *Admission) {
	svc := newService("web", 1)
	table, err := sched.NewTable(sched.Policy{}, []sched.Member{{Host: sched.NewHost("h", sched.UnixAddr("/nowhere")), Weight: 1}})
	if err != nil {
		t.Fatal(err)
	}
	svc.Route.Store(&engine.Route{
		Table: table, ByHello: true, Choose: func(engine.Asking) engine.GroupID { return engine.Default },
		Timeouts: engine.Timeouts{Connect: time.Second, Hello: time.Second},
	})
	a = new(Admission)
	var free Attempts
	a.Begin(new(Gate), newEntry(svc, engine.ListenOptions{StartTLS: engine.StartTLSSMTP}), new(Attempt), sched.Addr{}, 1)
	if step = a.Next(1); step.Say != smtpBanner || step.Do != Hear {
		t.Fatalf("it begins with %+v", step)
	}
	told = step.Say
	came := 0
	for step.Do == Hear {
		if strings.HasSuffix(told, smtpReady) { // what is left of it is not TLS
			_, step = a.Heard(1, []byte(deskHello), false, &free)
			break
		}
		ended := came == len(says)
		came = min(came+size, len(says))
		for more := true; more && step.Do == Hear; {
			b := says[:min(came, a.Listens())]
			var take int
			take, step = a.Heard(1, b, ended, &free)
			if take < 0 || take > len(b) || take == 0 && step.Do == Hear && (ended || step.Need <= len(b)) {
				t.Fatalf("%d bytes of %q are taken, ended: %v, for %+v", take, b, ended, step)
			}
			told += step.Say
			says, came = says[take:], came-take
			more = take > 0 && !strings.HasSuffix(told, smtpReady)
		}
	}
	if len(told) > 4<<10 || step.Do == Refuse && (step.Why != notAsked || a.Deadline(1).Do != Nothing) {
		t.Fatalf("%q, %+v", told, step)
	}
	return told, step, a
}

// smtpHost lets a host say replies, which "|" divides, in pieces, each after it was asked.
func smtpHost(t *testing.T, a *Admission, says []byte, size int) {
	step := a.Answered(1, syscall.EINPROGRESS)
	if step = a.Answered(1, 0); step.Do != Pledge || !step.First || step.Say != "" {
		t.Fatalf("the host is asked by %+v", step)
	}
	for i, reply := range bytes.SplitN(append(says, "||"...), []byte("|"), 3) {
		reply = bytes.TrimRight(reply, "|")
		for came := 0; ; {
			ended := came == len(reply)
			came = min(came+size, len(reply))
			b := reply[:min(came, a.HostListens())]
			take, next := a.HostSaid(1, b, ended)
			step = next
			if take != 0 && take != len(b) {
				t.Fatalf("%d of %d bytes are taken", take, len(b))
			}
			if step.Do == Wait {
				if ended || len(b) > maxReply {
					t.Fatalf("it waits after %d bytes, ended: %v", len(b), ended)
				}
				continue
			}
			break
		}
		switch step.Do {
		case Pledge:
			if want := []string{smtpEHLO, smtpSTARTTLS, ""}[i]; step.Say != want || step.First {
				t.Fatalf("after %q the host is told %+v", reply, step)
			}
			continue
		case Relay:
			if i != 2 || a.state != admitted {
				t.Fatalf("it is the client's after %d replies", i+1)
			}
		case Refuse:
			if step.Why != noTLS || a.Host != nil {
				t.Fatalf("refused: %+v", step)
			}
		case Retry:
		default:
			t.Fatalf("%+v after %q", step, reply)
		}
		return
	}
}
