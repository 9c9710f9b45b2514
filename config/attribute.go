package config

import (
	"cmp"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/txlb/txlb/internal/words"
	"github.com/txlb/txlb/sched"
)

// Attribute is one row of the schema. It is immutable and safe for concurrent
// use; the model that Get, Set and Check are given is not.
type Attribute struct {
	Element string // the tag of the element that has it
	Name    string
	Type    Type
	// Low and High bound a Number, and a Duration in nanoseconds, both
	// included. Zero bounds of a Duration mean that 0 stands for "no limit".
	Low, High int64
	Choices   []string // of a Choice
	Default   string   // as a document says it; "" if there is none, or see Help
	// Words are further values with a special meaning, such as auto.
	Words []string
	Help  string // its meaning in one line of Markdown, without a full stop
	// Runtime tells that a verb can change it while the process runs.
	Runtime bool
	// Secret tells that *** is shown instead, except to full users who ask for
	// secrets.
	Secret bool

	required bool // a document must say it
	always   bool // written even if it is the default
	lenient  bool // an empty value counts as none

	read      func(p any, s string) error
	write     func(p any) string
	check     func(p any) error // nil: every value of the field is right
	reset     func(p any)       // sets the default
	isDefault func(p any) bool
	canonical func(s string) (string, error)
}

// Type is what the values of an attribute look like.
type Type uint8

const (
	TypeText      Type = iota
	TypeBool           // yes or no
	TypeNumber         // Low to High
	TypeDuration       // with a unit: 500ms, 2s, 5m, 1h
	TypeSeconds        // without a unit
	TypeSize           // bytes, with or without a unit
	TypeChoice         // one of Choices
	TypeScheduler      // a name or an alias of package sched
	TypeTarget         // an address to connect to
	TypeListen         // an address to listen on
	TypeFile           // the path of a file or of a socket
	TypeOther          // Help says it
)

// Get returns the value in p, a pointer to the struct of the element, as a document
// has it.
func (a *Attribute) Get(p any) string { return a.write(p) }

// Set reads a value into p, a pointer to the struct of the element. An error
// says what would be right, and leaves p as it was.
func (a *Attribute) Set(p any, s string) error { return a.read(p, s) }

// Parse returns a value in its canonical form.
func (a *Attribute) Parse(s string) (string, error) { return a.canonical(s) }

// Required tells whether the element must have the attribute.
func (a *Attribute) Required() bool { return a.required }

// Values describes the values in a few words.
func (a *Attribute) Values() string {
	text := ""
	switch a.Type {
	case TypeBool:
		text = "yes, no"
	case TypeNumber:
		text = fmt.Sprintf("%d to %d", a.Low, a.High)
	case TypeDuration:
		text = "a duration"
		switch {
		case a.Low == 0:
			text += " or 0"
		case a.High < int64(longest):
			text = duration(time.Duration(a.Low)) + " to " + duration(time.Duration(a.High))
		}
	case TypeSeconds:
		text = "seconds"
	case TypeSize:
		text = "a size"
		if a.High < maxBytes {
			text = formatSize(a.Low) + " to " + formatSize(a.High)
		}
	case TypeChoice:
		text = strings.Join(a.Choices, ", ")
	case TypeScheduler:
		text = "a scheduler"
	case TypeTarget, TypeListen:
		text = "an address"
	case TypeFile:
		text = "a path"
	}
	list := slices.Clone(a.Words)
	if text != "" {
		list = append(list, text)
	}
	return strings.Join(list, ", ")
}

// Explain is Help and Values in one line of plain text.
func (a *Attribute) Explain() string {
	text := strings.NewReplacer("`", "", "**", "").Replace(a.Help)
	if v := a.Values(); v != "" {
		text += " (" + v + ")"
	}
	return text
}

func find(rows []Attribute, name string) *Attribute {
	for i := range rows {
		if rows[i].Name == name {
			return &rows[i]
		}
	}
	return nil
}

// values is a type of values: how they are read, written and bounded.
type values[T any] struct {
	kind      Type
	low, high int64
	choices   []string
	words     []string
	parse     func(string) (T, error) // within the bounds
	format    func(T) string
	check     func(T) error // the bounds, for a model that was not read; nil: none
}

// option completes a row.
type option func(*Attribute)

func required(a *Attribute) { a.required, a.always = true, true }

