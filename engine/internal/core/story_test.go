package core

import (
	"testing"
	"time"
)

// Clients that were rejected at once push out no story of one that was queued, or whose
// connect to a host has failed.
func TestRejectedClientsPushOutNoOthers(t *testing.T) {
	var p Past
	add := func(id uint64, notes *Notes) {
		a := &Admission{Svc: &Service{Name: "web"}, notes: notes}
		p.add(a, nil, int64(id), Normal, &Last{ID: id}, new(Attempts))
	}
	add(1, &Notes{trail: trail{queued: 1}})
	add(2, &Notes{trail: trail{tries: []try{{what: refused, times: 1}}}})
	for id := range uint64(pastSessions + 5) {
		add(10+id, &Notes{headed: true})
	}
	for id, want := range map[uint64]bool{1: true, 2: true, 10: false, 10 + pastSessions: true} {
		if _, ok := p.Find(id, time.Time{}); ok != want {
			t.Errorf("session %d is kept: %v", id, ok)
		}
	}
}

// Stories are read in steps, the last first, while further sessions end.
func TestStoriesAreReadInSteps(t *testing.T) {
	var p Past
	id := uint64(0)
	add := func(n int) {
		for range n {
			id++
			a := &Admission{Svc: &Service{Name: "web"}}
			if id%3 == 0 {
				a.notes = &Notes{trail: trail{queued: 1}}
			}
			p.add(a, nil, int64(id), Normal, &Last{ID: id}, new(Attempts))
		}
	}
	read := func(most, meanwhile int) (ids []uint64, steps int) {
		r := p.Read(most, time.Time{})
		for r.Step() {
			steps++
			add(meanwhile)
		}
		for _, s := range r.List() {
			ids = append(ids, s.ID)
		}
		return ids, steps
	}
	if ids, _ := read(10, 0); len(ids) != 0 {
		t.Errorf("stories of nobody: %v", ids)
	}
	for _, before := range []int{1, 299, 5000} {
		add(before)
		for _, most := range []int{0, 1, storiesAtOnce, 10_000} {
			for _, meanwhile := range []int{0, 100, 4000} {
				last := id
				ids, steps := read(most, meanwhile)
				if most > 0 && (len(ids) == 0 || ids[0] != last) || len(ids) > most || steps > len(ids)/storiesAtOnce {
					t.Fatalf("%d of at most %d in %d steps, the last session is %d: %v", len(ids), most, steps, last, ids)
				}
				for i := 1; i < len(ids); i++ {
					if ids[i] >= ids[i-1] {
						t.Fatalf("session %d behind session %d", ids[i], ids[i-1])
					}
				}
				if all := min(int(last), most, pastSessions); meanwhile == 0 && len(ids) < all {
					t.Errorf("%d of %d", len(ids), all)
				}
			}
		}
	}
}
