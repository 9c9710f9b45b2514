// Command web balances two web servers: the smallest program with a balancer inside.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/txlb/txlb"
	"github.com/txlb/txlb/examples/internal/demo"
)

func main() {
	// The balancer runs when Start returns. The context bounds Start alone.
	lb, err := txlb.Start(context.Background(), txlb.Config{
		Services: []txlb.Service{{
			Name:      "web",
			Listen:    []string{"127.0.0.1:0"}, // port 0 takes a free one; yours is ":8080" or so
			Scheduler: txlb.WeightedRoundRobin,
			Hosts: []txlb.Host{
				{Name: "a", Addr: demo.Server("a")}, // such as "10.0.0.1:8080"
				{Name: "b", Addr: demo.Server("b"), Weight: 2},
			},
			Check: txlb.HTTPCheck("/health"), // every two seconds
		}},
	})
	if err != nil {
		log.Fatal(err) // it names everything that is wrong with the Config, and where
	}
	defer lb.Close() // ends connections at once; Shutdown lets them finish

	url := "http://" + lb.Service("web").Addrs()[0].String()
	fmt.Println("six requests went to", demo.Count(url, 6))
}
