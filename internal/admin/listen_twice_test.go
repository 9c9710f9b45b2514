package admin

import (
	"strings"
	"testing"
)

// A listener that the service has is not said to be taken by another.
func TestListenerThatIsThere(t *testing.T) {
	r := newRig(t, strings.Replace(plainDoc(), "<admin>", `<admin targets="any">`, 1))
	address := "unix:" + t.TempDir() + "/s"
	r.do("addListen web " + address)
	r.refused("addListen web "+address, "has the listener "+address+" already; status says if it could not be opened")
}
