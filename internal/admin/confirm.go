package admin

import (
	"fmt"
	"slices"
	"time"

	"github.com/txlb/txlb/internal/director"
)

// PendingInfo is a change that is undone at its time, unless it is confirmed before.
type PendingInfo struct {
	Generation uint64    `json:"generation"` // that the change has made, for confirm
	Made       time.Time `json:"made"`
	Until      time.Time `json:"until"` // when it is undone
	Left       float64   `json:"left"`  // seconds until then, 0 if it is over
	By         string    `json:"by,omitempty"`
	From       string    `json:"from,omitempty"`
	Verb       string    `json:"verb"`
	Edits      []string  `json:"edits,omitempty"`   // what it has done, as verbs, without secrets
	Overdue    bool      `json:"overdue,omitempty"` // in a fleet: its time is over, and the store has not said so yet
	Trouble    string    `json:"trouble,omitempty"` // why it could not be undone; that is tried again
}

// NewPendingInfos makes changes that wait to be confirmed fit to be shown to anybody.
func NewPendingInfos(list []*director.Pending, now time.Time) (infos []PendingInfo) {
	for _, p := range list {
		infos = append(infos, PendingInfo{
			Generation: p.Generation, Made: p.Made, Until: p.Until, Left: max(0, p.Until.Sub(now).Seconds()),
			By: p.By, From: p.From, Verb: p.Verb, Edits: shown(p.Edits()), Trouble: p.Trouble, Overdue: p.Overdue(now),
		})
	}
	return infos
}

// String says what becomes of the change, and how it is kept.
func (p *PendingInfo) String() string {
	if p.Trouble != "" {
		return fmt.Sprintf("generation %d (%s) is not confirmed, and its undo failed: %s; to keep it: confirm %[1]d", p.Generation, p.Verb, p.Trouble)
	}
	if p.Overdue {
		return fmt.Sprintf("generation %d (%s) is not confirmed, its time is over, and it is undone when the store of the fleet says so: confirm %[1]d", p.Generation, p.Verb)
	}
	return fmt.Sprintf("generation %d (%s) is undone at %s, in %v, unless confirmed: confirm %[1]d", p.Generation, p.Verb,
		p.Until.Format("15:04:05"), time.Duration(p.Left*float64(time.Second)).Round(time.Second))
}

// Reminder says in a few words which change is undone next, and when; "" if none waits.
func Reminder(list []PendingInfo) string {
	if len(list) == 0 {
		return ""
	}
	p := slices.MinFunc(list, func(a, b PendingInfo) int { return a.Until.Compare(b.Until) })
	text := fmt.Sprintf("confirm %d: undone in %v", p.Generation, time.Duration(p.Left*float64(time.Second)).Round(time.Second))
	switch {
	case p.Trouble != "":
		text = fmt.Sprintf("confirm %d: its undo failed", p.Generation)
	case p.Overdue:
		text = fmt.Sprintf("confirm %d: undone when the store says so", p.Generation)
	}
	if n := len(list) - 1; n > 0 {
		text += fmt.Sprintf(", and %d more", n)
	}
	return text
}

// Reminder says which of the changes that wait to be confirmed is undone next, for a prompt.
func (a *Admin) Reminder() string { return Reminder(a.pending()) }

func (a *Admin) pending() []PendingInfo {
	return NewPendingInfos(a.opt.Director.State().Pending(), time.Now())
}

// notSaved says which changes a file does not get.
func notSaved(list []PendingInfo) (text string) {
	for i := range list {
		text += "\nwarning: not saved: " + list[i].String()
	}
	return text
}

// within is how long the change of a command waits to be confirmed; 0: it does not.
func (k *call) within() (time.Duration, error) {
	within, given := k.args.duration("confirm")
	if !given {
		return 0, nil
	}
	return within, director.CheckConfirm(within)
}

// wouldUndo says in a dry run what would become of the change.
func (k *call) wouldUndo(e *edit) string {
	within, given := k.args.duration("confirm")
	if !given || e.Same {
		return ""
	}
	return fmt.Sprintf("\nwould undo it after %v unless confirmed", within)
}

// pendingOf returns the change that has made a generation, if it waits to be confirmed.
func (k *call) pendingOf(generation uint64) *PendingInfo {
	for _, p := range k.admin.pending() {
		if p.Generation == generation {
			return &p
		}
	}
	return nil
}

// unconfirmed adds to an answer how the change is kept, if it waits to be confirmed.
func (k *call) unconfirmed(r Result) Result {
	if p := k.pendingOf(r.Generation); p != nil {
		r.Text += "\n" + p.String()
		r.Data = *p
	}
	return r
}

func (k *call) confirm() (Result, error) {
	generation, _ := k.args.number("change")
	p, err := k.admin.opt.Director.Confirm(k.ctx, uint64(generation), k.caller.Name, k.caller.From)
	if err != nil {
		return Result{}, err
	}
	text := fmt.Sprintf("generation %d stays: %s", p.Generation, p.Verb)
	if k.admin.opt.Director.Stored() != nil && len(k.admin.opt.Director.Unsaved()) > 0 {
		if k.admin.opt.Fleet != nil {
			text += "; each node writes it to its file"
		} else {
			text += "; saveConfig writes it to the file"
		}
	}
	return Result{Text: text}, nil
}
