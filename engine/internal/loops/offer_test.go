//go:build linux

package loops

import "testing"

// A loop offers its processor only while it is long awake; offers that find no
// work and slow ones become rare.
func TestOffer(t *testing.T) {
	made := func(o *offer, took int64, found bool) (chances int) {
		for !o.due(o.awake + offerAfter) {
			chances++
			if chances > 10*offerLater {
				t.Fatal("no offer is due any more")
			}
		}
		o.made(took, found)
		return chances
	}
	o := offer{awake: 5e9}
	if o.due(o.awake+offerAfter-1) || !o.due(o.awake+offerAfter) {
		t.Error("an offer is due before the loop was awake for long, or not after it")
	}
	for range 3 {
		if n := made(&o, 1000, true); n != 0 {
			t.Errorf("%d chances passed after an offer that paid", n)
		}
	}
	want := 0
	for i := range offerLess + 3 {
		if n := made(&o, 1000, false); n != want {
			t.Errorf("%d chances passed after %d useless offers, want %d", n, i, want)
		}
		want = 1 << min(i, offerLess)
	}
	if n := made(&o, longOffer+1, true); n != want {
		t.Errorf("%d chances passed, want %d", n, want)
	}
	if n := made(&o, 1000, true); n != offerLater {
		t.Errorf("%d chances passed after a long offer, want %d", n, offerLater)
	}
	if n := made(&o, 1000, true); n != 0 {
		t.Errorf("%d chances passed after an offer that paid again", n)
	}
}
