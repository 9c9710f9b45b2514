package users

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/passwd"
	"github.com/txlb/txlb/internal/testkit"
)

// Passwords and hashes of the tests. DES is quick.
const (
	annsWord, annsHash     = "U*U*U*U*", "CCNf8Sbh3HDfQ"
	bobsWord, bobsHash     = "Hello world!", "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"
	publicWord, publicHash = "admin", "..xpoEyRReGzk" // of the ancestors' sample
	aKey                   = "AAAAC3NzaC1lZDI1NTE5AAAAIAJBBfLxX+SQtrjKaOi5ZId/13rhxR0IAHHtUnUQYNgC"
	here, away, elsewhere  = "127.0.0.1:1000", "192.0.2.7:1000", "[2001:db8:1:2::7]:1000"
)

func TestMain(m *testing.M) { testkit.Main(m) }

var eventually = testkit.Eventually

// rig is some users, and the log.
type rig struct {
	*Users
	t   testing.TB
	log *testkit.Log
	all []*config.User
}

func newRig(t testing.TB) *rig {
	r := &rig{t: t, log: new(testkit.Log), all: []*config.User{
		{Name: "ann", Password: annsHash, Access: "full", Keys: []string{"ssh-ed25519 " + aKey + " ann@desk"}},
		{Name: "bob", Password: bobsHash, Access: "readonly"},
		{Name: "sample", Password: publicHash, Access: "full"},
		{Name: "blank", Access: "full"},
		{Name: "wrong", Password: "$6$x$y", Access: "full"},
	}}
	r.Users = New(func() []*config.User { return r.all }, r.log.Logger())
	return r
}

// user returns a user, to be changed while nobody logs in.
func (r *rig) user(name string) *config.User { return findUser(r.all, name) }

// try tries a password.
func (r *rig) try(name, password, from string) (Caller, error) {
	return r.Login(r.t.Context(), name, password, from)
}

func TestLogin(t *testing.T) {
	r := newRig(t)
	for _, test := range []struct {
		name, password, from string
		role                 Role
	}{
		{"ann", annsWord, here, Full},
		{"bob", bobsWord, elsewhere, Readonly},
		{"bob", annsWord, "10.0.0.1:1", NoRole},
		{"ann", "", "10.0.0.2:1", NoRole},
		{"", "", "10.0.0.3:1", NoRole},
		{"nobody", annsWord, "10.0.0.4:1", NoRole},
		{"nobody", bobsWord, "10.0.0.5:1", NoRole},
		{"Ann", annsWord, "10.0.0.6:1", NoRole},
		// Those without a usable hash are tried on another's, which lets nobody in.
		{"blank", annsWord, "10.0.0.7:1", NoRole},
		{"blank", bobsWord, "10.0.0.8:1", NoRole},
		{"blank", "", "10.0.0.8:1", NoRole},
		{"wrong", annsWord, "10.0.0.9:1", NoRole},
		{"wrong", bobsWord, "10.0.0.10:1", NoRole},
		{"ann", annsWord + strings.Repeat("x", 1<<20), "10.0.0.11:1", NoRole},
		{"ann", annsWord, "nowhere", Full},
	} {
		c, err := r.try(test.name, test.password, test.from)
		if test.role == NoRole {
			if !errors.Is(err, ErrBadLogin) || c != (Caller{}) {
				t.Errorf("%s from %s: %+v, %v", test.name, test.from, c, err)
			}
			continue
		}
		if err != nil || c.Name != test.name || c.From != test.from || c.Role != test.role {
			t.Errorf("%s from %s: %+v, %v", test.name, test.from, c, err)
		}
	}
	if log := r.log.String(); strings.Contains(log, annsWord) || strings.Contains(log, bobsWord) || strings.Contains(log, annsHash) || strings.Contains(log, "nobody") {
		t.Errorf("the log shows a secret, or what may be one:\n%s", log)
	}
	for _, line := range []string{`level=WARN msg="login failed" user=bob from=10.0.0.1:1`, `level=WARN msg="login failed" user=unknown from=10.0.0.4:1`,
		`user=wrong from=10.0.0.9:1 why="the password is not valid: a SHA-512 hash that is not well formed`} {
		if !strings.Contains(r.log.String(), line) {
			t.Errorf("the log lacks %s:\n%s", line, r.log.String())
		}
	}
}

