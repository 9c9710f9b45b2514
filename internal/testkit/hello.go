package testkit

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"
)

// ClientHello returns what a client of crypto/tls sends first.
func ClientHello(t testing.TB, c *tls.Config) []byte {
	t.Helper()
	var w mute
	c.InsecureSkipVerify = true
	_ = tls.Client(&w, c).Handshake()
	if w.Len() == 0 {
		t.Fatal("nothing was sent")
	}
	return bytes.Clone(w.Bytes())
}

// mute is a connection whose peer says nothing.
type mute struct{ bytes.Buffer }

func (*mute) Read([]byte) (int, error)         { return 0, io.EOF }
func (*mute) Close() error                     { return nil }
func (*mute) LocalAddr() net.Addr              { return nil }
func (*mute) RemoteAddr() net.Addr             { return nil }
func (*mute) SetDeadline(time.Time) error      { return nil }
func (*mute) SetReadDeadline(time.Time) error  { return nil }
func (*mute) SetWriteDeadline(time.Time) error { return nil }

// SplitHello puts the message of a hello into records of a size.
func SplitHello(hello []byte, size int) (out []byte) {
	for message := hello[5:]; len(message) > 0; {
		n := min(size, len(message))
		out = append(append(out, hello[0], hello[1], hello[2], byte(n>>8), byte(n)), message[:n]...)
		message = message[n:]
	}
	return out
}

// GrowHello returns a hello with a padding extension of a size.
func GrowHello(hello []byte, padding int) []byte {
	message := bytes.Clone(hello[5:])
	at := 4 + 2 + 32
	at += 1 + int(message[at])
	at += 2 + int(message[at])<<8 + int(message[at+1])
	at += 1 + int(message[at])
	size := len(message) - at - 2 + 4 + padding
	message[at], message[at+1] = byte(size>>8), byte(size)
	message = append(message, 0, 21, byte(padding>>8), byte(padding))
	message = append(message, make([]byte, padding)...)
	n := len(message) - 4
	message[1], message[2], message[3] = byte(n>>16), byte(n>>8), byte(n)
	return SplitHello(append([]byte{22, 3, 1, 0, 0}, message...), 16<<10)
}
