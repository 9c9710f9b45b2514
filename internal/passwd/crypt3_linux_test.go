package passwd

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"github.com/txlb/txlb/internal/debian"
)

// crypt3 hashes passwords by the system's crypt(3). Perl calls it; a pair is
// a password and a setting.
func crypt3(t *testing.T, pairs [][2]string) []string {
	t.Helper()
	debian.NeedFor(t, "perl")
	var in bytes.Buffer
	for _, p := range pairs {
		fmt.Fprintf(&in, "%s %s\n", hex.EncodeToString([]byte(p[0])), hex.EncodeToString([]byte(p[1])))
	}
	cmd := exec.Command("perl", "-ne", `my ($p, $s) = map { pack "H*", $_ } split / /, substr($_, 0, -1), -1; print crypt($p, $s) // "*", "\n"`)
	cmd.Stdin = &in
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(lines) != len(pairs) {
		t.Fatalf("%d hashes of %d passwords", len(lines), len(pairs))
	}
	return lines
}

// The system's crypt(3) makes what Verify takes, and takes what Hash makes, for
// every kind, and for passwords of any bytes.
func TestAgreesWithTheSystem(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	salt := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = letters[r.IntN(len(letters))]
		}
		return string(b)
	}
	passwords := []string{"", "a", "secret", "longpassword of many words", "\xe9t\xe9", "été €", strings.Repeat("x", 72), strings.Repeat("y", 80), strings.Repeat("z", MaxPassword)}
	for range 20 {
		b := make([]byte, 1+r.IntN(20))
		for i := range b {
			b[i] = byte(1 + r.IntN(254)) // neither NUL nor 255, which $2a$ takes care of
		}
		passwords = append(passwords, string(b))
	}
	var pairs [][2]string
	for i, p := range passwords {
		for range 8 {
			pairs = append(pairs, [2]string{p, salt(2)})
		}
		pairs = append(pairs,
			[2]string{p, "$1$" + salt(r.IntN(9)) + "$"},
			[2]string{p, "$5$" + salt(r.IntN(17)) + "$"}, [2]string{p, fmt.Sprintf("$5$rounds=%d$%s$", 1000+r.IntN(3000), salt(16))},
			[2]string{p, "$6$" + salt(r.IntN(17)) + "$"}, [2]string{p, fmt.Sprintf("$6$rounds=%d$%s$", 1000+r.IntN(3000), salt(16))},
			[2]string{p, "$2" + string("aby"[i%3]) + "$04$" + salt(21) + "."})
		if i%4 == 0 {
			pairs = append(pairs, [2]string{p, "$y$j" + []string{"75", "85", "75", "9T"}[i/4%4] + "$" + strings.Repeat(salt(4), 1+r.IntN(5)) + "$"})
		}
	}
	kinds := map[Kind]int{}
	for i, h := range crypt3(t, pairs) {
		if ok, err := Verify(h, pairs[i][0]); !ok || err != nil {
			t.Errorf("%s of %q: %v, %v", h, pairs[i][0], ok, err)
		}
		kinds[KindOf(h)]++
	}
	if len(kinds) != 6 {
		t.Errorf("looked at %v", kinds)
	}
	pairs = nil
	for _, p := range []string{"été €", strings.Repeat("z", MaxPassword)} {
		h, err := Hash(p)
		if err != nil {
			t.Fatal(err)
		}
		pairs = append(pairs, [2]string{p, h})
	}
	for i, h := range crypt3(t, pairs) {
		if h != pairs[i][1] {
			t.Errorf("crypt(3) makes %s of %q, not %s", h, pairs[i][0], pairs[i][1])
		}
	}
}
