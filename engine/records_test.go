package engine_test

import (
	"crypto/tls"
	"net/netip"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/proxyproto"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// take waits for the next record and returns it.
func take(t *testing.T, from *engine.Recorder) (got engine.Record) {
	t.Helper()
	testkit.Eventually(t, "a session is recorded", func() bool {
		n := from.Take(func(r *engine.Record) { got = *r })
		if n > 1 {
			t.Fatalf("%d records at once", n)
		}
		return n == 1
	})
	return got
}

// A record has the client, the host, the bytes, the times in their order and the counts.
func TestRecords(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		opt.Recorder = engine.NewRecorder()
		opt.Recorder.Switch(true)
		before := time.Now()
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		idle := r.Dial()
		idle.Send([]byte("still here"))
		idle.Expect([]byte("still here"))
		c := r.Dial()
		client := c.LocalAddr().String()
		c.Send([]byte("twelve bytes"))
		c.Expect([]byte("twelve bytes"))
		c.Fin()
		c.ExpectEOF()
		got := take(t, opt.Recorder)
		if got.Service != "web" || got.Client.String() != client || got.Host != r.Hosts[0] || got.Table != r.Route.Table || got.How != "--" || got.Why != "" || got.Proxied {
			t.Errorf("record %+v, client %v", got, client)
		}
		if got.In != 12 || got.Out != 12 || got.Retries != 0 {
			t.Errorf("%d bytes in, %d out, %d retries", got.In, got.Out, got.Retries)
		}
		if got.Sessions != 2 || got.OnService() != 2 || got.OnHost != 1 || got.Table.Sessions() != 1 {
			t.Errorf("counts %d/%d/%d/%d, want 2/2/1/1", got.Sessions, got.OnService(), got.Table.Sessions(), got.OnHost)
		}
		if !(0 < got.Accepted && got.Accepted <= got.Picked && got.Picked <= got.Connected && got.Connected <= got.Ended) {
			t.Errorf("times %d, %d, %d, %d are not in order", got.Accepted, got.Picked, got.Connected, got.Ended)
		}
		now := time.Now()
		if at := opt.Recorder.Wall(now, got.Accepted); at.Before(before) || at.After(now) {
			t.Errorf("accepted at %v, not between %v and %v", at, before, now)
		}
	})
}

// Clients that reset at once are gone when they are accepted, or soon after. Their
// records have their addresses nevertheless.
func TestB58RecordsKeepTheAddresses(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		opt.Recorder = engine.NewRecorder()
		opt.Recorder.Switch(true)
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		const clients = 50
		gone := map[string]int{} // the kernel may give a port again
		for range clients {
			c := r.Dial()
			gone[c.LocalAddr().String()]++
			c.Rst()
		}
		recorded := 0
		testkit.Eventually(t, "all clients are recorded", func() bool {
			recorded += opt.Recorder.Take(func(r *engine.Record) { gone[r.Client.String()]-- })
			return recorded >= clients
		})
		for client, n := range gone {
			if n != 0 {
				t.Errorf("%s: %+d clients that were not recorded", client, n)
			}
		}
	})
}

// The client of a record is who the PROXY header says.
func TestRecordHasTheHeadersClient(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		opt.Recorder = engine.NewRecorder()
		opt.Recorder.Switch(true)
		r := proxied(t, opt, required, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		c := r.Dial()
		c.Send(append(proxyproto.Append(nil, proxyproto.V2, aClient, itsGoal), "x"...))
		c.Expect([]byte("x"))
		c.Fin()
		c.ExpectEOF()
		if got := take(t, opt.Recorder); got.Client != aClient || !got.Proxied || got.In != 1 {
			t.Errorf("client %v, want %v; %d bytes", got.Client, aClient, got.In)
		}
	})
}

