package admin

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/changes"
	"github.com/txlb/txlb/internal/admin/users"
	"github.com/txlb/txlb/internal/director"
)

// FileInfo is the Data of saveConfig, reload, rollback and show diff: changes as
// the verbs that make them, with *** in place of password hashes.
type FileInfo struct {
	Path     string   `json:"path,omitempty"`
	Changed  []string `json:"changed"`            // done, or what show diff shows
	Kept     []string `json:"kept,omitempty"`     // by a reload: made at run time, not in the file
	Lost     []string `json:"lost,omitempty"`     // by a reload: made at run time, overruled by the file
	Restart  []string `json:"restart,omitempty"`  // what needs a restart
	Warnings []string `json:"warnings,omitempty"` // of the file, or how it was written
	// Pending are changes that wait to be confirmed, which no file has; see PendingInfo.
	Pending []PendingInfo `json:"pending,omitempty"`
}

// EventInfo is one event in the Data of show events, and wherever events are
// told to programs.
type EventInfo struct {
	Seq        uint64    `json:"seq"`
	Kind       string    `json:"kind"` // change, health or order
	Generation uint64    `json:"generation"`
	Time       time.Time `json:"time"`
	By         string    `json:"by,omitempty"`
	From       string    `json:"from,omitempty"`
	Verb       string    `json:"verb"`
	Text       string    `json:"text,omitempty"`
	Edits      []string  `json:"edits,omitempty"` // what a change did, as verbs
}

// NewEventInfo makes an event fit to be shown to anybody.
func NewEventInfo(e director.Event) EventInfo {
	return EventInfo{
		Seq: e.Seq, Kind: string(e.Kind), Generation: e.Generation, Time: e.Time,
		By: e.By, From: e.From, Verb: e.Verb, Text: e.Text, Edits: shown(e.Edits),
	}
}

// shown writes edits that have been made, without their secrets.
func shown(edits []changes.Edit) []string {
	list := make([]string, len(edits))
	for i, e := range edits {
		list[i] = e.Done()
	}
	return list
}

// withWords puts a word in front of each of some lines.
func withWords(word string, lines []string) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(word + l + "\n")
	}
	return b.String()
}

func (k *call) save() (Result, error) {
	d := k.admin.opt.Director
	if k.args.set("dry-run") {
		doc := d.Stored()
		if doc == nil {
			return Result{}, director.ErrNoFile
		}
		info := FileInfo{Path: doc.Path, Changed: shown(d.Unsaved()), Pending: k.admin.pending()}
		if len(info.Changed) == 0 {
			return Result{Text: doc.Path + " is the same as the running configuration: nothing to write" + notSaved(info.Pending), Data: info}, nil
		}
		return Result{Text: withWords("would write: ", info.Changed) + strings.TrimPrefix(notSaved(info.Pending), "\n"), Data: info}, nil
	}
	saved, err := d.Save(k.caller.Name, k.caller.From)
	if err != nil {
		return Result{}, err
	}
	info := FileInfo{Path: saved.Path, Changed: shown(saved.Edits), Warnings: saved.Notes, Pending: k.admin.pending()}
	if len(saved.Edits) == 0 {
		return Result{Text: saved.Path + " is already the same as the running configuration" + notSaved(info.Pending), Data: info}, nil
	}
	text := fmt.Sprintf("%s written with %s", saved.Path, count(len(saved.Edits), "change"))
	for _, note := range saved.Notes {
		text += "\nwarning: " + note
	}
	return Result{Text: text + notSaved(info.Pending), Data: info}, nil
}

func (k *call) reload() (Result, error) {
	want, _ := k.args.number("generation")
	dry := k.args.set("dry-run")
	within, err := k.within()
	if err != nil {
		return Result{}, err
	}
	r, err := k.admin.opt.Director.Reload(k.ctx, director.ReloadRequest{
		By: k.caller.Name, From: k.caller.From, Discard: k.args.set("discard"), Force: k.args.set("force"), DryRun: dry, Generation: uint64(want), Confirm: within,
	})
	if problems, ok := errors.AsType[config.Problems](err); ok {
		// Here, unlike with a verb, it matters where they are.
		var lines []string
		for _, p := range problems {
			if !p.Warning {
				lines = append(lines, p.String())
			}
		}
		return Result{}, errors.New(strings.Join(lines, "; "))
	}
	if err != nil {
		return Result{}, err
	}
	info := FileInfo{Changed: shown(r.Changed), Kept: shown(r.Kept), Lost: shown(r.Lost), Restart: shown(r.Restart)}
	for _, w := range r.Warnings {
		info.Warnings = append(info.Warnings, w.String())
	}
	k.changed = len(r.Changed) > 0
	text := r.String()
	if dry {
		text = withWords("dry run: ", strings.Split(strings.TrimSpace(text), "\n"))
	}
	result := Result{Text: text, Data: info, Generation: r.Generation}
	if p := k.pendingOf(r.Generation); p != nil && k.changed && !dry {
		info.Pending = []PendingInfo{*p}
		result.Data, result.Text = info, strings.TrimSuffix(text, "\n")+"\n"+p.String()
	}
	return result, nil
}

