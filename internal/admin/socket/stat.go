package socket

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/health"
	"github.com/txlb/txlb/internal/status"
	"github.com/txlb/txlb/sched"
)

// statHeader is the header of HAProxy 2.6 with all its modules. Some tools find
// columns by position.
const statHeader = "pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,wredis,status," +
	"weight,act,bck,chkfail,chkdown,lastchg,downtime,qlimit,pid,iid,sid,throttle,lbtot,tracked,type,rate,rate_lim," +
	"rate_max,check_status,check_code,check_duration,hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,hrsp_other,hanafail," +
	"req_rate,req_rate_max,req_tot,cli_abrt,srv_abrt,comp_in,comp_out,comp_byp,comp_rsp,lastsess,last_chk,last_agt,qtime," +
	"ctime,rtime,ttime,agent_status,agent_code,agent_duration,check_desc,agent_desc,check_rise,check_fall,check_health," +
	"agent_rise,agent_fall,agent_health,addr,cookie,mode,algo,conn_rate,conn_rate_max,conn_tot,intercepted,dcon,dses,wrew," +
	"connect,reuse,cache_lookups,cache_hits,srv_icur,src_ilim,qtime_max,ctime_max,rtime_max,ttime_max,eint,idle_conn_cur," +
	"safe_conn_cur,used_conn_cur,need_conn_est,uweight,agg_server_status,agg_server_check_status,agg_check_status,-," +
	"ssl_sess,ssl_reused_sess,ssl_failed_handshake,h2_headers_rcvd,h2_data_rcvd,h2_settings_rcvd,h2_rst_stream_rcvd," +
	"h2_goaway_rcvd,h2_detected_conn_protocol_errors,h2_detected_strm_protocol_errors,h2_rst_stream_resp,h2_goaway_resp," +
	"h2_open_connections,h2_backend_open_streams,h2_total_connections,h2_backend_total_streams,h1_open_connections," +
	"h1_open_streams,h1_total_connections,h1_total_streams,h1_bytes_in,h1_bytes_out,h1_spliced_bytes_in," +
	"h1_spliced_bytes_out,"

// Values of the column type; as bits, the types in a request.
const (
	typeFrontend = iota
	typeBackend
	typeServer
)

// capacity counts the hosts of a group that take sessions.
type capacity struct {
	active, backup             int // hosts
	activeWeight, backupWeight int
}

func usable(g *status.Group) (c capacity) {
	for i := range g.Hosts {
		h := &g.Hosts[i]
		switch {
		case !h.Serves():
		case h.Config.Backup:
			c.backup++
			c.backupWeight += h.Config.Weight
		default:
			c.active++
			c.activeWeight += h.Config.Weight
		}
	}
	return c
}

// weight is the weight of the hosts that take sessions now.
func (c capacity) weight() int {
	if c.active > 0 {
		return c.activeWeight
	}
	return c.backupWeight
}

// checked tells whether the hosts of a group are checked while they are up.
func checked(state *director.State, g *director.Group) bool {
	return g.Config.Check != nil || state.Config.Manager.Heartbeat.Enable
}

// mainTarget is the address of a host that stands for it: the first that is up and not ejected, else
// the first that is up, else the first; nil if it has none.
func mainTarget(h *director.Host) *director.Target {
	var ejected *director.Target
	for _, t := range h.Targets {
		if t.Host.Up() && t.Status().Ejected == nil {
			return t
		}
		if t.Host.Up() && ejected == nil {
			ejected = t
		}
	}
	if ejected != nil {
		return ejected
	}
	if len(h.Targets) > 0 {
		return h.Targets[0]
	}
	return nil
}

// statusOf is the state of a host in HAProxy's words. There, NOLB is a server that is up and
// gets no new clients because it has asked for that; here, one that is ejected.
func statusOf(state *director.State, g *director.Group, h *director.Host) string {
	t := mainTarget(h)
	switch {
	case h.Config.State == "maint":
		return "MAINT"
	case t == nil:
		return "MAINT (resolution)"
	}
	word := "UP"
	switch {
	case !t.Host.Up():
		word = "DOWN"
	case h.Config.State == "drain":
		word = "DRAIN"
	case t.Status().Ejected != nil:
		word = "NOLB"
	case !checked(state, g):
		return "no check"
	}
	// The engine may have marked it down, and the director does not know yet.
	if s := t.Status(); s.Up == t.Host.Up() && s.Progress() != "" {
		word += " " + s.Progress()
	}
	return word
}

