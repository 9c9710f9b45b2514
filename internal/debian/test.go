//go:build unix

package debian

import "os"

// Test is what NeedFor wants of a testing.TB.
type Test interface {
	Helper()
	Skip(...any)
	Fatal(...any)
}

// NeedFor is Need for a test: where a program cannot be had, the test is
// skipped, but fails on CI ($CI is true), where nobody would see it missing.
func NeedFor(t Test, programs ...string) {
	t.Helper()
	if err := Need(programs...); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}
