package fleet

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/testkit"
)

// garbage are values that nobody of a fleet writes.
func garbage() []string {
	return []string{
		"", "nonsense", "\x00\xff\xfe", "null", "[]", "{}", "0", `"x"`, "true", "<txlb>", "<config/>", "\x1f\x8b", "\x1f\x8b\x08\x00\x00\x00\x00\x00",
		`{"id":1}`, `{"id":"x","instance":"y","sessions":-1}`, `{"id":"x","instance":"y","sessions":1e400}`, `{"id":"x","sessions":NaN}`,
		`{"id":"x","instance":"y","generation":18446744073709551615}`,
		`{"id":"x","verb":"upgrade","steps":[{"node":"a","state":"done"}]}`, // done, and not ended
		`{"id":"x","verb":"upgrade","steps":[{"node":"a","state":"dancing"}]}`,
		`{"id":"x","verb":"upgrade","steps":[{"node":"\u001b[2J","state":"waiting"}]}`,
		`{"id":"x","service":"web","group":"g","for":"1000000h"}`, `{"id":"x","service":"web","group":"g","for":"1s","max":4611686018427387904}`,
		`{"id":"x","service":"web","group":"other","for":"1s"}`,
		strings.Repeat("[", 1<<20), strings.Repeat("x", 1<<20), `{"id":"` + strings.Repeat("x", 1<<20) + `"}`,
		`<txlb fleet="other" format="1" generation="9" id="x"><config/></txlb>`, `<txlb fleet="edge" format="9" version="` + "\u009b2J" + `" generation="9" id="x"><config/></txlb>`,
		`<txlb fleet="edge" format="1" generation="9223372036854775807" id="x">` + oneService + `</txlb>`, // the last one that is a number
		`<txlb fleet="edge" format="1" generation="9" id="x"><config/><unconfirmed/></txlb>`,
		`<txlb fleet="edge" format="1" generation="9" id="x">` + strings.Repeat(`<unconfirmed generation="1" for="1s"><then>[]</then><undo>[]</undo></unconfirmed>`, 10_000) + `<config/></txlb>`,
		`<txlb fleet="edge" format="1" generation="9" id="x"><unconfirmed generation="1" for="-1s"><then>[]</then><undo>[]</undo></unconfirmed><config/></txlb>`,
		`<txlb fleet="edge" format="1" generation="9" id="x"><unconfirmed generation="1" for="1s"><then>[null,{}]</then><undo>{}</undo></unconfirmed><config/></txlb>`,
	}
}

// Whatever somebody writes under any key of a fleet, the nodes run what they ran, say what is
// wrong, and go on when it is gone.
func TestGarbageAtEveryKey(t *testing.T) {
	for _, key := range []string{
		"config", "order", "confirm/2", "confirm/02", "confirm/x", "confirm/", "confirm/99999999999999999999", "hold/web/g", "hold/x", "hold/", "hold/%zz/%",
		"node/a", "node/b", "node/x", "node/", "node/x/y", "node/\x1b[2J", "node/" + strings.Repeat("x", 100), "other", "",
	} {
		t.Run(fmt.Sprintf("%.20q", key), func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) {
				store := newMemoryStore()
				nodes := []*member{join(t, store, "a", folder(t, oneService)), join(t, store, "b", folder(t, oneService))}
				must(t)(nodes[0].weigh("a", 3))
				synctest.Wait()
				path := "/txlb/edge/" + key
				var good Entry
				store.set(func() { good = store.keys[path] })
				for i, value := range garbage() {
					store.set(func() { store.put(path, []byte(value), 0) })
					synctest.Wait()
					for _, m := range nodes {
						m.runs(2, "a3 b1")
						s := m.Status()
						text := s.String()
						if len(text) > 4000 || strings.ContainsAny(text, "\x1b\u009b") || strings.Contains(text, "PANIC") { // which fmt makes of one
							t.Errorf("value %d: node %s shows %.300q of %d bytes", i, m.name, text, len(text))
						}
						if _, err := json.Marshal(s); err != nil {
							t.Error(err)
						}
						holding(t, "", m)
					}
					if strings.HasPrefix(key, "node/") || i%7 == 0 {
						time.Sleep(longestPause)
						synctest.Wait()
					}
				}
				if len(good.Value) > 0 && key == "config" {
					store.set(func() { store.put(path, good.Value, 0) })
				} else if !strings.HasPrefix(key, "node/a") && !strings.HasPrefix(key, "node/b") {
					store.set(func() { store.remove(path) })
				}
				time.Sleep(2 * lease)
				synctest.Wait()
				for _, m := range nodes {
					joinedAt(t, m)
					if s := m.Status(); s.Problem != "" || len(s.Nodes) != 2 {
						t.Errorf("node %s: %+v", m.name, s)
					}
					if n := len(m.log.Lines("level=")); n > 300 {
						t.Errorf("node %s: %d lines in the log", m.name, n)
					}
				}
				must(t)(nodes[1].weigh("a", 4))
				synctest.Wait()
				for _, m := range nodes {
					m.runs(3, "a4 b1")
				}
			})
		})
	}
}

