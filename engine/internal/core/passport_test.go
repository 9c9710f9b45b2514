package core

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/txlb/txlb/engine"
)

// samplePassport is one in which everything is set.
func samplePassport() *Passport {
	client := netip.MustParseAddrPort("192.0.2.1:1000")
	return &Passport{
		Written: 77, Service: "web", Age: 1e9, Idle: 5, In: 1 << 40, Out: 2,
		Stage: Connected, Group: "main", Host: PassHost{"a", "10.0.0.1:80"},
		Origin: &Origin{client, netip.MustParseAddrPort("[2001:db8::1%eth0]:80")},
		Notes:  &PassNotes{Client: client, Group: "main", Picked: 1, Connected: -1, Retries: 2, Before: 3, Name: []byte("example.org")},
		Try: &PassTry{
			From: client, Since: 4, StartTLS: uint8(promised), Commands: 3, Chosen: true, Heard: true, Late: true, Alien: true,
			Tried: []PassHost{{"a", "10.0.0.1:80"}, {"b", "unix:/b"}}, Resorts: 1, Waits: -1, Waited: 6, Last: 5, Before: 9,
		},
		Ends: [2]PassEnd{{PassEnded | PassHungUp}, {PassUnix | PassHeaded}},
		Flows: [2]PassFlow{
			{Flags: PassSplicing | PassHeader, Window: 1 << 20, Streamed: 8, Ahead: 5, Held: []byte("header, and more")},
			{Flags: PassDone},
		},
		Story: &PassStory{
			Connected: 1, FirstIn: 2, FirstOut: 3, Closed: 1 << 31, Marks: uint8(clientFirst | withReset), Heard: 4, Asked: 5, Queued: 6, Waited: 7, Held: 6, Length: 8,
			Name: []byte("example.org"), Tries: []PassTried{{Host: PassHost{"a", "10.0.0.1:80"}, At: 9, Took: 10, Times: 11, What: uint8(abandoned), Why: "so"}}, Untold: 12,
			Stalled: [2]int64{13, 14},
		},
		Turns: &PassTurns{Asked: 8, Total: 1e12, Spread: [2]uint64{1 << 60, 7}, Count: 9, Worst: 1e6},
	}
}

// A passport is read as it was written, and no part of one is taken for a whole.
func TestB83PassportIsReadAsWritten(t *testing.T) {
	for _, p := range []*Passport{samplePassport(), {Service: "web", Stage: Connected, Host: PassHost{"a", ""}}, {Service: "w", Stage: Looking, Try: &PassTry{Waits: -1}}} {
		b := p.Append(nil)
		got, err := ParsePassport(b)
		if err != nil || !reflect.DeepEqual(got, p) {
			t.Errorf("%+v, %v", got, err)
		}
		for n := range b {
			if _, err := ParsePassport(b[:n]); err == nil {
				t.Errorf("%d of %d bytes are a passport", n, len(b))
			}
		}
		if _, err := ParsePassport(append(b, 0)); err == nil {
			t.Error("a byte may follow")
		}
	}
}

