// Package users knows who may give commands: it checks passwords and keys,
// throttles guessing, and returns the role of a caller. See [Users].
package users

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/guard"
	"github.com/txlb/txlb/internal/logs"
	"github.com/txlb/txlb/internal/passwd"
)

// Role is what a caller may do. The zero Role may do nothing.
type Role uint8

const (
	NoRole   Role = iota
	Readonly      // may look
	Full          // may change
)

// parseRole reads <user access>; any other word gives NoRole.
func parseRole(access string) Role {
	switch access {
	case "readonly":
		return Readonly
	case "full":
		return Full
	}
	return NoRole
}

// String gives the word that <user access> has for the role.
func (r Role) String() string { return [...]string{"none", "readonly", "full"}[r] }

// Caller is who gives a command, and from where. Both are for the log.
type Caller struct {
	Name string // of the user
	From string // address, or how the command came
	Role Role

	proof string // for Still: what he has logged in with
}

// Errors of Login and LoginKey.
var (
	// ErrBadLogin: no such user, another password, or a user that may not log in
	// from there; which of them, is not said.
	ErrBadLogin = errors.New("wrong user or password")
	// ErrThrottled: too many failed logins came from the source. The error is a
	// [Throttled], which says how long to wait.
	ErrThrottled = errors.New("too many failed logins")
)

// Throttled is the error of a login that has to wait.
type Throttled struct {
	// Source is where too many failed logins came from, an IPv4 address or an IPv6
	// network of 64 bits; "": they came for one name, from many places.
	Source string
	Wait   time.Duration // whole seconds
}

func (t Throttled) Error() string {
	if t.Source == "" {
		return fmt.Sprintf("%v with this name; try again in %v", ErrThrottled, t.Wait)
	}
	return fmt.Sprintf("%v from %s; try again in %v", ErrThrottled, t.Source, t.Wait)
}

func (t Throttled) Unwrap() error { return ErrThrottled }

// limit is how many logins may fail, and how long the next ones have to wait.
type limit struct {
	free    int           // failures, before the first wait
	longest time.Duration // after a failure; the first wait is a second, and each is twice the last
}

// Limits of failed logins: of one user from one source, of one source with any
// names, and of one user from any source. The last one is short, so that strangers
// cannot lock a user out for long.
var (
	pairLimit   = limit{5, time.Minute}
	sourceLimit = limit{20, time.Minute}
	userLimit   = limit{20, 10 * time.Second}
)

// Bounds of the logins.
const (
	forgetFailures = 15 * time.Minute // after the last one
	knownFor       = 24 * time.Hour   // a source, after a good login from it
	maxCounted     = 4096             // of each kind of counter
	repeats        = 4                // wrong logins of a pair that are remembered
	// maxGuesses bounds, a minute, how often somebody who has to wait may be told
	// that a password is not the one that is remembered.
	maxGuesses  = 100
	maxVerified = 256 // good logins remembered
	verifiedFor = 5 * time.Minute
	tellEvery   = time.Minute // that somebody has to wait
)

// Users are those of the configuration that runs, and what their logins need to
// remember: one for all ways into a process, so that who guesses at one door
// waits at the others as well. All methods may be called from any goroutine.
type Users struct {
	list      func() []*config.User // as they are now
	log       *slog.Logger
	audit     *slog.Logger
	strangers *slog.Logger // audit, for those who have not logged in

	secret [32]byte    // of this process, for what is kept of passwords
	gate   *guard.Gate // that hashes pass

	mu       sync.Mutex
	verified map[login]time.Time    // good logins, until when
	flights  map[login]*flight      // logins that are being tried
	pairs    counters[login, *pair] // by source and name
	sources  counters[string, *counter]
	names    counters[login, *counter]
}

// login stands for a name, a password, the hash that it was tried on, and the
// source. Without the secret, nobody who reads it in memory can try passwords on
// it. It is worthless once the hash has changed.
type login [sha256.Size]byte

// flight is a login that is being tried. When done is closed, ok tells whether it
// is good, unless err says that this could not be found out.
type flight struct {
	done chan struct{}
	ok   bool
	err  error
}

// attempt is a login as it is counted.
type attempt struct {
	id     login  // stands for all of it
	source string // where it comes from
	name   login
	pair   login // stands for source and name
	known  bool  // there is a user of that name
}

