package admin

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/edits"
	"github.com/txlb/txlb/internal/guard"
	"github.com/txlb/txlb/sched"
)

const (
	// maxClients bounds the rows of show clients, and maxCounted the sessions that
	// are looked at for it: some 100 bytes each.
	maxClients, maxCounted = 10_000, 100_000
	// clientRate is the time that rates of clients are of.
	clientRate = 10 * time.Second
)

// ClientInfo is one client in the Data of show clients: what has one IPv4 address or
// is in one IPv6 /64 network. All of it is of open sessions.
type ClientInfo struct {
	Client   string  `json:"client"` // "" for those of UNIX sockets
	Sessions int     `json:"sessions"`
	Rate     float64 `json:"rate"` // new sessions a second, of the last ten seconds and still open
	In       uint64  `json:"bytes_in"`
	Out      uint64  `json:"bytes_out"`
}

// Filter is the word that its sessions have in common on the page of sessions, ""
// where they have none.
func (c ClientInfo) Filter() string {
	if c.Client == "" {
		return ""
	}
	network, _, _ := strings.Cut(c.Client, "::/")
	return network + ":"
}

func (k *call) showClients() (Result, error) {
	service := k.args.text("service")
	if service != "" {
		if _, err := edits.Service(k.state().Config, service); err != nil {
			return Result{}, err
		}
	}
	most, given := k.args.number("max")
	if !given {
		most = usualSessions
	}
	list := k.admin.opt.Engine.Sessions(maxCounted, func(s string, _ *sched.Host) bool { return service == "" || s == service })
	all := clientsOf(list, time.Now())
	shown := all[:min(len(all), int(most))]
	t := table{head: []string{"client", "sessions", "new/s", "in", "out"}, right: 1}
	for _, c := range shown {
		t.row(cmp.Or(c.Client, "-"), c.Sessions, fmt.Sprintf("%.1f", c.Rate), c.In, c.Out)
	}
	text := t.String()
	if len(shown) < len(all) {
		text += fmt.Sprintf("\nthere are %d more clients; max=N shows more", len(all)-len(shown))
	}
	if len(list) == maxCounted {
		text += fmt.Sprintf("\ncounted are the oldest %d sessions; there may be more", maxCounted)
	}
	return Result{Text: text, Data: shown}, nil
}

// clientsOf sums sessions up by client, most sessions first.
func clientsOf(list []engine.SessionInfo, now time.Time) []ClientInfo {
	index := map[string]int{}
	all := []ClientInfo{}
	for i := range list {
		s := &list[i]
		name := ""
		if s.Client.IsValid() {
			source := guard.SourceOf(s.Client.String())
			if name = source.String(); source.IsSingleIP() {
				name = source.Addr().String()
			}
		}
		n, known := index[name]
		if !known {
			n = len(all)
			index[name] = n
			all = append(all, ClientInfo{Client: name})
		}
		c := &all[n]
		c.Sessions++
		c.In += s.In
		c.Out += s.Out
		if now.Sub(s.Started) < clientRate {
			c.Rate += 1 / clientRate.Seconds()
		}
	}
	slices.SortFunc(all, func(a, b ClientInfo) int {
		return cmp.Or(cmp.Compare(b.Sessions, a.Sessions), cmp.Compare(b.In+b.Out, a.In+a.Out), cmp.Compare(a.Client, b.Client))
	})
	return all
}
