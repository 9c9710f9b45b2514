package core

import (
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
)

// Sessions of one moment reach their greatest age spread over a tenth of it.
func TestAgeLimitIsSpread(t *testing.T) {
	const age, tenths = time.Hour, 10
	svc := newService("web", 1)
	svc.Route.Store(&engine.Route{})
	a := Admission{Svc: svc, Started: 12345}
	if got := a.AgeLimit(1); got != Never {
		t.Errorf("without one: %d", got)
	}
	svc.Route.Store(&engine.Route{Timeouts: engine.Timeouts{MaxAge: age}})
	var spread [tenths]int
	const sessions = 10_000
	for salt := range int32(sessions) {
		limit := a.AgeLimit(salt)
		early := 12345 + int64(age) - limit
		if early < 0 || early >= int64(age/10) || limit != a.AgeLimit(salt) {
			t.Fatalf("session %d: %v early", salt, time.Duration(early))
		}
		spread[early*tenths/int64(age/10)]++
		const now = int64(2 * age)
		if late := a.LateAgeLimit(salt, now); late < now || late > now+int64(age/10) {
			t.Fatalf("session %d, which is older: %v later", salt, time.Duration(late-now))
		}
		if late := a.LateAgeLimit(salt, limit-1); late != limit {
			t.Fatalf("session %d, which is not: %d", salt, late)
		}
	}
	for i, n := range spread {
		if n < sessions/tenths*8/10 || n > sessions/tenths*12/10 {
			t.Errorf("%d sessions end in part %d of the tenth", n, i)
		}
	}
}
