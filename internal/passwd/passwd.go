// Package passwd reads and makes the password hashes of crypt(3).
//
// [Verify] knows traditional DES, MD5 ($1$), bcrypt ($2a$, $2b$, $2y$), SHA-256
// ($5$), SHA-512 ($6$) and yescrypt ($y$), as Debian's crypt(3) writes them. It
// accepts any text as a hash without panicking, compares in constant time, and limits
// the cost: a hash that needs more than about a second of CPU or 64 MiB of memory is
// an error, as is a malformed one. Errors contain no hash and no password.
//
// [Hash] makes yescrypt with the parameters of Debian's passwd(1), $y$j9T$. A guess
// needs 16 MiB, so guessing on graphics cards is expensive. A login takes about
// 50 ms. Every crypt(3) since Debian 11 reads it.
//
// Limits: a password has at most [MaxPassword] bytes and no NUL, where a C program
// would stop reading; others match nothing. DES looks at the lower seven bits of
// the first eight bytes, and bcrypt at the first 72 bytes, as everywhere. yescrypt
// is read as crypt(3) writes it, without the parameters that nothing sets.
package passwd

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-crypt/x/bcrypt"
	"github.com/go-crypt/x/crypt"
	"github.com/go-crypt/x/yescrypt"
)

// MaxPassword is how many bytes a password may have.
const MaxPassword = 256

// Bounds of what a hash may cost.
const (
	minRounds  = 1000 // of SHA-256 and SHA-512, as crypt(3) has it
	stdRounds  = 5000
	maxRounds  = 1_000_000
	minCost    = 4 // of bcrypt, the logarithm of its rounds
	maxCost    = 13
	maxMemory  = 64 << 20 // of yescrypt, bytes
	maxSalt    = 86       // of yescrypt, letters
	maxHash    = 256      // bytes of a hash as a whole
	saltMD5    = 8
	saltSHA    = 16
	saltBcrypt = 22
)

// letters are those in which crypt(3) writes salts and hashes.
const letters = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// Kind is one of the ways to make a hash.
type Kind uint8

const (
	Unknown Kind = iota
	DES
	MD5
	Bcrypt
	SHA256
	SHA512
	Yescrypt
)

// String names the kind.
func (k Kind) String() string {
	return [...]string{"unknown", "DES", "MD5", "bcrypt", "SHA-256", "SHA-512", "yescrypt"}[k]
}

// hash is one that is well formed and costs no more than allowed.
type hash struct {
	kind   Kind
	text   string
	salt   string
	rounds int
	sum    string // as text, the end of the hash
}

// KindOf tells what kind a hash is of; Unknown for one that Verify would not
// take. It is quick.
func KindOf(text string) Kind {
	h, err := parse(text)
	if err != nil {
		return Unknown
	}
	return h.kind
}

// Check tells what is wrong with a hash, nil if Verify takes it.
func Check(text string) error {
	_, err := parse(text)
	return err
}

// Verify tells whether a hash is that of a password. The error says that the hash is
// malformed or not supported; then ok is false. Its time depends only on the hash
// and the length of the password.
func Verify(text, password string) (ok bool, err error) {
	h, err := parse(text)
	if err != nil {
		return false, err
	}
	if usable(password) != nil {
		return false, nil
	}
	sum, err := h.of(password)
	if err != nil {
		return false, fmt.Errorf("%s hash: %w", h.kind, err)
	}
	return subtle.ConstantTimeCompare([]byte(sum), []byte(h.sum)) == 1, nil
}

// Lengths of a password that two kinds of hashes look at, in bytes.
const (
	desBytes    = 8
	bcryptBytes = 72
)

// Significant returns what of a password a hash looks at: passwords with the same
// answer are all good for the hash, or none is. It is quick. What Verify does not
// take as a password is returned as it is.
func Significant(text, password string) string {
	if usable(password) != nil {
		return password
	}
	switch KindOf(text) {
	case DES:
		seven := []byte(password[:min(len(password), desBytes)])
		for i := range seven {
			seven[i] &= 0x7f
		}
		return strings.TrimRight(string(seven), "\x00")
	case Bcrypt:
		return password[:min(len(password), bcryptBytes)]
	}
	return password
}

// Hash makes a hash of a password with a salt of its own. It refuses an empty
// password and those that Verify would.
func Hash(password string) (string, error) {
	if password == "" {
		return "", errors.New("the password is empty")
	}
	if err := usable(password); err != nil {
		return "", err
	}
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails
	made, err := yescrypt.Hash([]byte(password), append([]byte("$y$j9T$"), yescrypt.Encode64(salt)...))
	if err != nil {
		return "", fmt.Errorf("make a yescrypt hash: %w", err)
	}
	return string(made), nil
}

// usable tells what is wrong with a password, whatever its hash.
func usable(password string) error {
	switch {
	case len(password) > MaxPassword:
		return fmt.Errorf("the password has %d bytes; want at most %d", len(password), MaxPassword)
	case strings.IndexByte(password, 0) >= 0:
		return errors.New("the password has a NUL, where some programs would stop reading")
	}
	return nil
}

