package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// folder is where a test has its files.
type folder struct {
	t   *testing.T
	dir string
}

func newFolder(t *testing.T) folder { return folder{t, t.TempDir()} }

func (f folder) path(name string) string { return filepath.Join(f.dir, name) }

func (f folder) put(name string, text []byte) string {
	testkit.Put(f.t, f.path(name), text)
	return f.path(name)
}

// pair writes a certificate with its key.
func (f folder) pair(name string, a *testkit.Authority, l testkit.Leaf) Pair {
	cert, key := a.Issue(f.t, l)
	return Pair{f.put(name+".pem", cert), f.put(name+".key", key)}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// use makes what is wanted run.
func use(t *testing.T, s *Store, w Wanted) *Set {
	t.Helper()
	set, err := s.Read(w, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Use(set)
	return set
}

// shake makes a handshake and returns what both sides say of it.
func shake(t *testing.T, server, client *tls.Config) (state tls.ConnectionState, clientErr, serverErr error) {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b, err := net.Dial("tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _, _ = a.Close(), b.Close(), ln.Close() }()
	deadline := time.Now().Add(testkit.Patience)
	_, _ = a.SetDeadline(deadline), b.SetDeadline(deadline)
	done := make(chan error, 1)
	go func() {
		s := tls.Server(a, server)
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("x")) // behind the ticket
		}
		done <- err
		_ = a.Close()
	}()
	c := tls.Client(b, client)
	if clientErr = c.Handshake(); clientErr == nil {
		_, clientErr = c.Read(make([]byte, 1))
	}
	_ = b.Close()
	return c.ConnectionState(), clientErr, <-done
}

// The certificate is that for the name which the client asks for: exactly, else by a
// wildcard, else the first; and one of two for the same name that the client knows.
func TestB98CertificatesAreChosenByName(t *testing.T) {
	f, a := newFolder(t), testkit.NewAuthority(t, "ca")
	first := f.pair("first", a, testkit.Leaf{Names: []string{"first.example", "also.example"}})
	wild := f.pair("wild", a, testkit.Leaf{Names: []string{"*.Deep.example"}})
	exact := f.pair("exact", a, testkit.Leaf{Names: []string{"one.deep.example"}})
	ofRSA := f.pair("rsa", a, testkit.Leaf{Names: []string{"one.deep.example"}, RSA: true})
	s := NewStore(quiet())
	set := use(t, s, Wanted{Servers: map[string]Server{"l": {Pairs: []Pair{first, wild, exact, ofRSA}}}})
	for _, test := range []struct {
		ask, want string
		rsa       bool
	}{
		{"first.example", "first.example", false}, {"also.example", "first.example", false}, {"FIRST.example", "first.example", false},
		{"one.deep.example", "one.deep.example", false}, {"one.deep.example", "one.deep.example", true},
		{"two.deep.example", "*.Deep.example", false}, {"a.b.deep.example", "first.example", false}, {"deep.example", "first.example", false},
		{"none.example", "first.example", false}, {"", "first.example", false},
	} {
		c := &tls.Config{ServerName: test.ask, InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}}
		if test.rsa {
			c.CipherSuites = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
		}
		state, err, _ := shake(t, set.Server("l"), c)
		if err != nil {
			t.Errorf("%q: %v", test.ask, err)
			continue
		}
		leaf := state.PeerCertificates[0]
		if leaf.DNSNames[0] != test.want || (leaf.PublicKeyAlgorithm == x509.RSA) != test.rsa {
			t.Errorf("%q (RSA %v): got that for %v, %v", test.ask, test.rsa, leaf.DNSNames, leaf.PublicKeyAlgorithm)
		}
	}
	if _, err, _ := shake(t, set.Server("l"), &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 is accepted")
	}
	if set.Server("other") != nil || set.Client("other") != nil || (*Set)(nil).Server("l") != nil {
		t.Error("there is TLS that nobody wants")
	}
}

