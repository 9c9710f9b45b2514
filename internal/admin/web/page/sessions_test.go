package page

import (
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestChooseSessions(t *testing.T) {
	now := time.Now()
	all := []Session{
		{ID: 1, Client: "10.0.0.10:5", Service: "web", Group: "main", Host: "a", Started: now.Add(-time.Hour), In: 5, Out: 1},
		{ID: 2, Client: "10.0.0.9:5", Service: "web", Group: "main", Host: "b", Started: now, In: 9, Out: 2, Idle: time.Minute},
		{ID: 3, Client: "[2001:db8::1]:5", Service: "mail", Group: "mx", Host: "a", Started: now.Add(-time.Minute), In: 7, Out: 3},
	}
	for query, want := range map[string]string{
		"": "132", "sort=client": "213", "sort=-client": "312", "sort=in": "231", "sort=-in": "132", "sort=out": "321", "sort=idle": "213", "sort=age": "132", "sort=-age": "231",
		"sort=host": "132", "sort=service": "312", "sort=nonsense": "132", "q=WEB": "12", "q=10.0.0.9:": "2", "q=10.0.0.10+main": "1", "q=2001:db8": "3", "q=nothing": "", "q=web&sort=in": "21",
	} {
		v, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, s := range ChooseSessions(all, v, 10).List {
			got += string('0' + rune(s.ID))
		}
		if got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	l := ChooseSessions(all, url.Values{"q": {strings.Repeat("x", 1000)}, "sort": {"in"}}, 1)
	if len(l.Filter) > maxFilter {
		t.Error("a filter of any length is taken")
	}
	if l = ChooseSessions(all, url.Values{"sort": {"in"}}, 1); len(l.List) != 1 || l.Match != 3 || l.Total != 3 || all[0].ID != 1 {
		t.Errorf("%+v", l)
	}
	if head := string(l.Head("in", "In")); !strings.Contains(head, "sort=-in") || !strings.Contains(head, "▾") {
		t.Error(head)
	}
}

// Times of day are those of UTC, whatever the zone of the server is, until the
// script makes them those of the browser.
func TestClockIsOfOneZone(t *testing.T) {
	at := time.Date(2026, 11, 28, 23, 30, 5, 0, time.FixedZone("far", 5*3600))
	for now, want := range map[time.Time]string{at: ">18:30:05<", at.Add(6 * time.Hour): ">28 Nov 18:30:05<"} {
		if got := string(clock(at, now)); !strings.Contains(got, want) || !strings.Contains(got, `datetime="2026-11-28T18:30:05Z" data-clock="1795890605000"`) {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
