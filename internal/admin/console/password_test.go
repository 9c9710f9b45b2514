package console

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/txlb/txlb/internal/testkit"
)

// keeper is a clerk that makes hashes.
type keeper struct{ clerk }

func (k *keeper) Hash(_ context.Context, password string) (string, error) {
	if password == "" {
		return "", errors.New("the password is empty")
	}
	return "$6$hash$of-" + password, nil
}

// A password that a command needs is asked for twice and not shown, and a paste may
// answer. Neither it nor its hash is remembered.
func TestShellAsksForPasswords(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		k := &keeper{}
		tt := openShell(t, k)
		wants(t, tt.press("addUser ann full\r"), "Password: ")
		wants(t, tt.press("sec\tret\r"), "Again: ")
		shown := tt.press("\x1b[200~secret\x1b[201~\r")
		wants(t, shown, "did addUser ann full hash=$6$hash$of-secret")
		tt.press("setUser ann\r")
		wants(t, tt.press("one\r"), "Again: ")
		wants(t, tt.press("two\r"), "error: the passwords do not match; nothing was done")
		tt.press("setUser ann\r")
		wants(t, tt.press("one\x03"), "nothing was done")
		tt.press("setUser ann\r\r")
		wants(t, tt.press("\r"), "error: the password is empty")
		wants(t, tt.press("setUser ann access=full; status\r"), "did setUser ann access=full")
		want := []string{"status", "addUser ann full hash=$6$hash$of-secret", "setUser ann access=full", "status"}
		if got := k.heard(); !slices.Equal(got[max(0, len(got)-3):], want[1:]) {
			t.Errorf("it heard %q", got)
		}
		if all := plain(tt.raw()); strings.Contains(strings.ReplaceAll(all, "$6$hash$of-secret", ""), "secret") {
			t.Errorf("a password is shown:\n%s", all)
		}
	})
}
