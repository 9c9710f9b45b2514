//go:build linux

package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/testkit"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == roleHost {
		fmt.Fprintln(os.Stderr, serveHost(os.Args[2], os.Args[3]))
		os.Exit(1)
	}
	testkit.Main(m)
}

var whole = flag.Bool("whole", false, "test with real programs in namespaces, see make fleet")

// A node of a fleet dies, one is cut off, the store has no quorum, all are upgraded, some stop:
// only the sessions of the dead one end, and of the one that stops behind a router that remembers
// nothing, and clients notice nothing else. The router has resilient next hops.
func TestFleetInNamespaces(t *testing.T) {
	if !*whole {
		t.Skip("takes two minutes of two processors: make fleet")
	}
	debian.NeedFor(t, "ip", "nft", "etcd", "ab", "curl")
	var out, progress bytes.Buffer
	res, err := run(t.Context(), options{without: 10 * time.Second, sessions: 90}, &out, &progress)
	t.Logf("%s%s", progress.String(), out.String())
	if err != nil {
		t.Fatal(err)
	}
	if k := res.kills[0]; k.had == 0 || k.onReturned == 0 {
		t.Errorf("%d sessions were on the node that was killed, and %d when it was back", k.had, k.onReturned)
	}
	for _, u := range res.quiet {
		if u.requests == 0 {
			t.Errorf("%s: no requests", u.what)
		}
	}
}
