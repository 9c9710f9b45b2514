//go:build linux

package socket

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/servers"
)

// realHAProxy runs HAProxy with what doc has, and returns how to ask it.
func realHAProxy(t *testing.T, a, b, c string) (ask func(line string) string) {
	t.Helper()
	debian.NeedFor(t, "haproxy")
	dir := folder(t)
	path := filepath.Join(dir, "h.sock")
	conf := fmt.Sprintf(`global
	stats socket %s mode 600 level admin
	maxconn 1000
defaults
	mode tcp
	timeout connect 1s
	timeout client 60s
	timeout server 60s
frontend web
	bind unix@%s/web
	default_backend web.main
backend web.main
	server a %s
	server b %s weight 4
backend web.spare.one
	default-server check inter 200ms rise 2 fall 3
	server c %s
	server d %s backup
frontend mail
	bind unix@%s/mail
	default_backend mail.only
backend mail.only
	server m %s
`, path, dir, a, b, c, a, dir, c)
	s, err := servers.New(dir, "haproxy", path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.HAProxy(conf); err != nil {
		t.Fatal(err)
	}
	s.Probe = func(path string) error {
		conn, err := net.Dial("unix", path)
		if err == nil {
			_ = conn.Close()
		}
		return err
	}
	s.RunFor(t)
	return func(line string) string {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_ = conn.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(conn, line+"\n"); err != nil {
			t.Fatal(err)
		}
		all, err := io.ReadAll(conn)
		if err != nil {
			t.Fatal(err)
		}
		return string(all)
	}
}

// tableOf reads show stat: the header and the rows by pxname/svname.
func tableOf(t *testing.T, csv string) (header []string, rows map[string][]string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(csv), "\n")
	header = strings.Split(strings.TrimPrefix(lines[0], "# "), ",")
	rows = map[string][]string{}
	for _, l := range lines[1:] {
		row := strings.Split(l, ",")
		if len(row) != len(header) {
			t.Fatalf("%d cells below %d columns: %s", len(row), len(header), l)
		}
		rows[row[0]+"/"+row[1]] = row
	}
	return header, rows
}

// kindOfCell sorts what stands in a cell.
func kindOfCell(cell string) string {
	switch {
	case cell == "":
		return "nothing"
	case regexp.MustCompile(`^-?\d+$`).MatchString(cell):
		return "a number"
	}
	return "a text"
}

func TestShowStatIsThatOfHAProxy(t *testing.T) {
	a, b, c := backendServer(t), backendServer(t), nobody(t)
	ask := realHAProxy(t, a, b, c)
	r := newRig(t, doc(a, b, c))
	// The same happens to both.
	for _, line := range []string{
		"set server web.main/a state drain", "set server mail.only/m state maint", "set server web.main/b weight 7",
		"add server web.main/n 127.0.0.1:99",
	} {
		if theirs, ours := ask(line), r.raw(line); theirs != ours {
			t.Errorf("%s: they say %q, we %q", line, theirs, ours)
		}
	}
	state := func(csv, name, column string) string {
		header, rows := tableOf(t, csv)
		if rows[name] == nil {
			return "no row"
		}
		return rows[name][slices.Index(header, column)]
	}
	for _, who := range []func(string) string{ask, r.raw} {
		eventually(t, "the checks have seen that c is down and d up", func() bool {
			csv := who("show stat")
			return state(csv, "web.spare.one/c", "status") == "DOWN" && state(csv, "web.spare.one/d", "status") == "UP" &&
				state(csv, "web.spare.one/d", "check_status") == "L4OK"
		})
	}
	var theirs string
	eventually(t, "none of their checks is under way, which they show with a star", func() bool {
		theirs = ask("show stat")
		return !strings.Contains(theirs, ",* ")
	})
	ours := r.raw("show stat")
	theirHeader, theirRows := tableOf(t, theirs)
	header, rows := tableOf(t, ours)
	if !slices.Equal(header, theirHeader) {
		t.Fatalf("the headers differ:\n%v\n%v", header, theirHeader)
	}
	// What is not measured here stays empty, where they have 0.
	unmeasured := strings.Split("qtime,ctime,rtime,ttime,qtime_max,ctime_max,rtime_max,ttime_max,cache_lookups,cache_hits,srv_icur,src_ilim,slim", ",")
	// What has to be the same, and not only of the same kind.
	same := strings.Split("pxname,svname,status,weight,act,bck,scur,stot,check_status,check_rise,check_fall,check_health,check_desc,last_chk,addr,mode,type,pid,sid,econ,lbtot", ",")
	for name, their := range theirRows {
		row := rows[name]
		if row == nil {
			t.Errorf("there is no row %s", name)
			continue
		}
		for i, column := range header {
			got, want := kindOfCell(row[i]), kindOfCell(their[i])
			switch {
			case slices.Contains(same, column) && !strings.EqualFold(row[i], their[i]):
				t.Errorf("%s: %s is %q, theirs %q", name, column, row[i], their[i])
			case slices.Contains(unmeasured, column) && (got == "nothing" || got == want || column == "slim"):
			case got != want:
				t.Errorf("%s: %s is %s (%q), theirs %s (%q)", name, column, got, row[i], want, their[i])
			}
		}
	}
	if len(rows) != len(theirRows) {
		t.Errorf("%d rows, theirs %d", len(rows), len(theirRows))
	}
	// The same rows for the same questions.
	for _, line := range []string{"show stat web.main 4 -1", "show stat web.main 6 2", "show stat -1 1 -1", "show stat mail 3 -1", "show stat -1 2 -1 up", "show stat -1 4 -1 no-maint", "show stat up"} {
		_, their := tableOf(t, ask(line))
		_, our := tableOf(t, r.raw(line))
		for name := range their {
			if our[name] == nil {
				t.Errorf("%s: %s is missing", line, name)
			}
		}
		for name := range our {
			if their[name] == nil {
				t.Errorf("%s: %s is too much", line, name)
			}
		}
	}
}