// The password that everybody knows opens nothing to somebody elsewhere.
func TestPublishedHashIsForThisMachine(t *testing.T) {
	if !config.IsPublished(publicHash) || config.IsPublished(annsHash) {
		t.Fatal("which hashes are published?")
	}
	r := newRig(t)
	for from, want := range map[string]bool{here: true, "[::1]:1": true, "[::ffff:127.0.0.1]:1": true, away: false, "nowhere": false, "0.0.0.0:1": false} {
		p := placeOf(from)
		if p.loopback != want {
			t.Errorf("%s is this machine: %v", from, p.loopback)
		}
	}
	if c, err := r.try("sample", publicWord, here); err != nil || c.Role != Full {
		t.Errorf("from this machine: %+v, %v", c, err)
	}
	if c, err := r.try("sample", publicWord, away); !errors.Is(err, ErrBadLogin) {
		t.Errorf("from elsewhere: %+v, %v", c, err)
	}
	if log := r.log.String(); !strings.Contains(log, "published sample") {
		t.Errorf("the log does not say why:\n%s", log)
	}
}

// IPv6 counts by /64, so that one machine is one source.
func TestSourceIsANetwork(t *testing.T) {
	for from, want := range map[string]string{
		"192.0.2.1:5": "192.0.2.1/32", "[::ffff:192.0.2.1]:5": "192.0.2.1/32", "192.0.2.1": "192.0.2.1/32",
		"[2001:db8:1:2:3::4]:5": "2001:db8:1:2::/64", "[fe80::1%eth0]:5": "fe80::/64",
	} {
		if got := SourceOf(from); got.String() != want {
			t.Errorf("%s counts as %v, want %s", from, got, want)
		}
	}
	for _, from := range []string{"", "@", "socket pid 7", "/run/x"} {
		if SourceOf(from).IsValid() {
			t.Errorf("%q has a source", from)
		}
	}
}

// After five failures a source waits, longer each time; the right password does
// not help, and other sources are as free as before.
func TestThrottle(t *testing.T) {
	r := newRig(t)
	// fail lets logins fail and then tries the right password. On a slow machine
	// the first second of waiting may have passed before that.
	fail := func(source string, from func(try int) string) error {
		t.Helper()
		for range 10 {
			delete(r.sources, source)
			begin := time.Now()
			for i := range freeFailures {
				if _, err := r.try("ann", fmt.Sprint("wrong", i), from(i)); !errors.Is(err, ErrBadLogin) {
					t.Fatalf("failure %d: %v", i, err)
				}
			}
			_, err := r.try("ann", annsWord, from(freeFailures))
			if time.Since(begin) < time.Second {
				return err
			}
		}
		t.Fatal("the machine is too slow")
		return nil
	}
	const from = "192.0.2.7:1000"
	err := fail("192.0.2.7", func(int) string { return from })
	wait, ok := errors.AsType[Throttled](err)
	if !errors.Is(err, ErrThrottled) || !ok || wait.Wait != time.Second || wait.Source != "192.0.2.7" {
		t.Fatalf("after %d failures: %v", freeFailures, err)
	}
	if err.Error() != "too many failed logins from 192.0.2.7; try again in 1s" {
		t.Errorf("said %q", err)
	}
	if _, err := r.try("ann", annsWord, "192.0.2.8:1000"); err != nil {
		t.Errorf("a neighbour: %v", err)
	}
	told := strings.Count(r.log.String(), "logins rejected")
	eventually(t, "the wait is over", func() bool {
		_, err := r.try("ann", annsWord, from)
		if err != nil && !errors.Is(err, ErrThrottled) {
			t.Fatal(err)
		}
		return err == nil
	})
	if log := r.log.String(); told == 0 || strings.Count(log, "logins rejected") != told {
		t.Errorf("refused logins are logged once a minute:\n%s", log)
	}
	// A good login has made it forgotten.
	if _, err := r.try("ann", "wrong again", from); !errors.Is(err, ErrBadLogin) {
		t.Error(err)
	}
	// The other addresses of an IPv6 network are the same source.
	if err := fail("2001:db8:1:2::/64", func(i int) string { return fmt.Sprintf("[2001:db8:1:2::%d]:%d", i+1, i+1) }); !errors.Is(err, ErrThrottled) {
		t.Errorf("another address of the network: %v", err)
	}
	if _, err := r.try("ann", annsWord, "[2001:db8:1:3::1]:1"); err != nil {
		t.Errorf("the next network: %v", err)
	}
}

