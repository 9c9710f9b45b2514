//go:build !linux

package document

import "testing"

// namedPipe returns something else that is no file.
func namedPipe(t *testing.T) string { return t.TempDir() }
