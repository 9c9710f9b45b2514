package admin

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/admin/users"
	"github.com/txlb/txlb/internal/edits"
	"github.com/txlb/txlb/internal/words"
)

// Verb is what can be told to a running txlb.
type Verb struct {
	Name        string   // one word, or two for show
	Aliases     []string // the names in earlier versions
	Params      []Param
	Role        users.Role
	Help        string // one line
	Changes     bool   // it changes what runs, or what is stored
	Destructive bool   // ask before
	// Part is what has to be there for the verb to be served, "" for the admin
	// alone.
	Part string

	// Offers are how people are offered the verb, and what they are asked before.
	Offers []Offer
	// Inverse makes the command that takes one back, and says to what that leads,
	// "" if nothing can; nil: a rollback does. The scene is the one before.
	Inverse func(*Scene) (c words.Command, to string)

	edit func(*edit) error           // changes the model
	call func(*call) (Result, error) // anything else
}

// Kind is what the value of a parameter is.
type Kind uint8

const (
	Text        Kind = iota // a new name, or any other text
	Service                 // the name of one that is there
	Group                   //
	Host                    //
	User                    //
	Address                 // to connect to
	Listen                  // to listen on
	Listener                // the address of one that is there
	Mirror                  // the address of one that is there
	Session                 // the ID of one that is open
	AnySession              // the ID of one that is open, or has ended lately
	Scheduler               //
	Number                  // Low to High
	Duration                // with a unit
	Choice                  // one of Choices
	Bool                    //
	Flag                    // --name
	Hash                    // crypt(3); never shown
	VerbName                // a verb of the table
	Unconfirmed             // the generation of a change that waits to be confirmed
	Node                    // the name of a node of the fleet
)

// Param is a parameter of a verb. Positional ones may be given by name too,
// options only so.
type Param struct {
	Name      string
	Aliases   []string // the names on pages of earlier versions
	Kind      Kind
	Required  bool
	Option    bool
	Low, High int64
	Choices   []string
	Word      string // that stands for it in help; "": its name
	Label     string // of its field on the page; "": its name in words
	Help      string // what it may be; "": its kind says it

	attribute *config.Attribute // what it sets, nil for other parameters
}

// named tells whether key names the parameter, in any case and with or without
// hyphens.
func (p *Param) named(key string) bool {
	key = strings.ReplaceAll(key, "-", "")
	same := func(name string) bool { return strings.EqualFold(strings.ReplaceAll(name, "-", ""), key) }
	return same(p.Name) || slices.ContainsFunc(p.Aliases, same)
}

// everywhere tells whether nearly every changing verb takes the parameter: it says how to do
// something, and not what.
func (p *Param) everywhere() bool {
	return p.Option && (p.Name == "generation" || p.Name == "dry-run" || p.Name == "confirm")
}

// syntax shows the parameter as help does.
func (p *Param) syntax() string {
	s := strings.ToUpper(cmp.Or(p.Word, p.Name))
	if p.Option {
		s = p.Name + "=" + p.placeholder()
	}
	if p.Kind == Flag {
		s = "--" + p.Name
	}
	if !p.Required {
		s = "[" + s + "]"
	}
	return s
}

func (p *Param) placeholder() string {
	switch p.Kind {
	case Number:
		return "N"
	case Duration:
		return "DUR"
	case Choice:
		return strings.Join(p.Choices, "|")
	case Bool:
		return "yes|no"
	}
	return strings.ToUpper(p.Name)
}

// Syntax shows how the verb is written.
func (v *Verb) Syntax() string {
	words := []string{v.Name}
	for i := range v.Params {
		words = append(words, v.Params[i].syntax())
	}
	return strings.Join(words, " ")
}

func (v *Verb) secret() bool {
	return slices.ContainsFunc(v.Params, func(p Param) bool { return p.Kind == Hash })
}

