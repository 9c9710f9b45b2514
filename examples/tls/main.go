// Command tls ends TLS, and answers by itself until there is a host: a program that can grow
// into several without another address or certificate.
//
//	go run ./tls cert.pem key.pem # a certificate for txlb.example
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/txlb/txlb"
	"github.com/txlb/txlb/examples/internal/demo"
)

func main() {
	certFile, keyFile := os.Args[1], os.Args[2]

	// The program's own web server has the clients while the service has no hosts.
	fallback := txlb.NewFallbackListener()
	own := http.Server{Handler: demo.Answer("this program"), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = own.Serve(fallback) }()
	defer own.Close()

	lb, err := txlb.Start(context.Background(), txlb.Config{
		Services: []txlb.Service{{
			Name: "web",
			// TLS ends here, so hosts and the fallback get plain HTTP. The files are read again
			// when they change. The program's own listeners, of any kind, have LiveService.Serve.
			Listeners: []txlb.Listener{{Addr: "127.0.0.1:0", TLS: []string{certFile, keyFile}}},
			Fallback:  fallback.Handle,
		}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()
	web := lb.Service("web")
	url := "https://" + web.Addrs()[0].String()
	client := trusting(certFile)

	fmt.Println("no host yet:", demo.AskBy(client, url))

	if err := web.AddHost(txlb.Host{Addr: demo.Server("a host")}); err != nil {
		log.Fatal(err)
	}
	fmt.Println("with a host:", demo.AskBy(client, url))
}

// trusting is how a client trusts a certificate. It has a connection for each request.
func trusting(certFile string) *http.Transport {
	pem, err := os.ReadFile(certFile)
	if err != nil {
		log.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "txlb.example"}}
}
