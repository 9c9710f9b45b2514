package etcd

import (
	"testing"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/testkit"
)

// etcd counts the time of a hold from the beginning when it is started again. When the hold is
// over, its key is deleted all the same, and a node that starts then does not hold.
func TestHoldAndARestartOfEtcd(t *testing.T) {
	testkit.Long(t)
	members, urls := cluster(t, 1)
	a, b := join(t, "a", urls), join(t, "b", urls)
	joined(t, a, b)
	h, _, err := a.dir.Hold(soon(t), director.HoldOrder{By: "ops", Service: "web", Group: "g", For: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "half of its time is over", func() bool { return time.Until(h.Until) < 10*time.Second })
	members[0].Kill()
	revive(t, members[0])
	restarted := time.Now()
	joined(t, a, b)
	store := open(t, config.Fleet{Store: urls})
	testkit.Eventually(t, "its key is deleted", func() bool {
		entries, _, err := store.Get(soon(t), "/txlb/edge/hold/")
		return err == nil && len(entries) == 0
	})
	if early := time.Until(h.Until); early > time.Second {
		t.Errorf("%v before its time", early)
	}
	if took := time.Since(restarted); took > 20*time.Second {
		t.Logf("etcd may have deleted it: %v after its start", took)
	}
	c := join(t, "c", urls)
	joined(t, a, b, c)
	for _, m := range []*member{a, b, c} {
		if m.dir.State().Services[0].Groups[0].Hold() != nil || len(m.Status().Holds) > 0 {
			t.Errorf("a node holds: %+v", m.Status().Holds)
		}
	}
}