func always(a *Attribute) { a.always = true }

func lenient(a *Attribute) { a.lenient = true }

func runtime(a *Attribute) { a.Runtime = true }
func secret(a *Attribute)  { a.Secret = true }

// row makes a row for the field that at returns of a P. def is the default, which
// the functions New… of the model set.
func row[P, T any](name string, at func(*P) *T, v values[T], def T, help string, options ...option) Attribute {
	std := v.format(def)
	a := Attribute{
		Name: name, Type: v.kind, Low: v.low, High: v.high, Choices: v.choices, Words: v.words, Default: std, Help: help,
		read: func(p any, s string) error {
			value, err := v.parse(s)
			if err == nil {
				*at(p.(*P)) = value
			}
			return err
		},
		write: func(p any) string { return v.format(*at(p.(*P))) },
		canonical: func(s string) (string, error) {
			value, err := v.parse(s)
			if err != nil {
				return "", err
			}
			return v.format(value), nil
		},
		isDefault: func(p any) bool { return same(*at(p.(*P)), def) },
		reset:     func(p any) { *at(p.(*P)) = def },
	}
	if v.check != nil {
		a.check = func(p any) error { return v.check(*at(p.(*P))) }
	}
	for _, o := range options {
		o(&a)
	}
	return a
}

// same compares two values of a field.
func same[T any](a, b T) bool {
	if list, ok := any(a).([]string); ok {
		return slices.Equal(list, any(b).([]string))
	}
	return any(a) == any(b)
}

// What follows are the types of values.

var plain = values[string]{
	kind:   TypeText,
	parse:  func(s string) (string, error) { return s, nil },
	format: func(s string) string { return s },
	check: func(s string) error {
		if !printable(s) {
			return fmt.Errorf("%q has a non-printable character", s)
		}
		return nil
	},
}

// filePath names a file.
var filePath = checked(TypeFile, plain.check)

// accessTarget says where the access log goes.
var accessTarget = checked(TypeFile, checkAccessTarget)

// identifier is the name of a service, a group, a host or a user, which is
// checked together with its neighbours.
var identifier = checked(TypeText, nil)

// checked is plain text that check accepts.
func checked(kind Type, check func(string) error) values[string] {
	v := plain
	v.kind, v.check = kind, check
	return v
}

var boolean = values[bool]{
	kind: TypeBool, parse: parseBool,
	format: func(b bool) string {
		if b {
			return "true"
		}
		return "false"
	},
}

func integer(low, high int) values[int] {
	return values[int]{
		kind: TypeNumber, low: int64(low), high: int64(high),
		parse:  func(s string) (int, error) { return parseInt(s, low, high) },
		format: func(n int) string { return fmt.Sprint(n) },
		check: func(n int) error {
			if n < low || n > high {
				return fmt.Errorf("%d is not between %d and %d", n, low, high)
			}
			return nil
		},
	}
}

// or gives the zero value of T a word of its own. The word "" stands for an
// attribute that is left out.
func or[T comparable](word string, v values[T]) values[T] {
	var zero T
	return named(word, zero, v)
}

// named gives a value of T a word of its own, as or does for the zero value.
func named[T comparable](word string, special T, v values[T]) values[T] {
	w := v
	if word != "" {
		w.words = []string{word}
	}
	w.parse = func(s string) (T, error) {
		if s == word {
			return special, nil
		}
		value, err := v.parse(s)
		if err != nil && word != "" {
			err = fmt.Errorf("%w, nor %s", err, word)
		}
		return value, err
	}
	w.format = func(value T) string {
		if value == special {
			return word
		}
		return v.format(value)
	}
	w.check = func(value T) error {
		if value == special {
			return nil
		}
		return v.check(value)
	}
	return w
}

// between is a duration from low to high.
func between(low, high time.Duration) values[time.Duration] {
	bounds := func(d time.Duration) error {
		if d < low || d > high {
			return fmt.Errorf("%s is not between %s and %s", duration(d), duration(low), duration(high))
		}
		return nil
	}
	return values[time.Duration]{
		kind: TypeDuration, low: int64(low), high: int64(high), format: duration, check: bounds,
		parse: func(s string) (time.Duration, error) {
			d, err := parseDuration(s)
			if err == nil {
				err = bounds(d)
			}
			return d, err
		},
	}
}

