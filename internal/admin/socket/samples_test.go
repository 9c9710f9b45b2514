package socket

import (
	"testing"
	"time"

	"github.com/txlb/txlb/sched"
)

func TestRowCountsSessions(t *testing.T) {
	start := time.Unix(1000, 0)
	var r row
	r.count(start, time.Hour, 3, 500) // the first look tells no rate
	if r.rate != 0 || r.max != 3 || r.total != 500 {
		t.Errorf("%+v", r)
	}
	r.count(start.Add(time.Second), time.Second, 9, 520)
	if r.rate != 20 || r.top != 20 || r.max != 9 || r.lastSession != start.Add(time.Second) {
		t.Errorf("%+v", r)
	}
	r.count(start.Add(3*time.Second), 2*time.Second, 1, 530)
	if r.rate != 5 || r.top != 20 || r.max != 9 || r.lastSession != start.Add(3*time.Second) {
		t.Errorf("%+v", r)
	}
	r.count(start.Add(4*time.Second), time.Second, 1, 530)
	if r.rate != 0 || r.lastSession != start.Add(3*time.Second) {
		t.Errorf("%+v", r)
	}
	// A sum that has lost a host is less than it was.
	r.count(start.Add(5*time.Second), time.Second, 1, 30)
	if r.rate != 0 || r.top != 20 {
		t.Errorf("%+v", r)
	}
}

func TestRowCountsDowntime(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	r := row{up: true, changed: start}
	r.turn(true, at(0))
	r.turn(false, at(10))
	r.turn(false, at(10))
	if r.downs != 1 || r.downtime(at(12)) != 2*time.Second || r.changed != at(10) {
		t.Errorf("%+v", r)
	}
	r.turn(true, at(15))
	if r.downtime(at(99)) != 5*time.Second || r.changed != at(15) {
		t.Errorf("%+v", r)
	}
	r.turn(false, at(20))
	if r.downs != 2 || r.downtime(at(21)) != 6*time.Second {
		t.Errorf("%+v", r)
	}
}

func TestMeanIsOfTheLastTimes(t *testing.T) {
	var m mean
	var times sched.Times
	look := func(n int, each time.Duration) time.Duration {
		for range n {
			times.Connected(0, each)
		}
		m.take(times.Connects())
		return m.value.Round(time.Millisecond)
	}
	for i, c := range []struct {
		n          int
		each, want time.Duration
	}{
		{0, 0, 0}, {1, 40 * time.Millisecond, 40 * time.Millisecond}, {3, 80 * time.Millisecond, 70 * time.Millisecond}, {0, 0, 70 * time.Millisecond},
		{2000, 10 * time.Millisecond, 10 * time.Millisecond}, {512, 30 * time.Millisecond, 20 * time.Millisecond},
	} {
		if got := look(c.n, c.each); got != c.want {
			t.Errorf("look %d: %v, want %v", i, got, c.want)
		}
	}
}

func TestHumanTimes(t *testing.T) {
	for seconds, want := range map[float64]string{0: "0s", 59.9: "59s", 61: "1m1s", 3600: "1h0m", 7_384: "2h3m", 86_400: "1d0h", 180_000: "2d2h"} {
		if got := humanTime(seconds); got != want {
			t.Errorf("%v s: %s, want %s", seconds, got, want)
		}
	}
	if got := haproxyDuration(90_061 * time.Second); got != "1d 1h01m01s" {
		t.Errorf("got %s", got)
	}
}