// checkText is HAProxy's description of a check result.
func checkText(c health.Code) string {
	return map[health.Code]string{
		health.SockErr: "Socket error",
		health.L4OK:    "Layer4 check passed", health.L4Tout: "Layer4 timeout", health.L4Con: "Layer4 connection problem",
		health.L6OK: "Layer6 check passed", health.L6Tout: "Layer6 timeout", health.L6Rsp: "Layer6 invalid response",
		health.L7OK: "Layer7 check passed", health.L7Tout: "Layer7 timeout", health.L7Rsp: "Layer7 invalid response",
		health.L7Sts: "Layer7 wrong status",
	}[c]
}

// checkHealth is HAProxy's number for health: 0 is down, rise-1 nearly up, rise just
// up, rise+fall-1 fully up.
func checkHealth(s director.Status) int {
	if s.Up {
		return s.Rise + s.Fall - 1 - s.Failed
	}
	return s.Passed
}

// cells is one line of show stat.
type cells struct {
	columns map[string]int
	values  []string
}

func (c cells) set(column string, value any) {
	i, ok := c.columns[column]
	if !ok {
		panic("show stat has no column " + column)
	}
	switch v := value.(type) {
	case string:
		c.values[i] = csv(v)
	case time.Duration:
		c.values[i] = strconv.FormatInt(int64(v/time.Second), 10)
	default:
		c.values[i] = fmt.Sprint(v)
	}
}

// zero sets columns of what does not exist here to 0.
func (c cells) zero(columns string) {
	for column := range strings.SplitSeq(columns, ",") {
		c.values[c.columns[column]] = "0"
	}
}

// csv quotes a text where HAProxy does.
func csv(s string) string {
	s = strings.Map(func(c rune) rune {
		if c == '\n' || c == '\r' {
			return ' '
		}
		return c
	}, s)
	if strings.ContainsAny(s, `",`) {
		return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
	}
	return s
}

// dump writes show stat.
type dump struct {
	*status.Reading
	iid, sid      int    // -1: all
	proxy         string // instead of iid
	types         int
	hideMaint, up bool
	columns       map[string]int
	text          strings.Builder
}

func showStat(r *request) answer {
	d := &dump{Reading: r.opt.Status.Read(), iid: -1, sid: -1, types: -1}
	words := r.words
	if len(words) >= 3 {
		types, err := strconv.Atoi(words[1])
		sid, err2 := strconv.Atoi(words[2])
		if err != nil || err2 != nil {
			return answer{err: sentence("usage: show stat [<iid>|<proxy> <type> <sid>] [no-maint|up]")}
		}
		if d.iid, err = strconv.Atoi(words[0]); err != nil {
			d.iid, d.proxy = -1, words[0]
		}
		d.types, d.sid, words = types, sid, words[3:]
	}
	for _, w := range words {
		switch w {
		case "up":
			d.up = true
		case "no-maint":
			d.hideMaint = true
		default:
			return answer{err: fmt.Errorf("show stat has no form '%s' here; there are CSV, no-maint and up, and for JSON show hosts --json and show services --json", w)}
		}
	}
	if d.proxy != "" && !d.hasProxy() {
		return answer{err: sentence("No such proxy.")}
	}
	names := strings.Split(statHeader, ",")
	d.columns = make(map[string]int, len(names))
	for i, name := range names {
		d.columns[name] = i
	}
	d.text.WriteString("# " + statHeader + "\n")
	d.rows()
	return answer{text: d.text.String()}
}

func (d *dump) hasProxy() bool {
	s, _, _ := d.Find(d.proxy, "", "")
	return s != nil || len(backends(d.State, d.proxy)) > 0
}

// wants tells whether rows of that type and proxy were asked for.
func (d *dump) wants(kind int, proxy string, iid int) bool {
	return d.types&(1<<kind) != 0 && (d.iid == -1 || d.iid == iid) && (d.proxy == "" || d.proxy == proxy)
}

