package words

import (
	"reflect"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestParse(t *testing.T) {
	w := func(words ...string) (list []Word) {
		for _, one := range words {
			key, value, named := strings.Cut(one, "=")
			if !named {
				key, value = "", one
			}
			list = append(list, Word{key, value})
		}
		return list
	}
	for line, want := range map[string][]Command{
		"":                                   nil,
		"  # nothing":                        nil,
		";;\n;":                              nil,
		"status":                             {{"status", nil}},
		" status\t; show  hosts\r\n":         {{"status", nil}, {"show", w("hosts")}},
		"a b # c; d\ne":                      {{"a", w("b")}, {"e", nil}},
		"a b#c":                              {{"a", w("b#c")}},
		`a "b c" d"e f"g ""`:                 {{"a", []Word{{"", "b c"}, {"", "de fg"}, {"", ""}}}},
		`a "say \"hi\" \\ ; #"`:              {{"a", []Word{{"", `say "hi" \ ; #`}}}},
		`a b\c`:                              {{"a", []Word{{"", `b\c`}}}},
		"a weight=5 --force dry-run=no":      {{"a", w("weight=5", "force=yes", "dry-run=no")}},
		`a x="1 2" "x=1" --x=2 x=`:           {{"a", []Word{{"x", "1 2"}, {"", "x=1"}, {"x", "2"}, {"x", ""}}}},
		"a x=y=z unix:/tmp/a=b $6$rounds=5$": {{"a", []Word{{"x", "y=z"}, {"", "unix:/tmp/a=b"}, {"", "$6$rounds=5$"}}}},
		`a "--force" -- --1 "--"x`:           {{"a", []Word{{"", "--force"}, {"", "--"}, {"", "--1"}, {"", "--x"}}}},
	} {
		if got, err := Parse(line); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v; want %+v", line, got, err, want)
		}
	}
	for line, want := range map[string]string{
		`a "b`:                                "column 3: the quote is not closed",
		`a "b\c"`:                             `column 5: in quotes, \ stands before`,
		`a "b\`:                               "column 5",
		"a b\x00":                             "column 4: the character U+0000",
		"a \"b\x1b\"":                         "column 5: the character U+001B",
		"a \"b\nc\"":                          "column 5",
		"a \xff":                              "not valid UTF-8",
		"x=1 a":                               "column 1: a command begins with a verb",
		"a; \"\"":                             "column 4: a command begins with a verb",
		"a " + strings.Repeat("x", MaxLine+1): "the maximum is",
	} {
		if got, err := Parse(line); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %+v, %v; want %s", line, got, err, want)
		}
	}
}

// TestTyped cuts lines everywhere: | is the place. What is wanted is the word
// that is typed as it stands in the line, its key and its text.
func TestTyped(t *testing.T) {
	for line, want := range map[string]string{
		"|":                           "",
		"  |":                         "",
		"sho|":                        "sho  sho",
		"status; sh|":                 "sh  sh",
		"status;|":                    "",
		"status\n|":                   "",
		"show |":                      " < show",
		"show hosts we|b":             "we  we < show hosts",
		"setHost web main a weight=|": "weight= weight  < setHost web main a",
		"setHost web --weight=5|":     "--weight=5 --weight 5 < setHost web",
		"delHost web --for|ce":        "--for  --for < delHost web",
		"delHost web x=y --force |":   " < delHost web x=y force=yes",
		`delHost "my se|`:             `"my se  my se < delHost`,
		`delHost "my serv"|`:          `"my serv"  my serv < delHost`,
		`delHost "my serv" |`:         ` < delHost "my serv"`,
		`delHost service="my s|`:      `service="my s service my s < delHost`,
		`delHost "a \"|`:              `"a \"  a " < delHost`,
		`delHost "a \|`:               `"a \  a  < delHost`,
		`delHost "x=|`:                `"x=  x= < delHost`,
		`delHost a"b c"d|`:            `a"b c"d  ab cd < delHost`,
		"delHost ä\xc3|":              "ä\xc3  ä\xc3 < delHost",
		"show # hosts|":               "nothing",
		"show # hosts\n|":             "",
		"show ho#sts|":                "ho#sts  ho#sts < show",
		`show "a\b|`:                  "nothing",
		"show \x00 a|":                "nothing",
		"a=b c|":                      "nothing",
	} {
		line, _, _ := strings.Cut(line, "|")
		got := "nothing"
		if typed, ok := Typed(line); ok {
			got = line[typed.Start:]
			if got != "" {
				got += " " + typed.Key + " " + typed.Text
			}
			if typed.Command.Verb != "" {
				got += " < " + typed.Command.String()
			}
		}
		if got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

// FuzzParse: a parsed line, written again, is the same commands; wherever the line
// is cut, the word that is typed there begins between two words of it, and closing
// its quotes gives the same word.
func FuzzParse(f *testing.F) {
	for _, line := range []string{
		`addHost web main "a b" 10.0.0.1:80 weight=5; status # x`, `a "\"\\" x="" --force`, "a\r\nb;c", `a"b"=c "x=y" --a=b -- ---x`, "é=ü #", "a=b",
		`setHost "w b" --x="y z" "--force"`, "a\n;#b\nc d", `a " b`,
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		commands, err := Parse(line)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than a line: %q", err)
			}
			return
		}
		var lines []string
		for _, c := range commands {
			lines = append(lines, c.String())
		}
		again, err := Parse(strings.Join(lines, "; "))
		// Quotes that were not needed are left out, so that the line cannot grow
		// much; a very long one may all the same pass the bound.
		if err != nil && len(line) < MaxLine/4 || err == nil && !reflect.DeepEqual(again, commands) {
			t.Errorf("%q became %q: %+v, %v", commands, lines, again, err)
		}
		if len(line) < 1<<10 {
			for at := range len(line) + 1 {
				cut(t, line[:at])
			}
		}
	})
}