func (k *call) rollback() (Result, error) {
	n, given := k.args.number("n")
	if !given {
		n = 1
	}
	want, _ := k.args.number("generation")
	var edits []changes.Edit
	dry := k.args.set("dry-run")
	within, err := k.within()
	if err != nil {
		return Result{}, err
	}
	generation, err := k.admin.opt.Director.Rollback(k.ctx, int(n), director.Change{
		By: k.caller.Name, From: k.caller.From, Generation: uint64(want), DryRun: dry, Edits: &edits, Confirm: within,
	})
	if err != nil {
		return Result{}, err
	}
	k.changed = len(edits) > 0
	info := FileInfo{Changed: shown(edits)}
	word := fmt.Sprintf("generation %d: ", generation)
	if dry {
		word = "would "
	}
	if len(edits) == 0 {
		return Result{Text: word + "change nothing", Data: info, Generation: generation}, nil
	}
	text := withWords(word, info.Changed)
	if p := k.pendingOf(generation); p != nil && !dry {
		info.Pending = []PendingInfo{*p}
		text += p.String()
	}
	return Result{Text: text, Data: info, Generation: generation}, nil
}

func (k *call) showDiff() (Result, error) {
	d := k.admin.opt.Director
	doc := d.Stored()
	if doc == nil {
		return Result{}, director.ErrNoFile
	}
	edits := d.Unsaved()
	info := FileInfo{Path: doc.Path, Changed: make([]string, len(edits)), Pending: k.admin.pending()}
	for i, e := range edits {
		info.Changed[i] = e.String()
	}
	comments := ""
	for i := range info.Pending {
		comments += "# " + info.Pending[i].String() + "\n" + withWords("#   ", info.Pending[i].Edits)
	}
	if len(edits) == 0 {
		return Result{Text: strings.TrimSuffix(doc.Path+" is the same as the running configuration\n"+comments, "\n"), Data: info}, nil
	}
	lines := info.Changed
	if k.secrets = k.caller.Role == users.Full; k.secrets { // then they are verbs that can be given
		lines = make([]string, len(edits))
		for i, e := range edits {
			lines[i] = e.Command()
		}
	}
	return Result{Text: withWords("", lines) + comments, Data: info}, nil
}

func (k *call) showStored() (Result, error) {
	doc := k.admin.opt.Director.Stored()
	if doc == nil {
		return Result{}, director.ErrNoFile
	}
	text := doc.Text()
	if k.secrets = k.caller.Role == users.Full; !k.secrets { // the file's own text may have a hash in any place, comments too
		xml, err := doc.Config.Masked().Marshal()
		if err != nil {
			return Result{}, err
		}
		text = string(xml)
	}
	return Result{Text: text, Data: StoredInfo{doc.Path, text}}, nil
}

// StoredInfo is the Data of show stored.
type StoredInfo struct {
	Path string `json:"path"`
	XML  string `json:"xml"`
}

// manyEvents is how many events are shown unless asked for more.
const manyEvents = 50

func (k *call) showEvents() (Result, error) {
	most, given := k.args.number("max")
	if !given {
		most = manyEvents
	}
	events := k.admin.opt.Director.Events()
	events = events[max(0, len(events)-int(most)):]
	infos := make([]EventInfo, len(events))
	t := table{head: []string{"TIME", "GENERATION", "BY", "FROM", "WHAT"}, right: 5}
	for i, e := range events {
		infos[i] = NewEventInfo(e)
		t.row(e.Time.Format(time.DateTime), e.Generation, e.By, e.From, infos[i].what())
	}
	if len(events) == 0 {
		return Result{Text: "no events since the start", Data: infos}, nil
	}
	return Result{Text: t.String(), Data: infos}, nil
}

// maxWhat is how much of an event a line of the table shows, in bytes.
const maxWhat = 160

// what tells an event in a few words.
func (e EventInfo) what() string {
	text := e.Verb
	if e.Text != "" {
		text += ": " + strings.TrimSpace(e.Text)
	}
	if e.Kind == string(director.ConfigEvent) && len(e.Edits) > 0 && e.Edits[0] != e.Verb {
		text += ": " + e.Edits[0]
		if n := len(e.Edits) - 1; n > 0 {
			text += fmt.Sprintf(" and %d more", n)
		}
	}
	if text = printable(text); len(text) > maxWhat {
		text = strings.ToValidUTF8(text[:maxWhat], "") + "…"
	}
	return text
}
