// Command autoscale adds and removes the hosts of a service as a channel says: the way to
// follow an autoscaler, a service registry or an orchestrator.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/txlb/txlb"
	"github.com/txlb/txlb/examples/internal/demo"
)

// report is what the platform says: a server has come, or is about to go.
type report struct {
	addr string
	goes bool
}

func main() {
	lb, err := txlb.Start(context.Background(), txlb.Config{
		Services: []txlb.Service{{Name: "jobs", Listen: []string{"127.0.0.1:0"}, Scheduler: txlb.RoundRobin}}, // no host yet
	})
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()
	jobs := lb.Service("jobs")
	url := "http://" + jobs.Addrs()[0].String()

	for r := range platform() {
		if r.goes {
			// No new clients from now on; those that it has may finish for ten seconds.
			err = jobs.RemoveHost(r.addr, txlb.EndAfter(10*time.Second))
		} else {
			err = jobs.AddHost(txlb.Host{Addr: r.addr})
		}
		switch {
		case errors.Is(err, txlb.ErrExists), errors.Is(err, txlb.ErrUnknownHost):
			fmt.Println("reported twice")
		case err != nil:
			log.Fatal(err) // nothing has changed
		default:
			fmt.Println("four clients went to", demo.Count(url, 4))
		}
	}
}

// platform reports what happens. Yours watches something, in a goroutine like this one.
func platform() <-chan report {
	reports := make(chan report)
	go func() {
		defer close(reports)
		a, b := demo.Server("a"), demo.Server("b")
		for _, r := range []report{{addr: a}, {addr: b}, {addr: a}, {addr: a, goes: true}} {
			reports <- r
		}
	}()
	return reports
}
