package console

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// key is a key of a terminal: a letter, a control character, or one of those
// below, which are no letters.
type key rune

const (
	keyUp key = unicode.MaxRune + 1 + iota
	keyDown
	keyLeft
	keyRight
	keyWordLeft
	keyWordRight
	keyHome
	keyEnd
	keyPageUp
	keyPageDown
	keyDelete
	keyEscape
)

const (
	keyCtrlC     key = 3
	keyCtrlD     key = 4
	keyBell      key = 7
	keyBackspace key = 127
	keyTab       key = '\t'
	keyEnter     key = '\r'
	keyWordBack  key = 23
)

// longestSequence is how much of an escape sequence is remembered, in bytes.
const longestSequence = 16

// decoder turns the bytes of a terminal into keys. Any bytes may be fed: what is not
// a key is dropped. A sequence ends with its last byte or the next control
// character.
//
// Pasted text (between ESC [ 200 ~ and ESC [ 201 ~) holds only letters and ends
// of lines. Ctrl-C ends a paste that has no end.
type decoder struct {
	state  uint8
	seq    []byte // parameters of the sequence under way
	letter []byte // bytes of a letter that is not whole
	paste  bool
	cr     bool // the last byte was a carriage return
}

const (
	ground  uint8 = iota
	escape        // after ESC
	escaped       // the same, and ESC has been told as a key
	control       // after ESC [
	single        // after ESC O
)

// feed takes one byte in, and returns the key that it completes.
func (d *decoder) feed(b byte) (k key, ok bool) {
	cr := d.cr
	d.cr = b == '\r'
	if b < 0x20 && d.state != ground {
		d.state = ground
	}
	switch d.state {
	case escape, escaped:
		return d.afterEscape(b)
	case control:
		switch {
		case b >= 0x40 && b < 0x7f:
			d.state = ground
			return d.sequence(b)
		case b >= 0x20 && b < 0x40:
			if len(d.seq) < longestSequence {
				d.seq = append(d.seq, b)
			}
		default:
			d.state = ground
		}
		return 0, false
	case single:
		d.state = ground
		d.seq = d.seq[:0]
		if b == 'M' && !d.paste {
			return keyEnter, true
		}
		return d.sequence(b)
	}
	switch {
	case b == 0x1b:
		d.letter, d.state, d.seq = d.letter[:0], escape, d.seq[:0]
		return 0, false
	case b >= utf8.RuneSelf:
		return d.part(b)
	}
	d.letter = d.letter[:0]
	switch {
	case b == byte(keyCtrlC):
		d.paste = false
		return keyCtrlC, true
	case b == '\n' && cr:
		return 0, false
	case b == '\n' || b == '\r':
		return keyEnter, true
	case d.paste && b == '\t':
		return ' ', true
	case d.paste && (b < 0x20 || b == 0x7f):
		return 0, false
	case b == 8:
		return keyBackspace, true
	case b == byte(keyBell): // stands for Ctrl-C in the line editor
		return 0, false
	}
	return key(b), true
}

// rest is called when no more bytes are there for now: a trailing ESC is then the
// key Escape.
func (d *decoder) rest() (k key, ok bool) {
	if d.state == escape && !d.paste {
		d.state = escaped
		return keyEscape, true
	}
	return 0, false
}

func (d *decoder) afterEscape(b byte) (key, bool) {
	alone := d.state == escaped
	d.state = ground
	switch {
	case b == '[':
		d.state = control
	case b == 'O':
		d.state = single
	case alone:
		return d.feed(b)
	case d.paste:
	case b == 'b':
		return keyWordLeft, true
	case b == 'f':
		return keyWordRight, true
	case b == 0x7f:
		return keyWordBack, true
	}
	return 0, false
}

// part takes in one byte of a letter of several.
func (d *decoder) part(b byte) (key, bool) {
	d.letter = append(d.letter, b)
	if !utf8.FullRune(d.letter) {
		return 0, false
	}
	c, size := utf8.DecodeRune(d.letter)
	whole := size == len(d.letter)
	d.letter = d.letter[:0]
	if !whole || c == utf8.RuneError || unprintable(c) {
		return 0, false
	}
	return key(c), true
}

// sequence finds the key of an escape sequence by its last byte.
func (d *decoder) sequence(last byte) (key, bool) {
	number, modifier, _ := strings.Cut(string(d.seq), ";")
	n, _ := strconv.Atoi(number)
	if d.paste {
		if last == '~' && n == 201 {
			d.paste = false
		}
		return 0, false
	}
	word := modifier == "3" || modifier == "5" // Alt, Ctrl
	switch last {
	case 'A':
		return keyUp, true
	case 'B':
		return keyDown, true
	case 'C':
		if word {
			return keyWordRight, true
		}
		return keyRight, true
	case 'D':
		if word {
			return keyWordLeft, true
		}
		return keyLeft, true
	case 'H':
		return keyHome, true
	case 'F':
		return keyEnd, true
	case '~':
		if n == 200 {
			d.paste = true
			return 0, false
		}
		k, ok := map[int]key{
			1: keyHome, 7: keyHome, 4: keyEnd, 8: keyEnd, 3: keyDelete, 5: keyPageUp, 6: keyPageDown,
		}[n]
		return k, ok
	}
	return 0, false
}

// appendKey appends the bytes of a key for the line editor; none for keys that it
// does not know.
func appendKey(b []byte, k key) []byte {
	switch k {
	case keyCtrlC:
		return append(b, byte(keyBell), '\r')
	case keyUp:
		return append(b, "\x1b[A"...)
	case keyDown:
		return append(b, "\x1b[B"...)
	case keyRight:
		return append(b, "\x1b[C"...)
	case keyLeft:
		return append(b, "\x1b[D"...)
	case keyWordRight:
		return append(b, "\x1b[1;3C"...)
	case keyWordLeft:
		return append(b, "\x1b[1;3D"...)
	case keyHome:
		return append(b, 1)
	case keyEnd:
		return append(b, 5)
	case keyDelete:
		return append(b, "\x1b[3~"...)
	case keyEscape, keyPageUp, keyPageDown:
		return b
	}
	return utf8.AppendRune(b, rune(k))
}
