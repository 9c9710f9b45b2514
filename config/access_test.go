package config

import (
	"encoding/base64"
	"encoding/binary"
	"strings"
	"testing"
)

// Keys as ssh-keygen has made them.
const (
	edKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAJBBfLxX+SQtrjKaOi5ZId/13rhxR0IAHHtUnUQYNgC ann@desk"
	ecKey = "ecdsa-sha2-nistp384 AAAAE2VjZHNhLXNoYTItbmlzdHAzODQAAAAIbmlzdHAzODQAAABhBOdCRuefzBpkP8KZYvMTgKePamIqEElt91iyu0e6tSvqkiC5Ap4QnSNpvEGdiPGH7EsFcjZBzVNW/cIo2AZoZB4p0z07cUflT2yT9HuqhmvLid8E+q/LDk1QNnIRDPa7Lg=="
)

// wire makes a key as SSH sends it.
func wire(parts ...string) string {
	var raw []byte
	for _, p := range parts {
		raw = append(binary.BigEndian.AppendUint32(raw, uint32(len(p))), p...)
	}
	return base64.StdEncoding.EncodeToString(raw)
}

func TestKeysHaveTheForm(t *testing.T) {
	rsa := func(bytes int) string {
		return "ssh-rsa " + wire("ssh-rsa", "\x01\x00\x01", strings.Repeat("n", bytes))
	}
	point := strings.Repeat("p", 65)
	for _, line := range []string{
		edKey, ecKey, ecKey + " a name of many words", rsa(257), rsa(512) + " é",
		"sk-ssh-ed25519@openssh.com " + wire("sk-ssh-ed25519@openssh.com", strings.Repeat("k", 32), "ssh:"),
		"sk-ecdsa-sha2-nistp256@openssh.com " + wire("sk-ecdsa-sha2-nistp256@openssh.com", "nistp256", point, "ssh:"),
	} {
		if err := checkKey(line); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
	for line, want := range map[string]string{
		"":                       "no public key; want a line as in ~/.ssh/id_ed25519.pub",
		"ssh-ed25519":            "no public key",
		" " + edKey:              "more than one space between two words",
		edKey + "  x":            "more than one space",
		edKey + "\x07":           "a non-printable character",
		"from=\"10.*\" " + edKey: "options before the type are not supported; begin with ssh-ed25519",
		"no-pty " + ecKey:        "options before the type are not supported; begin with ecdsa-sha2-nistp384",
		"ssh-ed448 AAAA":         `unknown type of public key "ssh-ed448"`,
		"ssh-dss " + wire("dss"): "ssh-dss keys are too weak",
		"ssh-ed25519 !":          "what follows ssh-ed25519 is not base64",
		"ssh-ed25519 AAAA":       "what follows ssh-ed25519 is not such a key",
		"ssh-ed25519 //////8=":   "is not such a key",
		"ssh-ed25519 " + wire():  "no public key",
		strings.Replace(edKey, "ssh-ed25519", "ssh-rsa", 1):                     "what follows ssh-rsa is not such a key",
		"ssh-ed25519 " + wire("ssh-ed25519", "short"):                           "is not such a key",
		"ssh-ed25519 " + wire("ssh-ed25519", strings.Repeat("k", 32), "more"):   "is not such a key",
		"ecdsa-sha2-nistp256 " + wire("ecdsa-sha2-nistp256", "nistp384", point): "is not such a key",
		rsa(128):                              "an RSA key of less than 2048 bits is too weak",
		rsa(5000):                             "no public key has more than 4096",
		"-----BEGIN OPENSSH PRIVATE KEY-----": "unknown type of public key",
		strings.Repeat("b3BlbnNzaC1rZXktdjE", 4) + " x": "no public key; want",
	} {
		err := checkKey(line)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %s", line, err, want)
		}
		if fields := strings.Fields(line); err != nil && len(fields) > 1 && len(fields[1]) > 20 && strings.Contains(err.Error(), fields[1]) {
			t.Errorf("%v: shows the key", err)
		}
	}
}
