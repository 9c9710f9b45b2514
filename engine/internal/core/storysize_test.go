package core

import (
	"testing"
	"unsafe"
)

// What a story costs: what every session has of it, the notes of the few that have some, and what is
// kept of one that has ended. docs/design/explain.md has these figures.
func TestStoriesAreSmall(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		t.Skip("sizes are those of 64 bits")
	}
	for what, size := range map[string]struct{ got, want uintptr }{
		"every session": {unsafe.Sizeof(course{}), 16},
		"notes":         {unsafe.Sizeof(Notes{}), 360},
		"a past one":    {unsafe.Sizeof(past{}), 264},
		"a try":         {unsafe.Sizeof(try{}), 56},
	} {
		if size.got != size.want {
			t.Errorf("%s: %d bytes, want %d", what, size.got, size.want)
		}
	}
}
