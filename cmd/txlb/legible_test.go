package main

import (
	"bytes"
	"fmt"
	"testing"
)

// A terminal gets no character that could steer it or turn text around.
func TestTerminalsGetLegibleText(t *testing.T) {
	var b bytes.Buffer
	text := "host \u202egnp.exe\u2066 a\u200fb\u061cc\x1b[31m \u0085 é \tok\n"
	n, err := fmt.Fprint(legible{&b}, text)
	if want := "host ?gnp.exe? a?b?c?[31m ? é \tok\n"; b.String() != want || err != nil || n != len(text) {
		t.Errorf("%q, %d, %v; want %q", b.String(), n, err, want)
	}
}
