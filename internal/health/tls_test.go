package health

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"testing/iotest"
)

// recorded returns what a server of crypto/tls answers to our ClientHello.
func recorded(tb testing.TB, config *tls.Config) []byte {
	tb.Helper()
	ours, theirs := net.Pipe()
	defer func() { _ = ours.Close() }()
	go func() {
		_ = tls.Server(theirs, config).Handshake()
		_ = theirs.Close()
	}()
	request, err := hello("www.example")
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := ours.Write(request); err != nil {
		tb.Fatal(err)
	}
	var all bytes.Buffer
	one := make([]byte, 4096)
	n, _ := ours.Read(one) // crypto/tls writes its first flight at once
	all.Write(one[:n])
	return all.Bytes()
}

func answers(tb testing.TB) [][]byte {
	cert := []tls.Certificate{certificate(tb)}
	var list [][]byte
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
		list = append(list, recorded(tb, &tls.Config{Certificates: cert, MinVersion: version, MaxVersion: version}))
	}
	// Another group than that of our key share: a HelloRetryRequest.
	return append(list, recorded(tb, &tls.Config{Certificates: cert, MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.CurveP384}}))
}

// A ServerHello passes however it is cut into packets and records.
func TestServerHelloInPieces(t *testing.T) {
	for i, answer := range answers(t) {
		if err := answerHello(bufio.NewReader(bytes.NewReader(answer))); err != nil {
			t.Errorf("%d: %v", i, err)
		}
		if err := answerHello(bufio.NewReader(iotest.OneByteReader(bytes.NewReader(answer)))); err != nil {
			t.Errorf("%d in bytes: %v", i, err)
		}
		size := int(answer[3])<<8 | int(answer[4])
		var cut []byte
		for _, b := range answer[5 : 5+size] { // a record for each byte
			cut = append(cut, recordHandshake, 3, 3, 0, 1, b)
		}
		// Before it, what says nothing yet: a HelloRequest and a warning.
		before := []byte{recordHandshake, 3, 1, 0, 4, helloRequest, 0, 0, 0, recordAlert, 3, 1, 0, 2, 1, 112}
		if err := answerHello(bufio.NewReader(bytes.NewReader(append(before, cut...)))); err != nil {
			t.Errorf("%d in records: %v", i, err)
		}
		// Only when all of it has come.
		hello := 4 + (int(answer[6])<<16 | int(answer[7])<<8 | int(answer[8]))
		for n := range hello {
			if err := answerHello(bufio.NewReader(bytes.NewReader(cut[:6*n]))); err == nil {
				t.Fatalf("%d passes after %d of %d bytes", i, n, hello)
			}
		}
	}
}

// Whatever a host answers, the reader takes a bounded part of it, ends, and says
// what is wrong in a text that can be shown.
func FuzzAnswerHello(f *testing.F) {
	for _, answer := range answers(f) {
		f.Add(answer)
		f.Add(answer[:len(answer)/2])
	}
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
	f.Add([]byte{recordAlert, 3, 3, 0, 2, 2, 40})
	f.Add(bytes.Repeat([]byte{recordAlert, 3, 3, 0, 2, 1, 90}, 20000))
	f.Add(bytes.Repeat([]byte{recordHandshake, 3, 3, 0, 4, helloRequest, 0, 0, 0}, 20000))
	f.Fuzz(func(t *testing.T, data []byte) {
		in := bytes.NewReader(data)
		err := answerHello(bufio.NewReader(io.LimitReader(in, int64(len(data)))))
		if read := len(data) - in.Len(); read > maxHello+maxRecord+8192 {
			t.Errorf("it read %d bytes", read)
		}
		r := shaken(err, &Probe{})
		check(t, r, map[bool]Code{true: L6OK, false: L6Rsp}[err == nil], "")
		if err == nil && (len(data) < 43 || data[0] != recordHandshake && data[0] != recordAlert) {
			t.Errorf("%x passes", data)
		}
	})
}
