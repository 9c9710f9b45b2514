// Package txlb is a load balancer for TCP inside your program: no daemon, no extra hop where
// you dial, the same engine as the program txlb.
//
//	package main
//
//	import (
//		"context"
//		"log"
//		"net/http"
//
//		"github.com/txlb/txlb"
//	)
//
//	func main() {
//		lb, err := txlb.Start(context.Background(), txlb.Config{
//			Services: []txlb.Service{{
//				Name: "web", Listen: []string{":8080"}, Scheduler: txlb.WeightedLeastConns,
//				Hosts: []txlb.Host{{Addr: "10.0.0.1:8080"}, {Addr: "10.0.0.2:8080", Weight: 2}},
//				Check: txlb.HTTPCheck("/health"),
//			}},
//			OnEvent: func(e txlb.Event) { log.Print(e) },
//		})
//		if err != nil {
//			log.Fatal(err) // which service, host and field, and what would be right
//		}
//		defer lb.Close()
//
//		web := lb.Service("web")
//		if err := web.AddHost(txlb.Host{Addr: "10.0.0.3:8080"}); err != nil {
//			log.Print(err)
//		}
//		client := http.Client{Transport: &http.Transport{DialContext: web.DialContext}}
//		_, _ = client.Get("http://web/") // goes to a host of the service
//		log.Fatal(http.ListenAndServe("localhost:9100", lb.MetricsHandler()))
//	}
//
// # What it is made of
//
// A [Config] says everything that the file of the program txlb can say, but for its admin
// interfaces. A [Service] is where clients come in: by listeners of the balancer, by listeners
// and connections of the program ([LiveService.Serve], [LiveService.ServeConn]), or by
// [LiveService.DialContext]. A [Group] of its hosts takes them. A zero field is the default,
// and [None] says 0. [Load] reads the file.
//
// [Start] returns a [Balancer], and [Balancer.Service] what changes a service while it runs.
// [Balancer.Close] ends everything at once, [Balancer.Shutdown] lets sessions finish.
//
// # What it does not do
//
// It changes nothing of the process: no signal handlers, no GOMAXPROCS, no limits, no global
// loggers or metrics, no output. Several balancers in one process share nothing.
//
// # Concurrency
//
// Everything may be called from any goroutine. Callbacks of the program ([Config].OnEvent,
// [Service].Fallback, the handler of the Logger) hold up nothing, and a panic in one is logged,
// counted (txlb_callback_panics_total) and ends nothing else.
//
// # Compatibility
//
// This package and package config follow semantic versioning: what compiles with a version
// compiles with all later ones of the same major version, and means the same. All other
// packages (engine, sched, splice and what is below them and config) may change in a minor
// version. api/txlb.txt lists what there is.
package txlb
