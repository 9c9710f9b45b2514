//go:build linux

package loops

import (
	"io"
	"net"
	"sync"
	"testing"
	"unsafe"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
	"github.com/txlb/txlb/splice"
)

// What a loop writes in its turns shares no cache line with what another loop writes: it
// would cost both of them with every write.
func TestLoopsShareNoLine(t *testing.T) {
	const loops, clients = 16, 64
	e, err := New(engine.Options{Loops: loops, Splice: engine.SpliceAlways})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = e.Close() }()
	backend, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = backend.Close() }()
	go func() {
		for {
			c, err := backend.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	to, err := sched.ParseAddr(backend.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	table, err := sched.NewTable(sched.Policy{}, []sched.Member{{Host: sched.NewHost("a", to), Weight: 1}})
	if err != nil {
		t.Fatal(err)
	}
	plan := engine.Plan{Services: []engine.Service{{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: &engine.Route{Table: table}}}}
	if err := e.Apply(plan); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for range 3 { // what ended leaves its memory to the next
				c, err := net.Dial("tcp4", e.Listeners()[0].Addr)
				if err != nil {
					t.Error(err)
					return
				}
				var answer [1000]byte
				_, err = c.Write(answer[:])
				if err == nil {
					_, err = io.ReadFull(c, answer[:])
				}
				if err != nil {
					t.Error(err)
				}
				_ = c.Close()
			}
		})
	}
	all.Wait()
	testkit.Eventually(t, "all sessions have ended", func() bool { return e.Snapshot().Services["web"].Active == 0 })

	owners := map[uintptr]*owner{}
	var mu sync.Mutex
	e.onLoops(func(l *loop) {
		mu.Lock()
		defer mu.Unlock()
		own := func(what string, at unsafe.Pointer, size uintptr) {
			const line = 64
			for n := uintptr(at) / line; size > 0 && n <= (uintptr(at)+size-1)/line; n++ {
				if other := owners[n]; other != nil && other.loop != l.index {
					t.Errorf("%s of loop %d and %s of loop %d share a line", what, l.index, other.what, other.loop)
				}
				owners[n] = &owner{l.index, what}
			}
		}
		own("itself", unsafe.Pointer(l), unsafe.Sizeof(*l))
		own("poller", unsafe.Pointer(l.poll), unsafe.Sizeof(*l.poll))
		ownList(own, "agenda", l.agenda.ready)
		ownList(own, "agenda", l.agenda.taken)
		ownList(own, "sends", l.batch.ops)
		ownList(own, "arena", l.batch.arena)
		ownList(own, "waste", l.waste)
		ownList(own, "bulk", l.bulk.line)
		ownList(own, "acks", l.acks.owing)
		ownList(own, "acks", l.acks.owed)
		ownList(own, "ledger", l.ledger.dirty)
		own("turnarounds", unsafe.Pointer(l.turns), unsafe.Sizeof(*l.turns))
		ownList(own, "leftovers", l.leftovers.watches)
		ownList(own, "leftovers", l.leftovers.fds)
		ownList(own, "leftovers", l.leftovers.sessions)
		ownList(own, "free sessions", l.table.free)
		for _, slab := range l.table.slabs {
			own("sessions", unsafe.Pointer(slab), unsafe.Sizeof(*slab))
		}
		k := l.sys.(linux)
		var pipes []*splice.Pipe
		for len(pipes) < 8 {
			p, err := k.pool.Get()
			if err != nil {
				break
			}
			pipes = append(pipes, p)
			own("pipe", unsafe.Pointer(p), unsafe.Sizeof(*p))
		}
		for _, p := range pipes {
			k.pool.Put(p)
		}
		if k.ring.Ring != nil {
			own("ring", unsafe.Pointer(k.ring.Ring), unsafe.Sizeof(*k.ring.Ring))
		}
		for range 8 { // attempts that are free
			a := l.table.tries.Get()
			own("attempt", unsafe.Pointer(a), unsafe.Sizeof(*a))
		}
	})
}

// An idle session takes 0.38 KiB. Its slab is allocated in whole pages of Go, so a session may
// grow for nothing up to this size, and beyond it would take 64 bytes more.
func TestSessionsFillTheirSlab(t *testing.T) {
	const page, most = 8 << 10, 384 // bytes
	if size := unsafe.Sizeof(session{}); size > most && unsafe.Sizeof(uintptr(0)) == 8 {
		t.Errorf("a session has %d bytes, and its slab %d pages; up to %d bytes there are %d", size, (size*slotsPerSlab+page-1)/page, most, most*slotsPerSlab/page)
	}
}

type owner struct {
	loop int
	what string
}

func ownList[T any](own func(string, unsafe.Pointer, uintptr), what string, list []T) {
	var one T
	own(what, unsafe.Pointer(unsafe.SliceData(list)), uintptr(cap(list))*unsafe.Sizeof(one))
}
