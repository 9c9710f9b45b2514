package engine_test

import (
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/testkit"
)

// A session takes its turnarounds along to another process, and the time goes on in which its
// client waits for an answer.
func TestB81TurnaroundGoesOnAfterAHandOver(t *testing.T) {
	for name, opt := range loopModesToTest {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := startTalk(t, opt, ofClient)
			from := k.r
			to := heir(t, opt, from, nil)
			for range 2 {
				k.ask([]byte("before"), []byte("answer"))
			}
			k.settle()
			asked := time.Now()
			k.client.Send([]byte("?"))
			k.host.Expect([]byte("?"))
			came := time.Now()
			testkit.Eventually(t, "it waits", func() bool {
				list := from.E.Sessions(0, everyone)
				return len(list) == 1 && list[0].Waiting >= thinking
			})
			movedAll(t, from, to, 1)
			k.r = to
			if list := to.E.Sessions(0, everyone); len(list) != 1 || list[0].Waiting < thinking || !list[0].Answered {
				t.Errorf("it does not wait any more: %+v", list)
			}
			k.answer(asked, came, []byte("!"))
			k.check()
			k.ask([]byte("after"), []byte("answer"))
			k.check()
			// Back again, with nothing unanswered.
			movedAll(t, to, from, 1)
			k.r = from
			k.host.Send([]byte("unasked"))
			k.client.Expect([]byte("unasked"))
			k.check()
			_ = k.client.Close()
			_ = k.host.Close()
			from.Quiet()
			// What was counted stays with the host of the process that has counted it.
			testkit.Eventually(t, "both have published", func() bool {
				return from.Hosts[0].Turns().Count == 2 && to.Hosts[0].Turns().Count == 2
			})
		})
	}
}

// The records of ended sessions have their turnarounds.
func TestB81RecordsHaveTurnarounds(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		opt.Recorder = engine.NewRecorder()
		opt.Recorder.Switch(true)
		k := startTalk(t, opt, ofClient)
		k.ask([]byte("a"), []byte("b"))
		k.ask([]byte("c"), []byte("d"))
		k.finish()
		var got []engine.Turnarounds
		testkit.Eventually(t, "there is a record", func() bool {
			opt.Recorder.Take(func(record *engine.Record) { got = append(got, record.Turns) })
			return len(got) > 0
		})
		if len(got) != 1 {
			t.Fatalf("%d records", len(got))
		}
		k.compare(got[0])
	})
}