// NeedsPassword tells whether a command sets a password and says none, so that a
// person can be asked for it. with makes the command that has its hash.
func NeedsPassword(c words.Command) (with func(hash string) words.Command, ok bool) {
	v, given, err := resolve(Verbs(), c)
	if err != nil || !v.secret() {
		return nil, false
	}
	hash := slices.IndexFunc(v.Params, func(p Param) bool { return p.Kind == Hash })
	with = func(text string) words.Command {
		w := c
		w.Words = append(slices.Clone(c.Words), words.Word{Key: v.Params[hash].Name, Value: text})
		return w
	}
	said := func(p *Param) bool {
		return slices.ContainsFunc(given, func(w words.Word) bool { return w.Key != "" && p.named(w.Key) })
	}
	for i := range v.Params {
		p := &v.Params[i]
		// An option alone says what is to be set; else it is the password.
		if p.Kind == Hash && said(p) || v.Params[hash].Option && p.Option && !p.everywhere() && said(p) {
			return nil, false
		}
	}
	_, err = v.bind(append(slices.Clone(given), words.Word{Key: v.Params[hash].Name, Value: "$6$salt$hash"}))
	return with, err == nil
}

// args are the values that a command gives to the parameters of its verb.
type args map[string]value

type value struct {
	text     string // as it was written, or its canonical form
	number   int64
	duration time.Duration
	yes      bool
}

func (a args) text(name string) string { return a[name].text }

// given tells whether the parameter was there.
func (a args) given(name string) bool { _, ok := a[name]; return ok }

func (a args) number(name string) (int64, bool) { v, ok := a[name]; return v.number, ok }

func (a args) duration(name string) (time.Duration, bool) { v, ok := a[name]; return v.duration, ok }

// set tells whether a flag was given.
func (a args) set(name string) bool { return a[name].yes }

// words are the values by the names of their parameters.
func (a args) words() (list []words.Word) {
	for name, v := range a {
		list = append(list, words.Word{Key: name, Value: v.text})
	}
	return list
}

func resolve(verbs []Verb, c words.Command) (*Verb, []words.Word, error) {
	names, second := []string{}, []string{}
	for i := range verbs {
		v := &verbs[i]
		for _, name := range append([]string{v.Name}, v.Aliases...) {
			first, rest, two := strings.Cut(name, " ")
			switch {
			case !two && strings.EqualFold(name, c.Verb):
				return v, c.Words, nil
			case !two:
				names = append(names, name)
				continue
			case !slices.Contains(names, first):
				names = append(names, first)
			}
			if strings.EqualFold(first, c.Verb) {
				if len(c.Words) > 0 && c.Words[0].Key == "" && strings.EqualFold(rest, c.Words[0].Value) {
					return v, c.Words[1:], nil
				}
				second = append(second, rest)
			}
		}
	}
	switch {
	case len(second) > 0 && len(c.Words) == 0:
		return nil, nil, refuse(ErrUnknownVerb, "%s needs one more word: one of %s", c.Verb, strings.Join(second, ", "))
	case len(second) > 0:
		return nil, nil, refuse(ErrUnknownVerb, "unknown verb %s %s%s", c.Verb, show(c.Words[0].Value), suggest(c.Words[0].Value, second))
	}
	return nil, nil, refuse(ErrUnknownVerb, "unknown verb %s%s", show(c.Verb), suggest(c.Verb, names))
}

// bind gives the words to the parameters of the verb. Errors of a verb that
// takes a secret show no word, as the secret may stand in the wrong place.
func (v *Verb) bind(given []words.Word) (args, error) {
	shown := show
	if v.secret() {
		shown = func(string) string { return "a word" }
	}
	bound := args{}
	var positional []words.Word
	for _, w := range given {
		if w.Key == "" {
			positional = append(positional, w)
			continue
		}
		i := slices.IndexFunc(v.Params, func(p Param) bool { return p.named(w.Key) })
		if i < 0 {
			var names []string
			for _, p := range v.Params {
				names = append(names, p.Name)
			}
			if len(names) == 0 {
				return nil, fmt.Errorf("it takes no arguments")
			}
			return nil, fmt.Errorf("unknown option %s%s", show(w.Key), suggest(w.Key, names))
		}
		if err := bound.put(&v.Params[i], w.Value, v.secret()); err != nil {
			return nil, err
		}
	}
	for i := range v.Params {
		p := &v.Params[i]
		switch {
		case bound.given(p.Name):
		case !p.Option && len(positional) > 0:
			if err := bound.put(p, positional[0].Value, v.secret()); err != nil {
				return nil, err
			}
			positional = positional[1:]
		case p.Required && p.Kind == Hash:
			return nil, fmt.Errorf("%s is missing; make one with txlb passwd, and write %s", strings.ToUpper(p.Name), v.Syntax())
		case p.Required:
			return nil, fmt.Errorf("%s is missing; write %s", strings.ToUpper(p.Name), v.Syntax())
		}
	}
	switch {
	case len(positional) > 0 && len(v.Params) == 0:
		return nil, fmt.Errorf("it takes no arguments")
	case len(positional) > 0:
		return nil, fmt.Errorf("unexpected argument %s; write %s", shown(positional[0].Value), v.Syntax())
	}
	return bound, nil
}

