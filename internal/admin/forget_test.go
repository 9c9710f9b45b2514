package admin

import "testing"

// forgetClients makes a sticky group choose again: for the clients of one host, or all.
func TestB40ForgetClients(t *testing.T) {
	a, b := serve(t, "a"), serve(t, "b")
	r := newRig(t, doc(a.addr, b.addr, b.addr))
	r.do("setGroup web main scheduler=roundr,sticky")
	visited := func() string {
		t.Helper()
		c, host := r.dial()
		_ = c.Close()
		return host
	}
	first := visited()
	if again := visited(); again != first {
		t.Fatalf("the client has %s and had %s", again, first)
	}
	other := map[string]string{"a": "b", "b": "a"}[first]
	if text := r.do("forgetClients web main " + other); text != "0 clients forgotten" {
		t.Errorf("%q: the client is not of host %s", text, other)
	}
	if text := r.do("forgetClients web main " + first + " --dry-run"); text != "would forget 1 client" {
		t.Error(text)
	}
	if again := visited(); again != first {
		t.Errorf("after a dry run, the client has %s and had %s", again, first)
	}
	if text := r.do("forgetClients web main"); text != "1 client forgotten" {
		t.Error(text)
	}
	if now := visited(); now == first {
		t.Errorf("the scheduler takes turns, and the client that was forgotten has %s again", now)
	}
	if text := r.do("forgetClients web spare"); text != `nothing to forget: the scheduler of group "spare" is leastc, which is not sticky` {
		t.Error(text)
	}
}