func (d *dump) rows() {
	for i := range d.Services {
		s := &d.Services[i]
		stats, t := &s.Stats, &s.Traffic
		if d.wants(typeFrontend, s.Config.Name, t.ID) {
			c := d.begin(s.Config.Name, "FRONTEND", typeFrontend, t.ID, 0)
			c.zero("dreq,dresp,ereq,rate_lim,req_rate,req_rate_max,req_tot,comp_in,comp_out,comp_byp,comp_rsp,dcon,dses,wrew,eint")
			c.rates(t)
			c.set("scur", stats.Active)
			c.set("stot", stats.Sessions)
			c.set("bin", stats.In)
			c.set("bout", stats.Out)
			c.set("status", map[bool]string{true: "OPEN", false: "STOP"}[len(s.Listeners) > 0])
			if n := s.Config.Limits.Sessions; n > 0 {
				c.set("slim", n)
			} else if d.SessionsLimit > 0 {
				c.set("slim", d.SessionsLimit)
			}
			c.set("conn_rate", t.LastSecond)
			c.set("conn_rate_max", t.MaxRate)
			c.set("conn_tot", stats.Sessions)
			d.end(c, true)
		}
		for j := range s.Groups {
			d.group(s, &s.Groups[j])
		}
	}
}

// group writes the servers of a backend, and the backend.
func (d *dump) group(s *status.Service, g *status.Group) {
	name, t := proxyName(s.Service, g.Group), &g.Traffic
	last := time.Time{}
	for i := range g.Hosts {
		h := &g.Hosts[i]
		if h.Traffic.LastSession.After(last) {
			last = h.Traffic.LastSession
		}
		if d.wants(typeServer, name, t.ID) && (d.sid == -1 || d.sid == h.Traffic.ID) {
			d.host(name, t.ID, g, h)
		}
	}
	if !d.wants(typeBackend, name, t.ID) {
		return
	}
	has := usable(g)
	c := d.begin(name, "BACKEND", typeBackend, t.ID, 0)
	c.zero("qcur,qmax,dreq,dresp,wretr,wredis,comp_in,comp_out,comp_byp,comp_rsp,cli_abrt,srv_abrt,wrew,connect,reuse,eint," +
		"agg_server_status,agg_server_check_status,agg_check_status")
	c.rates(t)
	setCounters(c, &g.Stats)
	c.set("lbtot", g.Stats.Picks)
	c.set("qcur", g.Waiting)
	c.set("qmax", g.MostWaiting)
	if g.Queues() {
		c.set("qtime", t.MeanWait.Milliseconds())
	}
	if g.Config.Enabled {
		// These are counted per service; the active group shows them.
		c.set("wredis", s.Stats.Redispatches)
		c.set("cli_abrt", s.Stats.Ended["CD"]+s.Stats.Ended["CC"])
		c.set("srv_abrt", s.Stats.Ended["SD"])
	}
	word := map[bool]string{true: "UP", false: "DOWN"}[t.Up]
	if d.up || d.hideMaint {
		word += fmt.Sprintf(" (%d/%d)", g.Serving, len(g.Hosts))
	}
	c.set("status", word)
	c.set("weight", has.weight())
	c.set("uweight", has.weight())
	c.set("act", has.active)
	c.set("bck", has.backup)
	c.set("chkdown", t.Downs)
	c.set("lastchg", d.At.Sub(t.Changed))
	c.set("downtime", t.Downtime(d.At))
	d.lastSession(c, last)
	c.set("ctime", t.MeanConnect.Milliseconds())
	c.set("rtime", t.Turnaround.Milliseconds())
	c.set("ttime", t.MeanSession.Milliseconds())
	c.set("algo", g.Config.Scheduler)
	d.end(c, true)
}

