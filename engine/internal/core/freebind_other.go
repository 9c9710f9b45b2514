//go:build !linux

package core

import "errors"

// SetFreeBind is for Linux.
func SetFreeBind(_, _ int) error {
	return errors.New("freeBind needs Linux; leave it out on this system")
}
