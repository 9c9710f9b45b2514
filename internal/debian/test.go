//go:build unix

package debian

// Test is what NeedFor wants of a testing.TB.
type Test interface {
	Helper()
	Skip(...any)
	Fatal(...any)
}

// NeedFor is Need for a test. Without a program the test is skipped, but fails
// where programs are to be installed ($TXLB_INSTALL = yes): nobody would see that
// it has not run.
func NeedFor(t Test, programs ...string) {
	t.Helper()
	if err := Need(programs...); err != nil {
		if installs() {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}