// host writes one server.
func (d *dump) host(proxy string, iid int, g *status.Group, h *status.Host) {
	word, seen := statusOf(d.State, g.Group, h.Host), &h.Traffic
	if d.hideMaint && strings.HasPrefix(word, "MAINT") || d.up && (strings.HasPrefix(word, "MAINT") || strings.HasPrefix(word, "DOWN")) {
		return
	}
	c := d.begin(proxy, h.Config.Name, typeServer, iid, seen.ID)
	c.zero("qcur,qmax,dresp,wretr,wredis,cli_abrt,srv_abrt,wrew,connect,reuse,eint,idle_conn_cur,safe_conn_cur,used_conn_cur,need_conn_est")
	c.rates(seen)
	setCounters(c, &h.Stats)
	c.set("used_conn_cur", h.Stats.Active)
	if n := h.Config.MaxSessions; n > 0 {
		c.set("slim", n)
	}
	c.set("lbtot", h.Stats.Picks)
	c.set("status", word)
	c.set("weight", h.Config.Weight)
	c.set("uweight", h.Config.Weight)
	c.set("act", map[bool]int{true: 0, false: 1}[h.Config.Backup])
	c.set("bck", map[bool]int{true: 1, false: 0}[h.Config.Backup])
	c.set("lastchg", d.At.Sub(seen.Changed))
	c.set("rtime", seen.Turnaround.Milliseconds())
	c.set("ttime", seen.MeanSession.Milliseconds())
	d.lastSession(c, seen.LastSession)
	t := mainTarget(h.Host)
	if t == nil {
		d.end(c, false)
		return
	}
	c.set("addr", addressOf(t))
	s := t.Status()
	if !s.Checked.IsZero() || checked(d.State, g.Group) {
		failed := uint64(0)
		for code, n := range h.Checks() {
			if strings.Contains("L4TOUT L4CON L6TOUT L6RSP L7TOUT L7RSP L7STS", code) {
				failed += n
			}
		}
		c.set("chkfail", failed)
		c.set("chkdown", seen.Downs)
		c.set("downtime", seen.Downtime(d.At))
		c.set("check_rise", s.Rise)
		c.set("check_fall", s.Fall)
		c.set("check_health", checkHealth(s))
		if s.Check.Code == health.Unknown {
			c.set("check_status", "INI")
			c.set("check_desc", "Initializing")
		} else {
			c.set("check_status", s.Check.Code.String())
			c.set("check_desc", checkText(s.Check.Code))
			c.set("check_duration", s.Check.Took.Milliseconds())
			c.set("last_chk", s.Check.Text)
		}
	}
	d.end(c, false)
}

// addressOf is the address of a target as HAProxy writes it.
func addressOf(t *director.Target) string {
	if path := t.Host.Addr().Path(); path != "" {
		return "unix"
	}
	return t.Host.Addr().String()
}

// begin makes a row with what every row has.
func (d *dump) begin(proxy, name string, kind, iid, sid int) cells {
	c := cells{d.columns, make([]string, len(d.columns))}
	c.set("pxname", proxy)
	c.set("svname", name)
	c.set("pid", 1)
	c.set("iid", iid)
	c.set("sid", sid)
	c.set("type", kind)
	c.set("mode", "tcp")
	c.set("-", "-")
	c.zero("ssl_sess,ssl_reused_sess,ssl_failed_handshake")
	return c
}

// setCounters sets the columns of what hosts count.
func setCounters(c cells, stats *sched.HostStats) {
	for i := range status.HostCounters {
		if row := &status.HostCounters[i]; row.Column != "" {
			c.set(row.Column, row.Value(stats))
		}
	}
}

// rates sets what samples have seen.
func (c cells) rates(t *status.Traffic) {
	c.set("smax", t.Max)
	c.set("rate", t.LastSecond)
	c.set("rate_max", t.MaxRate)
}

// lastSession tells how long ago a session has begun, -1 if none has.
func (d *dump) lastSession(c cells, at time.Time) {
	if at.IsZero() {
		c.set("lastsess", -1)
		return
	}
	c.set("lastsess", d.At.Sub(at))
}

// end writes the row. modules: with the columns of HTTP, which are 0.
func (d *dump) end(c cells, modules bool) {
	for i := d.columns["h2_headers_rcvd"]; modules && i <= d.columns["h1_spliced_bytes_out"]; i++ {
		c.values[i] = "0"
	}
	// The header ends with a comma, and so do rows.
	d.text.WriteString(strings.Join(c.values[:len(c.values)-1], ",") + ",\n")
}
