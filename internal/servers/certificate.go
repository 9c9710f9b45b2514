//go:build linux

package servers

import (
	"os"
	"path/filepath"
	"syscall"
)

// Certify writes a certificate of [SelfSigned] and its key to files in dir. The files belong
// to who runs the server, as for New.
func Certify(t Test, dir, name string, as *syscall.Credential) (cert, key string) {
	t.Helper()
	certPEM, keyPEM, err := SelfSigned(name)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, text := range map[string][]byte{cert: certPEM, key: keyPEM} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if as != nil {
			if err := os.Chown(path, int(as.Uid), int(as.Gid)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return cert, key
}
