// Command database spreads the connections of a pool over several PostgreSQL servers. There
// is no proxy between: the pool connects to the servers themselves, and txlb says to which.
//
//	go run ./database "postgres://me:secret@db/app" 10.0.0.1:5432 10.0.0.2:5432
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/txlb/txlb"
)

func main() {
	ctx := context.Background()
	var hosts []txlb.Host
	for _, addr := range os.Args[2:] {
		hosts = append(hosts, txlb.Host{Addr: addr})
	}
	// No Listen: the program's own connections are the only ones.
	lb, err := txlb.Start(ctx, txlb.Config{
		Services: []txlb.Service{{Name: "db", Hosts: hosts, Check: txlb.TCPCheck()}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()
	db := lb.Service("db")

	cfg, err := pgxpool.ParseConfig(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	cfg.MaxConns = 4
	cfg.MaxConnLifetime = 10 * time.Minute // connections move to servers that have come back
	cfg.ConnConfig.DialFunc = db.DialContext
	cfg.ConnConfig.LookupFunc = func(_ context.Context, host string) ([]string, error) {
		return []string{host}, nil // the name is not looked up: txlb knows the addresses
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()

	// Take all connections at once, and ask each which server it is at.
	servers := map[string]int{}
	for range cfg.MaxConns {
		conn, err := pool.Acquire(ctx)
		if err != nil {
			log.Fatal(err)
		}
		defer conn.Release()
		var port string
		if err := conn.QueryRow(ctx, "SHOW port").Scan(&port); err != nil {
			log.Fatal(err)
		}
		servers[port]++
	}
	fmt.Println("connections by port:", servers)
}