// Numbers are right, and not only there.
func TestShowStatCounts(t *testing.T) {
	r := newRig(t, doc(backendServer(t), backendServer(t), nobody(t)))
	for range 6 {
		_ = r.visit()
	}
	last := r.visit()
	_ = last.Close()
	cell := func(name, column string) string {
		header, rows := tableOf(t, r.ask("show stat"))
		return rows[name][slices.Index(header, column)]
	}
	eventually(t, "seven sessions are counted, and one has gone", func() bool {
		return cell("web/FRONTEND", "stot") == "7" && cell("web/FRONTEND", "scur") == "6" && cell("web/FRONTEND", "bin") == "35" &&
			cell("web/FRONTEND", "bout") == "35" && cell("web.main/BACKEND", "bin") == "35" && cell("web.main/BACKEND", "scur") == "6"
	})
	sum := 0
	for _, name := range []string{"web.main/a", "web.main/b"} {
		var n int
		if _, err := fmt.Sscan(cell(name, "lbtot"), &n); err != nil || n < 3 {
			t.Errorf("%s has had %d sessions", name, n)
		}
		sum += n
	}
	if sum != 7 {
		t.Errorf("%d sessions of hosts", sum)
	}
	eventually(t, "the rate is seen", func() bool {
		return cell("web/FRONTEND", "rate_max") != "0" && cell("web.main/BACKEND", "rate_max") != "0"
	})
	eventually(t, "the failed host is seen", func() bool {
		return cell("web.spare.one/c", "chkdown") == "1" && cell("web.spare.one/c", "status") == "DOWN" && cell("web.spare.one/c", "chkfail") != "0"
	})
	eventually(t, "its downtime grows", func() bool {
		return cell("web.spare.one/c", "downtime") != "0" && cell("web.spare.one/c", "lastchg") != "0"
	})
	// IDs stay while others come and go.
	id := cell("mail.only/BACKEND", "iid") + " " + cell("web.main/b", "sid")
	r.ask("addGroup web early")
	r.ask("set server web.main/a state maint; del server web.main/a; add server web.main/z 127.0.0.1:1")
	if now := cell("mail.only/BACKEND", "iid") + " " + cell("web.main/b", "sid"); now != id {
		t.Errorf("IDs were %s and are %s", id, now)
	}
	if got := cell("web.main/z", "sid"); got != "3" {
		t.Errorf("the new host has sid %s, want one that no other had", got)
	}
}

func TestShowInfoIsThatOfHAProxy(t *testing.T) {
	a, b, c := backendServer(t), backendServer(t), nobody(t)
	ask := realHAProxy(t, a, b, c)
	r := newRig(t, doc(a, b, c))
	_ = r.visit()
	read := func(text string) (names []string, values map[string]string) {
		values = map[string]string{}
		for l := range strings.Lines(strings.TrimSpace(text)) {
			name, value, ok := strings.Cut(strings.TrimSuffix(l, "\n"), ": ")
			if !ok {
				t.Errorf("no value: %q", l)
			}
			names = append(names, name)
			values[name] = value
		}
		return names, values
	}
	theirNames, theirs := read(ask("show info"))
	names, ours := read(r.raw("show info"))
	if !slices.Equal(names, theirNames) {
		t.Fatalf("the fields differ:\n%v\n%v", names, theirNames)
	}
	for _, name := range names {
		if got, want := kindOfCell(ours[name]), kindOfCell(theirs[name]); got != want {
			t.Errorf("%s: %s, theirs %s", name, ours[name], theirs[name])
		}
	}
	for name, want := range map[string]string{
		"CurrConns": "1", "CumConns": "1", "Pid": fmt.Sprint(os.Getpid()), "Maxconn": "1000", "Listeners": "2",
		"Ulimit-n": "4000", "Maxpipes": "200", "node": theirs["node"],
	} {
		if ours[name] != want {
			t.Errorf("%s: %s, want %s", name, ours[name], want)
		}
	}
	if !regexp.MustCompile(`^\d+d \d+h\d\dm\d\ds$`).MatchString(ours["Uptime"]) {
		t.Errorf("Uptime: %s", ours["Uptime"])
	}
}

