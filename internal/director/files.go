package director

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/changes"
	"github.com/txlb/txlb/config/document"
)

// ErrNoFile is returned by Reload and Save where no file was given.
var ErrNoFile = errors.New("the configuration was not read from a file")

// fileOf returns the name of a configuration for problems with it.
func fileOf(doc *document.File) string {
	if doc == nil {
		return "configuration"
	}
	return doc.Path
}

// errSame drops a change that would change nothing.
var errSame = errors.New("nothing to change")

// files is what the director knows of its configuration file.
type files struct {
	mu     sync.Mutex                    // held while the file is read or written: one at a time
	doc    atomic.Pointer[document.File] // set by take
	taken  atomic.Pointer[chan struct{}] // closed by the next take
	failed atomic.Bool                   // the last reload
	diff   atomic.Pointer[fileDiff]
}

// take notes the file as it was just read or written.
func (f *files) take(doc *document.File) {
	f.doc.Store(doc)
	next := make(chan struct{})
	if was := f.taken.Swap(&next); was != nil {
		close(*was)
	}
}

// fileDiff is the difference between a document and what runs, kept because
// every scrape of the metrics asks.
type fileDiff struct {
	doc     *document.File
	running *config.Config
	edits   []changes.Edit
}

// ReloadRequest is how a file is to be read again.
type ReloadRequest struct {
	By, From   string        // as in Change
	Discard    bool          // changes made at run time are lost
	Force      bool          // also where others have them, see Options.Commit
	DryRun     bool          // nothing changes; the answer says what would
	Generation uint64        // as in Change
	Confirm    time.Duration // as in Change; until then the file counts as not read
}

// Reloaded is the result of a reload, or of its dry run.
type Reloaded struct {
	Generation uint64          // of the configuration afterwards
	Changed    []changes.Edit  // what runs has changed by this
	Kept       []changes.Edit  // changes made at run time that stay; the file lacks them
	Lost       []changes.Edit  // changes made at run time that the file overrules
	Restart    []changes.Edit  // what the file says and a running process cannot take up
	Warnings   config.Problems // of the file
	Lists      []string        // files of networks that say something else than before
	TLS        []string        // files of certificates and authorities that do
	Everywhere bool            // other nodes take the file's word as well, whatever they have
	Confirmed  []*Pending      // changes that waited to be confirmed, and that the file has now
}

// String gives one line per edit, each with a word in front that says what became
// of the edit.
func (r Reloaded) String() string {
	var b strings.Builder
	if len(r.Changed)+len(r.Lists)+len(r.TLS) == 0 {
		b.WriteString("nothing has changed\n")
	}
	for _, path := range r.Lists {
		fmt.Fprintf(&b, "list changed: %s\n", path)
	}
	for _, path := range r.TLS {
		fmt.Fprintf(&b, "certificate changed: %s\n", path)
	}
	for _, part := range []struct {
		word  string
		edits []changes.Edit
	}{{"changed", r.Changed}, {"kept, not in the file", r.Kept}, {"lost", r.Lost}, {"needs a restart", r.Restart}} {
		for _, e := range part.edits {
			fmt.Fprintf(&b, "%s: %s\n", part.word, e.Done())
		}
	}
	if r.Everywhere {
		b.WriteString("fleet: what the file says becomes the configuration of all nodes\n")
	}
	for _, p := range r.Confirmed {
		fmt.Fprintf(&b, "confirmed, as the file has it: generation %d (%s)\n", p.Generation, p.Verb)
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(&b, "%s\n", w)
	}
	return b.String()
}

// Reload reads the file again and applies what has changed in it since it was last
// read or written. Run-time changes stay, unless the file has changed the same
// attribute or they are to be discarded. Where others have accepted them (Options.Commit), that
// needs Force. A file with errors changes nothing: the
// error is config.Problems, and the log has each. The file is read on the caller's
// goroutine. A change that waits to be confirmed, and that the file now has as well, is
// confirmed by that. While a reload waits to be confirmed, there is no other one.
func (d *Director) Reload(ctx context.Context, r ReloadRequest) (Reloaded, error) {
	d.files.mu.Lock()
	defer d.files.mu.Unlock()
	var answer Reloaded
	if why := d.refused(); why != nil && !r.DryRun {
		return answer, why
	}
	base := d.files.doc.Load()
	if base == nil {
		return answer, ErrNoFile
	}
	if p := d.State().pendingReload(); p != nil {
		return answer, errPendingReload(p)
	}
	answer, doc, err := d.reload(ctx, base, r)
	if why := d.refused(); r.DryRun || why != nil && errors.Is(err, why) {
		return answer, err
	}
	d.files.failed.Store(err != nil)
	if err != nil {
		d.logReloadError(base.Path, err)
		return answer, err
	}
	if r.Confirm == 0 || len(answer.Changed) == 0 { // else when it is confirmed
		d.files.take(doc)
		answer.Confirmed = d.confirmByFile(ctx, base.Config, doc.Config, r)
	}
	d.logReload(base.Path, answer)
	return answer, nil
}

