//go:build !linux

package fleet

import (
	"errors"
	"os"
)

// lockPlace does nothing.
func lockPlace(string) (*os.File, place, error) {
	return nil, place{}, errors.ErrUnsupported
}
