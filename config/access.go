package config

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// What <socket>, <control> and the <key> of a user may say.

// parseMode reads the permissions of a file, in octal as chmod(1) does.
func parseMode(s string) (fs.FileMode, error) {
	n, err := strconv.ParseUint(s, 8, 16)
	if err != nil || n > uint64(fs.ModePerm) {
		return 0, fmt.Errorf("%q is not a mode; write octal digits such as 0600 or 0660", s)
	}
	return fs.FileMode(n), nil
}

// formatMode is the inverse of parseMode.
func formatMode(m fs.FileMode) string { return fmt.Sprintf("%04o", uint32(m)) }

func checkControl(s string) error {
	switch {
	case s == "":
		return nil
	case s == "None" || len(s) > maxUnixPath || !printable(s):
		return fmt.Errorf("%q is not the path of a socket, which has at most %d bytes", s, maxUnixPath)
	}
	return nil
}

// checkSocketPath checks where a UNIX socket is to be.
func checkSocketPath(path string) error {
	if !strings.HasPrefix(path, "/") || len(path) > maxUnixPath || !printable(path) {
		return fmt.Errorf("%q is not the path of a socket; write an absolute one of at most %d bytes", path, maxUnixPath)
	}
	return nil
}

// keyTypes says what keys consist of, by their type: how many parts there are,
// the type included, and the name of the curve if that is the second one.
var keyTypes = map[string]struct {
	parts int
	curve string
}{
	"ssh-ed25519":                        {2, ""},
	"ssh-rsa":                            {3, ""},
	"ecdsa-sha2-nistp256":                {3, "nistp256"},
	"ecdsa-sha2-nistp384":                {3, "nistp384"},
	"ecdsa-sha2-nistp521":                {3, "nistp521"},
	"sk-ssh-ed25519@openssh.com":         {3, ""},
	"sk-ecdsa-sha2-nistp256@openssh.com": {4, "nistp256"},
}

const (
	maxKey       = 4 << 10 // bytes of a line
	ed25519Bytes = 32
	rsaBytes     = 2048 / 8
)

// checkKey checks the form of a public key, not whether its numbers are those of a
// real key. Its errors show only the type.
func checkKey(line string) error {
	const want = "want a line as in ~/.ssh/id_ed25519.pub: ssh-ed25519 AAAA… name"
	fields := strings.Fields(line)
	switch {
	case !printable(line):
		return errors.New("a non-printable character; " + want)
	case len(line) > maxKey:
		return fmt.Errorf("%d bytes; no public key has more than %d", len(line), maxKey)
	case len(fields) < 2 || len(fields[0]) > 40: // the words of a private key are longer
		return errors.New("no public key; " + want)
	case strings.Join(fields, " ") != line:
		return errors.New("more than one space between two words; " + want)
	}
	kind, known := keyTypes[fields[0]]
	if !known {
		switch {
		case slices.ContainsFunc(fields[1:], func(f string) bool { _, is := keyTypes[f]; return is }):
			return fmt.Errorf("options before the type are not supported; begin with %s", fields[slices.IndexFunc(fields, func(f string) bool { _, is := keyTypes[f]; return is })])
		case fields[0] == "ssh-dss":
			return errors.New("ssh-dss keys are too weak; make one with ssh-keygen -t ed25519")
		}
		return fmt.Errorf("unknown type of public key %q; %s", fields[0], want)
	}
	raw, err := base64.StdEncoding.DecodeString(fields[1])
	if err != nil {
		return fmt.Errorf("what follows %s is not base64; %s", fields[0], want)
	}
	parts, ok := wireParts(raw)
	wrong := fmt.Errorf("what follows %s is not such a key; %s", fields[0], want)
	switch {
	case !ok || len(parts) != kind.parts || string(parts[0]) != fields[0]:
		return wrong
	case kind.curve != "" && string(parts[1]) != kind.curve:
		return wrong
	case strings.Contains(fields[0], "ed25519") && len(parts[1]) != ed25519Bytes:
		return wrong
	case fields[0] == "ssh-rsa" && len(parts[2]) < rsaBytes:
		return fmt.Errorf("an RSA key of less than %d bits is too weak; make one with ssh-keygen -t ed25519", rsaBytes*8)
	}
	return nil
}

// wireParts takes apart a key as SSH sends it: strings with their lengths before
// them.
func wireParts(raw []byte) (parts [][]byte, ok bool) {
	for len(raw) > 0 {
		if len(raw) < 4 {
			return nil, false
		}
		n := binary.BigEndian.Uint32(raw)
		raw = raw[4:]
		if uint64(n) > uint64(len(raw)) {
			return nil, false
		}
		parts, raw = append(parts, raw[:n]), raw[n:]
	}
	return parts, true
}
