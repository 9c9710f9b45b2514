package users

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/guard"
	"github.com/txlb/txlb/internal/passwd"
	"github.com/txlb/txlb/internal/testkit"
)

// Passwords and hashes of the tests. DES is quick.
const (
	annsWord, annsHash     = "U*U*U*U*", "CCNf8Sbh3HDfQ"
	bobsWord, bobsHash     = "Hello world!", "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"
	publicWord, publicHash = "admin", "..xpoEyRReGzk" // of txLoadBalancer's sample
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
	r.Users = New(func() []*config.User { return r.all }, nil, r.log.Logger(), nil)
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

// The password that everybody knows opens nothing, on this machine either.
func TestPublishedHashesOpenNothing(t *testing.T) {
	if !config.IsPublished(publicHash) || config.IsPublished(annsHash) {
		t.Fatal("which hashes are published?")
	}
	r := newRig(t)
	for _, from := range []string{here, "[::1]:1", "[::ffff:127.0.0.1]:1", away, "nowhere"} {
		if c, err := r.try("sample", publicWord, from); !errors.Is(err, ErrBadLogin) {
			t.Errorf("from %s: %+v, %v", from, c, err)
		}
	}
	if log := r.log.String(); !strings.Contains(log, "published sample") || !strings.Contains(log, "txlb passwd") {
		t.Errorf("the log does not say why:\n%s", log)
	}
}

// IPv6 counts by /64, so that one machine is one source.
func TestSourceIsANetwork(t *testing.T) {
	for from, want := range map[string]string{
		"192.0.2.1:5": "192.0.2.1/32", "[::ffff:192.0.2.1]:5": "192.0.2.1/32", "192.0.2.1": "192.0.2.1/32",
		"[2001:db8:1:2:3::4]:5": "2001:db8:1:2::/64", "[fe80::1%eth0]:5": "fe80::/64",
	} {
		if got := guard.SourceOf(from); got.String() != want {
			t.Errorf("%s counts as %v, want %s", from, got, want)
		}
	}
	for _, from := range []string{"", "@", "socket pid 7", "/run/x"} {
		if guard.SourceOf(from).IsValid() {
			t.Errorf("%q has a source", from)
		}
	}
}

// After five failures a user waits at a source, longer each time; the right password does
// not help, and other sources are as free as before.
func TestThrottle(t *testing.T) {
	r := newRig(t)
	// fail lets logins fail and then tries the right password. On a slow machine
	// the first second of waiting may have passed before that.
	fail := func(from func(try int) string) error {
		t.Helper()
		for range 100 {
			clear(r.pairs)
			clear(r.names)
			clear(r.sources)
			begin := time.Now()
			for i := range pairLimit.free {
				if _, err := r.try("ann", fmt.Sprint("wrong", i), from(i)); !errors.Is(err, ErrBadLogin) {
					t.Fatalf("failure %d: %v", i, err)
				}
			}
			_, err := r.try("ann", annsWord, from(pairLimit.free))
			if time.Since(begin) < time.Second {
				return err
			}
		}
		t.Fatal("the machine is too slow")
		return nil
	}
	const from = "192.0.2.7:1000"
	err := fail(func(int) string { return from })
	wait, ok := errors.AsType[Throttled](err)
	if !errors.Is(err, ErrThrottled) || !ok || wait.Wait != time.Second || wait.Source != "192.0.2.7" {
		t.Fatalf("after %d failures: %v", pairLimit.free, err)
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
	if err := fail(func(i int) string { return fmt.Sprintf("[2001:db8:1:2::%d]:%d", i+1, i+1) }); !errors.Is(err, ErrThrottled) {
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
	if got[ErrBadLogin] > pairLimit.free+2 || got[ErrThrottled] < 90 || len(got) != 2 {
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
		t.Errorf("rejected keys lock passwords out: %v", err)
	}
}

// Who gives up while others are computed gets his error, and it does not count.
func TestLoginGivesUp(t *testing.T) {
	r := newRig(t)
	u := r.Users
	for range u.gate.Places() {
		if err := u.gate.Enter(t.Context(), guard.Hash); err != nil {
			t.Fatal(err)
		}
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
	for range u.gate.Places() {
		u.gate.Leave()
	}
	if err := <-other; err != nil {
		t.Errorf("the other one: %v", err)
	}
	if len(u.sources) != 0 || len(u.names) != 0 || len(u.flights) != 0 || len(u.pairs) != 1 {
		t.Errorf("left behind: %d sources, %d names, %d flights, %d pairs", len(u.sources), len(u.names), len(u.flights), len(u.pairs))
	}
}

// clock is some users at a time that the test says.
type clock struct {
	*Users
	t   *testing.T
	now time.Time
	n   int
}

func newClock(t *testing.T) *clock {
	return &clock{Users: newRig(t).Users, t: t, now: time.Unix(1e9, 0)}
}

// attempt is a login with a password.
func (c *clock) attempt(name, password, source string) attempt {
	return attempt{
		id: c.login(name, password, source), source: source, name: c.login(name), pair: c.login(name, source),
		known: name == "ann" || name == "bob",
	}
}

// fails lets a login fail with a password of its own, and returns how long it has
// to wait if it may not even fail.
func (c *clock) fails(name, source string) time.Duration {
	c.t.Helper()
	c.n++
	a := c.attempt(name, fmt.Sprint("wrong", c.n), source)
	v, w, f := c.enter(a, c.now)
	switch v {
	case waits:
		return w.time
	case begins:
		c.end(a, f, false, nil, c.now)
	default:
		c.t.Fatalf("a wrong login: %v", v)
	}
	return 0
}

// passes logs in, and returns how long that has to wait if it has to.
func (c *clock) passes(name, source string) time.Duration {
	c.t.Helper()
	a := c.attempt(name, "right", source)
	v, w, f := c.enter(a, c.now)
	switch v {
	case begins:
		c.end(a, f, true, nil, c.now)
	case good:
	default:
		return w.time
	}
	return 0
}

// How long a user waits at a source, and for how long that is remembered.
func TestWaits(t *testing.T) {
	c := newClock(t)
	for n := range pairLimit.free {
		if wait := c.fails("x", "s"); wait > 0 {
			t.Fatalf("failure %d waits %v", n, wait)
		}
	}
	for i, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60} {
		if wait := c.fails("x", "s"); wait != want*time.Second {
			t.Fatalf("after %d failures: %v, want %v s", pairLimit.free+i, wait, want)
		}
		// Trying while one has to wait makes it no longer.
		c.now = c.now.Add(want*time.Second - 1)
		if wait := c.fails("x", "s"); wait != 1 {
			t.Fatalf("at its end: %v", wait)
		}
		c.now = c.now.Add(1)
		if wait := c.fails("x", "s"); wait > 0 {
			t.Fatalf("after it: %v", wait)
		}
	}
	c.now = c.now.Add(forgetFailures + 1)
	for range pairLimit.free {
		if wait := c.fails("x", "s"); wait > 0 {
			t.Fatalf("failures are never forgotten: %v", wait)
		}
	}
	if c.fails("x", "s") == 0 {
		t.Error("who comes back is free for ever")
	}
}

// Who may log in himself wins no tries at another's password by doing so, and
// nobody waits for what others of his source have mistyped.
func TestOneUserDoesNotClearAnothers(t *testing.T) {
	c := newClock(t)
	failures := 0
	for range 50 {
		if c.fails("ann", "s") == 0 {
			failures++
		}
		if wait := c.passes("bob", "s"); wait > 0 {
			t.Fatalf("bob waits %v for ann", wait)
		}
	}
	if failures != pairLimit.free {
		t.Errorf("%d tries at ann's password", failures)
	}
	// A new user of the source does not wait either, until the source has had its
	// share of failures.
	if wait := c.fails("carl", "s"); wait > 0 {
		t.Errorf("carl waits %v", wait)
	}
	for i := range 3 * sourceLimit.free {
		c.fails(fmt.Sprint("made up ", i), "s")
	}
	if wait := c.fails("dora", "s"); wait == 0 {
		t.Error("a source may try every name there is")
	}
	if wait := c.passes("bob", "s"); wait > 0 {
		t.Errorf("bob, who has been there, waits %v", wait)
	}
	c.now = c.now.Add(verifiedFor + time.Second) // and is forgotten
	for i := range 3 * sourceLimit.free {
		c.fails(fmt.Sprint("made up again ", i), "s")
	}
	if wait := c.passes("bob", "s"); wait > 0 {
		t.Errorf("bob, who has been there lately, waits %v", wait)
	}
}

// Many sources win no more tries at one password than one does, and those from
// which the user has come in lately do not suffer from it. Names that nobody has
// are counted alike.
func TestThrottleOfAUser(t *testing.T) {
	for _, name := range []string{"ann", "nobody"} {
		c := newClock(t)
		if name == "ann" {
			c.passes(name, "home")
			c.now = c.now.Add(verifiedFor)
		}
		failures := 0
		begin := c.now
		for i := range 1000 {
			if wait := c.fails(name, fmt.Sprint("source ", i)); wait == 0 {
				failures++
			} else if wait > userLimit.longest {
				t.Fatalf("waits %v", wait)
			}
			c.now = c.now.Add(time.Second)
		}
		most := userLimit.free + int(c.now.Sub(begin)/userLimit.longest) + 5
		if failures > most || failures < most/2 {
			t.Errorf("%s: %d tries in %v, want about %d", name, failures, c.now.Sub(begin), most)
		}
		if wait := c.fails(name, "elsewhere"); wait == 0 {
			c.now = c.now.Add(time.Millisecond)
			wait = c.fails(name, "yet elsewhere")
			if wait == 0 {
				t.Errorf("%s: a further source does not wait", name)
			}
		}
		if name == "ann" {
			if wait := c.passes(name, "home"); wait > 0 {
				t.Errorf("at home she waits %v", wait)
			}
			if wait := c.passes("bob", "source 1"); wait > 0 {
				t.Errorf("another user waits %v", wait)
			}
		}
	}
}

// A login that is remembered passes whatever fails beside it, but who shares the
// source cannot guess it in this way.
func TestRememberedLoginsPass(t *testing.T) {
	c := newClock(t)
	c.passes("ann", "s")
	for range maxGuesses / 2 {
		c.fails("ann", "s")
		if wait := c.passes("ann", "s"); wait > 0 {
			t.Fatalf("she waits %v", wait)
		}
	}
	if wait := c.fails("ann", "s"); wait == 0 {
		t.Fatal("wrong logins do not wait")
	}
	for range maxGuesses {
		c.fails("ann", "s")
	}
	if wait := c.passes("ann", "s"); wait == 0 {
		t.Error("the remembered password can be guessed as fast as one likes")
	}
	c.now = c.now.Add(time.Minute)
	if wait := c.passes("ann", "s"); wait > 0 {
		t.Errorf("a minute later she waits %v", wait)
	}
}

// Passwords that a hash does not tell apart are one: they are tried once, and
// remembered once.
func TestVariantsCountAsOne(t *testing.T) {
	const bcryptWord, bcryptHash = "U*U*", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK"
	r := newRig(t)
	for i := range 20 {
		if _, err := r.try("ann", "wrongful"+fmt.Sprint(i), away); !errors.Is(err, ErrBadLogin) {
			t.Fatalf("variant %d: %v", i, err)
		}
	}
	for i := range 20 {
		if _, err := r.try("ann", annsWord+fmt.Sprint(i), away); err != nil {
			t.Fatalf("variant %d of the right one: %v", i, err)
		}
	}
	if len(r.verified) != 1 {
		t.Errorf("%d logins are remembered", len(r.verified))
	}
	// What is no password is none by what it begins with.
	for _, word := range []string{annsWord + "\x00", annsWord + strings.Repeat("x", passwd.MaxPassword)} {
		if _, err := r.try("ann", word, away); !errors.Is(err, ErrBadLogin) {
			t.Errorf("%q: %v", word, err)
		}
	}
	r.user("ann").Password = bcryptHash
	long := strings.Repeat("x", 72)
	for i := range 20 {
		if _, err := r.try("ann", long+fmt.Sprint(i), elsewhere); !errors.Is(err, ErrBadLogin) {
			t.Fatalf("variant %d: %v", i, err)
		}
	}
	if _, err := r.try("ann", bcryptWord, elsewhere); err != nil {
		t.Error(err)
	}
	if _, err := r.try("ann", bcryptWord+"x", elsewhere); !errors.Is(err, ErrBadLogin) {
		t.Errorf("another password: %v", err)
	}
}

// What is remembered is bounded, and what is oldest goes; what is about users that
// there are goes last.
func TestMemoryIsBounded(t *testing.T) {
	c := newClock(t)
	for range pairLimit.free {
		c.fails("ann", "far")
	}
	for i := range maxCounted + 100 {
		c.now = c.now.Add(time.Millisecond)
		c.fails(fmt.Sprint("made up ", i), fmt.Sprint("source ", i))
		if i < maxVerified+10 {
			c.passes("bob", fmt.Sprint("good ", i))
		}
	}
	if len(c.pairs) != maxCounted || len(c.sources) != maxCounted || len(c.names) != maxCounted || len(c.verified) != maxVerified || len(c.flights) != 0 {
		t.Errorf("%d pairs, %d sources, %d names, %d good logins, %d flights", len(c.pairs), len(c.sources), len(c.names), len(c.verified), len(c.flights))
	}
	if c.sources["source 0"] != nil || c.sources[fmt.Sprint("source ", maxCounted+99)] == nil {
		t.Error("not the oldest has gone")
	}
	if p := c.pairs[c.login("ann", "far")]; p == nil || p.failures != pairLimit.free {
		t.Error("made up names have made failures of a user forgotten")
	}
	a := c.attempt("bob", "right", fmt.Sprint("good ", maxVerified+9))
	if v, _, _ := c.enter(a, c.verified[a.id].Add(-1)); v != good {
		t.Errorf("a good login after almost %v: %v", verifiedFor, v)
	}
	if v, _, _ := c.enter(a, c.verified[a.id]); v != begins {
		t.Errorf("a good login after %v: %v", verifiedFor, v)
	}
}

// A flood of failures writes a few lines to the log, and many to the audit file.
func TestFailuresLoggedAreFew(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		var log, audit testkit.Log
		u := New(func() []*config.User { return nil }, nil, log.Logger(), audit.Logger())
		for i := range 5000 {
			if _, err := u.Login(WithVia(t.Context(), "web"), fmt.Sprint("x", i), "y", fmt.Sprintf("10.0.%d.%d:1", i/250, i%250)); !errors.Is(err, ErrBadLogin) {
				t.Fatal(err)
			}
		}
		if inLog, inAudit := len(log.Lines("login failed")), len(audit.Lines(`msg="login failed" by=unknown from=10.0.0.7:1 via=web`)); inLog != 20 || inAudit != 1 {
			t.Errorf("%d lines in the log, %d in the audit file", inLog, inAudit)
		}
		if n := len(audit.Lines("login failed")); n != 1000 {
			t.Errorf("%d lines in the audit file", n)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(log.Lines("not_logged=4980")) != 1 || len(audit.Lines("not_logged=4000")) != 1 {
			t.Errorf("afterwards: %q, %q", log.Lines("not_logged"), audit.Lines("not_logged"))
		}
	})
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