// A protocol is agreed on, and a client that offers others alone is rejected.
func TestProtocols(t *testing.T) {
	f, a := newFolder(t), testkit.NewAuthority(t, "ca")
	p := f.pair("p", a, testkit.Leaf{Names: []string{"one.example"}})
	set := use(t, NewStore(quiet()), Wanted{Servers: map[string]Server{"l": {Pairs: []Pair{p}, ALPN: []string{"h2", "http/1.1"}}}})
	for _, test := range []struct {
		offer []string
		want  string
		ok    bool
	}{{nil, "", true}, {[]string{"http/1.1", "h2"}, "h2", true}, {[]string{"http/1.1"}, "http/1.1", true}, {[]string{"smtp"}, "", false}} {
		state, err, _ := shake(t, set.Server("l"), &tls.Config{RootCAs: a.Pool(), ServerName: "one.example", NextProtos: test.offer})
		if (err == nil) != test.ok || state.NegotiatedProtocol != test.want {
			t.Errorf("%v: %q, %v", test.offer, state.NegotiatedProtocol, err)
		}
	}
}

// Files are read again when they have changed. While only one of a pair is new, the old
// one stays; that is told once.
func TestB98CertificatesAreReadAgain(t *testing.T) {
	f, a := newFolder(t), testkit.NewAuthority(t, "ca")
	var log testkit.Log
	s := NewStore(slog.New(slog.NewTextHandler(&log, nil)))
	p := f.pair("p", a, testkit.Leaf{Names: []string{"old.example"}})
	set := use(t, s, Wanted{Servers: map[string]Server{"l": {Pairs: []Pair{p}}}})
	config := set.Server("l")
	shows := func() string {
		t.Helper()
		state, err, _ := shake(t, config, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		return state.PeerCertificates[0].DNSNames[0]
	}
	now := time.Now()
	s.Look(now)
	if shows() != "old.example" || strings.Contains(log.String(), "certificate") {
		t.Errorf("nothing has changed: %s", log.String())
	}
	cert, key := a.Issue(t, testkit.Leaf{Names: []string{"new.example"}})
	f.put("p.pem", cert)
	for range 3 {
		s.Look(now)
	}
	if shows() != "old.example" || strings.Count(log.String(), "keeping the current one") != 1 || !strings.Contains(log.String(), "does not belong to the certificate") {
		t.Errorf("half a pair: %s, %s", shows(), log.String())
	}
	if c := set.Certificates("l"); len(c) != 1 || c[0].Trouble == nil || c[0].Certificate.Names[0] != "old.example" {
		t.Errorf("half a pair: %+v", c)
	}
	f.put("p.key", key)
	s.Look(now)
	if shows() != "new.example" || !strings.Contains(log.String(), "certificate reloaded") {
		t.Errorf("a whole pair: %s, %s", shows(), log.String())
	}
	if c := set.Certificates("l"); c[0].Trouble != nil {
		t.Errorf("a whole pair: %+v", c)
	}
	if err := os.Remove(p.Key); err != nil {
		t.Fatal(err)
	}
	s.Look(now)
	if c := set.Certificates("l"); shows() != "new.example" || c[0].Trouble == nil || !strings.Contains(c[0].Trouble.Err.Error(), "cannot read "+p.Key) {
		t.Errorf("a file that has gone: %s, %+v", shows(), c)
	}
	f.put("p.key", key)
	s.Look(now)
	if c := set.Certificates("l"); c[0].Trouble != nil {
		t.Errorf("the file is back: %+v", c[0].Trouble.Err)
	}
	s.Look(now)
	if n := strings.Count(log.String(), "certificate reloaded"); n != 2 {
		t.Errorf("the log tells %d times that the files can be used, not twice: %s", n, log.String())
	}
	if strings.Contains(log.String(), "PRIVATE KEY") {
		t.Error("the log has a key")
	}
}

// A file that is written again in place, with the same size and time as before, is read
// again: its time may be as coarse as the clock of the file system.
func TestFilesThatLookTheSame(t *testing.T) {
	f := newFolder(t)
	path := f.put("f", []byte("one"))
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	k, err := keep(func(texts [][]byte) (*string, error) { s := string(texts[0]); return &s, nil }, path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chtimes(path, info.ModTime(), info.ModTime())); err != nil {
			t.Fatal(err)
		}
	}
	write("two")
	if changed, err := k.Look(info.ModTime()); !changed || err != nil || *k.Now() != "two" {
		t.Errorf("%v, %v, %s", changed, err, *k.Now())
	}
	late := info.ModTime().Add(2 * settledAfter)
	if changed, err := k.Look(late); changed || err != nil {
		t.Errorf("nothing has changed: %v, %v", changed, err)
	}
	if !k.settled {
		t.Error("an old file is read again and again")
	}
	if err := os.Chtimes(path, late, late); err != nil { // touched, and the same
		t.Fatal(err)
	}
	if changed, err := k.Look(late); changed || err != nil || *k.Now() != "two" {
		t.Errorf("touched: %v, %v", changed, err)
	}
}

