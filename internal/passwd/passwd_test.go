package passwd

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

// published are hashes that others have published with their passwords; yescrypt
// is of Debian's crypt(3).
var published = []struct {
	kind           Kind
	hash, password string
}{
	{DES, "CCNf8Sbh3HDfQ", "U*U*U*U*"},
	{DES, "CCX.K.MFy4Ois", "U*U***U"},
	{DES, "CC4rMpbg9AMZ.", "U*U***U*"},
	{DES, "XXxzOu6maQKqQ", "*U*U*U*U"},
	{DES, "SDbsugeBiC58A", ""},
	{MD5, "$1$12345678$aIccj83HRDBo6ux1bVx7D1", "0123456789ABCDE"},
	{SHA256, "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5", "Hello world!"},
	{SHA256, "$5$rounds=10000$saltstringsaltst$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA", "Hello world!"},
	{SHA512, "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1", "Hello world!"},
	{Bcrypt, "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"},
	{Bcrypt, "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"},
	{Yescrypt, "$y$j75$kxIdQRO0rbWRIPIvZ7XeL/$xNaoTbnySqOq1t/xfwckyS8f2lTdJxzZpedEpscRzTA", "secret"},
}

func TestPublishedHashes(t *testing.T) {
	for _, p := range published {
		if k := KindOf(p.hash); k != p.kind {
			t.Errorf("%s is taken for %s (%v)", p.hash, k, Check(p.hash))
		}
		if ok, err := Verify(p.hash, p.password); !ok || err != nil {
			t.Errorf("%s: %v, %v; it is of %q", p.hash, ok, err, p.password)
		}
		for _, wrong := range []string{p.password + "x", strings.ToUpper(p.password) + "y", "", "wrong"} {
			if len(p.password) == 8 && p.kind == DES && len(wrong) > 8 || wrong == p.password {
				continue
			}
			if ok, err := Verify(p.hash, wrong); ok || err != nil {
				t.Errorf("%s with %q: %v, %v", p.hash, wrong, ok, err)
			}
		}
	}
}

// DES looks at seven bits of eight bytes, all others at the whole.
func TestWhatIsLookedAt(t *testing.T) {
	for password, want := range map[string]bool{
		"longpass": true, "longpassword": true, "longpas": false, "\xec\xef\xee\xe7\xf0\xe1\xf3\xf3": true, "longpasS": false,
	} {
		if ok, err := Verify("ab"+desCrypt("longpass", "ab"), password); ok != want || err != nil {
			t.Errorf("%q: %v, %v; want %v", password, ok, err, want)
		}
	}
}

func TestHash(t *testing.T) {
	long := strings.Repeat("é", MaxPassword/2)
	var made []string
	for _, password := range []string{"with blanks and €", long} {
		h, err := Hash(password)
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, h)
		if ok, err := Verify(h, password); !ok || err != nil || KindOf(h) != Yescrypt {
			t.Errorf("%s of %q: %v, %v", h, password, ok, err)
		}
	}
	const head = len("$y$j9T$")
	if made[0][head:head+22] == made[1][head:head+22] {
		t.Errorf("%s and %s have the same salt", made[0], made[1])
	}
	for password, want := range map[string]string{"": "empty", long + "x": "257 bytes; want at most 256", "a\x00b": "NUL"} {
		if h, err := Hash(password); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q has the hash %s (%v)", password, h, err)
		}
	}
	// What a C program would not see matches nothing either.
	if ok, err := Verify("ab"+desCrypt("a", "ab"), "a\x00b"); ok || err != nil {
		t.Error("a NUL ends a password")
	}
}