// put reads the value of one parameter.
func (a args) put(p *Param, s string, secret bool) error {
	if a.given(p.Name) {
		return fmt.Errorf("%s is given twice", p.Name)
	}
	v, err := p.read(s)
	switch {
	case err != nil && secret && p.Kind != Number:
		return fmt.Errorf("%s: want %s", p.Name, p.wanted())
	case err != nil:
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	a[p.Name] = v
	return nil
}

func (p *Param) read(s string) (v value, err error) {
	v.text = s
	if !config.Printable(s) {
		return v, fmt.Errorf("it has a non-printable character")
	}
	if p.Kind == Choice {
		for _, c := range p.Choices {
			if strings.EqualFold(c, s) {
				v.text = c
				return v, nil
			}
		}
		return v, fmt.Errorf("%s is not one of %s", show(s), strings.Join(p.Choices, ", "))
	}
	if p.attribute != nil && p.Kind != Address {
		v.text, err = p.attribute.Parse(s)
		return v, edits.Shorten(err)
	}
	switch p.Kind {
	case Number, Unconfirmed:
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < p.Low || n > p.High {
			return v, fmt.Errorf("%s is not a number between %d and %d", show(s), p.Low, p.High)
		}
		v.number = n
	case Duration:
		v.duration, err = config.ParseDuration(s)
		if low, high := time.Duration(p.Low), time.Duration(p.High); err == nil && high > 0 && (v.duration < low || v.duration > high) {
			err = fmt.Errorf("%v is not between %v and %v", v.duration, low, high)
		}
	case Bool, Flag:
		v.yes, err = config.ParseBool(s)
	case Scheduler:
		v.text, err = config.ParseScheduler(s)
	case Address, Listen, Listener, Mirror:
		err = config.CheckAddress(s, p.Kind == Listen || p.Kind == Listener)
	case Hash:
		if !config.IsHash(s) {
			err = fmt.Errorf("want %s", p.wanted())
		}
	default:
		if s == "" {
			err = fmt.Errorf("it is empty")
		}
	}
	return v, edits.Shorten(err)
}

// wanted says what a parameter of a verb with a secret should be.
func (p *Param) wanted() string {
	switch p.Kind {
	case Hash:
		return "a crypt(3) hash, which begins with $, as txlb passwd makes it, and neither a password nor a DES hash"
	case Choice:
		return strings.Join(p.Choices, " or ")
	case Bool, Flag:
		return "yes or no"
	}
	return "a word that can be shown"
}

// describe writes the command for log and events: without its secrets, and
// without what is only about how to do it.
func (v *Verb) describe(a args) string {
	c := words.Command{Verb: v.Name}
	for _, p := range v.Params {
		val, ok := a[p.Name]
		if !ok || p.everywhere() {
			continue
		}
		w := words.Word{Value: val.text}
		if p.Kind == Hash {
			w.Value = masked
		}
		if p.Option {
			w.Key = p.Name
		}
		c.Words = append(c.Words, w)
	}
	names := strings.Fields(c.Verb)
	c.Verb = names[0]
	for _, w := range slices.Backward(names[1:]) {
		c.Words = slices.Insert(c.Words, 0, words.Word{Value: w})
	}
	return c.String()
}

// masked stands for a password hash.
const masked = "***"

// show quotes a word for an error.
func show(s string) string { return edits.Show(s) }

// suggest says what was probably meant, or what there is.
func suggest(word string, names []string) string { return edits.Suggest(word, names) }

// count says how many of something there are.
func count(n int, what string) string { return words.Count(n, what) }

// printable makes a text of another origin fit for a table.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || unicode.Is(unicode.Bidi_Control, c) {
			return ' '
		}
		return c
	}, s)
}
