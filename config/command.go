package config

import (
	"errors"
	"fmt"
	"strings"
)

// Command splits the text of <group onHold> into a program and its arguments. Blanks separate
// them; what stands between "" or ” is one, as it is. There is no shell.
func Command(text string) ([]string, error) {
	var argv []string
	var word strings.Builder
	begun, quote := false, rune(0)
	for _, c := range text {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '"' || c == '\'':
			begun, quote = true, c
		case c == ' ' || c == '\t':
			if begun {
				argv = append(argv, word.String())
				word.Reset()
				begun = false
			}
		default:
			begun = true
			word.WriteRune(c)
		}
	}
	switch {
	case quote != 0:
		return nil, fmt.Errorf("the quote %c is not closed", quote)
	case begun:
		argv = append(argv, word.String())
	}
	if len(argv) == 0 || argv[0] == "" {
		return nil, errors.New("the program is missing")
	}
	return argv, nil
}

// command is a program with its arguments.
var command = checked(TypeText, func(s string) error {
	if err := plain.check(s); err != nil || s == "" {
		return err
	}
	_, err := Command(s)
	return err
})

// KeepOwn makes the configuration say what only the node's own file may say, as file does:
// which program <group onHold> runs. It is for one that comes from elsewhere, such as a store
// that nodes share: what that says of it is dropped. nil: there is no file.
func (c *Config) KeepOwn(file *Config) {
	own := map[[2]string]string{}
	if file != nil {
		for _, s := range file.Services {
			for _, g := range s.Groups {
				own[[2]string{s.Name, g.Name}] = g.OnHold
			}
		}
	}
	for _, s := range c.Services {
		for _, g := range s.Groups {
			g.OnHold = own[[2]string{s.Name, g.Name}]
		}
	}
}

// HasOwn tells whether the configuration says something that only a node's own file may say.
func (c *Config) HasOwn() bool {
	for _, s := range c.Services {
		for _, g := range s.Groups {
			if g.OnHold != "" {
				return true
			}
		}
	}
	return false
}
