package fleet

import (
	"log/slog"
	"testing"

	"github.com/txlb/txlb/config"
)

// Wrong files of a certificate keep no node from serving.
func TestWrongCertificateAtTheStart(t *testing.T) {
	n, err := New(Options{
		Config: config.Fleet{
			Name: "edge", Node: "a", Store: []string{"http://127.0.0.1:1"}, Lease: lease, Listen: "127.0.0.1:1",
			Cert: "/nowhere", Key: "/nowhere", CA: "/nowhere",
		},
		StateDir: t.TempDir(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil || n.sharing == nil {
		t.Fatal(err)
	}
}
