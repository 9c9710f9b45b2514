// Package charset reads and writes the encodings of documents: UTF-8, and those
// that earlier versions wrote.
package charset

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Reader decodes a document whose encoding is charset, in any case.
func Reader(charset string, in io.Reader) (io.Reader, error) {
	switch strings.ToLower(charset) {
	case "utf-8", "us-ascii", "ascii":
		return in, nil
	case "iso-8859-1", "latin-1", "latin1":
		return &latin1{in: in}, nil
	}
	return nil, fmt.Errorf("unknown encoding %q; use UTF-8", charset)
}

// latin1 turns ISO-8859-1 into UTF-8: every byte is the code point of its
// number.
type latin1 struct {
	in   io.Reader
	rest []byte
}

// Read implements io.Reader.
func (l *latin1) Read(p []byte) (int, error) {
	if len(l.rest) == 0 {
		var raw [512]byte
		n, err := l.in.Read(raw[:])
		for _, b := range raw[:n] {
			l.rest = append(l.rest, string(rune(b))...)
		}
		if n == 0 {
			return 0, err
		}
	}
	n := copy(p, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}

// Highest is the last character that an encoding can hold.
func Highest(charset string) rune {
	switch strings.ToLower(charset) {
	case "iso-8859-1", "latin-1", "latin1":
		return highestLatin1
	case "us-ascii", "ascii":
		return 0x7f
	}
	return utf8.MaxRune
}

const highestLatin1 = 0xff

// Encode writes a text that has no character above Highest.
func Encode(charset, text string) []byte {
	if Highest(charset) != highestLatin1 {
		return []byte(text)
	}
	raw := make([]byte, 0, len(text))
	for _, c := range text {
		raw = append(raw, byte(c))
	}
	return raw
}
