package director

import (
	"fmt"
	"testing"
)

// In a fleet, changes of what is the node's own have the generation that there is already. The
// error of one that came too late counts only what is forgotten.
func TestMovedErrorCountsGenerations(t *testing.T) {
	of := func(generations ...uint64) (list []Event) {
		for _, g := range generations {
			list = append(list, Event{Generation: g, By: "eva", Verb: "reload"})
		}
		return list
	}
	for _, test := range []struct {
		is    uint64
		since []Event
		want  string
	}{
		{11, of(11, 11), "; 11 by eva: reload; 11 by eva: reload"},
		{11, of(11, 12), "; 11 by eva: reload; 12 by eva: reload"},
		{14, of(13, 13, 14), "; not remembered any more: 2; 13 by eva: reload; 13 by eva: reload; 14 by eva: reload"},
		{12, nil, "; not remembered any more: 2"},
	} {
		e := &MovedError{Want: 10, Is: test.is, Since: test.since}
		if got, want := e.Error(), fmt.Sprintf("the configuration has changed from generation 10 to %d%s", test.is, test.want); got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
	}
}