// Format 1 had no parts behind the rest. Parts that this version does not know are left out,
// and parts that cannot be right are refused.
func TestB83PassportsOfOtherVersions(t *testing.T) {
	p := &Passport{Service: "web", Stage: Connected, Host: PassHost{"a", "10.0.0.1:80"}, In: 7}
	b := p.Append(nil)
	body := b[1 : len(b)-1] // without the format, and without the number of parts
	version := func(format byte, tail ...byte) []byte { return append(append([]byte{format}, body...), tail...) }
	for name, one := range map[string][]byte{
		"format 1":                   version(1),
		"no parts":                   version(2, 0),
		"parts that nobody knows":    version(2, 2, 100, 3, 'a', 'b', 'c', 101, 0),
		"and the last number of all": version(2, 1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 0),
	} {
		if got, err := ParsePassport(one); err != nil || !reflect.DeepEqual(got, p) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for want, one := range map[string][]byte{
		"bytes follow it":           version(1, 0),
		"4 where at most 2 can be":  version(2, 1, 100, 4, 'a'),
		"out of order":              version(2, 2, 101, 0, 100, 0),
		"bytes follow a part of it": version(2, 1, partTurns, 7, 0, 0, 0, 0, 0, 0, 0),
	} {
		if _, err := ParsePassport(one); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// Another format, and what contradicts itself, is refused with the reason.
func TestB83BadPassports(t *testing.T) {
	for want, spoil := range map[string]func(*Passport){
		"no service":                func(p *Passport) { p.Service = "" },
		"has not begun":             func(p *Passport) { p.Age = -1 },
		"no host":                   func(p *Passport) { p.Host.Name = "" },
		"longer than what it is in": func(p *Passport) { p.Flows[0].Ahead = 200 },
		"has ended holds bytes":     func(p *Passport) { p.Flows[1].Held = []byte("x") },
		"it has ended":              func(p *Passport) { p.Flows[0] = PassFlow{Flags: PassDone} },
		"without a host":            func(p *Passport) { p.Stage = Looking },
		"looks for none":            func(p *Passport) { p.Stage, p.Try, p.Flows = Untold, nil, [2]PassFlow{} },
		"cannot be made":            func(p *Passport) { p.Try = nil },
		"where at most":             func(p *Passport) { p.Ends[0].Flags = passEndFlags },
	} {
		p := samplePassport()
		spoil(p)
		if _, err := ParsePassport(p.Append(nil)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	b := samplePassport().Append(nil)
	b[0] = engine.MoveFormat + 1
	if _, err := ParsePassport(b); err == nil || !strings.Contains(err.Error(), "format 3, want 1 to 2") {
		t.Errorf("another format: %v", err)
	}
}

// Whatever bytes come, they are a passport that can be written again, or an error.
func FuzzPassport(f *testing.F) {
	f.Add(samplePassport().Append(nil))
	f.Add((&Passport{Service: "w", Stage: Looking, Try: &PassTry{Waits: -1}}).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePassport(b)
		if err != nil {
			return
		}
		again, err := ParsePassport(p.Append(nil))
		if err != nil || !reflect.DeepEqual(again, p) {
			t.Errorf("%+v is read as %+v, %v", p, again, err)
		}
	})
}

// What another process has done with the sockets decides what becomes of a session: it
// goes on only if no byte was in that process, and then behind what that has moved.
func TestB83Reclaim(t *testing.T) {
	meter := func(read, written uint64) Meter { return Meter{Known: true, Read: read, Written: written} }
	ended := func(m Meter) Meter { m.Ended = true; m.Written++; return m }
	closed := func(m Meter) Meter { m.Closed = true; return m }
	was := [2]Meter{meter(1000, 2000), meter(3000, 4000)}
	for name, test := range map[string]struct {
		held, ahead int // of the client
		flags       uint8
		was, now    [2]Meter
		want        Fate
		left        int // of held
		done        [2]bool
		in, out     uint64
	}{
		"nothing happened":                 {held: 9, was: was, now: was, want: GoesOn, left: 9},
		"the held bytes were sent":         {held: 9, was: was, now: [2]Meter{was[0], meter(3000, 4009)}, want: GoesOn, in: 9},
		"some of them":                     {held: 9, was: was, now: [2]Meter{was[0], meter(3000, 4004)}, want: GoesOn, left: 5, in: 4},
		"a header and some":                {held: 9, ahead: 3, was: was, now: [2]Meter{was[0], meter(3000, 4004)}, want: GoesOn, left: 5, in: 1},
		"some of a header":                 {held: 9, ahead: 3, was: was, now: [2]Meter{was[0], meter(3000, 4002)}, want: GoesOn, left: 7},
		"all, and as much as was read":     {held: 9, was: was, now: [2]Meter{meter(1100, 2000), meter(3000, 4109)}, want: GoesOn, in: 109},
		"more was read than sent":          {held: 9, was: was, now: [2]Meter{meter(1100, 2000), meter(3000, 4108)}, want: IsLost},
		"some held bytes, and others read": {held: 9, was: was, now: [2]Meter{meter(1001, 2000), meter(3000, 4001)}, want: IsLost},
		"more was sent than there was":     {was: was, now: [2]Meter{was[0], meter(3000, 4001)}, want: IsLost},
		"fewer than before":                {was: was, now: [2]Meter{meter(0, 0), was[1]}, want: IsLost},
		"answers":                          {was: was, now: [2]Meter{meter(1000, 2050), meter(3050, 4000)}, want: GoesOn, out: 50},
		"an answer that was not passed on": {was: was, now: [2]Meter{meter(1000, 2000), meter(3050, 4000)}, want: IsLost},
		"the client's end was passed on":   {held: 9, was: was, now: [2]Meter{was[0], ended(meter(3000, 4009))}, want: GoesOn, in: 9, done: [2]bool{true, false}},
		"an end over held bytes":           {held: 9, was: was, now: [2]Meter{was[0], ended(meter(3000, 4008))}, want: IsLost},
		"both ends":                        {was: was, now: [2]Meter{ended(was[0]), ended(was[1])}, want: IsOver},
		"both ends, one long ago":          {flags: PassDone, was: [2]Meter{was[0], ended(was[1])}, now: [2]Meter{ended(was[0]), ended(was[1])}, want: IsOver},
		"half closed, and answers":         {flags: PassDone, was: [2]Meter{was[0], ended(was[1])}, now: [2]Meter{meter(1000, 2050), ended(meter(3050, 4000))}, want: GoesOn, out: 50, done: [2]bool{true, false}},
		"the client was reset":             {was: was, now: [2]Meter{closed(was[0]), was[1]}, want: IsLost},
		"both are over":                    {was: was, now: [2]Meter{closed(was[0]), closed(was[1])}, want: IsOver},
		"a header is still to be sent":     {flags: PassHeader, was: was, now: was, want: GoesOn},
		"the header was sent":              {flags: PassHeader, was: was, now: [2]Meter{was[0], meter(3000, 4028)}, want: GoesOn},
		"a part of the header":             {flags: PassHeader, was: was, now: [2]Meter{was[0], meter(3000, 4027)}, want: IsLost},
		"the header and bytes behind it":   {flags: PassHeader, was: was, now: [2]Meter{meter(1005, 2000), meter(3000, 4033)}, want: GoesOn, in: 5},
		"a UNIX socket: nobody knows":      {was: [2]Meter{was[0], {}}, now: [2]Meter{was[0], {}}, want: IsLost},
	} {
		p := samplePassport()
		p.In, p.Out, p.Ends = 0, 0, [2]PassEnd{}
		p.Flows = [2]PassFlow{{Flags: test.flags, Ahead: uint8(test.ahead), Held: make([]byte, test.held)}, {}}
		if got := p.Reclaim(test.was, test.now, 28); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
			continue
		} else if got != GoesOn {
			continue
		}
		done := [2]bool{p.Flows[0].Flags&PassDone != 0, p.Flows[1].Flags&PassDone != 0}
		if len(p.Flows[0].Held) != test.left || p.In != test.in || p.Out != test.out || done != test.done {
			t.Errorf("%s: %d bytes left, %d in, %d out, done %v", name, len(p.Flows[0].Held), p.In, p.Out, done)
		}
		if err := p.check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	waits := &Passport{Service: "web", Stage: Looking, Try: &PassTry{}}
	if waits.Reclaim([2]Meter{was[0]}, [2]Meter{was[0]}, 0) != GoesOn {
		t.Error("a client that waits, and of which nothing was read")
	}
	if waits.Reclaim([2]Meter{was[0]}, [2]Meter{meter(1001, 2000)}, 0) != IsLost {
		t.Error("a client that waits, and of which a byte was read")
	}
}

// What became of a connect has numbers that stay, and one of a version to come is another one.
func TestResultsOfTriesHaveNumbers(t *testing.T) {
	for i, what := range []tried{refused, timedOut, unreachable, dropped, local, forbidden, noHostTLS, other, noPledge, abandoned} {
		if got := what.wire(); int(got) != i || triedOf(got) != what {
			t.Errorf("result %d has number %d, which is result %d", what, got, triedOf(got))
		}
	}
	for what := range abandoned + 1 {
		if triedOf(what.wire()) != what {
			t.Errorf("result %d has no number", what)
		}
	}
	if got := triedOf(200); got != other {
		t.Errorf("an unknown result is %d", got)
	}
}

// A session whose story cannot be read goes on without it.
func TestB83PassportWithAnotherStory(t *testing.T) {
	p := samplePassport()
	p.Story.Tries[0].What = 200
	if got, err := ParsePassport(p.Append(nil)); err != nil || !reflect.DeepEqual(got, p) {
		t.Errorf("an unknown result: %+v, %v", got, err)
	}
	p.Story.Tries = make([]PassTried, mostTries+1)
	got, err := ParsePassport(p.Append(nil))
	p.Story = nil
	if err != nil || !reflect.DeepEqual(got, p) {
		t.Errorf("too many tries: %+v, %v", got, err)
	}
}