// unlimited is a duration for which 0 means that there is none.
var unlimited = values[time.Duration]{
	kind: TypeDuration, high: int64(longest), parse: parseDuration, format: duration, check: checkDuration,
}

// everySecond is how often a name is looked up.
var everySecond = values[time.Duration]{
	kind: TypeDuration, low: int64(MinResolve), high: int64(longest), parse: parseResolve, format: duration, check: checkResolve,
}

var bareSeconds = values[time.Duration]{kind: TypeSeconds, parse: parseSeconds, format: seconds, check: checkSeconds}

func size(low, high int64) values[int64] {
	bounds := func(n int64) error {
		if n < low || n > high {
			return fmt.Errorf("%s is not between %s and %s", formatSize(n), formatSize(low), formatSize(high))
		}
		return nil
	}
	return values[int64]{
		kind: TypeSize, low: low, high: high, format: formatSize, check: bounds,
		parse: func(s string) (int64, error) {
			n, err := parseSize(s)
			if err == nil {
				err = bounds(n)
			}
			return n, err
		},
	}
}

func word(choices ...string) values[string] {
	check := func(s string) error {
		if !slices.Contains(choices, s) {
			return fmt.Errorf("%q is not one of %s", s, strings.Join(choices, ", "))
		}
		return nil
	}
	return values[string]{
		kind: TypeChoice, choices: choices, check: check,
		parse:  func(s string) (string, error) { return s, check(s) },
		format: func(s string) string { return s },
	}
}

// orOff is a choice of which "" is one, written off.
func orOff(choices ...string) values[string] { return orWord("off", choices...) }

// orWord is a choice of which "" is one, written as a word of its own.
func orWord(none string, choices ...string) values[string] {
	v := word(append([]string{none}, choices...)...)
	return values[string]{
		kind: TypeChoice, choices: v.choices,
		parse: func(s string) (string, error) {
			if s == none {
				return "", nil
			}
			return v.parse(s)
		},
		format: func(s string) string { return cmp.Or(s, none) },
		check:  func(s string) error { return v.check(cmp.Or(s, none)) },
	}
}

// either is a choice of two, of which yes stands for true.
func either(no, yes string) values[bool] {
	v := word(no, yes)
	return values[bool]{
		kind: TypeChoice, choices: v.choices,
		parse: func(s string) (bool, error) {
			_, err := v.parse(s)
			return s == yes, err
		},
		format: func(b bool) string {
			if b {
				return yes
			}
			return no
		},
	}
}

var scheduler = values[string]{
	kind: TypeScheduler, parse: ParseScheduler, format: func(s string) string { return s },
	check: func(s string) error {
		if name, ok := sched.Canonical(s); !ok || name != s {
			return fmt.Errorf("unknown scheduler %q%s", s, suggest(s, sched.Choices()))
		}
		return nil
	},
}

// fieldList is words with spaces between them.
var fieldList = values[[]string]{
	kind:   TypeOther,
	parse:  func(s string) ([]string, error) { return strings.Fields(s), nil },
	format: func(list []string) string { return strings.Join(list, " ") },
}

// hostNames are the names of hosts with spaces between them.
var hostNames = values[[]string]{kind: TypeOther, parse: parseHostNames, format: fieldList.format}

// allowedNetworks are networks or addresses with spaces between them, * for all.
var allowedNetworks = values[Networks]{kind: TypeOther, parse: parseNetworks, format: Networks.String}

// accessNetworks are those of a rule of <access>; "" is none.
var accessNetworks = named("", "", values[string]{
	kind: TypeOther, format: plain.format, check: checkAccessNetworks,
	parse: func(s string) (string, error) {
		n, err := parseNetworks(s)
		if err != nil {
			return "", err
		}
		return n.String(), nil
	},
})

func checkAccessNetworks(s string) error {
	_, err := parseNetworks(s)
	return err
}

// proxies are the networks of proxies whose X-Forwarded headers count.
var proxies = values[[]string]{kind: TypeOther, parse: parseProxies, format: fieldList.format}

// proxySources are the networks of those whose PROXY headers count. "" names none.
var proxySources = values[Networks]{
	kind: TypeOther, parse: parseProxySources, format: func(n Networks) string { return string(n) },
	check: func(n Networks) error {
		is, err := parseProxySources(string(n))
		if err == nil && is != n {
			err = fmt.Errorf("%q has to be written %q", string(n), string(is))
		}
		return err
	},
}