// What stays the same keeps its pointer, whatever becomes of the files and of others.
func TestPointersStay(t *testing.T) {
	f, a := newFolder(t), testkit.NewAuthority(t, "ca")
	p, q := f.pair("p", a, testkit.Leaf{Names: []string{"p.example"}}), f.pair("q", a, testkit.Leaf{Names: []string{"q.example"}})
	ca := f.put("ca.pem", a.PEM)
	s := NewStore(quiet())
	w := Wanted{
		Servers: map[string]Server{"l": {Pairs: []Pair{p}, ClientCA: ca}, "m": {Pairs: []Pair{q}}},
		Clients: map[string]Client{"h": {Name: "h.example", CA: ca}, "i": {Unverified: true}},
	}
	was := use(t, s, w)
	f.pair("p", a, testkit.Leaf{Names: []string{"new.example"}})
	fresh, err := s.Reread(w)
	if err != nil {
		t.Fatal(err)
	}
	if changed := fresh.Changed(was); !slices.Equal(changed, []string{p.Certificate}) {
		t.Errorf("changed: %v", changed)
	}
	w.Servers["m"] = Server{Pairs: []Pair{q, p}}
	w.Clients["i"] = Client{Unverified: true, Name: "i.example"}
	is, err := s.Read(w, fresh)
	if err != nil {
		t.Fatal(err)
	}
	if was.Server("l") != is.Server("l") || was.Client("h") != is.Client("h") {
		t.Error("what stays the same has another pointer")
	}
	if was.Server("m") == is.Server("m") || was.Client("i") == is.Client("i") {
		t.Error("what has changed has the same pointer")
	}
	name := func() string {
		certs, _ := was.servers["l"].now.Load().GetCertificate(&tls.ClientHelloInfo{})
		return certs.Leaf.DNSNames[0]
	}
	if got := name(); got != "p.example" {
		t.Errorf("before it is used: %s", got)
	}
	s.Use(is)
	if got := name(); got != "new.example" {
		t.Errorf("after: %s", got)
	}
	s.Use(&Set{})
	if !s.Idle() {
		t.Error("nothing is wanted")
	}
}

