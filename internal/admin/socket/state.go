package socket

import (
	"fmt"
	"net"
	"strings"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/health"
	"github.com/txlb/txlb/internal/status"
)

// stateHeader is the head of show servers state, version 1.
const stateHeader = "# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight " +
	"srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state " +
	"bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr " +
	"srv_agent_port"

func showServersState(r *request) answer {
	if err := r.tooMany(1); err != nil {
		return answer{err: err}
	}
	stored, now := r.storedWeights(), r.opt.Status.Read()
	if len(r.words) == 1 && len(backends(now.State, r.words[0])) == 0 {
		return answer{err: sentence("Can't find backend.")}
	}
	var b strings.Builder
	b.WriteString("1\n" + stateHeader + "\n")
	for i := range now.Services {
		s := &now.Services[i]
		for j := range s.Groups {
			g := &s.Groups[j]
			if len(r.words) == 1 && r.words[0] != proxyName(s.Service, g.Group) {
				continue
			}
			for k := range g.Hosts {
				b.WriteString(serverState(now, s, g, &g.Hosts[k], stored))
			}
		}
	}
	return answer{text: b.String()}
}

// Numbers of HAProxy for results of checks (check-t.h).
func checkNumbers(c health.Code) (status, result int) {
	const failed, passed = 2, 3
	switch c {
	case health.SockErr:
		return 5, 0
	case health.L4OK:
		return 6, passed
	case health.L4Tout:
		return 7, failed
	case health.L4Con:
		return 8, failed
	case health.L6OK:
		return 9, passed
	case health.L6Tout:
		return 10, failed
	case health.L6Rsp:
		return 11, failed
	case health.L7Tout:
		return 12, failed
	case health.L7Rsp:
		return 13, failed
	case health.L7OK:
		return 15, passed
	case health.L7Sts:
		return 17, failed
	}
	return 1, 0 // not yet
}

// serverState gives the line of one host.
func serverState(now *status.Reading, svc *status.Service, g *status.Group, h *status.Host, stored map[status.Key]int) string {
	const stopped, running = 0, 2
	const forcedMaint, noAddress, forcedDrain = 1, 32, 8
	const configured, enabled, paused = 2, 4, 8
	addr, port, fqdn, srv := "-", "0", "-", "-"
	op, adm := stopped, 0
	code, result, health, check := 1, 0, 0, 0
	since := now.At
	if host, p, err := net.SplitHostPort(h.Config.Address); err == nil {
		port = p
		if t := mainTarget(h.Host); t == nil || addressOf(t) != h.Config.Address {
			fqdn = host
		}
	} else if config.IsSRV(h.Config.Address) {
		srv = h.Config.Address
	}
	t := mainTarget(h.Host)
	if t == nil {
		adm = noAddress
	} else {
		s := t.Status()
		code, result = checkNumbers(s.Check.Code)
		health, since = checkHealth(s), s.Since
		if host, p, err := net.SplitHostPort(addressOf(t)); err == nil {
			addr, port = host, p
		} else {
			addr, port = t.Host.Addr().Path(), "0"
		}
		if t.Host.Up() {
			op = running
		}
		if checked(now.State, g.Group) {
			check = configured | enabled
		}
	}
	switch h.Config.State {
	case "maint":
		op, adm = stopped, adm|forcedMaint
		if check != 0 {
			check |= paused
		}
	case "drain":
		adm |= forcedDrain
	}
	initial, ok := stored[status.Key{Service: svc.Config.Name, Group: g.Config.Name, Host: h.Config.Name}]
	if !ok {
		initial = h.Traffic.FirstWeight
	}
	checkPort := 0
	if c := g.Config.Check; c != nil {
		checkPort = c.Port
	}
	return fmt.Sprintf("%d %s %d %s %s %d %d %d %d %d %d %d %d %d 0 0 0 %s %s %s 0 %d - - 0\n",
		g.Traffic.ID, field(proxyName(svc.Service, g.Group)), h.Traffic.ID, field(h.Config.Name), field(addr), op, adm, h.Config.Weight, initial,
		int(now.At.Sub(since).Seconds()), code, result, health, check, field(fqdn), port, srv, checkPort)
}

// field makes a name fit between blanks.
func field(s string) string {
	if s == "" {
		return "-"
	}
	return strings.Map(func(c rune) rune {
		if c <= ' ' {
			return '_'
		}
		return c
	}, s)
}
