// Package demo has the servers and clients of the examples. Yours are real ones.
package demo

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"
)

// Server starts a web server that answers everything with its name, and returns its address.
func Server(name string) (addr string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	server := http.Server{Handler: Answer(name), ReadHeaderTimeout: time.Minute}
	go func() { log.Fatal(server.Serve(ln)) }()
	return ln.Addr().String()
}

// Answer is a handler that answers everything with a text.
func Answer(text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) })
}

// Ask makes a request over a connection of its own and returns the answer: connections are
// what is balanced.
func Ask(url string) string {
	return AskBy(&http.Transport{DisableKeepAlives: true}, url)
}

// Stay is Ask with a connection that stays open.
func Stay(url string) string { return AskBy(new(http.Transport), url) }

// Count asks n times, and returns how often each answer came.
func Count(url string, n int) map[string]int {
	answers := map[string]int{}
	for range n {
		answers[Ask(url)]++
	}
	return answers
}

// AskBy makes a request by a transport.
func AskBy(transport *http.Transport, url string) string {
	answer, err := (&http.Client{Transport: transport}).Get(url)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		log.Fatal(err)
	}
	if answer.StatusCode != http.StatusOK {
		log.Fatal(fmt.Errorf("%s: %s", url, answer.Status))
	}
	return string(body)
}