// Clients need a certificate of the authority. When that changes, nobody is let in any
// more by a ticket of the old one.
func TestB99ClientAuthorities(t *testing.T) {
	f, a, b := newFolder(t), testkit.NewAuthority(t, "a"), testkit.NewAuthority(t, "b")
	p := f.pair("p", a, testkit.Leaf{Names: []string{"one.example"}})
	ca := f.put("ca.pem", a.PEM)
	s := NewStore(quiet())
	set := use(t, s, Wanted{Servers: map[string]Server{"l": {Pairs: []Pair{p}, ClientCA: ca}}})
	server := set.Server("l")
	client := func(certs ...tls.Certificate) *tls.Config {
		return &tls.Config{RootCAs: a.Pool(), ServerName: "one.example", Certificates: certs, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		mine := client(a.Pair(t, testkit.Leaf{}))
		mine.MaxVersion = version
		try := func(what string, ok, resumed bool) {
			t.Helper()
			if state, err, serverErr := shake(t, server, mine); (err == nil && serverErr == nil) != ok || ok && state.DidResume != resumed {
				t.Errorf("TLS %#x, %s: resumed %v, %v, %v", version, what, state.DidResume, err, serverErr)
			}
		}
		f.put("ca.pem", a.PEM)
		s.Look(time.Now())
		try("with a certificate", true, false)
		try("again", true, true)
		f.pair("p", a, testkit.Leaf{Names: []string{"one.example"}}) // another certificate of the listener
		s.Look(time.Now())
		try("with another certificate of the listener", true, true)
		f.put("ca.pem", b.PEM)
		s.Look(time.Now())
		try("of an authority that is not trusted any more", false, false)
	}
	f.put("ca.pem", append(bytes.Clone(a.PEM), b.PEM...))
	s.Look(time.Now())
	for what, c := range map[string]struct {
		config *tls.Config
		ok     bool
	}{
		"none": {client(), false}, "of another authority": {client(b.Pair(t, testkit.Leaf{})), true}, "expired": {
			client(a.Pair(t, testkit.Leaf{From: time.Now().Add(-48 * time.Hour), To: time.Now().Add(-24 * time.Hour)})), false,
		},
	} {
		if _, err, serverErr := shake(t, server, c.config); (err == nil && serverErr == nil) != c.ok {
			t.Errorf("%s: %v, %v", what, err, serverErr)
		}
	}
}

// Keys for tickets are rotated: a ticket is good for three of them.
func TestTicketKeysAreRotated(t *testing.T) {
	f, a := newFolder(t), testkit.NewAuthority(t, "ca")
	p := f.pair("p", a, testkit.Leaf{Names: []string{"one.example"}})
	s := NewStore(quiet())
	set := use(t, s, Wanted{Servers: map[string]Server{"l": {Pairs: []Pair{p}}, "m": {Pairs: []Pair{p}}}})
	client := func() *tls.Config {
		return &tls.Config{RootCAs: a.Pool(), ServerName: "one.example", ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	}
	resumes := func(c *tls.Config, listener string) bool {
		t.Helper()
		state, err, _ := shake(t, set.Server(listener), c)
		if err != nil {
			t.Fatal(err)
		}
		return state.DidResume
	}
	old, late, foreign := client(), client(), client()
	resumes(old, "l")
	resumes(foreign, "l")
	if resumes(foreign, "m") {
		t.Error("a ticket is good at another listener")
	}
	resumes(late, "l")
	now := time.Now()
	for i := range ticketKeys - 1 {
		s.Look(now.Add(time.Duration(i+1) * (ticketLife + time.Minute)))
	}
	if !resumes(old, "l") {
		t.Error("the ticket of the oldest key is not good any more")
	}
	s.Look(now.Add(ticketKeys * (ticketLife + time.Minute)))
	if resumes(late, "l") {
		t.Error("a ticket outlives its key")
	}
	if n := len(set.servers["l"].keys); n != ticketKeys {
		t.Errorf("%d keys are kept", n)
	}
}

// Towards a host, its certificate is verified: by the authorities of a file, which may
// change, for the name.
func TestB99HostsAreVerified(t *testing.T) {
	f, a, b := newFolder(t), testkit.NewAuthority(t, "a"), testkit.NewAuthority(t, "b")
	ca := f.put("ca.pem", a.PEM)
	server := func(names ...string) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{a.Pair(t, testkit.Leaf{Names: names})}}
	}
	s := NewStore(quiet())
	set := use(t, s, Wanted{Clients: map[string]Client{
		"named": {Name: "db.example", CA: ca}, "address": {Name: "192.0.2.1", CA: ca}, "v6": {Name: "2001:db8::1", CA: ca},
		"any": {Unverified: true}, "anyNamed": {Unverified: true, Name: "x.example"}, "system": {Name: "db.example"},
	}})
	db := server("db.example", "192.0.2.1", "2001:db8::1")
	for _, test := range []struct {
		host   string
		server *tls.Config
		ok     bool
	}{
		{"named", db, true}, {"named", server("other.example"), false}, {"address", db, true}, {"address", server("192.0.2.2"), false}, {"v6", db, true},
		{"any", db, true}, {"any", server("x"), true}, {"anyNamed", server("y"), true}, {"system", db, false},
	} {
		if _, err, _ := shake(t, test.server, set.Client(test.host)); (err == nil) != test.ok {
			t.Errorf("%s: %v", test.host, err)
		}
	}
	for _, resumed := range []bool{false, true} {
		if state, err, _ := shake(t, db, set.Client("named")); err != nil || state.DidResume != resumed {
			t.Errorf("resumed: %v, want %v: %v", state.DidResume, resumed, err)
		}
	}
	f.put("ca.pem", b.PEM)
	s.Look(time.Now())
	if _, err, _ := shake(t, db, set.Client("named")); err == nil {
		t.Error("a session is resumed whose authority is not trusted any more")
	} else if unknown := (x509.UnknownAuthorityError{}); !errors.As(err, &unknown) {
		t.Errorf("another error: %v", err)
	}
}