// bytesAsText is bytes, with escapes for those that are not printable.
var bytesAsText = values[string]{
	kind: TypeText, parse: unescape, format: escape,
	check: func(s string) error {
		if len(s) > maxCheckText {
			return fmt.Errorf("%d bytes are more than %d", len(s), maxCheckText)
		}
		return nil
	},
}

var fileMode = values[fs.FileMode]{kind: TypeOther, parse: parseMode, format: formatMode, check: func(m fs.FileMode) error {
	if m&^fs.ModePerm != 0 {
		return fmt.Errorf("%o is not between 0 and 0777", uint32(m))
	}
	return nil
}}

// adminAddress is where a page or an SSH server listens. Earlier versions saved
// None for no address, and a bare port for one of localhost.
var adminAddress = values[string]{
	kind: TypeListen, format: plain.format, check: plain.check,
	parse: func(s string) (string, error) {
		switch {
		case s == "None" || s == "":
			return "", nil
		case strings.Trim(s, "0123456789") == "":
			return net.JoinHostPort("localhost", s), nil
		}
		return s, nil
	},
}

// defaultRefresh is how often the page renews itself without JavaScript.
const defaultRefresh = 10 * time.Second

// pageRefresh is seconds without a unit. txLoadBalancer saved the number as a
// boolean, so True and False stand for the default.
var pageRefresh = values[time.Duration]{
	kind: TypeSeconds, format: seconds, check: checkSeconds,
	parse: func(s string) (time.Duration, error) {
		if s == "True" || s == "False" {
			return defaultRefresh, nil
		}
		return parseSeconds(s)
	},
}

// controlSocket is a path; txLoadBalancer saved None for none.
var controlSocket = values[string]{
	kind: TypeFile, format: plain.format, check: checkControl,
	parse: func(s string) (string, error) {
		if s == "None" {
			return "", nil
		}
		return s, nil
	},
}

// interfaceName is an interface of this machine. It need not be there yet.
var interfaceName = checked(TypeText, func(s string) error {
	if len(s) > maxInterface || strings.ContainsAny(s, "/ \t\n") || s == "." || s == ".." || !printable(s) {
		return fmt.Errorf("%q is not an interface; a name has at most %d letters without spaces and slashes, such as eth0", s, maxInterface)
	}
	return nil
})

// maxInterface is IFNAMSIZ without the byte that ends the name.
const maxInterface = 15

// zoneName names the place of a node or a host.
var zoneName = checked(TypeText, func(s string) error {
	if s != "" && !words.Plain(s) {
		return fmt.Errorf("%q is not a zone; use 1 to 64 letters, digits and _ . : -", s)
	}
	return nil
})

// sourceAddress is an address of this machine to connect from.
var sourceAddress = values[string]{
	kind: TypeText, words: []string{ClientSource}, format: plain.format,
	parse: func(s string) (string, error) {
		if err := checkSource(s); err != nil || s == "" || s == ClientSource {
			return s, err
		}
		a, _ := netip.ParseAddr(s)
		return a.Unmap().String(), nil
	},
	check: checkSource,
}

func checkSource(s string) error {
	if s == "" || s == ClientSource {
		return nil
	}
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return fmt.Errorf("%q is not an IP address; give one of this machine, without a port, or client", s)
	case a.Zone() != "":
		return fmt.Errorf("%q has a zone; leave it out, that of the host counts", s)
	case a.IsUnspecified() || a.IsMulticast():
		return fmt.Errorf("%q is not an address to connect from; give one of this machine", s)
	}
	return nil
}

// targetRule is <admin targets>: one of two words, or networks.
var targetRule = values[string]{
	kind: TypeOther, words: []string{targetsTCP, targetsAny}, format: func(s string) string { return s },
	parse: func(s string) (string, error) {
		if s == targetsTCP || s == targetsAny {
			return s, nil
		}
		list, err := networks(s)
		if err != nil {
			return "", err
		}
		texts := make([]string, len(list))
		for i, n := range list {
			texts[i] = n.String()
		}
		return strings.Join(texts, " "), nil
	},
	check: func(s string) error {
		if s == targetsTCP || s == targetsAny {
			return nil
		}
		_, err := networks(s)
		return err
	},
}