// A page left open with an old password fails for ever and locks nobody out.
func TestTheSameMistakeCountsOnce(t *testing.T) {
	r := newRig(t)
	for range 50 {
		if _, err := r.try("ann", "an old one", away); !errors.Is(err, ErrBadLogin) {
			t.Fatal(err)
		}
	}
	if _, err := r.try("ann", annsWord, away); err != nil {
		t.Error(err)
	}
}

// Many tries at once win nothing over one after the other, and many good logins
// at once are all let in.
func TestManyAtOnce(t *testing.T) {
	r := newRig(t)
	outcomes := func(n int, login func(i int) error) map[error]int {
		var mu sync.Mutex
		var all sync.WaitGroup
		count := map[error]int{}
		for i := range n {
			all.Go(func() {
				err := login(i)
				for _, kind := range []error{ErrThrottled, ErrBadLogin} {
					if errors.Is(err, kind) {
						err = kind
					}
				}
				mu.Lock()
				defer mu.Unlock()
				count[err]++
			})
		}
		all.Wait()
		return count
	}
	got := outcomes(100, func(i int) error { _, err := r.try("bob", fmt.Sprint("wrong", i), away); return err })
	if got[ErrBadLogin] > freeFailures+2 || got[ErrThrottled] < 90 || len(got) != 2 {
		t.Errorf("wrong ones: %v", got)
	}
	got = outcomes(100, func(int) error { _, err := r.try("bob", bobsWord, elsewhere); return err })
	if got[nil] != 100 {
		t.Errorf("good ones: %v", got)
	}
}

// A good login is remembered until its password or its user changes, and only
// for where it came from.
func TestGoodLoginsAreRemembered(t *testing.T) {
	r := newRig(t)
	dear, err := passwd.Hash(annsWord)
	if err != nil {
		t.Fatal(err)
	}
	r.user("ann").Password = dear
	in := func(from string) (Caller, time.Duration) {
		t.Helper()
		begin := time.Now()
		c, err := r.try("ann", annsWord, from)
		if err != nil {
			t.Fatal(err)
		}
		return c, time.Since(begin)
	}
	_, first := in(away)
	best := time.Hour
	for range 20 {
		_, took := in(away)
		best = min(best, took)
	}
	if best > first/4 {
		t.Errorf("the first login took %v, later ones %v at best", first, best)
	}
	if n := len(r.verified); n != 1 {
		t.Errorf("%d logins are remembered", n)
	}
	c, _ := in(away)
	r.user("ann").Password = bobsHash
	if _, err := r.try("ann", annsWord, away); !errors.Is(err, ErrBadLogin) {
		t.Errorf("the old password is good: %v", err)
	}
	if _, ok := r.Still(c); ok {
		t.Error("who came in with the old password is still there")
	}
	if _, err := r.try("ann", bobsWord, away); err != nil {
		t.Errorf("the new password: %v", err)
	}
	r.all = r.all[1:]
	if _, err := r.try("ann", bobsWord, away); !errors.Is(err, ErrBadLogin) {
		t.Errorf("a deleted user: %v", err)
	}
}