// A session that goes to another host says so, and one that finds none has the last
// that it has asked.
func TestRecordsOfRetries(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		opt.Recorder = engine.NewRecorder()
		opt.Recorder.Switch(true)
		dead := enginetest.DeadAddr(t)
		r := newRig(t, opt, engine.Route{}, dead, enginetest.BackendServer(t, enginetest.Echo))
		c := r.Dial()
		c.Fin()
		c.ExpectEOF()
		if got := take(t, opt.Recorder); got.Retries != 1 || got.Host != r.Hosts[1] || got.How != "--" {
			t.Errorf("%d retries, host %v, ended %s", got.Retries, got.Host.Name(), got.How)
		}
		alone := r.Table(sched.Policy{}, enginetest.DeadAddr(t))
		r.Apply(engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: &engine.Route{Table: alone, Timeouts: enginetest.TestTimeouts}})
		c = r.Dial()
		c.ExpectEOF()
		c.Fin()
		got := take(t, opt.Recorder)
		if got.Host != r.Hosts[2] || got.Connected != 0 || got.Picked == 0 || got.How != "SC" || got.Why != "no_host" || got.Table != alone {
			t.Errorf("record %+v", got)
		}
	})
}

// While the recorder is off nothing is recorded, and sessions that are there when it is
// turned on are.
func TestRecorderIsSwitched(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		opt.Recorder = engine.NewRecorder()
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		early, unseen := r.Dial(), r.Dial()
		for _, c := range []*enginetest.Peer{early, unseen} {
			c.Send([]byte("x"))
			c.Expect([]byte("x"))
		}
		unseen.Fin()
		unseen.ExpectEOF()
		testkit.Eventually(t, "the session ends", func() bool { return r.Stats().Active == 1 })
		opt.Recorder.Switch(true)
		client := early.LocalAddr().String()
		early.Fin()
		early.ExpectEOF()
		if got := take(t, opt.Recorder); got.Client.String() != client || got.Host != r.Hosts[0] || got.In != 1 {
			t.Errorf("record %+v, client %v", got, client)
		}
		opt.Recorder.Switch(false)
		c := r.Dial()
		c.Fin()
		c.ExpectEOF()
		r.Quiet()
		if n := opt.Recorder.Take(func(*engine.Record) {}); n != 0 {
			t.Errorf("%d records while the recorder is off", n)
		}
	})
}

// A lane never waits: what finds no room is dropped and counted. At half it wakes the
// reader.
func TestB93LaneDrops(t *testing.T) {
	rec := engine.NewRecorder()
	rec.Switch(true)
	lane := rec.Attach(1, time.Now())[0]
	const room, more = 4096, 100
	for i := range room + more {
		lane.Put(func(r *engine.Record) { r.Out = uint64(i) })
	}
	select {
	case <-rec.Due():
	default:
		t.Error("the reader is not woken")
	}
	next := uint64(0)
	read := func(r *engine.Record) {
		if r.Out != next {
			t.Fatalf("record %d, want %d", r.Out, next)
		}
		next++
	}
	if n := rec.Take(read); n != room || rec.Dropped() != more {
		t.Errorf("%d records, %d dropped; want %d and %d", n, rec.Dropped(), room, more)
	}
	var blank engine.Record
	lane.Put(func(r *engine.Record) {
		if *r != blank {
			t.Errorf("a record begins as %+v", *r)
		}
		r.Out, r.Client = next, netip.MustParseAddrPort("192.0.2.1:1")
	})
	if n := rec.Take(read); n != 1 {
		t.Errorf("%d records, want 1", n)
	}
}

// A record has the server that the client's TLS asks for, and the group that a route has
// chosen by it.
func TestRecordHasTheServerName(t *testing.T) {
	hello := testkit.ClientHello(t, &tls.Config{ServerName: "DB.example"})
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		opt.Recorder = engine.NewRecorder()
		opt.Recorder.Switch(true)
		r := newRig(t, opt, engine.Route{}, mirror(t, "main"))
		route := named(r, testkit.Patience, mirror(t, "db"))
		r.Apply(engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: route})
		c := r.Dial()
		c.Send(hello)
		c.Fin()
		c.Rest()
		if got := take(t, opt.Recorder); string(got.ServerName.Bytes()) != "db.example" || got.Table != route.Groups[1] {
			t.Errorf("server name %q, of group 1: %v", got.ServerName.Bytes(), got.Table == route.Groups[1])
		}
	})
}
