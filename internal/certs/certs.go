// Package certs has what TLS needs from files: certificates with their keys, chosen by
// the server name that a client asks for, and certificate authorities, read again when
// the files have changed.
//
// A [Store] gives each listener and each host a *tls.Config. The pointer stays the same
// for as long as the listener or the host wants the same, whatever becomes of the files:
// what changes is behind it, and the next handshake has it. [Store.Read] reads what a
// configuration wants and changes nothing; [Store.Use] makes it what runs; [Store.Look]
// reads files that have changed. A handshake never waits for a disk.
//
// Files that are wrong while txlb runs change nothing: what was read before stays, and
// [Set.Certificates] and [Set.Authorities] tell of it. So two files may be replaced one
// after the other.
//
// TLS is 1.2 or newer. The keys for session tickets are our own, new every eight hours,
// of which three are kept, and new at once when the authorities for clients change.
package certs

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// Wanted is what a configuration wants, by keys that a listener or a host has for as
// long as it exists.
type Wanted struct {
	Servers map[string]Server
	Clients map[string]Client
}

// Set is what a configuration has. What it consists of never changes; the files do. A nil
// Set is empty.
type Set struct {
	pairs       map[Pair]*Kept[Certificate]
	authorities map[string]*Kept[Authorities]
	servers     map[string]*server
	clients     map[string]*client
}

// Server returns how a listener ends TLS, nil for one that does not.
func (s *Set) Server(key string) *tls.Config {
	if s == nil || s.servers[key] == nil {
		return nil
	}
	return s.servers[key].config
}

// Client returns how connections to a host begin TLS, nil for one without.
func (s *Set) Client(key string) *tls.Config {
	if s == nil || s.clients[key] == nil {
		return nil
	}
	return s.clients[key].config
}

// Store reads files. The zero value is not usable.
type Store struct {
	log *slog.Logger

	mu  sync.Mutex // held for what runs, never while a file is read
	set *Set       // what runs
}

// NewStore returns a store that has read nothing. Its log tells of files that have
// changed since they were read.
func NewStore(log *slog.Logger) *Store { return &Store{log: log, set: &Set{}} }

// Fault is what is wrong with a file that a listener or a host wants.
type Fault struct {
	Key       string // of the listener or the host
	Client    bool   // it is a host
	Attribute string // of <listen> or <host>: tls, clientCA, ca
	Err       error
}

// Faults are all that is wrong, by listeners and hosts in the order of their keys.
type Faults []Fault

// Error gives a line for each.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, one := range f {
		lines[i] = fmt.Sprintf("%s: %v", one.Attribute, one.Err)
	}
	return strings.Join(lines, "\n")
}

// Read reads the files of what is wanted, but for those that from has or that are in use
// already. from may be nil. The error is of type Faults; nothing changes.
func (s *Store) Read(w Wanted, from *Set) (*Set, error) {
	running := s.running()
	return s.read(w, running, from, running)
}

// Reread is Read for which no file has been read yet.
func (s *Store) Reread(w Wanted) (*Set, error) { return s.read(w, s.running(), nil, nil) }

func (s *Store) running() *Set {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set
}

// read makes a set: servers and clients that running has stay, and so do files that one
// of the others has.
func (s *Store) read(w Wanted, running *Set, others ...*Set) (*Set, error) {
	if len(w.Servers)+len(w.Clients) == 0 {
		return &Set{}, nil
	}
	r := reader{
		set: &Set{
			pairs: map[Pair]*Kept[Certificate]{}, authorities: map[string]*Kept[Authorities]{},
			servers: map[string]*server{}, clients: map[string]*client{},
		},
		known: slices.DeleteFunc(others, func(o *Set) bool { return o == nil }),
		wrong: map[string]error{},
	}
	now := time.Now()
	for key, want := range w.Servers {
		faults := len(r.faults)
		for _, p := range want.Pairs {
			r.pair(key, p)
		}
		if want.ClientCA != "" {
			r.authority(Fault{Key: key, Attribute: "clientCA"}, want.ClientCA)
		}
		switch was := running.servers[key]; {
		case len(r.faults) > faults:
		case was != nil && was.want.same(&want):
			r.set.servers[key] = was // it is refreshed when the set is used
		default:
			fresh := newServer(want)
			fresh.refresh(r.set, now)
			r.set.servers[key] = fresh
		}
	}
	for key, want := range w.Clients {
		faults := len(r.faults)
		if want.CA != "" {
			r.authority(Fault{Key: key, Client: true, Attribute: "ca"}, want.CA)
		}
		switch was := running.clients[key]; {
		case len(r.faults) > faults:
		case was != nil && was.want == want:
			r.set.clients[key] = was
		default:
			fresh := newClient(want)
			fresh.refresh(r.set)
			r.set.clients[key] = fresh
		}
	}
	if len(r.faults) == 0 {
		return r.set, nil
	}
	slices.SortStableFunc(r.faults, func(a, b Fault) int { return strings.Compare(a.Key, b.Key) })
	return nil, r.faults
}

