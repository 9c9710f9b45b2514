package admin

import (
	"reflect"
	"strings"
	"testing"
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
		"a " + strings.Repeat("x", maxLine+1): "the maximum is",
	} {
		if got, err := Parse(line); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %+v, %v; want %s", line, got, err, want)
		}
	}
}

// FuzzParse: a parsed line, written again, is the same commands, and its last word
// begins where WordStart says.
func FuzzParse(f *testing.F) {
	for _, line := range []string{
		`addHost web main "a b" 10.0.0.1:80 weight=5; status # x`, `a "\"\\" x="" --force`, "a\r\nb;c", `a"b"=c "x=y" --a=b -- ---x`, "é=ü #", "a=b",
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
			line := c.String()
			lines = append(lines, line)
			if n := len(c.Words); n > 0 {
				last, err := Parse("x " + line[WordStart(line):])
				if err != nil || len(last) != 1 || !reflect.DeepEqual(last[0].Words, c.Words[n-1:]) {
					t.Errorf("the last word of %q is %q, read as %+v, %v", line, line[WordStart(line):], last, err)
				}
			}
		}
		again, err := Parse(strings.Join(lines, "; "))
		// Quotes that were not needed are left out, so that the line cannot grow
		// much; a very long one may all the same pass the bound.
		if err != nil && len(line) < maxLine/4 || err == nil && !reflect.DeepEqual(again, commands) {
			t.Errorf("%q became %q: %+v, %v", commands, lines, again, err)
		}
	})
}
