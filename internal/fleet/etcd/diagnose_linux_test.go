package etcd

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/testkit"
)

// Each mistake in <fleet store> is told with the address and its cause.
func TestDiagnose(t *testing.T) {
	t.Parallel()
	_, urls := cluster(t, 1)
	plain, secure := httptest.NewServer(http.NotFoundHandler()), httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	nobody := testkit.Nobody(t)
	for _, c := range []struct{ member, want string }{
		{"http://" + nobody, "connection refused"},
		{"https://" + nobody, "connection refused"},
		{"http://nowhere.invalid:2379", "http://nowhere.invalid:2379: "},
		{strings.Replace(urls[0], "http:", "https:", 1), "it does not speak TLS"},
		{secure.URL, "certificate"},
		{strings.Replace(secure.URL, "https:", "http:", 1), "https://"},
		{plain.URL, "it is not an etcd"},
		{"http://" + silent.Addr().String(), "no answer"},
		{urls[0], "has it a quorum?"}, // it is asked only if nothing has come
	} {
		settings := config.Fleet{Store: []string{c.member}}
		config, err := tlsOf(&settings)
		if err != nil {
			t.Fatal(err)
		}
		testkit.BestOf(t, 5, func() error { // it takes a second at most, in which a busy machine may not answer
			text := diagnose(t.Context(), settings.Store, config)
			if !strings.HasPrefix(text, c.member+": ") || !strings.Contains(text, c.want) {
				return fmt.Errorf("%s; want %s", text, c.want)
			}
			return nil
		})
	}
	// With a user the client asks at once.
	_, err = Open(t.Context(), &config.Fleet{Store: []string{"http://" + nobody}, User: "u", Password: "p"})
	if err == nil || !strings.Contains(err.Error(), "the store has not answered within 3s: http://"+nobody+": connection refused") {
		t.Errorf("Open: %v", err)
	}
}