func TestShowServersStateIsThatOfHAProxy(t *testing.T) {
	a, b, c := backendServer(t), backendServer(t), nobody(t)
	ask := realHAProxy(t, a, b, c)
	r := newRig(t, doc(a, b, c))
	for _, line := range []string{"set server web.main/a state drain", "set server mail.only/m state maint", "set server web.main/b weight 7"} {
		ask(line)
		r.raw(line)
	}
	read := func(text string) (head string, rows map[string][]string) {
		lines := strings.Split(strings.TrimSpace(text), "\n")
		rows = map[string][]string{}
		for _, l := range lines[2:] {
			f := strings.Fields(l)
			rows[f[1]+"/"+f[3]] = f
		}
		return lines[0] + "\n" + lines[1], rows
	}
	column := strings.Fields(strings.TrimPrefix(stateHeader, "# "))
	result := slices.Index(column, "srv_check_result")
	// HAProxy forgets the result while it checks again, so the answer that has it is
	// the one to look at.
	checked := func(who func(string) string) (head string, rows map[string][]string) {
		eventually(t, "the checks have had results", func() bool {
			head, rows = read(who("show servers state"))
			return rows["web.spare.one/c"][result] == "2" && rows["web.spare.one/c"][5] == "0" && rows["web.spare.one/d"][result] == "3"
		})
		return head, rows
	}
	theirHead, theirs := checked(ask)
	head, ours := checked(r.raw)
	if head != theirHead || len(ours) != len(theirs) {
		t.Errorf("the heads are\n%s\n%s\nand there are %d rows, theirs %d", head, theirHead, len(ours), len(theirs))
	}
	for name, their := range theirs {
		for i, want := range their {
			switch c := column[i]; {
			case c == "be_id" || c == "srv_time_since_last_change" || c == "srv_check_health":
				// IDs and times are each one's own; what the health of a host is that is not
				// checked has no meaning.
				if kindOfCell(ours[name][i]) != "a number" {
					t.Errorf("%s: %s is %s", name, c, ours[name][i])
				}
			case c == "srv_check_state" && (want == ours[name][i] || want == "7" && ours[name][i] == "6"):
				// theirs has 1 more while a check is under way
			case ours[name][i] != want:
				t.Errorf("%s: %s is %s, theirs %s", name, c, ours[name][i], want)
			}
		}
	}
	if _, rows := read(r.raw("show servers state web.spare.one")); len(rows) != 2 {
		t.Errorf("%d rows of one backend", len(rows))
	}
}

// The same words have the same answers, where both know them.
func TestAnswersAreThoseOfHAProxy(t *testing.T) {
	a, b, c := backendServer(t), backendServer(t), nobody(t)
	ask := realHAProxy(t, a, b, c)
	r := newRig(t, doc(a, b, c))
	for _, line := range []string{
		"set server", "set server web.main", "set server web.main/z state maint", "set server nob/z state maint", "set server web.main/a state foo",
		"set server web.main/a weight", "set server web.main/a weight 5", "set weight web.main/a 6", "set weight nob/a 3", "get weight web.main/a",
		"get weight web.main/z", "get weight", "enable server", "enable server web.main/q", "enable server foo", "disable server web.main/a",
		"enable server web.main/a", "set server web.main/a addr foo", "set server web.main/a addr", "set server web.main/a addr 127.0.0.2",
		"set server web.main/a addr 127.0.0.2 port 99", "set server web.main/a addr 127.0.0.2 port 99", "set server web.main/a addr 127.0.0.3 port 98",
		"add server web.main/n 127.0.0.1:9", "add server web.main/n 127.0.0.1:9", "add server web.main/n2 127.0.0.1:9 weight 4 backup", "add server web.main/m",
		"shutdown session", "shutdown session 0x55", "shutdown sessions server web.main/a", "shutdown sessions server web.main/z",
		"show servers state nob", "show sess 0x55", "show stat x 1 1", "show backend", "set timeout cli 10", "prompt;prompt", "prompt;quit",
		"get weight web.main/a;get weight web.main/z;get weight web.main/b",
	} {
		theirs, ours := ask(line), r.raw(line)
		if theirs != ours {
			t.Errorf("%s: they say %q, we %q", line, theirs, ours)
		}
	}
	// Here they leave out the empty line at the end.
	for _, line := range []string{"add server nob/n 127.0.0.1:9", "del server web.main/a", "del server web.main/n", "del server web.main/z", "del server"} {
		theirs, ours := ask(line), r.raw(line)
		if strings.TrimRight(theirs, "\n") != strings.TrimRight(ours, "\n") {
			t.Errorf("%s: they say %q, we %q", line, theirs, ours)
		}
	}
}
