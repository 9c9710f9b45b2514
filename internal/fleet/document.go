package fleet

import (
	"bytes"
	"compress/gzip"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/changes"
	"github.com/txlb/txlb/internal/director"
)

const (
	// format is the number of the format of documents. It changes only if a reader of the old
	// one would misunderstand the new one.
	format = 1
	// plainSize is up to which size a document is written as it is, so that people can read
	// it in the store.
	plainSize = 64 << 10
	// maxValue is the size of the largest value. etcd takes requests of 1.5 MiB, in which
	// there is more than the value.
	maxValue = 1_400_000
	// maxHistory is how many changes a document tells of.
	maxHistory = 8
	// maxNote bounds each text about a change, in bytes.
	maxNote = 512
)

// document is the configuration of a fleet, with what has led to it.
type document struct {
	Fleet      string
	Version    string // of the txlb that wrote it
	Generation uint64
	ID         string   // of the change that made it: no other has it
	History    []change // the last changes, the oldest first
	// Unconfirmed are the changes that wait to be confirmed, the oldest first, and Confirmed
	// the last that were. Dropped are the last that wait no more, and that nobody has confirmed.
	Unconfirmed []*unconfirmed
	Confirmed   []confirmed
	Dropped     []uint64
	Config      *config.Config // what is shared of it; the rest has its defaults
}

// change tells of one change.
type change struct {
	Generation           uint64
	Node, By, From, Verb string
	Time                 time.Time
	Undoes               uint64 // the change that it takes back because nobody has confirmed it; 0: none
	Why                  string
}

// xml is the change as XML.
func (c change) xml() xmlChange {
	return xmlChange{c.Generation, short(c.Node), short(c.By), short(c.From), short(c.Verb), c.Time.UTC().Round(time.Millisecond), c.Undoes, short(c.Why)}
}

// last is the change that made the document.
func (d *document) last() change {
	if len(d.History) == 0 {
		return change{Generation: d.Generation}
	}
	return d.History[len(d.History)-1]
}

// shared returns what of a configuration the nodes of a fleet share. The rest has its
// defaults. It shares memory with c.
func shared(c *config.Config) *config.Config {
	s := config.New()
	s.Services, s.Manager, s.DNS, s.Admin.Users = c.Services, c.Manager, c.DNS, c.Admin.Users
	if s.HasOwn() {
		s = s.Clone()
		s.KeepOwn(nil)
	}
	return s
}

// take gives a configuration what a fleet shares. What only a node's own file may say stays.
func take(c, from *config.Config) {
	next := from.Clone()
	next.KeepOwn(c)
	changes.Place(next, c) // positions in this node's file
	c.Services, c.Manager, c.DNS, c.Admin.Users = next.Services, next.Manager, next.DNS, next.Admin.Users
}

// sameShared tells whether two configurations share the same.
func sameShared(a, b *config.Config) bool { return changes.Same(shared(a), shared(b)) }

// envelope is a document as XML.
type envelope struct {
	XMLName     xml.Name         `xml:"txlb"`
	Fleet       string           `xml:"fleet,attr"`
	Format      int              `xml:"format,attr"`
	Version     string           `xml:"version,attr"`
	Generation  string           `xml:"generation,attr"` // text, so that a wrong one is our error
	ID          string           `xml:"id,attr"`
	Changes     []xmlChange      `xml:"change"`
	Unconfirmed []xmlUnconfirmed `xml:"unconfirmed"`
	Confirmed   []xmlConfirmed   `xml:"confirmed"`
	Dropped     []uint64         `xml:"dropped"`
}

// unwrap takes the configuration out of a document: most of its time would go into looking at
// it twice. text is nil if there is none.
func unwrap(value []byte) (rest, text []byte) {
	const begin, end = "<config>", "</config>"
	from, to := bytes.Index(value, []byte(begin)), bytes.LastIndex(value, []byte(end))
	if from < 0 || to < from {
		return value, nil
	}
	to += len(end)
	return slices.Concat(value[:from], value[to:]), value[from:to]
}

type xmlChange struct {
	Generation uint64    `xml:"generation,attr"`
	Node       string    `xml:"node,attr"`
	By         string    `xml:"by,attr"`
	From       string    `xml:"from,attr,omitempty"`
	Verb       string    `xml:"verb,attr"`
	Time       time.Time `xml:"time,attr"`
	Undoes     uint64    `xml:"undoes,attr,omitempty"`
	Why        string    `xml:"why,attr,omitempty"`
}

