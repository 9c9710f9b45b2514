package health

import (
	"errors"
	"net"
	"syscall"
	"testing"
)

// A process without a free descriptor cannot tell whether a host is up.
func TestB30OurOwnFaultsAreTold(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := parse(t, ln.Addr().String())
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 0
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	probed := TCP(t.Context(), addr)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(probed, ErrLocal) || !errors.Is(probed, syscall.EMFILE) {
		t.Errorf("without a descriptor: %v", probed)
	}
	_ = ln.Close()
	if err := TCP(t.Context(), addr); err == nil || errors.Is(err, ErrLocal) {
		t.Errorf("a closed port: %v", err)
	}
}
