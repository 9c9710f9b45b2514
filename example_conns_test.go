package txlb_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"slices"

	"github.com/txlb/txlb"
)

// between, and the service needs no listener.
func ExampleLiveService_DialContext() {
	one, stop := webServer("one")
	defer stop()
	two, stop := webServer("two")
	defer stop()
	lb, err := txlb.Start(context.Background(), txlb.Config{
		Services: []txlb.Service{{Name: "api", Scheduler: txlb.RoundRobin, Hosts: []txlb.Host{{Addr: one}, {Addr: two}}}},
		Logger:   silence,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()

	api := lb.Service("api")
	client := http.Client{Transport: &http.Transport{DialContext: api.DialContext, DisableKeepAlives: true}}
	var answers []string
	for range 4 {
		r, err := client.Get("http://api.internal/")
		if err != nil {
			log.Fatal(err)
		}
		text, _ := io.ReadAll(r.Body)
		_ = r.Body.Close()
		answers = append(answers, string(text))
	}
	slices.Sort(answers)
	fmt.Println(answers)
	// Output: [one one two two]
}

// With a sticky scheduler, a client's connections go to the same host.
func ExampleWithClient() {
	one, stop := webServer("one")
	defer stop()
	two, stop := webServer("two")
	defer stop()
	lb, err := txlb.Start(context.Background(), txlb.Config{
		Services: []txlb.Service{{Name: "api", Scheduler: txlb.Sticky(txlb.RoundRobin), Hosts: []txlb.Host{{Addr: one}, {Addr: two}}}},
		Logger:   silence,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()

	ctx := txlb.WithClient(context.Background(), netip.MustParseAddr("192.0.2.7"))
	hosts := map[string]bool{}
	for range 5 {
		conn, err := lb.Service("api").DialContext(ctx, "tcp", "")
		if err != nil {
			log.Fatal(err)
		}
		hosts[conn.RemoteAddr().String()] = true
		_ = conn.Close()
	}
	fmt.Println("hosts:", len(hosts))
	// Output: hosts: 1
}

// The program answers until there are hosts.
func ExampleFallbackListener() {
	ln := txlb.NewFallbackListener()
	server := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "the program itself") })}
	go server.Serve(ln)
	defer server.Close()

	lb, err := txlb.Start(context.Background(), txlb.Config{
		Services: []txlb.Service{{Name: "web", Listen: []string{"127.0.0.1:0"}, Fallback: ln.Handle}},
		Logger:   silence,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()
	web := lb.Service("web")
	addr := web.Addrs()[0].String()
	fmt.Println(get(addr))

	host, stop := webServer("a host")
	defer stop()
	if err := web.AddHost(txlb.Host{Addr: host}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(get(addr))
	// Output:
	// the program itself
	// a host
}

// Connections of any kind are balanced: here one end of a pipe.
func ExampleLiveService_ServeConn() {
	host, stop := webServer("a host")
	defer stop()
	lb, err := txlb.Start(context.Background(), txlb.Config{
		Services: []txlb.Service{{Name: "web", Hosts: []txlb.Host{{Addr: host}}}},
		Logger:   silence,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()

	ours, theirs := net.Pipe()
	defer ours.Close()
	if err := lb.Service("web").ServeConn(context.Background(), theirs); err != nil {
		log.Fatal(err)
	}
	fmt.Fprint(ours, "GET / HTTP/1.0\r\n\r\n")
	r, err := http.ReadResponse(bufio.NewReader(ours), nil)
	if err != nil {
		log.Fatal(err)
	}
	body := make([]byte, r.ContentLength)
	_, _ = io.ReadFull(r.Body, body)
	fmt.Printf("%s\n", body)
	// Output: a host
}
