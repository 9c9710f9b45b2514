package peers

import (
	"strings"
	"testing"

	"github.com/txlb/txlb/internal/testkit"
)

// A node whose files are wrong when it starts tells so, and shares when they are right.
func TestStartWithoutACertificate(t *testing.T) {
	ca := testkit.NewAuthority(t, "ours")
	mine := newPapers(t).trust(ca)
	a, b := start(t, "a", newPapers(t).issue(ca, "127.0.0.1").trust(ca).auth()), start(t, "b", mine.auth())
	a.Follow([]Member{{"b", b.addr}})
	b.Follow([]Member{{"a", a.addr}})
	testkit.Eventually(t, "it says what is wrong", func() bool {
		_, closed := b.Peers()
		return closed != nil && strings.Contains(closed.Error(), "<fleet cert key>") && testkitSays(b.log, "other nodes refuse this one")
	})
	b.sees(t, "a", false, "<fleet cert key>")
	a.sees(t, "b", false, "")
	mine.issue(ca, "127.0.0.1")
	a.sees(t, "b", true, "")
	b.sees(t, "a", true, "")
	b.lookAtOwn()
	if _, closed := b.Peers(); closed != nil {
		t.Error(closed)
	}
}
