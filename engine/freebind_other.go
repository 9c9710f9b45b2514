//go:build !linux

package engine

import "errors"

// setFreeBind is for Linux.
func setFreeBind(_, _ int) error {
	return errors.New("freeBind needs Linux; leave it out on this system")
}