func TestStill(t *testing.T) {
	r := newRig(t)
	c, err := r.try("ann", annsWord, here)
	if err != nil {
		t.Fatal(err)
	}
	if now, ok := r.Still(c); !ok || now != c {
		t.Errorf("as it was: %+v, %v", now, ok)
	}
	if _, ok := r.Still(Caller{Name: "ann", Role: Full}); ok {
		t.Error("somebody who has not logged in is there")
	}
	raw, err := base64.StdEncoding.DecodeString(aKey)
	if err != nil {
		t.Fatal(err)
	}
	k, err := r.LoginKey("ann", raw, away)
	if err != nil || k.Role != Full || k.From != away {
		t.Fatalf("by key: %+v, %v", k, err)
	}
	r.user("ann").Access = "readonly"
	for _, one := range []Caller{c, k} {
		if now, ok := r.Still(one); !ok || now.Role != Readonly || now.From != one.From {
			t.Errorf("with less access: %+v, %v", now, ok)
		}
	}
	r.user("ann").Keys = nil
	if _, ok := r.Still(k); ok {
		t.Error("the key has gone, and who came in with it is there")
	}
	if _, ok := r.Still(c); !ok {
		t.Error("a key has gone, and who came in with the password too")
	}
	if _, err := r.LoginKey("ann", raw, here); !errors.Is(err, ErrBadLogin) {
		t.Errorf("the key that has gone: %v", err)
	}
	r.all = r.all[1:]
	if _, ok := r.Still(c); ok {
		t.Error("a deleted user is there")
	}
}

func TestLoginKey(t *testing.T) {
	r := newRig(t)
	raw, _ := base64.StdEncoding.DecodeString(aKey)
	other := append([]byte(nil), raw...)
	other[len(other)-1]++
	for _, test := range []struct {
		name string
		key  []byte
	}{{"ann", other}, {"ann", nil}, {"ann", raw[:10]}, {"bob", raw}, {"nobody", raw}, {"", raw}} {
		for range 10 { // more than passwords may fail
			if c, err := r.LoginKey(test.name, test.key, away); !errors.Is(err, ErrBadLogin) || c != (Caller{}) {
				t.Errorf("%s: %+v, %v", test.name, c, err)
			}
		}
	}
	if _, err := r.LoginKey("ann", raw, away); err != nil {
		t.Error(err)
	}
	if _, err := r.try("ann", annsWord, away); err != nil {
		t.Errorf("keys that were offered in vain lock passwords out: %v", err)
	}
}

// Who gives up while others are computed gets his error, and it does not count.
func TestLoginGivesUp(t *testing.T) {
	r := newRig(t)
	u := r.Users
	for range cap(u.hashing) {
		u.hashing <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := r.Login(ctx, "ann", annsWord, away)
		ended <- err
	}()
	eventually(t, "it is being tried", func() bool {
		u.mu.Lock()
		defer u.mu.Unlock()
		return len(u.flights) == 1
	})
	// Another one with the same password waits for the first, and tries himself
	// when that has given up.
	other := make(chan error)
	go func() {
		_, err := r.try("ann", annsWord, away)
		other <- err
	}()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("who gave up: %v", err)
	}
	for range cap(u.hashing) {
		<-u.hashing
	}
	if err := <-other; err != nil {
		t.Errorf("the other one: %v", err)
	}
	if len(u.sources) != 0 || len(u.flights) != 0 {
		t.Errorf("left behind: %d sources, %d flights", len(u.sources), len(u.flights))
	}
}

// How long a source waits, and for how long it is remembered.
func TestWaits(t *testing.T) {
	u := newRig(t).Users
	now := time.Unix(1e9, 0)
	fail := func(i int) time.Duration {
		t.Helper()
		id := u.login("x", fmt.Sprint(i))
		v, wait, f := u.enter("s", id, now)
		if v == waits {
			return wait
		}
		if v != begins {
			t.Fatalf("try %d: %v", i, v)
		}
		u.end("s", id, f, false, nil, now)
		return 0
	}
	n := 0
	for n = range freeFailures {
		if wait := fail(n); wait > 0 {
			t.Fatalf("failure %d waits %v", n, wait)
		}
	}
	for i, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60} {
		n++
		if wait := fail(n); wait != want*time.Second {
			t.Fatalf("after %d failures: %v, want %v s", freeFailures+i, wait, want)
		}
		// Trying while one has to wait makes it no longer.
		now = now.Add(want*time.Second - 1)
		if wait := fail(n); wait != 1 {
			t.Fatalf("at its end: %v", wait)
		}
		now = now.Add(1)
		if wait := fail(n); wait > 0 {
			t.Fatalf("after it: %v", wait)
		}
	}
	now = now.Add(forgetSource + 1)
	for range freeFailures {
		n++
		if wait := fail(n); wait > 0 {
			t.Fatalf("a source is never forgotten: %v", wait)
		}
	}
	if n++; fail(n) == 0 {
		t.Error("a source that comes back is free for ever")
	}
}

