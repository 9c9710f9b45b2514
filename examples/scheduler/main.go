// Command scheduler chooses hosts by itself: the cheapest one that is not too busy.
package main

import (
	"context"
	"fmt"
	"log"
	"net/netip"
	"sync/atomic"

	"github.com/txlb/txlb"
	"github.com/txlb/txlb/examples/internal/demo"
)

// cheapest is a scheduler. The event loops call Pick, several at the same moment, so it takes
// no lock: it reads a map that nobody changes, and set puts another one in its place.
type cheapest struct {
	prices atomic.Pointer[map[string]float64] // by the name of a host
}

func (c *cheapest) set(prices map[string]float64) { c.prices.Store(&prices) }

// Pick returns the index of a host. txlb does all else: it leaves out hosts that are down,
// draining, full or tried, and counts their sessions.
func (c *cheapest) Pick(_ netip.Addr, hosts []txlb.Candidate) int {
	prices, best := *c.prices.Load(), 0
	for i := range hosts {
		if cost(prices, hosts[i]) < cost(prices, hosts[best]) {
			best = i
		}
	}
	return best
}

// cost makes a host dearer with each session that it has for its weight.
func cost(prices map[string]float64, h txlb.Candidate) float64 {
	return prices[h.Name()] * float64(1+h.Sessions()) / float64(h.Weight())
}

func main() {
	own := new(cheapest)
	own.set(map[string]float64{"frankfurt": 1, "paris": 3})

	lb, err := txlb.Start(context.Background(), txlb.Config{
		Schedulers: map[string]txlb.Scheduler{"cheapest": own},
		Services: []txlb.Service{{
			Name:      "api",
			Listen:    []string{"127.0.0.1:0"},
			Scheduler: txlb.Custom("cheapest"), // with txlb.Sticky around it, clients come back to their hosts
			Hosts: []txlb.Host{
				{Name: "frankfurt", Addr: demo.Server("frankfurt")},
				{Name: "paris", Addr: demo.Server("paris")},
			},
		}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()
	url := "http://" + lb.Service("api").Addrs()[0].String()

	for range 4 { // connections that stay open
		fmt.Println(demo.Stay(url))
	}
	own.set(map[string]float64{"frankfurt": 100, "paris": 3})
	fmt.Println("with another price:", demo.Stay(url))
}
