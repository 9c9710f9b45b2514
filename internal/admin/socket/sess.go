package socket

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/words"
	"github.com/txlb/txlb/sched"
)

// maxSessions is how many sessions show sess lists.
const maxSessions = 100_000

// showSess lists sessions in HAProxy's format, or shows one.
func showSess(r *request) answer {
	if err := r.tooMany(1); err != nil {
		return answer{err: err}
	}
	state := r.opt.Director.State()
	list := r.opt.Engine.Sessions(maxSessions+1, func(string, *sched.Host) bool { return true })
	more := len(list) > maxSessions
	infos := admin.SessionInfos(state, list[:min(len(list), maxSessions)])
	if len(r.words) == 1 && r.words[0] != "all" {
		return r.oneSession(state, infos)
	}
	var b strings.Builder
	for i := range infos {
		s := &infos[i]
		proto, source := endpoint(s.Client)
		fmt.Fprintf(&b, "0x%s: proto=%s src=%s fe=%s be=%s srv=%s ts=00 epoch=0 age=%s calls=0 rate=0 cpu=0 lat=0 "+
			"rq[f=0h,i=0,an=00h,rx=,wx=,ax=] rp[f=0h,i=0,an=00h,rx=,wx=,ax=] scf=[8,0h,fd=-1] scb=[8,0h,fd=-1] exp= rc=0 c_exp=\n",
			s.ID, proto, source, field(s.Service), backendOf(s), serverOf(s), humanTime(s.Age))
	}
	if more {
		fmt.Fprintf(&b, "# there are more than these %d; show sessions SERVICE GROUP NAME shows those of one host\n", maxSessions)
	}
	return answer{text: b.String()}
}

func (r *request) oneSession(state *director.State, infos []admin.SessionInfo) answer {
	id, err := admin.ParseSessionID(r.words[0])
	if err != nil {
		return answer{err: err}
	}
	for i := range infos {
		s := &infos[i]
		if s.ID != admin.FormatSessionID(id) {
			continue
		}
		proto, source := endpoint(s.Client)
		text := fmt.Sprintf("0x%s: [%s] id=0 proto=%s source=%s\n  flags=0x0, age=%s idle=%s bin=%d bout=%d\n",
			s.ID, s.Started.Format("02/Jan/2006:15:04:05.000000"), proto, source, humanTime(s.Age), humanTime(s.Idle), s.In, s.Out)
		text += fmt.Sprintf("  frontend=%s (mode=tcp)\n  backend=%s (mode=tcp) addr=%s\n  server=%s addr=%s\n",
			field(s.Service), backendOf(s), field(s.Local), serverOf(s), field(s.Address))
		return answer{text: text}
	}
	return answer{err: sentence("Session not found.")}
}

// endpoint writes a client as HAProxy does.
func endpoint(client string) (proto, source string) {
	a, err := netip.ParseAddrPort(client)
	switch {
	case err != nil:
		return "unix_stream", "unix:1"
	case a.Addr().Is4():
		return "tcpv4", client
	}
	return "tcpv6", fmt.Sprintf("%s:%d", a.Addr(), a.Port())
}

func backendOf(s *admin.SessionInfo) string {
	if s.Group == "" {
		return "<NONE>"
	}
	return field(s.Service + "." + s.Group)
}

func serverOf(s *admin.SessionInfo) string {
	if s.Host == "" {
		return "<none>"
	}
	return field(s.Host)
}

// humanTime writes a duration in its two greatest units.
func humanTime(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	days, hours, minutes, s := int(d.Hours())/24, int(d.Hours())%24, int(d.Minutes())%60, int(d.Seconds())%60
	switch {
	case days > 0:
		return fmt.Sprintf("%dd%dh", days, hours)
	case hours > 0:
		return fmt.Sprintf("%dh%dm", hours, minutes)
	case minutes > 0:
		return fmt.Sprintf("%dm%ds", minutes, s)
	}
	return fmt.Sprintf("%ds", s)
}

func shutdownSession(r *request) answer {
	if len(r.words) != 1 {
		return answer{err: sentence("Session pointer expected (use 'show sess').")}
	}
	if _, err := admin.ParseSessionID(r.words[0]); err != nil {
		return answer{err: sentence("No such session (use 'show sess').")}
	}
	result, err := r.opt.Admin.Execute(r.ctx, r.caller, words.Command{Verb: "shutdownSession", Words: []words.Word{{Value: r.words[0]}}})
	switch {
	case errors.Is(err, admin.ErrNotAllowed):
		return answer{err: err}
	case err != nil:
		return answer{err: sentence("No such session (use 'show sess').")}
	}
	return answer{generation: result.Generation}
}