// What is no hash, or would cost too much, is an error that says so, at once.
func TestRefused(t *testing.T) {
	const sum22, sum43, sum53 = "aIccj83HRDBo6ux1bVx7D1", "5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5", "CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"
	clock := testkit.NewClock(t)
	for hash, want := range map[string]string{
		"":                                  "not a crypt(3) hash",
		"secret":                            "not a crypt(3) hash",
		"*":                                 "not a crypt(3) hash",
		"!bmF1QH4PEr.E":                     "not a crypt(3) hash",
		"a:mF1QH4PEr.E":                     "not a crypt(3) hash",
		"abmF1QH4PEr.Ex":                    "not a crypt(3) hash",
		"_J9..CCCCXBrApNh3HDfQ":             "not a crypt(3) hash",
		"$":                                 "unknown kind of hash",
		"$$":                                "unknown kind of hash",
		"$md5$x$y":                          "unknown kind of hash",
		"$7$x":                              "unknown kind of hash",
		"$2x$05$" + sum53:                   "unknown kind of hash",
		"$1":                                "$1$, a salt of at most 8 letters, $ and 22 letters",
		"$1$123456789$" + sum22:             "a MD5 hash that is not well formed",
		"$1$a$" + sum22 + "x":               "a MD5 hash that is not well formed",
		"$1$a$b$" + sum22:                   "a MD5 hash that is not well formed",
		"$5$12345678901234567$" + sum43:     "a salt of at most 16 letters, $ and 43 letters",
		"$5$rounds=999$a$" + sum43:          "999 rounds; want 1000 to 1000000",
		"$5$rounds=1000001$a$" + sum43:      "1000001 rounds; want 1000 to 1000000",
		"$5$rounds=0x1000$a$" + sum43:       "want rounds=NUMBER",
		"$5$rounds=05000$a$" + sum43:        "want rounds=NUMBER",
		"$6$rounds=99999999999999999999$a$": "want rounds=NUMBER",
		"$6$round=5000$a$x":                 "want rounds=NUMBER",
		"$6$a$" + sum43:                     "$ and 86 letters",
		"$6$a":                              "$ and 86 letters",
		"$2b$14$" + sum53:                   "another cost than 04 to 13",
		"$2b$31$" + sum53:                   "another cost than 04 to 13",
		"$2b$03$" + sum53:                   "another cost than 04 to 13",
		"$2b$+5$" + sum53:                   "another cost than 04 to 13",
		"$2b$5$" + sum53:                    "a bcrypt hash that is not well formed",
		"$2b$05$" + sum53 + "x":             "a bcrypt hash that is not well formed",
		"$2b$05$" + sum53[1:] + "!":         "a bcrypt hash that is not well formed",
		"$y$j9T":                            "a yescrypt hash that is not well formed",
		"$y$j9T$a$" + sum43:                 "a yescrypt hash that is not well formed",
		"$y$j9T$!!!!$" + sum43:              "a yescrypt hash that is not well formed",
		"$y$j9T$....$" + sum43[1:]:          "a yescrypt hash that is not well formed",
		"$y$.9T$....$" + sum43:              "a yescrypt hash that is not well formed",
		"$y$jCT$....$" + sum43:              "with parameters that are not supported; want $y$j9T$, or others up to 64 MiB",
		"$y$jFT$....$" + sum43:              "with parameters that are not supported",
		"$y$jzz$....$" + sum43:              "with parameters that are not supported",
		"$y$j/T$....$" + sum43:              "with parameters that are not supported",
		"$y$j9T$" + strings.Repeat(".", 88) + "$" + sum43: "a yescrypt hash that is not well formed",
		"$6$" + strings.Repeat("a", 1<<20):                "not a crypt(3) hash",
	} {
		ok, err := Verify(hash, "secret")
		if ok || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, %v; want %s", hash, ok, err, want)
			continue
		}
		if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), sum43) || strings.Contains(err.Error(), sum22) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.60s: %v", hash, err)
		}
		if KindOf(hash) != Unknown || Check(hash) == nil {
			t.Errorf("%.60s is known", hash)
		}
	}
	if took := clock.Now(); took > 2*time.Second {
		t.Errorf("refusing took %v", took)
	}
}