// of makes the sum of a password as h was made.
func (h hash) of(password string) (string, error) {
	word, salt := []byte(password), []byte(h.salt)
	switch h.kind {
	case DES:
		return desCrypt(password, h.salt), nil
	case MD5:
		return string(crypt.KeyMD5Crypt(word, salt)), nil
	case SHA256:
		return string(crypt.KeySHACrypt(sha256.New, word, salt, h.rounds)), nil
	case SHA512:
		return string(crypt.KeySHACrypt(sha512.New, word, salt, h.rounds)), nil
	case Bcrypt:
		// Which of 2a, 2b and 2y it is says which bug its maker did not have.
		raw, err := bcrypt.Base64Decode(salt)
		if err != nil {
			return "", err
		}
		sum, err := bcrypt.Key(word, raw, h.rounds)
		return string(sum), err
	}
	full, err := yescrypt.Hash(word, []byte(h.text))
	return string(full[strings.LastIndexByte(string(full), '$')+1:]), err
}

// parse takes a hash apart.
func parse(text string) (hash, error) {
	switch {
	case len(text) > maxHash:
		return hash{}, fmt.Errorf("a hash of %d bytes is not a crypt(3) hash", len(text))
	case !strings.HasPrefix(text, "$"):
		if len(text) != 13 || !lettered(text) {
			return hash{}, errors.New("not a crypt(3) hash; one begins with $, or is a DES hash of 13 letters")
		}
		return hash{kind: DES, text: text, salt: text[:2], sum: text[2:]}, nil
	}
	fields := strings.Split(text[1:], "$")
	id, fields := fields[0], fields[1:]
	switch id {
	case "1":
		return parseMD5(text, fields)
	case "5":
		return parseSHA(text, fields, SHA256, 43)
	case "6":
		return parseSHA(text, fields, SHA512, 86)
	case "2a", "2b", "2y":
		return parseBcrypt(text, fields)
	case "y":
		return parseYescrypt(text, fields)
	}
	return hash{}, errors.New("unknown kind of hash; want yescrypt ($y$), SHA-512 ($6$), SHA-256 ($5$), bcrypt ($2b$), MD5 ($1$) or DES")
}

// parts is the error for a hash whose parts are not those of its kind.
func parts(k Kind, want string) error {
	return fmt.Errorf("a %s hash that is not well formed; want %s", k, want)
}

func parseMD5(text string, fields []string) (hash, error) {
	if len(fields) != 2 || len(fields[0]) > saltMD5 || len(fields[1]) != 22 || !lettered(fields[1]) {
		return hash{}, parts(MD5, "$1$, a salt of at most 8 letters, $ and 22 letters")
	}
	return hash{kind: MD5, text: text, salt: fields[0], sum: fields[1]}, nil
}

func parseSHA(text string, fields []string, kind Kind, length int) (hash, error) {
	rounds := stdRounds
	if len(fields) == 3 {
		digits, said := strings.CutPrefix(fields[0], "rounds=")
		n, err := strconv.Atoi(digits)
		switch {
		case !said || err != nil || strconv.Itoa(n) != digits:
			return hash{}, parts(kind, "rounds=NUMBER before the salt")
		case n < minRounds || n > maxRounds:
			return hash{}, fmt.Errorf("a %s hash of %d rounds; want %d to %d", kind, n, minRounds, maxRounds)
		}
		rounds, fields = n, fields[1:]
	}
	if len(fields) != 2 || len(fields[0]) > saltSHA || len(fields[1]) != length || !lettered(fields[1]) {
		return hash{}, parts(kind, fmt.Sprintf("a salt of at most %d letters, $ and %d letters", saltSHA, length))
	}
	return hash{kind: kind, text: text, salt: fields[0], rounds: rounds, sum: fields[1]}, nil
}

func parseBcrypt(text string, fields []string) (hash, error) {
	if len(fields) != 2 || len(fields[0]) != 2 || len(fields[1]) != saltBcrypt+31 || !lettered(fields[1]) {
		return hash{}, parts(Bcrypt, "$2b$, two digits, $ and 53 letters")
	}
	cost, err := strconv.Atoi(fields[0])
	if err != nil || cost < minCost || cost > maxCost || fmt.Sprintf("%02d", cost) != fields[0] {
		return hash{}, fmt.Errorf("a bcrypt hash of another cost than %02d to %d", minCost, maxCost)
	}
	return hash{kind: Bcrypt, text: text, rounds: cost, salt: fields[1][:saltBcrypt], sum: fields[1][saltBcrypt:]}, nil
}

func parseYescrypt(text string, fields []string) (hash, error) {
	if len(fields) != 3 || len(fields[0]) != 3 || fields[0][0] != 'j' || !lettered(fields[0]) ||
		len(fields[1]) > maxSalt || yescrypt.Decode64([]byte(fields[1])) == nil || len(fields[2]) != 43 || !lettered(fields[2]) {
		return hash{}, parts(Yescrypt, "$y$j and two letters, $, a salt, $ and 43 letters")
	}
	n, r := strings.IndexByte(letters, fields[0][1])+1, strings.IndexByte(letters, fields[0][2])+1
	if n < 10 || n > 18 || r > 32 || 128*r<<n > maxMemory {
		return hash{}, fmt.Errorf("a yescrypt hash with parameters that are not supported; want $y$j9T$, or others up to %d MiB", maxMemory>>20)
	}
	return hash{kind: Yescrypt, text: text, salt: fields[1], sum: fields[2]}, nil
}

// lettered tells whether a text has no others than letters of crypt(3).
func lettered(s string) bool { return strings.Trim(s, letters) == "" }
