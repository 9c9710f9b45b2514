// Command canary gives a new version of a service a tenth of the clients, then half of them,
// then all.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/txlb/txlb"
	"github.com/txlb/txlb/examples/internal/demo"
)

func main() {
	lb, err := txlb.Start(context.Background(), txlb.Config{
		Services: []txlb.Service{{
			Name:   "shop",
			Listen: []string{"127.0.0.1:0"},
			Groups: []txlb.Group{
				{Name: "stable", Enabled: true, Hosts: []txlb.Host{{Addr: demo.Server("v1")}}},
				{Name: "canary", Hosts: []txlb.Host{{Addr: demo.Server("v2")}}},
			},
			// The first route that matches a client decides. Who matches none goes to the group
			// that is enabled. Routes can also ask for networks (Nets), and for the name that a
			// client's TLS asks for (SNI).
			Routes: []txlb.Route{{Percent: 10, Group: "canary"}},
		}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()
	shop := lb.Service("shop")
	url := "http://" + shop.Addrs()[0].String()

	// Percent is exact: of each 100 clients, so many.
	fmt.Println("10 %: of 100 clients", demo.Count(url, 100))

	// Update changes anything of a service. Connections that are open stay where they are.
	err = shop.Update(func(s *txlb.Service) error {
		s.Routes[0].Percent = 50
		return nil
	})
	if err != nil {
		log.Fatal(err) // nothing has changed
	}
	fmt.Println("50 %: of 100 clients", demo.Count(url, 100))

	// The new version is good: its group becomes the enabled one.
	if err := shop.EnableGroup("canary"); err != nil {
		log.Fatal(err) // no host of it is up, for example
	}
	fmt.Println("all: of 100 clients", demo.Count(url, 100))
}