// confirmByFile confirms the changes that a file has now and did not have before.
func (d *Director) confirmByFile(ctx context.Context, before, now *config.Config, r ReloadRequest) (list []*Pending) {
	for _, p := range d.State().Pending() {
		if p.within(now) && !p.within(before) {
			if p, err := d.Confirm(ctx, p.Generation, r.By, r.From); err == nil { // else it has been undone meanwhile
				list = append(list, p)
			}
		}
	}
	return list
}

func (d *Director) reload(ctx context.Context, base *document.File, r ReloadRequest) (Reloaded, *document.File, error) {
	var answer Reloaded
	doc, problems := document.Open(base.Path)
	if doc == nil {
		return answer, nil, problems
	}
	answer.Warnings = problems
	files, err := readLists(doc.Config, nil)
	if err != nil {
		return answer, nil, err
	}
	tls, err := d.looker.store.Reread(wantedTLS(doc.Config))
	if err != nil {
		return answer, nil, tlsProblems(doc.Config, base.Path, err)
	}
	verb := "reload"
	if r.Discard {
		verb = "reload --discard"
	}
	answer.Generation, err = d.Do(ctx, Change{
		By: r.By, From: r.From, Verb: verb, Generation: r.Generation, DryRun: r.DryRun, Edits: &answer.Changed,
		Confirm: r.Confirm, lists: files, tls: tls, doc: doc,
		Apply: func(running *config.Config) error {
			m := changes.Merged{Config: doc.Config.Clone()}
			if r.Discard {
				m.Lost = changes.Diff(base.Config, running)
				if answer.Everywhere = d.opt.Commit != nil; answer.Everywhere && !r.Force && !r.DryRun && len(m.Lost) > 0 {
					return errDiscards(base.Path, m.Lost)
				}
			} else {
				var err error
				if m, err = changes.Merge(base.Config, doc.Config, running); err != nil {
					return fmt.Errorf("%s and the run-time changes conflict: %w", base.Path, err)
				}
			}
			answer.Kept, answer.Lost, answer.Restart = m.Kept, m.Lost, needRestart(d.started, m.Config)
			_, answer.Lists = files.settled(d.lists)
			answer.TLS = tls.Changed(d.tls)
			if changes.Same(running, m.Config) && len(answer.Lists)+len(answer.TLS) == 0 {
				return errSame
			}
			*running = *m.Config
			return nil
		},
	})
	if errors.Is(err, errSame) {
		answer.Generation, err = d.State().Generation, nil
	}
	return answer, doc, err
}

// errDiscards refuses to take back on all nodes what the file of this one lacks.
func errDiscards(path string, lost []changes.Edit) error {
	const most = 10
	var list []string
	for _, e := range lost[:min(len(lost), most)] {
		list = append(list, e.Done())
	}
	if len(lost) > most {
		list = append(list, fmt.Sprintf("and %d more", len(lost)-most))
	}
	return fmt.Errorf("%s lacks what the fleet has changed since the file was last read or written, and --discard would take it back on all nodes: %s; reload without --discard keeps it, --discard --force loses it",
		path, strings.Join(list, ", "))
}

// needRestart returns the settings that are fixed while the process runs and differ
// from those with which it was started.
func needRestart(started, now *config.Config) []changes.Edit {
	fixed := func(c *config.Config) *config.Config {
		f := config.New()
		f.Engine, f.Fleet = c.Engine, c.Fleet
		return f
	}
	return changes.Diff(fixed(started), fixed(now))
}

// maxTold is how many edits of one reload go to the log.
const maxTold = 100

func (d *Director) logReload(path string, r Reloaded) {
	for _, w := range r.Warnings {
		d.log.Warn("configuration warning", "problem", w.String())
	}
	for _, part := range []struct {
		text  string
		warn  bool
		edits []changes.Edit
	}{
		{"reload changed", false, r.Changed},
		{"reload discarded a run-time change", true, r.Lost},
		{"restart required", true, r.Restart},
	} {
		for i, e := range part.edits {
			if i == maxTold {
				d.log.Info("more edits not logged", "number", len(part.edits)-maxTold)
				break
			}
			if part.warn {
				d.log.Warn(part.text, "edit", e.Done())
			} else {
				d.log.Info(part.text, "edit", e.Done())
			}
		}
	}
	for _, list := range r.Lists {
		d.log.Info("list of networks changed", "file", list)
	}
	d.log.Info("reloaded", "file", path, "generation", r.Generation, "changed", len(r.Changed),
		"kept", len(r.Kept), "lost", len(r.Lost), "restart", len(r.Restart))
}

