package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/txlb/txlb/sched"
)

// What the runtime verbs read as a document is read.

// ParseDuration reads a duration with a unit; 0 needs none.
func ParseDuration(s string) (time.Duration, error) { return parseDuration(s) }

// ParseBool reads a boolean in any spelling of txLoadBalancer and PythonDirector.
func ParseBool(s string) (bool, error) { return parseBool(s) }

// ParseScheduler returns the canonical name of a scheduler or alias, which ",sticky"
// may follow.
func ParseScheduler(s string) (string, error) {
	canonical, ok := sched.Canonical(s)
	if ok && s != "" {
		return canonical, nil
	}
	return "", fmt.Errorf("unknown scheduler %q%s", s, suggest(s, slices.Concat(sched.Choices(), sched.Aliases())))
}

// CheckAddress tells what is wrong with an address to connect to, or to listen
// on.
func CheckAddress(s string, listen bool) error {
	if listen {
		return checkAddress(s, true)
	}
	return checkHostAddress(s)
}

// IsHash tells whether a text looks like a crypt(3) hash that a verb may set: "$",
// what kind it is, "$" and more. A DES hash is not accepted, because it looks like
// a password.
func IsHash(s string) bool {
	if !printable(s) || strings.ContainsAny(s, " \t") || !strings.HasPrefix(s, "$") {
		return false
	}
	kind, rest, ok := strings.Cut(s[1:], "$")
	return ok && kind != "" && rest != "" && strings.Trim(kind, "0123456789abcdefghijklmnopqrstuvwxyz-") == ""
}

// IsPublished tells whether a hash is one of the samples of earlier versions:
// everybody knows the password.
func IsPublished(hash string) bool { return slices.Contains(wellKnown[:], hash) }

// Printable tells whether a text has neither control characters nor what XML
// cannot hold.
func Printable(s string) bool { return printable(s) }

// Suggest ends a message about an unknown word with the name that was probably
// meant, or with the names that there are.
func Suggest(word string, names []string) string { return suggest(word, names) }