// A letter changed anywhere makes another hash, or none; nothing panics.
func TestChangedLetters(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, p := range published {
		for range 15 {
			b := []byte(p.hash)
			at := r.IntN(len(b))
			if p.kind == Bcrypt && at == len("$2a$05$")+saltBcrypt-1 || strings.Contains("$2ay$", string(b[at])) && at < 5 {
				continue // the last letter of this salt has bits that say nothing
			}
			was := b[at]
			b[at] = letters[r.IntN(len(letters))]
			if p.kind == Bcrypt && at < 7 || p.kind == Yescrypt && at < 7 || b[at] == was {
				continue // another cost, which may be a second
			}
			if ok, _ := Verify(string(b), p.password); ok {
				t.Errorf("%s is as good as %s", b, p.hash)
			}
		}
	}
}

// FuzzVerify: no text for a hash makes Verify panic, and what parse takes is
// within the bounds.
func FuzzVerify(f *testing.F) {
	for _, p := range published {
		f.Add(p.hash, p.password)
	}
	f.Add("$y$j$$$$", "\xff")
	f.Add("$6$rounds=1000$$"+strings.Repeat(".", 86), strings.Repeat("x", 300))
	f.Add("$5$rounds=$$", "\x00")
	f.Add("$2b$99$", "")
	f.Fuzz(func(t *testing.T, text, password string) {
		h, err := parse(text)
		if err != nil {
			if ok, err := Verify(text, password); ok || err == nil {
				t.Fatal("taken after all")
			}
			return
		}
		if h.kind == Bcrypt && h.rounds > 5 || h.rounds > 10_000 || h.kind == Yescrypt && !strings.HasPrefix(text, "$y$j75$") {
			return // dear, as it may be
		}
		if ok, err := Verify(text, password); ok && (err != nil || len(password) > MaxPassword) {
			t.Fatalf("good, and %v", err)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	made, err := Hash("secret")
	if err != nil {
		b.Fatal(err)
	}
	for _, h := range []struct{ name, hash string }{
		{"DES", "CCNf8Sbh3HDfQ"}, {"MD5", published[5].hash}, {"SHA-512", published[8].hash}, {"yescrypt", made},
		{"SHA-512 of most rounds", "$6$rounds=1000000$saltstring$" + strings.Repeat(".", 86)},
		{"bcrypt of most cost", strings.Replace(published[9].hash, "$05$", "$13$", 1)},
		{"yescrypt of most memory", "$y$jBT$....$" + strings.Repeat(".", 43)},
	} {
		b.Run(h.name, func(b *testing.B) {
			for b.Loop() {
				if _, err := Verify(h.hash, "secret"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Passwords that a hash does not tell apart have one answer, and others do not.
func TestSignificant(t *testing.T) {
	const des, bcrypt, yescrypt = "CCNf8Sbh3HDfQ", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "$y$j75$kxIdQRO0rbWRIPIvZ7XeL/$xNaoTbnySqOq1t/xfwckyS8f2lTdJxzZpedEpscRzTA"
	long := strings.Repeat("x", bcryptBytes)
	for _, c := range []struct {
		hash, a, b string
		same       bool
	}{
		{des, "U*U*U*U*", "U*U*U*U*more", true},
		{des, "U*U*U*U*", "\xd5*U*U*U*", true},
		{des, "short", "short\x80", true},
		{des, "U*U*U*U*", "U*U*U*U", false},
		{des, "U*U*U*U*", "U*U*U*U*\x00", false}, // no password at all
		{des, "xxxxxxxx", strings.Repeat("x", MaxPassword+1), false},
		{bcrypt, long, long + "more", true},
		{bcrypt, long[1:], long, false},
		{bcrypt, long, strings.Repeat("x", MaxPassword) + "more", false},
		{yescrypt, long + "a", long + "b", false},
		{"no hash", "U*U*U*U*", "U*U*U*U*more", false},
	} {
		if got := Significant(c.hash, c.a) == Significant(c.hash, c.b); got != c.same {
			t.Errorf("%s tells %q and %q apart: %v", c.hash, c.a, c.b, !got)
		}
		one, err := Verify(c.hash, c.a)
		two, err2 := Verify(c.hash, c.b)
		if c.same && (one != two || err != nil || err2 != nil) {
			t.Errorf("%s: %q and %q are not good for the same", c.hash, c.a, c.b)
		}
	}
}