// encode writes a document as a value of the store. The error says what is too large.
func (d *document) encode() ([]byte, error) {
	if d.Generation > maxGeneration {
		return nil, fmt.Errorf("generation %d is the last that a fleet can have: begin another fleet", uint64(maxGeneration))
	}
	h := envelope{Fleet: d.Fleet, Format: format, Version: d.Version, Generation: strconv.FormatUint(d.Generation, 10), ID: d.ID}
	for _, c := range d.History[max(0, len(d.History)-maxHistory):] {
		h.Changes = append(h.Changes, c.xml())
	}
	for _, u := range d.Unconfirmed {
		x, err := u.encode(d.Config)
		if err != nil {
			return nil, err
		}
		h.Unconfirmed = append(h.Unconfirmed, x)
	}
	for _, c := range d.Confirmed {
		h.Confirmed = append(h.Confirmed, xmlConfirmed{c.Generation, short(c.Node), short(c.By), c.Time.UTC().Round(time.Millisecond)})
	}
	h.Dropped = d.Dropped
	top, err := xml.MarshalIndent(h, "", "  ")
	if err != nil {
		return nil, err
	}
	text, err := d.Config.Marshal()
	if err != nil {
		return nil, err
	}
	const end = "</txlb>"
	top = bytes.TrimRight(bytes.TrimSuffix(top, []byte(end)), "\n")
	plain := slices.Concat(top, []byte("\n"), bytes.TrimRight(text, "\n"), []byte("\n"+end+"\n"))
	if len(plain) > config.MaxSize {
		return nil, fmt.Errorf("the configuration has %d bytes; a fleet takes at most %d: divide it among several fleets", len(plain), config.MaxSize)
	}
	// What no node could read must not be accepted.
	if err := config.CheckForm("configuration", text); err != nil {
		return nil, fmt.Errorf("no node could read it: %w; divide it among several fleets", err)
	}
	if len(plain) <= plainSize {
		return plain, nil
	}
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err = w.Write(plain)
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, err
	}
	if b.Len() > maxValue {
		return nil, fmt.Errorf("the configuration has %d bytes, %d when compressed; the store of a fleet takes at most %d: divide it among several fleets", len(plain), b.Len(), maxValue)
	}
	return b.Bytes(), nil
}

// short bounds a text.
func short(s string) string {
	if len(s) > maxNote {
		return string(bytes.ToValidUTF8([]byte(s[:maxNote]), nil)) + "…"
	}
	return s
}

// decode reads what encode has written. The error says what is wrong with the value.
func decode(value []byte, fleet string) (*document, error) {
	if bytes.HasPrefix(value, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(bytes.NewReader(value))
		if err == nil {
			value, err = io.ReadAll(io.LimitReader(z, config.MaxSize+1))
		}
		if err != nil {
			return nil, fmt.Errorf("is not what txlb writes: %w", err)
		}
	}
	if len(value) > config.MaxSize {
		return nil, fmt.Errorf("has more than the %d bytes that a fleet takes", config.MaxSize)
	}
	value, text := unwrap(value)
	var read envelope
	if err := xml.Unmarshal(value, &read); err != nil {
		return nil, fmt.Errorf("is not what txlb writes: %w", err)
	}
	switch {
	case read.Format > format:
		return nil, fmt.Errorf("has format %d, by txlb %s; this one reads format %d: upgrade this node", read.Format, note(read.Version), format)
	case read.Format != format:
		return nil, fmt.Errorf("has format %d, which there never was", read.Format)
	case read.Fleet != fleet:
		return nil, fmt.Errorf("is of the fleet %q, not of %q: the store was filled by hand?", short(read.Fleet), fleet)
	case text == nil:
		return nil, errors.New("has no <config>")
	}
	generation, err := strconv.ParseUint(read.Generation, 10, 63)
	if err != nil || generation == 0 || generation > maxGeneration {
		return nil, fmt.Errorf("has the generation %q; want a number from 1", short(read.Generation))
	}
	c, problems := config.Parse("configuration of the fleet", text)
	if c == nil {
		return nil, fmt.Errorf("by txlb %s is not valid here: %w", note(read.Version), problems.Err())
	}
	d := &document{Fleet: fleet, Version: read.Version, Generation: generation, ID: read.ID, Config: shared(c)}
	for _, c := range last(read.Changes) {
		d.History = append(d.History, change(c).noted())
	}
	if n := len(read.Unconfirmed); n > director.MaxUnconfirmed { // each has the whole configuration twice
		return nil, fmt.Errorf("has %d changes that wait to be confirmed; txlb lets at most %d wait", n, director.MaxUnconfirmed)
	}
	for i := range read.Unconfirmed {
		u, err := read.Unconfirmed[i].decode(d.Config)
		if err != nil {
			return nil, err
		}
		d.Unconfirmed = append(d.Unconfirmed, u)
	}
	for _, c := range last(read.Confirmed) {
		c.Node, c.By = note(c.Node), note(c.By)
		d.Confirmed = append(d.Confirmed, confirmed(c))
	}
	d.Dropped = last(read.Dropped)
	return d, nil
}

// last are as many of a list as txlb writes.
func last[T any](list []T) []T { return list[max(0, len(list)-maxHistory):] }

// noted is the change with texts that people can be shown.
func (c change) noted() change {
	c.Node, c.By, c.From, c.Verb, c.Why = note(c.Node), note(c.By), note(c.From), note(c.Verb), note(c.Why)
	return c
}

// next is the document that a change makes of this one.
func (d *document) next(c change, cfg *config.Config, version string) *document {
	n := &document{Fleet: d.Fleet, Version: version, Generation: d.Generation + 1, ID: newID(), Config: shared(cfg), Confirmed: d.Confirmed, Dropped: d.Dropped}
	c.Generation = n.Generation
	n.History = append(slices.Clone(d.History), c)
	n.History = n.History[max(0, len(n.History)-maxHistory):]
	return n
}