func (d *Director) logReloadError(path string, err error) {
	if problems, ok := errors.AsType[config.Problems](err); ok {
		for _, p := range problems {
			if p.Warning {
				d.log.Warn("configuration warning", "problem", p.String())
			} else {
				d.log.Error("configuration file is not valid", "problem", p.String())
			}
		}
	}
	why := err.Error()
	if first, _, more := strings.Cut(why, "\n"); more { // the lines have been logged
		why = first + " …"
	}
	d.log.Error("reload failed, keeping the current configuration", "file", path, "err", why)
}

// Saved is what was written.
type Saved struct {
	Path  string
	Edits []changes.Edit // what the file says now and did not before
	Notes []string       // what people should know of how it was written
}

// Save writes the running configuration to the file with document.File.Save, without the
// changes that wait to be confirmed, and writes nothing if the file has it already. The work
// is done on the caller's goroutine.
func (d *Director) Save(by, from string) (Saved, error) {
	d.files.mu.Lock()
	defer d.files.mu.Unlock()
	if why := d.refused(); why != nil {
		return Saved{}, why
	}
	doc := d.files.doc.Load()
	if doc == nil {
		return Saved{}, ErrNoFile
	}
	state := d.State()
	if p := state.pendingReload(); p != nil {
		return Saved{}, errPendingReload(p)
	}
	running, err := state.Settled()
	if err != nil {
		return Saved{}, err
	}
	saved := Saved{Path: doc.Path, Edits: changes.Diff(doc.Config, running)}
	if len(saved.Edits) == 0 {
		return saved, nil
	}
	next, err := doc.Save(running, running.Manager.Backups)
	if next != nil {
		d.files.take(next)
		d.log.Info("saved", "file", doc.Path, "changes", len(saved.Edits), "by", by, "from", from)
		saved.Notes = next.Notes
		if !slices.Equal(next.Notes, doc.Notes) { // else it was as with the last save
			for _, note := range next.Notes {
				d.log.Warn("saved, but not as usual", "reason", note)
			}
		}
	}
	return saved, err
}

// Unsaved returns the run-time changes that the file does not have, and that Save would
// write: those that wait to be confirmed are not among them. It may be called from any
// goroutine and changes nothing.
func (d *Director) Unsaved() []changes.Edit {
	doc, state := d.files.doc.Load(), d.State()
	if doc == nil {
		return nil
	}
	running, err := state.Settled()
	if err != nil { // Save says why
		running = state.Config
	}
	if was := d.files.diff.Load(); was != nil && was.doc == doc && was.running == running {
		return was.edits
	}
	edits := changes.Diff(doc.Config, running)
	d.files.diff.Store(&fileDiff{doc, running, edits})
	return edits
}

// Stored returns the configuration file as it was last read or written, nil
// without one.
func (d *Director) Stored() *document.File { return d.files.doc.Load() }

// StoredReplaced returns a channel that is closed when the file has been read or written again.
func (d *Director) StoredReplaced() <-chan struct{} { return *d.files.taken.Load() }

// ReloadFailed tells whether the last reload failed.
func (d *Director) ReloadFailed() bool { return d.files.failed.Load() }

// saveInTime is the goroutine of <configCheck>.
func (d *Director) saveInTime(ctx context.Context) {
	timer := time.NewTimer(0)
	timer.Stop()
	var every config.Check
	told := ""
	save := func(last bool) {
		if d.refused() != nil || len(d.Unsaved()) == 0 || !last && d.State().pendingReload() != nil {
			return
		}
		_, err := d.Save("configCheck", "")
		if err == nil {
			told = ""
		} else if text := err.Error(); text != told {
			told = text
			d.log.Error("cannot save the configuration", "err", err)
		}
	}
	for {
		state := d.State()
		if check := state.Config.Manager.ConfigCheck; check != every {
			every = check
			timer.Stop()
			if every.Enable {
				timer.Reset(every.Interval)
			}
		}
		select {
		case <-ctx.Done():
			if every.Enable {
				save(true)
			}
			return
		case <-state.Replaced():
		case <-timer.C:
			save(false)
			timer.Reset(every.Interval)
		}
	}
}