// New returns the users that list does, each time it is asked. Hashes pass the
// gate; nil: one of their own. Logins go to audit, good and bad ones; nil: to no
// file.
func New(list func() []*config.User, gate *guard.Gate, log, audit *slog.Logger) *Users {
	if gate == nil {
		gate = guard.NewGate()
	}
	if audit == nil {
		audit = slog.New(slog.DiscardHandler)
	}
	u := &Users{
		list: list, gate: gate, log: logs.Strangers(log), audit: audit, strangers: logs.AuditStrangers(audit),
		verified: map[login]time.Time{}, flights: map[login]*flight{},
		pairs: counters[login, *pair]{}, sources: counters[string, *counter]{}, names: counters[login, *counter]{},
	}
	_, _ = rand.Read(u.secret[:]) // never fails
	return u
}

// Login tells who a user is that gives a password, by the users of the running
// configuration. from is where he is, as ip:port.
//
// An unknown name takes as long as a wrong password and is counted like one. After
// five failures in a row a user has to wait from that source before each further
// try, from a second to a minute, with the right password too: ErrThrottled. So has
// a source after 20 failures, and a user after 20 from everywhere, but for sources
// from which the user has logged in lately. A good login makes only the user's own
// failures from there forgotten. The same wrong password again counts once, and so
// do passwords that the hash does not tell apart: a page left open with an old one
// locks nobody out. A good login is remembered for minutes, then costs
// microseconds and waits for nothing; the password or the user changing ends that
// at once. At most a few hashes are computed at once; ctx ends the wait. Failures
// are logged, passwords and names that may be one are not.
func (u *Users) Login(ctx context.Context, name, password, from string) (Caller, error) {
	place := placeOf(from)
	all := u.list()
	user := findUser(all, name)
	hash, own := u.hashFor(all, user, name)
	a := attempt{
		source: place.source, known: user != nil, name: u.login(name), pair: u.login(name, place.source),
		id: u.login(name, passwd.Significant(hash, password), hash, place.source),
	}

	var ok, fresh bool
	for {
		verdict, wait, flight := u.enter(a, time.Now())
		switch verdict {
		case waits:
			err := u.throttled(user, place, wait)
			u.refused(ctx, "login rejected", user, from, err.Error())
			return Caller{}, err
		case wrongAgain:
			u.refused(ctx, "login failed", user, from, "")
			return Caller{}, ErrBadLogin
		case tried: // somebody else tries just this one
			select {
			case <-flight.done:
			case <-ctx.Done():
				return Caller{}, ctx.Err()
			}
			if flight.err != nil {
				continue // his context has ended, so it is our turn
			}
			ok = flight.ok
		case good:
			ok = true
		case begins:
			right, err := u.compute(ctx, hash, password)
			fresh = true
			ok = right && own && !config.IsPublished(hash)
			u.end(a, flight, ok, err, time.Now())
			if err != nil {
				return Caller{}, err
			}
			if !ok {
				u.failed(user, place, right && own)
			}
		}
		break
	}
	// A name without a hash of its own may be tried on one that it had before.
	if !ok || !own {
		u.refused(ctx, "login failed", user, from, "")
		return Caller{}, ErrBadLogin
	}
	if fresh { // the page logs in with each request
		u.audit.Info("login", "by", user.Name, "from", from, "via", Via(ctx))
	}
	u.log.Debug("login", "user", name, "from", from)
	return Caller{Name: user.Name, From: from, Role: parseRole(user.Access), proof: proofOf(hash)}, nil
}

// Hash makes the hash of a new password, when its turn has come.
func (u *Users) Hash(ctx context.Context, password string) (string, error) {
	if err := u.gate.Enter(ctx, guard.Hash); err != nil {
		return "", err
	}
	defer u.gate.Leave()
	return passwd.Hash(password)
}

// LoginKey tells who a user is that has a public key, in the form of SSH's wire
// protocol; that he has it, the caller proves. Keys cannot be guessed, so
// neither are tries counted nor has anybody to wait.
func (u *Users) LoginKey(name string, authorizedKey []byte, from string) (Caller, error) {
	user := findUser(u.list(), name)
	if user == nil {
		return Caller{}, ErrBadLogin
	}
	for _, line := range user.Keys {
		if raw, ok := keyBytes(line); ok && bytes.Equal(raw, authorizedKey) {
			return Caller{Name: user.Name, From: from, Role: parseRole(user.Access), proof: proofOf(string(raw))}, nil
		}
	}
	return Caller{}, ErrBadLogin
}

// Still returns a caller that has logged in with the role that he has now. It is
// false when the user has gone, or the password or key that he came in with.
func (u *Users) Still(c Caller) (Caller, bool) {
	user := findUser(u.list(), c.Name)
	if user == nil {
		return Caller{}, false
	}
	valid := c.proof == proofOf(user.Password)
	for _, line := range user.Keys {
		raw, ok := keyBytes(line)
		valid = valid || ok && c.proof == proofOf(string(raw))
	}
	if !valid {
		return Caller{}, false
	}
	c.Role = parseRole(user.Access)
	return c, true
}

