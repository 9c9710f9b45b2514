// Package testkit has what the tests of many rooms need: a limit for waiting,
// [Eventually], a [Log] to read, and [Main], which finds leaks. It is not part of
// the program.
package testkit

import (
	"testing"
	"time"

	"github.com/txlb/txlb/internal/servers"
)

// Patience is how long a test waits for what must come. It is long, for machines
// that are busy with other things.
const Patience = 90 * time.Second

// Eventually polls until ok, which must come true within [Patience].
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(Patience); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, Patience)
		}
		time.Sleep(time.Millisecond) // between two looks, not instead of one
	}
}

// Nobody returns an address on loopback where nobody listens.
func Nobody(t testing.TB) string {
	t.Helper()
	addr, err := servers.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// Long skips a test that takes too long for "go test -short".
func Long(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes too long for -short")
	}
}