// cut tests Typed with the begin of a line that Parse accepts.
func cut(t *testing.T, line string) {
	typed, ok := Typed(line)
	if !ok {
		if _, err := Parse(line + "\n"); err != nil && utf8.ValidString(line) || !strings.Contains(line, "#") {
			t.Errorf("%q: nothing can be typed, and it is no comment: %v", line, err)
		}
		return
	}
	head := line[:typed.Start]
	before, err := Parse(head)
	if err != nil {
		t.Errorf("%q: what stands before the word does not parse: %q: %v", line, head, err)
		return
	}
	if c := typed.Command; c.Verb != "" && (len(before) == 0 || !reflect.DeepEqual(before[len(before)-1], c)) {
		t.Errorf("%q: the command is %+v, but before the word stands %+v", line, c, before)
	}
	if !utf8.ValidString(line) || typed.Command.Verb == "" || typed.Start == len(line) {
		return
	}
	word, want := Quote(typed.Text), Word{Value: typed.Text}
	if typed.Key != "" {
		word, want = typed.Key+"="+word, Word{strings.TrimPrefix(typed.Key, "--"), typed.Text}
	} else if key := strings.TrimPrefix(typed.Text, "--"); !typed.Quoted && key != typed.Text && IsKey(key) {
		word, want = typed.Text, Word{key, "yes"}
	}
	all, err := Parse(head + word)
	if err != nil || len(all) == 0 {
		t.Errorf("%q: with the word whole it is %q, which gives %+v, %v", line, head+word, all, err)
		return
	}
	if got := all[len(all)-1].Words; got[len(got)-1] != want {
		t.Errorf("%q: the word is %+v, but %q has %+v", line, want, head+word, got)
	}
}

// FuzzQuote: what is quoted is read back, as a word, as a value, and with others.
func FuzzQuote(f *testing.F) {
	for _, s := range []string{"", "web", "my host", `"`, `\`, `a\"b`, "--force", "x=y", "#", "a;b", "ä\u00a0", "-", "=", strings.Repeat("n", 65)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if strings.ContainsFunc(s, unicode.IsControl) || !utf8.ValidString(s) || len(s) > MaxLine/4 {
			t.Skip("cannot be written in a command")
		}
		for _, quote := range []func(string) string{Quote, QuoteName} {
			q := quote(s)
			got, err := Parse("x " + q + " key=" + q + " " + q)
			want := []Command{{"x", []Word{{"", s}, {"key", s}, {"", s}}}}
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%q is written %s, and read as %+v, %v", s, q, got, err)
			}
			if Unquote(q) != s || Unquote("key="+q) != "key="+s {
				t.Errorf("%q is written %s, and unquoted %q", s, q, Unquote(q))
			}
			if Plain(s) && q != s && !strings.HasPrefix(s, "--") {
				t.Errorf("the name %q is written %s", s, q)
			}
		}
		// A shell has taken the quotes off.
		if got, err := Parse(Join([]string{"x", s, "key=" + s})); err != nil || len(got) != 1 || got[0].Words[len(got[0].Words)-1] != (Word{"key", s}) {
			t.Errorf("%q is joined to %s, and read as %+v, %v", s, Join([]string{"x", s}), got, err)
		}
	})
}