// Each file that cannot be used says so, and what would be right. Nothing of a key is told.
func TestB98WrongFilesAreToldApart(t *testing.T) {
	f, a := newFolder(t), testkit.NewAuthority(t, "ca")
	cert, key := a.Issue(t, testkit.Leaf{Names: []string{"one.example"}})
	_, other := a.Issue(t, testkit.Leaf{Names: []string{"one.example"}})
	der, _ := pem.Decode(cert)
	block, _ := pem.Decode(key)
	for name, text := range map[string][]byte{
		"cert": cert, "key": key, "other": other, "der": der.Bytes, "rubbish": []byte("rubbish"), "empty": nil,
		"both": append(bytes.Clone(cert), key...), "reversed": append(bytes.Clone(key), cert...), "chain": append(bytes.Clone(cert), a.PEM...), "noleaf": append(bytes.Clone(a.PEM), cert...),
		"encrypted":  pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: block.Bytes}),
		"old":        pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-128-CBC,00"}, Bytes: block.Bytes}),
		"broken":     pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der.Bytes[:100]}),
		"brokenkey":  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: block.Bytes[:20]}),
		"openssh":    pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: block.Bytes}),
		"parameters": append([]byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"), key...),
	} {
		f.put(name, text)
	}
	if err := os.Mkdir(f.path("folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ cert, key, want string }{
		{"cert", "key", ""}, {"both", "both", ""}, {"reversed", "reversed", ""}, {"chain", "key", ""}, {"cert", "parameters", ""},
		{"none", "key", "cannot read DIR/none: no such file or directory"},
		{"cert", "none", "cannot read DIR/none: no such file or directory"},
		{"folder", "key", "cannot read DIR/folder: it is not a regular file"},
		{"cert", "other", "the key in DIR/other does not belong to the certificate in DIR/cert (one.example); give the key that the certificate was made with"},
		{"noleaf", "key", "DIR/noleaf begins with another certificate than that of the key: it is number 2; put it first, and its issuers behind it"},
		{"key", "key", "DIR/key has no certificate, but PRIVATE KEY; want -----BEGIN CERTIFICATE-----"},
		{"cert", "cert", "DIR/cert has no private key, but CERTIFICATE; want -----BEGIN PRIVATE KEY-----"},
		{"rubbish", "key", "DIR/rubbish has no certificate in PEM; want -----BEGIN CERTIFICATE-----"},
		{"cert", "empty", "DIR/empty has no private key in PEM; want -----BEGIN PRIVATE KEY-----"},
		{"der", "key", "DIR/der is not in PEM; convert it with: openssl x509 -inform der -in DIR/der -out DIR/der.pem"},
		{"cert", "encrypted", "the key in DIR/encrypted is encrypted, and nobody could type its passphrase; decrypt it with: openssl pkey -in DIR/encrypted -out NEW"},
		{"cert", "old", "the key in DIR/old is encrypted"},
		{"broken", "key", "certificate 1 in DIR/broken cannot be read: "},
		{"cert", "brokenkey", "the key in DIR/brokenkey cannot be read: "},
		{"cert", "openssh", "the key in DIR/openssh cannot be read: it is a OPENSSH PRIVATE KEY; want one of RSA, ECDSA or Ed25519 in PKCS #8"},
	} {
		p := Pair{f.path(test.cert), f.path(test.key)}
		_, err := Load(p)
		text := ""
		if err != nil {
			text = strings.ReplaceAll(err.Error(), f.dir, "DIR")
		}
		if (test.want == "") != (err == nil) || !strings.HasPrefix(text, test.want) || strings.Contains(text, "\n") {
			t.Errorf("%s %s: %s; want %s", test.cert, test.key, text, test.want)
		}
	}
	for file, want := range map[string]string{"key": "DIR/key has no certificate, but PRIVATE KEY", "empty": "DIR/empty has no certificate in PEM", "chain": ""} {
		_, err := LoadAuthorities(f.path(file))
		if (err == nil) != (want == "") || err != nil && !strings.HasPrefix(strings.ReplaceAll(err.Error(), f.dir, "DIR"), want) {
			t.Errorf("authorities in %s: %v", file, err)
		}
	}
}

