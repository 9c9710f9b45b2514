// Command embedded is the current etcd server, for the tests of the driver: they start it
// beside the one of Debian, which is older. It takes some of that one's options.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "embedded:", err)
		os.Exit(1)
	}
}

// run runs a member until it fails or is killed.
func run() error {
	c := embed.NewConfig()
	c.LogLevel = "warn"
	flag.StringVar(&c.Name, "name", "m0", "`NAME` of this member")
	flag.StringVar(&c.Dir, "data-dir", "", "`FOLDER` of its data")
	flag.StringVar(&c.InitialCluster, "initial-cluster", "", "all members, as `NAME=URL,…`")
	flag.UintVar(&c.TickMs, "heartbeat-interval", c.TickMs, "`MILLISECONDS`")
	flag.UintVar(&c.ElectionMs, "election-timeout", c.ElectionMs, "`MILLISECONDS`")
	flag.Int64Var(&c.QuotaBackendBytes, "quota-backend-bytes", 0, "`BYTES` that the data may have; 0: the default")
	for name, to := range map[string]*[]url.URL{
		"listen-client-urls": &c.ListenClientUrls, "advertise-client-urls": &c.AdvertiseClientUrls,
		"listen-peer-urls": &c.ListenPeerUrls, "initial-advertise-peer-urls": &c.AdvertisePeerUrls,
	} {
		flag.Func(name, "a `URL`", func(s string) error {
			u, err := url.Parse(s)
			if err == nil {
				*to = []url.URL{*u}
			}
			return err
		})
	}
	flag.Parse()
	e, err := embed.StartEtcd(c)
	if err != nil {
		return err
	}
	select {
	case <-e.Server.ReadyNotify():
	case <-e.Server.StopNotify():
		return errors.New("it has stopped before it was ready")
	case <-time.After(time.Minute):
		return errors.New("it is not ready after a minute")
	}
	return <-e.Err()
}
