package web

import (
	"fmt"
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/txlb/txlb/internal/admin/web/page"
)

// manyHosts is a service with n hosts in ten groups.
func manyHosts(n int) string {
	var b strings.Builder
	b.WriteString(`<config><service name="web"><listen ip="127.0.0.1:0"/>`)
	for g := range 10 {
		fmt.Fprintf(&b, `<group name="g%d" enable="%v">`, g, g == 0)
		for h := range n / 10 {
			fmt.Fprintf(&b, `<host name="h%d-%d" ip="10.%d.%d.%d:80"/>`, g, h, g, h/250, h%250+1)
		}
		b.WriteString(`</group>`)
	}
	b.WriteString(`</service><admin><user name="boss" password="` + bossHash + `" access="full"/></admin><manager><hostCheck enable="false"/></manager></config>`)
	return b.String()
}

// BenchmarkRunningPage renders the running page, from the request to the last
// byte of the answer. A thousand hosts are to take less than 50 ms.
func BenchmarkRunningPage(b *testing.B) {
	for _, hosts := range []int{10, 200, 1000, 10_000} {
		b.Run(fmt.Sprint("hosts=", hosts), func(b *testing.B) {
			r := newRig(b, manyHosts(hosts))
			s, err := newServer(r.opt, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7000})
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				w := httptest.NewRecorder()
				s.ServeHTTP(w, r.request("boss", "GET", "/", nil))
				if w.Code != 200 {
					b.Fatal(w.Code, w.Body)
				}
				b.SetBytes(int64(w.Body.Len()))
			}
		})
	}
}

// BenchmarkEvent makes the event that is made once a second while somebody
// watches.
func BenchmarkEvent(b *testing.B) {
	for _, hosts := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprint("hosts=", hosts), func(b *testing.B) {
			r := newRig(b, manyHosts(hosts))
			s, err := newServer(r.opt, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7000})
			if err != nil {
				b.Fatal(err)
			}
			var feed page.Feed
			for b.Loop() {
				src := s.source()
				message("", "figures", feed.Next(&src))
			}
		})
	}
}