// What is remembered is bounded, and what is oldest goes.
func TestMemoryIsBounded(t *testing.T) {
	u := newRig(t).Users
	now := time.Unix(1e9, 0)
	for i := range maxSources + 100 {
		now = now.Add(time.Millisecond)
		from := placeOf(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 1).String()).source
		id := u.login("x", "wrong", from)
		_, _, f := u.enter(from, id, now)
		u.end(from, id, f, false, nil, now)
		from += "good"
		id = u.login("x", "right", from)
		_, _, f = u.enter(from, id, now)
		u.end(from, id, f, true, nil, now)
	}
	if len(u.sources) != maxSources-1 && len(u.sources) != maxSources || len(u.verified) != maxVerified || len(u.flights) != 0 {
		t.Errorf("%d sources, %d good logins, %d flights", len(u.sources), len(u.verified), len(u.flights))
	}
	if u.sources["10.0.0.0"] != nil || u.sources["10.0.16.99"] == nil {
		t.Error("not the oldest has gone")
	}
	if v, _, _ := u.enter("10.0.16.99good", u.login("x", "right", "10.0.16.99good"), now.Add(verifiedFor-1)); v != good {
		t.Errorf("a good login after almost %v: %v", verifiedFor, v)
	}
	if v, _, _ := u.enter("10.0.16.99good", u.login("x", "right", "10.0.16.99good"), now.Add(verifiedFor)); v != begins {
		t.Errorf("a good login after %v: %v", verifiedFor, v)
	}
}

// A flood of failures from everywhere writes a few lines, and says how many it
// has not written.
func TestFailuresLoggedAreFew(t *testing.T) {
	u := newRig(t).Users
	now := time.Unix(1e9, 0)
	logged := 0
	for range 1000 {
		if _, ok := u.mayLog(now); ok {
			logged++
		}
	}
	if logged != logFailures {
		t.Errorf("%d lines at once", logged)
	}
	unlogged, ok := u.mayLog(now.Add(logRecovery))
	if !ok || unlogged != 1000-logFailures {
		t.Errorf("a second later: %d not logged, %v", unlogged, ok)
	}
}

// An unknown name is tried on one of the hashes that there are, always the same
// one, so that the time it takes tells nothing.
func TestUnknownNamesCostTheSame(t *testing.T) {
	u := newRig(t).Users
	users := []*config.User{{Name: "a", Password: annsHash}, {Name: "b", Password: bobsHash}, {Name: "c"}, {Name: "d", Password: "nonsense"}}
	seen := map[string]int{}
	for i := range 100 {
		name := fmt.Sprint("unknown", i)
		hash, own := u.hashFor(users, nil, name)
		if again, _ := u.hashFor(users, nil, name); again != hash || own {
			t.Fatalf("%s is tried on %s, and then on %s", name, hash, again)
		}
		seen[hash]++
	}
	if len(seen) != 2 || seen[annsHash] < 20 || seen[bobsHash] < 20 {
		t.Errorf("tried on %v", seen)
	}
	if hash, own := u.hashFor(users, users[2], "c"); own || hash == "" {
		t.Error("a user without a hash costs nothing")
	}
	if hash, own := u.hashFor(users, users[0], "a"); !own || hash != annsHash {
		t.Error("a user is tried on another's hash")
	}
}

func BenchmarkLoginRemembered(b *testing.B) {
	r := newRig(b)
	for b.Loop() {
		if _, err := r.Login(b.Context(), "ann", annsWord, here); err != nil {
			b.Fatal(err)
		}
	}
}
