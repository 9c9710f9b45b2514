package txlb_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"

	"github.com/txlb/txlb"
)

// webServer starts an HTTP server of a name. The examples run several, as there would be on
// several machines.
func webServer(name string) (addr string, stop func()) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) }))
	return s.Listener.Addr().String(), s.Close
}

// get returns what answers at an address. Each call has a connection of its own.
func get(addr string) string {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get("http://" + addr + "/")
	if err != nil {
		return "nobody"
	}
	defer r.Body.Close()
	text, _ := io.ReadAll(r.Body)
	return string(text)
}

// silence keeps the log of the examples out of their output.
var silence = slog.New(slog.DiscardHandler)

// A service with two hosts, and a third one that comes while it runs.
func Example() {
	one, stop := webServer("one")
	defer stop()
	two, stop := webServer("two")
	defer stop()

	lb, err := txlb.Start(context.Background(), txlb.Config{
		Services: []txlb.Service{{
			Name: "web", Listen: []string{"127.0.0.1:0"}, Scheduler: txlb.RoundRobin,
			Hosts: []txlb.Host{{Addr: one}},
			Check: txlb.HTTPCheck("/health"),
		}},
		Logger: silence,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()

	web := lb.Service("web")
	addr := web.Addrs()[0].String()
	fmt.Println(get(addr), get(addr))
	if err := web.AddHost(txlb.Host{Name: "second", Addr: two}); err != nil {
		log.Fatal(err)
	}
	answers := []string{get(addr), get(addr)}
	slices.Sort(answers)
	fmt.Println(answers)
	// Output:
	// one one
	// [one two]
}

// Start says everything that is wrong at once, with service, host and field.
func ExampleStart_mistakes() {
	_, err := txlb.Start(context.Background(), txlb.Config{
		Services: []txlb.Service{{
			Name: "web", Listen: []string{":8080"}, Scheduler: "roundrobbin",
			Hosts: []txlb.Host{{Addr: "10.0.0.1:8080", Weight: 70000}},
		}},
	})
	fmt.Println(err)
	// Output:
	// txlb: service "web": Scheduler: unknown scheduler "roundrobbin"; did you mean "roundrobin"?
	// txlb: service "web", host "10.0.0.1:8080": Weight: "70000" is not between 0 and 65535
}

// The file of the program txlb is a configuration for Start as well.
func ExampleLoad() {
	c, err := txlb.Load([]byte(`<config>
		<service name="web">
			<listen ip="127.0.0.1:8080"/>
			<group name="main" scheduler="roundr"><host name="a" ip="10.0.0.1:80" weight="0"/></group>
		</service>
	</config>`))
	if err != nil {
		log.Fatal(err)
	}
	web := c.Services[0]
	fmt.Println(web.Name, web.Listen, web.Groups[0].Hosts[0].Addr, web.Groups[0].Hosts[0].Weight == txlb.None)

	_, err = txlb.Load([]byte(`<config>
		<service name="web"><listen ip=":80"/><group name="main"><host ip="10.0.0.1"/></group></service>
		<control socket="/run/control"/>
	</config>`))
	fmt.Println(err)
	// Output:
	// web [127.0.0.1:8080] 10.0.0.1:80 true
	// config.xml:2: host "host.0": "10.0.0.1" is not an address; write host:port, [v6]:port or unix:/path
	// config.xml:3: <control> is for the program txlb; remove it: a host learns the client from Host.ProxyProtocol
}

// An HTTP client whose connections go straight to the hosts of a service. Nothing stands in
// Clients move to a new version of the servers, and back, without one being refused.
func ExampleLiveService_EnableGroup() {
	blue, stop := webServer("blue")
	defer stop()
	green, stop := webServer("green")
	defer stop()
	lb, err := txlb.Start(context.Background(), txlb.Config{
		Services: []txlb.Service{{
			Name: "web", Listen: []string{"127.0.0.1:0"},
			Groups: []txlb.Group{
				{Name: "blue", Enabled: true, Hosts: []txlb.Host{{Addr: blue}}},
				{Name: "green", Hosts: []txlb.Host{{Addr: green}}},
			},
		}},
		Logger: silence,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()
	web := lb.Service("web")
	addr := web.Addrs()[0].String()
	fmt.Println(get(addr))
	if err := web.EnableGroup("green"); err != nil {
		log.Fatal(err)
	}
	fmt.Println(get(addr))
	// Output:
	// blue
	// green
}

// A share of the clients gets the next version. Update changes anything of a service.
func ExampleLiveService_Update() {
	stable, stop := webServer("stable")
	defer stop()
	canary, stop := webServer("canary")
	defer stop()
	lb, err := txlb.Start(context.Background(), txlb.Config{
		Services: []txlb.Service{{
			Name: "web", Listen: []string{"127.0.0.1:0"},
			Groups: []txlb.Group{
				{Name: "stable", Enabled: true, Hosts: []txlb.Host{{Addr: stable}}},
				{Name: "canary", Hosts: []txlb.Host{{Addr: canary}}},
			},
		}},
		Logger: silence,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()
	web := lb.Service("web")
	err = web.Update(func(s *txlb.Service) error {
		s.Routes = []txlb.Route{{Group: "canary", Percent: 25}}
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	got := map[string]int{}
	for range 100 {
		got[get(web.Addrs()[0].String())]++
	}
	fmt.Println(got)
	// Output: map[canary:25 stable:75]
}

// Events tell what happens to hosts and services.
func ExampleEvent() {
	events := make(chan txlb.Event, 100)
	lb, err := txlb.Start(context.Background(), txlb.Config{
		Services: []txlb.Service{{Name: "web", Hosts: []txlb.Host{{Name: "a", Addr: "127.0.0.1:8080"}}}},
		OnEvent:  func(e txlb.Event) { events <- e },
		Logger:   silence,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()
	if err := lb.Service("web").Drain("a"); err != nil {
		log.Fatal(err)
	}
	for range 2 {
		fmt.Println(<-events)
	}
	// Output:
	// config changed: generation 2, Drain web a
	// no usable host: group main of service web
}

// What has been counted, for Prometheus.
func ExampleBalancer_WriteMetrics() {
	lb, err := txlb.Start(context.Background(), txlb.Config{
		Services: []txlb.Service{{Name: "web", Hosts: []txlb.Host{{Name: "a", Addr: "127.0.0.1:8080"}}}},
		Logger:   silence,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()
	var text bytes.Buffer
	if err := lb.WriteMetrics(&text); err != nil {
		log.Fatal(err)
	}
	for line := range strings.Lines(text.String()) {
		if strings.HasPrefix(line, "txlb_host_up") {
			fmt.Print(line)
		}
	}
	// Output: txlb_host_up{service="web",group="main",host="a"} 1
}
