//go:build unix

package debian

// Test is what NeedFor wants of a testing.TB.
type Test interface {
	Helper()
	Skip(...any)
	Fatal(...any)
}

// NeedFor is Need for a test. If a program is missing, the test is skipped. With
// $TXLB_INSTALL = yes it fails instead, so that a missing test is noticed.
func NeedFor(t Test, programs ...string) {
	t.Helper()
	if err := Need(programs...); err != nil {
		if installs() {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}
