package ssh

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/crypto/ssh"
)

// shortestRSA is the least length of a host key of that kind, in bits.
const shortestRSA = 3072

// HostKey returns the host key in a file. If there is no file, it makes an Ed25519 key
// there with mode 0600; processes that do so at once all get the same key. A file
// that others can read is refused.
func HostKey(path string) (ssh.Signer, error) {
	key, err := readKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeKey(path); err != nil {
			return nil, fmt.Errorf("make the SSH host key: %w", err)
		}
		key, err = readKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("the SSH host key: %w", err)
	}
	return key, nil
}

// CheckHostKey returns what is wrong with a host key file, and makes none. A missing
// file is an error only if its folder is missing too.
func CheckHostKey(path string) error {
	_, err := readKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		_, err = os.Stat(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("the SSH host key: %w", err)
	}
	return nil
}

func readKey(path string) (ssh.Signer, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("%s is readable by others (mode %04o); want 0600", path, mode)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	key, err := ssh.ParsePrivateKey(text)
	if _, locked := errors.AsType[*ssh.PassphraseMissingError](err); locked {
		return nil, fmt.Errorf("%s is protected by a passphrase; want a key without one", path)
	}
	if err != nil {
		return nil, fmt.Errorf("%s is not a PEM private key as written by ssh-keygen: %w", path, err)
	}
	return strong(path, key)
}

// strong refuses weak keys, and lets RSA keys sign with SHA-2 only.
func strong(path string, key ssh.Signer) (ssh.Signer, error) {
	switch key.PublicKey().Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
		return key, nil
	case ssh.KeyAlgoRSA:
		public := key.PublicKey().(ssh.CryptoPublicKey).CryptoPublicKey().(*rsa.PublicKey)
		if bits := public.N.BitLen(); bits < shortestRSA {
			return nil, fmt.Errorf("%s is an RSA key of %d bits; want at least %d, or better Ed25519", path, bits, shortestRSA)
		}
		return ssh.NewSignerWithAlgorithms(key.(ssh.AlgorithmSigner), []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256})
	}
	return nil, fmt.Errorf("%s is a key of type %s; want Ed25519", path, key.PublicKey().Type())
}

// makeKey makes a key, unless there is one by now.
func makeKey(path string) (err error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, "txlb")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".ssh_host_key-*") // with mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(pem.EncodeToMemory(block))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	// link(2) does not replace a file that another process has made meanwhile.
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return os.Rename(f.Name(), path) // a file system without links
	}
	return nil
}
