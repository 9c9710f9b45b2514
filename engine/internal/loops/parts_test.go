//go:build linux

package loops

import (
	"testing"

	"golang.org/x/sys/unix"
)

// sessionsOf returns n sessions that are established.
func sessionsOf(n int) []*session {
	var t sessionTable
	list := make([]*session, n)
	for i := range list {
		list[i], _ = t.get()
		list[i].phase = established
	}
	return list
}

// Flows that wait to splice have their turn in order. Who comes meanwhile waits for the
// next turn, who has ended is passed over, and what a small budget leaves moves up.
func TestBulkServesInOrder(t *testing.T) {
	var b bulk
	s := sessionsOf(5)
	turn := func(most int) (served []int) {
		for b.begin(); len(served) < most; {
			x, i := b.next()
			if x == nil {
				break
			}
			served = append(served, int(x.slot)*2+i)
			b.add(x, i) // it is not through
		}
		b.end()
		return served
	}
	for _, x := range s {
		b.add(x, client)
		b.add(x, client)
	}
	equal(t, turn(2), 0, 2)
	equal(t, turn(9), 4, 6, 8, 0, 2)
	s[2].generation++   // another session has its slot
	s[3].phase = vacant // it has ended
	b.add(s[0], backend)
	equal(t, turn(9), 8, 0, 2, 1)
	equal(t, turn(9), 8, 0, 2, 1)
	s[3].phase = established
	b.add(s[3], client) // it can come back
	equal(t, turn(9), 8, 0, 2, 1, 6)
}

func equal(t *testing.T, got []int, want ...int) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%v, want %v", got, want)
		return
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("%v, want %v", got, want)
			return
		}
	}
}

// Beside small messages bulk moves less.
func TestBulkBesideSmallMessages(t *testing.T) {
	var b bulk
	now := int64(1e9)
	if b.budget(now) != bulkTurn {
		t.Error("bulk is held back without small messages")
	}
	b.small(now)
	if b.budget(now+quietFor-1) != spliceTurn || b.budget(now+quietFor) != bulkTurn {
		t.Error("the budget does not follow the small messages")
	}
}

// quickAcks is a kernel that counts acknowledgements.
type quickAcks struct {
	kernel
	of []int32
}

func (k *quickAcks) setInt(fd int32, level, name int, value int32) unix.Errno {
	if level == unix.IPPROTO_TCP && name == unix.TCP_QUICKACK && value == 1 {
		k.of = append(k.of, fd)
	}
	return 0
}

// A handshake is acknowledged in the turn after its connect, or before the loop sleeps,
// unless bytes have done so or the session is another.
func TestAcks(t *testing.T) {
	var a acks
	k := &quickAcks{}
	s := sessionsOf(4)
	for i, x := range s {
		x.ends[backend] = end{fd: int32(i)}
		a.owe(x)
	}
	a.turn(k)
	if len(k.of) != 0 {
		t.Fatalf("acknowledged in the turn of the connect: %v", k.of)
	}
	s[0].ends[backend].clear(owesAck) // bytes were sent
	s[1].generation++
	s[2].phase = connecting // it looks for another host
	a.turn(k)
	if len(k.of) != 1 || k.of[0] != 3 {
		t.Errorf("acknowledged %v, want 3", k.of)
	}
	k.of = nil
	a.owe(s[0])
	a.payAll(k)
	a.payAll(k)
	a.turn(k)
	if len(k.of) != 1 || k.of[0] != 0 {
		t.Errorf("acknowledged %v, want 0 once", k.of)
	}
}

// A backend's greeting is acknowledged at once, and so are its first bytes after the
// first that were sent to it; nothing else is.
func TestB69AcknowledgedBytes(t *testing.T) {
	for name, test := range map[string]struct {
		does string // c: connected, <: bytes came from the backend, >: bytes went to it, f: its FIN came
		want int
	}{
		"the client speaks first": {"c><<><", 1},
		"the server speaks first": {"c<<", 1},
		"greeting, then answer":   {"c<<><<><", 2},
		"all ends with the bytes": {"c>f<", 0},
	} {
		k := &quickAcks{}
		l := &loop{sys: k}
		x := sessionsOf(1)[0]
		e := &x.ends[backend]
		for _, what := range test.does {
			switch what {
			case 'c':
				e.set(owesAck)
			case '<':
				l.heard(x)
			case '>':
				e.set(sentOnce)
				e.clear(owesAck)
			case 'f':
				e.set(hungUp)
			}
		}
		if len(k.of) != test.want {
			t.Errorf("%s: %d acknowledgements, want %d", name, len(k.of), test.want)
		}
	}
}

// A session is on the agenda once, and can be put on the next while it is worked on.
func TestAgenda(t *testing.T) {
	var a agenda
	s := sessionsOf(2)
	for range 2 {
		for _, x := range s {
			a.add(x)
		}
	}
	for turn, want := range []int{2, 1, 0} {
		n := 0
		for _, x := range a.take() {
			x.begun()
			if n++; x == s[1] && turn == 0 {
				a.add(x)
				a.add(x)
			}
		}
		if n != want || a.empty() != (turn > 0) {
			t.Errorf("turn %d: %d sessions, want %d; empty %v", turn, n, want, a.empty())
		}
	}
}

// A read goes behind those before it, and room for two is kept.
func TestBatch(t *testing.T) {
	b := newBatch()
	s := sessionsOf(1)[0]
	for i := range arenaSize/readSize - 1 {
		if !b.roomy() {
			t.Fatalf("no room after %d reads", i)
		}
		b.room()[0] = byte(i)
		b.addRead(s, client, readSize, false)
	}
	if b.roomy() {
		t.Error("one read has no room")
	}
	for i, op := range b.ops {
		if op.p[0] != byte(i) || len(op.p) != readSize {
			t.Errorf("read %d was overwritten", i)
		}
	}
	b.clear()
	if !b.roomy() || len(b.ops) != 0 {
		t.Error("the batch is not empty")
	}
}

// The limit of sessions holds, and a drain hears of the last one only.
func TestCensus(t *testing.T) {
	c := newCensus(2)
	if !c.admit() || !c.hasRoom() || !c.admit() || c.hasRoom() || c.admit() {
		t.Error("the limit does not hold")
	}
	told := func() bool {
		select {
		case <-c.empty:
			return true
		default:
			return false
		}
	}
	c.leave(2)
	if told() {
		t.Error("told though nobody drains")
	}
	c.draining.Store(true)
	c.admit()
	c.leaving()
	if !c.occupied() {
		t.Error("not occupied")
	}
	c.leave(1)
	if !told() || !c.occupied() {
		t.Error("a shard still leaves")
	}
	c.left()
	if !told() || c.occupied() {
		t.Error("nobody is left")
	}
}