// Changed returns the files that another set has too, and that say something else now.
func (s *Set) Changed(was *Set) (files []string) {
	if s == nil || was == nil {
		return nil
	}
	for p, k := range s.pairs {
		if old := was.pairs[p]; old != nil && old.sum() != k.sum() {
			files = append(files, p.Certificate)
		}
	}
	for path, k := range s.authorities {
		if old := was.authorities[path]; old != nil && old.sum() != k.sum() {
			files = append(files, path)
		}
	}
	slices.Sort(files)
	return slices.Compact(files)
}

// reader reads each file once.
type reader struct {
	set    *Set
	known  []*Set
	wrong  map[string]error // files that cannot be used
	faults Faults
}

func (r *reader) pair(key string, p Pair) {
	if r.set.pairs[p] != nil {
		return
	}
	for _, k := range r.known {
		if kept := k.pairs[p]; kept != nil {
			r.set.pairs[p] = kept
			return
		}
	}
	name := "pair\x00" + p.String()
	err, tried := r.wrong[name]
	if !tried {
		if r.set.pairs[p], err = Open(p); err == nil {
			return
		}
		delete(r.set.pairs, p)
		r.wrong[name] = err
	}
	r.faults = append(r.faults, Fault{Key: key, Attribute: "tls", Err: err})
}

func (r *reader) authority(f Fault, path string) {
	if r.set.authorities[path] != nil {
		return
	}
	for _, k := range r.known {
		if kept := k.authorities[path]; kept != nil {
			r.set.authorities[path] = kept
			return
		}
	}
	err, tried := r.wrong[path]
	if !tried {
		if r.set.authorities[path], err = openAuthorities(path); err == nil {
			return
		}
		delete(r.set.authorities, path)
		r.wrong[path] = err
	}
	f.Err = err
	r.faults = append(r.faults, f)
}

// Use makes a set what runs: what it shares with the one before takes up the files that
// were read for it.
func (s *Store) Use(set *Set) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.set
	s.set = set
	s.refresh(time.Now())
	for p, k := range set.pairs {
		if old := was.pairs[p]; old != nil && old != k && old.sum() != k.sum() {
			s.tellPair(p, k)
		}
	}
	for path, k := range set.authorities {
		if old := was.authorities[path]; old != nil && old != k && old.sum() != k.sum() {
			s.tellAuthorities(path)
		}
	}
}

// refresh makes everything that runs take up what the files say now. s.mu is held.
func (s *Store) refresh(now time.Time) {
	for _, one := range s.set.servers {
		one.refresh(s.set, now)
		one.rotate(now)
	}
	for _, one := range s.set.clients {
		one.refresh(s.set)
	}
}

// Idle tells whether there is nothing to look at.
func (s *Store) Idle() bool {
	set := s.running()
	return len(set.servers)+len(set.clients) == 0
}

// Look looks at all files in use and reads those that have changed. It waits for the disk,
// and nothing waits for it. It also makes new keys for session tickets.
func (s *Store) Look(now time.Time) {
	set := s.running()
	for p, k := range set.pairs {
		if changed, err := k.Look(now); err != nil {
			s.log.Error("cannot load the new certificate, keeping the current one", "file", p.Certificate, "key", p.Key, "err", err)
		} else if changed {
			s.tellPair(p, k)
		}
	}
	for path, k := range set.authorities {
		if changed, err := k.Look(now); err != nil {
			s.log.Error("cannot load the new certificate authorities, keeping the current ones", "file", path, "err", err)
		} else if changed {
			s.tellAuthorities(path)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refresh(now)
}

func (s *Store) tellPair(p Pair, k *Kept[Certificate]) {
	c := k.Now()
	_, to := c.Good()
	s.log.Info("certificate reloaded", "file", p.Certificate, "names", strings.Join(c.Names, " "), "not_after", to.UTC().Format(time.RFC3339))
}

func (s *Store) tellAuthorities(path string) {
	s.log.Info("certificate authorities reloaded", "file", path)
}

// State is one certificate in use, or one file of authorities.
type State struct {
	Pair        Pair         // of authorities, Certificate alone
	Certificate *Certificate // nil: the file has authorities
	Trouble     *Trouble     // nil: the files can be used as they are
}

// Certificates returns the certificates of a listener, in the order of the configuration.
func (s *Set) Certificates(server string) (list []State) {
	if s == nil || s.servers[server] == nil {
		return nil
	}
	for _, p := range s.servers[server].want.Pairs {
		k := s.pairs[p]
		list = append(list, State{p, k.Now(), k.Trouble()})
	}
	return list
}

// Authorities returns the files of authorities, by their names.
func (s *Set) Authorities() (list []State) {
	if s == nil {
		return nil
	}
	for path, k := range s.authorities {
		list = append(list, State{Pair: Pair{Certificate: path}, Trouble: k.Trouble()})
	}
	slices.SortFunc(list, func(a, b State) int { return strings.Compare(a.Pair.Certificate, b.Pair.Certificate) })
	return list
}