// proofOf stands for what somebody has logged in with.
func proofOf(hashOrKey string) string {
	sum := sha256.Sum256([]byte(hashOrKey))
	return string(sum[:])
}

// keyBytes reads the key of a line such as "ssh-ed25519 AAAA… comment".
func keyBytes(line string) ([]byte, bool) {
	fields := strings.Fields(line)
	if len(fields) < 2 {
		return nil, false
	}
	raw, err := base64.StdEncoding.DecodeString(fields[1])
	return raw, err == nil
}

func findUser(all []*config.User, name string) *config.User {
	for _, u := range all {
		if u.Name == name {
			return u
		}
	}
	return nil
}

// hashFor returns the hash to try a password on, and whether it is the user's
// own. For a name without one it is one of the others', always the same for the
// same name, so that what a try costs says nothing about who is there.
func (u *Users) hashFor(all []*config.User, user *config.User, name string) (hash string, own bool) {
	if user != nil && passwd.KindOf(user.Password) != passwd.Unknown {
		return user.Password, true
	}
	var hashes []string
	for _, o := range all {
		if passwd.KindOf(o.Password) != passwd.Unknown {
			hashes = append(hashes, o.Password)
		}
	}
	if len(hashes) == 0 {
		return "", false
	}
	id := u.login(name)
	return hashes[binary.BigEndian.Uint64(id[:])%uint64(len(hashes))], false
}

func (u *Users) login(parts ...string) (id login) {
	mac := hmac.New(sha256.New, u.secret[:])
	for _, part := range parts {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		mac.Write(length[:])
		mac.Write([]byte(part))
	}
	mac.Sum(id[:0])
	return id
}

// verdict says what becomes of a login.
type verdict uint8

const (
	begins     verdict = iota // it is tried now, and end has to be called
	tried                     // somebody tries it already
	good                      // it was, minutes ago
	wrongAgain                // it was wrong just now
	waits                     // too many have failed
)

// compute tries a password on a hash, when its turn has come. The error is that
// of ctx.
func (u *Users) compute(ctx context.Context, hash, password string) (bool, error) {
	if err := u.gate.Enter(ctx, guard.Hash); err != nil {
		return false, err
	}
	defer u.gate.Leave()
	ok, err := passwd.Verify(hash, password)
	return ok && err == nil, nil
}

// place is where a login comes from.
type place struct {
	from   string
	source string // what has to wait when logins fail
}

func placeOf(from string) place {
	p := place{from: from, source: from}
	ip := guard.AddrOf(from)
	if !ip.IsValid() {
		return p
	}
	if p.source = ip.String(); ip.Is6() {
		p.source = guard.SourceOf(from).String()
	}
	return p
}

// refused writes to the audit file that a login was. As in the log, a name is
// written if it is a user's.
func (u *Users) refused(ctx context.Context, event string, user *config.User, from, reason string) {
	name := "unknown"
	if user != nil {
		name = user.Name
	}
	attrs := []any{"by", name, "from", from, "via", Via(ctx)}
	if reason != "" {
		attrs = append(attrs, "reason", reason)
	}
	u.strangers.Warn(event, attrs...)
}

// failed logs a login that has failed, and why, where it is not the password.
// The name is logged if it is a user's, for people type passwords there.
func (u *Users) failed(user *config.User, p place, published bool) {
	name := "unknown"
	if user != nil {
		name = user.Name
	}
	attrs := []any{"user", name, "from", p.from}
	if published {
		attrs = append(attrs, "why", "the password is that of a published sample, which is good nowhere; make another with txlb passwd")
	} else if user != nil && user.Password != "" {
		if err := passwd.Check(user.Password); err != nil {
			attrs = append(attrs, "why", "the password is not valid: "+err.Error())
		}
	}
	u.log.Warn("login failed", attrs...)
}

// throttled makes the error for a login that has to wait, and logs it now and
// then.
func (u *Users) throttled(user *config.User, p place, w wait) error {
	t := Throttled{Source: p.source, Wait: (w.time + time.Second - 1).Truncate(time.Second)}
	if w.everywhere {
		t.Source = ""
	}
	if w.tell {
		name := "unknown"
		if user != nil {
			name = user.Name
		}
		u.log.Warn("logins rejected", "user", name, "from", p.from, "reason", t.Error())
	}
	return t
}