// Everything that is wrong is told at once, and nothing changes.
func TestFaultsAreToldTogether(t *testing.T) {
	f, a := newFolder(t), testkit.NewAuthority(t, "ca")
	p := f.pair("p", a, testkit.Leaf{Names: []string{"one.example"}})
	s := NewStore(quiet())
	good := use(t, s, Wanted{Servers: map[string]Server{"l": {Pairs: []Pair{p}}}})
	_, err := s.Read(Wanted{
		Servers: map[string]Server{"l": {Pairs: []Pair{p, {"/none", "/none"}}, ClientCA: "/none"}, "m": {Pairs: []Pair{{"/none", "/none"}}}},
		Clients: map[string]Client{"h": {Name: "x", CA: "/none"}},
	}, nil)
	faults, ok := errors.AsType[Faults](err)
	var told []string
	for _, one := range faults {
		told = append(told, one.Key+" "+one.Attribute)
	}
	if !ok || !slices.Equal(told, []string{"h ca", "l tls", "l clientCA", "m tls"}) {
		t.Errorf("%v: %v", told, err)
	}
	if s.running() != good {
		t.Error("something else runs")
	}
}

// Dates are told in words.
func TestDates(t *testing.T) {
	a, now := testkit.NewAuthority(t, "ca"), time.Now()
	f := newFolder(t)
	for name, test := range map[string]struct {
		from, to time.Time
		want     string
	}{
		"good": {now.Add(-time.Hour), now.Add(time.Hour), ""}, "expired": {now.Add(-2 * time.Hour), now.Add(-time.Hour), "expired on "},
		"future": {now.Add(time.Hour), now.Add(2 * time.Hour), "is not valid before "},
	} {
		c, err := Load(f.pair(name, a, testkit.Leaf{Names: []string{"one.example"}, From: test.from, To: test.to}))
		if err != nil {
			t.Fatal(err)
		}
		if why := c.Spoilt(now); !strings.HasPrefix(why, test.want) || (why == "") != (test.want == "") {
			t.Errorf("%s: %q", name, why)
		}
	}
}

// Whatever a file contains, it is taken or refused with a line that has nothing of it.
func FuzzPair(f *testing.F) {
	a := testkit.NewAuthority(f, "ca")
	cert, key := a.Issue(f, testkit.Leaf{Names: []string{"one.example"}})
	f.Add(cert, key)
	f.Add(append(bytes.Clone(cert), a.PEM...), key)
	f.Add(key, cert)
	f.Add([]byte("-----BEGIN X-----\n-----END X-----\n"), []byte{0x30, 0x82})
	f.Fuzz(func(t *testing.T, cert, key []byte) {
		c, err := parsePair(Pair{"C", "K"}, cert, key)
		if err != nil {
			if text := err.Error(); text == "" || strings.Contains(text, "\n") {
				t.Errorf("%q", text)
			}
			return
		}
		if len(c.Names) == 0 || c.TLS.Leaf == nil || len(c.TLS.Certificate) == 0 {
			t.Errorf("%+v", c)
		}
		if _, err := choose([]*Certificate{c})(&tls.ClientHelloInfo{ServerName: "one.example"}); err != nil {
			t.Error(err)
		}
	})
}