// Very many keys that make no sense fill neither the memory of a node nor its log, and 07 is not
// taken for the deadline of generation 7.
func TestVeryManyKeys(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		must(t)(a.try("a", 3, time.Minute))
		synctest.Wait()
		store.set(func() {
			for i := range 3 * maxNodes {
				store.put(fmt.Sprintf("/txlb/edge/node/x%d", i), fmt.Appendf(nil, `{"id":"x%d","instance":"y","peer":"127.0.0.1:1"}`, i), 0)
				store.put(fmt.Sprintf("/txlb/edge/node/x%d!", i), []byte("x"), 0)
				store.put(fmt.Sprintf("/txlb/edge/hold/web/x%d", i), []byte("x"), 0)
				store.put(fmt.Sprintf("/txlb/edge/confirm/x%d", i), []byte("x"), 0)
			}
			store.put("/txlb/edge/confirm/02", []byte("x"), 0)
			store.remove("/txlb/edge/confirm/02")
		})
		synctest.Wait()
		joinedAt(t, a)
		a.runs(2, "a3 b1")
		waits(t, "[2]", a)
		a.mu.Lock()
		if len(a.members) > maxNodes || len(a.holds) > 0 || len(a.complaints) > maxComplaints || len(a.running) > 1 {
			t.Errorf("%d nodes, %d holds, %d complaints, %d deadlines", len(a.members), len(a.holds), len(a.complaints), len(a.running))
		}
		a.mu.Unlock()
		if n := len(a.log.Lines("ignored")); n > maxComplaints {
			t.Errorf("%d lines in the log", n)
		}
	})
}

// FuzzHear gives a node anything under any key.
func FuzzHear(f *testing.F) {
	for _, key := range []string{"order", "confirm/2", "hold/web/g", "node/b", "node/a"} {
		for i, value := range garbage() {
			if len(value) < 1000 {
				f.Add(key, []byte(value), i%2 == 0)
			}
		}
	}
	f.Add("order", []byte(`{"id":"1","verb":"upgrade","node":"a","begun":"2026-11-29T01:02:03Z","steps":[{"node":"b","state":"begun","instance":"x"},{"node":"a","state":"waiting"}]}`), false)
	f.Add("hold/web/g", []byte(`{"service":"web","group":"g","id":"x","node":"b","by":"ops","time":"2026-11-29T01:02:03Z","for":"30s","released":{"over":"3s"}}`), false)
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, key string, value []byte, deleted bool) {
		n, err := New(Options{Config: config.Fleet{Name: "edge", Node: "a", Lease: lease}, StateDir: dir, Log: new(testkit.Log).Logger()})
		if err != nil {
			t.Fatal(err)
		}
		n.hear([]Entry{{Key: n.nodePrefix() + "b", Value: []byte(`{"id":"1","instance":"2"}`), Revision: 1}})
		n.hear([]Entry{{Key: n.prefix() + key, Value: value, Revision: 2}})
		look := func() {
			s := n.Status()
			if text := s.String(); strings.ContainsAny(text, "\x1b\u009b\x00") || strings.Contains(text, "PANIC=") {
				t.Errorf("it shows %q", text)
			}
			if _, err := json.Marshal(s); err != nil {
				t.Error(err)
			}
		}
		look()
		if o := n.plan; o != nil {
			_, _ = o.Summary(), o.stage(n.members)
			if !o.over() {
				_ = o.judge(n.members)
				for range 2 * len(o.Steps) { // as judges go on with it
					to, _ := o.next(sight{members: n.members, waited: time.Hour, lease: lease})
					if to == nil {
						break
					}
					value, err := json.Marshal(to)
					if err != nil {
						t.Fatal(err)
					}
					if o, err = readOrder(value); err != nil {
						t.Fatalf("a node wrote what no node can read: %v\n%s", err, value)
					}
				}
			}
		}
		for _, h := range n.holds {
			_ = h.shared("a")
		}
		if m, is := n.members["b"]; is {
			if again, err := readMember(m.encode()); err != nil || again.ID != m.ID {
				t.Errorf("%+v is read as %+v, %v", m, again, err)
			}
		}
		if deleted {
			n.hear([]Entry{{Key: n.prefix() + key, Revision: 3, Deleted: true}})
			look()
		}
	})
}
