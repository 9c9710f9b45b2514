package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// B68: a host gets another address while it has sessions. Everything that shows a
// host's figures or sessions, or ends them, knows them as the host's still, and
// all of it agrees.
func TestB68ReadersAgreeAfterAnAddressChanges(t *testing.T) {
	for _, c := range []struct{ name, change string }{
		{"setHost", "setHost web main a ip=%s"},
		{"HAProxy", "set server web.main/a addr 127.0.0.1 port %s"},
		{"reload", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			one, two := server(t, named("1")), server(t, named("2"))
			sock := filepath.Join(socketFolder(t), "a.sock")
			doc := func(ip string) string {
				return fmt.Sprintf(`<config><service name="web"><listen ip="127.0.0.1:0"/><group name="main"><host name="a" ip="%s"/></group></service>
<admin><socket path="%s"/><metrics listen="127.0.0.1:0"/><web listen="127.0.0.1:0" secure="false"/>%s</admin></config>`, ip, sock, operator)
			}
			p, file := txlbFile(t, doc(one))
			web, metrics := p.addr("web", 0), p.expect(`part=metrics addr=(\S+)`)
			page := p.pageOf(0)
			var open []net.Conn
			for i := range 5 {
				conn, name := greeted(t, web)
				if name != "1" {
					t.Fatalf("a session is on %s", name)
				}
				if i < 2 {
					_ = conn.(*net.TCPConn).CloseWrite()
					if _, err := io.Copy(io.Discard, conn); err != nil {
						t.Fatal(err)
					}
					continue
				}
				open = append(open, conn)
			}
			// figures returns sessions now and ever, as everything tells them.
			figures := func() map[string][2]int {
				all := map[string][2]int{}
				sample := func(name string) int {
					return int(metric(t, metrics, name+`{service="web",group="main",host="a"}`))
				}
				all["metrics"] = [2]int{sample("txlb_sessions"), sample("txlb_sessions_total")}

				var hosts []struct {
					Data []struct{ Sessions, Sessions_total int }
				}
				decode(t, ctlOf(t, "", "-s", sock, "--json", "show", "hosts").out, &hosts)
				all["show hosts"] = [2]int{hosts[0].Data[0].Sessions, hosts[0].Data[0].Sessions_total}

				rows, err := csv.NewReader(strings.NewReader(ctlOf(t, "", "-s", sock, "show", "stat").out)).ReadAll()
				if err != nil {
					t.Fatal(err)
				}
				for _, row := range rows[1:] {
					if row[0] == "web.main" {
						now, _ := strconv.Atoi(row[4])
						ever, _ := strconv.Atoi(row[7])
						all["show stat "+row[1]] = [2]int{now, ever}
					}
				}
				running := regexp.MustCompile(`open="(\d+)" total="(\d+)"`)
				_, body, err := visit("127.0.0.1", "http", page, "/running.xml")
				m := running.FindStringSubmatch(body)
				if err != nil || m == nil {
					t.Fatalf("running.xml: %v\n%s", err, body)
				}
				now, _ := strconv.Atoi(m[1])
				ever, _ := strconv.Atoi(m[2])
				all["running.xml"] = [2]int{now, ever}

				_, body, err = visit("127.0.0.1", "http", page, "/")
				cells := regexp.MustCompile(`data-label="Sessions"><span data-f="sessions"[^>]*>(\d+)</span><small data-f="total">(\d+)`).FindStringSubmatch(body)
				if err != nil || cells == nil {
					t.Fatalf("the page: %v\n%s", err, body)
				}
				now, _ = strconv.Atoi(cells[1])
				ever, _ = strconv.Atoi(cells[2])
				all["page"] = [2]int{now, ever}
				return all
			}
			agree := func(when string, now, ever int) {
				t.Helper()
				var all map[string][2]int
				agreed := func() bool {
					all = figures()
					for _, f := range all {
						if f != [2]int{now, ever} {
							return false
						}
					}
					return len(all) == 6
				}
				for end := time.Now().Add(patience); !agreed(); {
					if time.Now().After(end) {
						t.Fatalf("%s: want %d and %d, there are %v", when, now, ever, all)
					}
				}
			}
			agree("before", 3, 5)

			switch c.name {
			case "setHost":
				ctlOf(t, "", append([]string{"-s", sock}, strings.Fields(fmt.Sprintf(c.change, two))...)...)
			case "HAProxy":
				_, port, _ := net.SplitHostPort(two)
				ctlOf(t, "", append([]string{"-s", sock}, strings.Fields(fmt.Sprintf(c.change, port))...)...)
			case "reload":
				p.reload(file, doc(two))
			}
			if conn, name := greeted(t, web); name != "2" {
				t.Fatalf("a new session is on %s", name)
			} else {
				open = append(open, conn)
			}
			agree("after", 4, 6)

			for _, verb := range [][]string{{"show", "sessions", "web", "main", "a"}, {"show", "sessions"}} {
				var said []struct {
					Data []struct{ Group, Host, Address, Local string }
				}
				decode(t, ctlOf(t, "", append([]string{"-s", sock, "--json"}, verb...)...).out, &said)
				at := map[string]int{}
				for _, s := range said[0].Data {
					at[s.Group+" "+s.Host+" "+s.Address]++
				}
				if len(said[0].Data) != 4 || at["main a "+one] != 3 || at["main a "+two] != 1 {
					t.Errorf("%v: %v", verb, at)
				}
			}
			if out := ctlOf(t, "", "-s", sock, "show", "sess").out; strings.Count(out, "be=web.main srv=a ") != 4 {
				t.Errorf("show sess:\n%s", out)
			}
			if out := ctlOf(t, "", "-s", sock, "shutdownSessions", "web", "main", "a", "--dry-run").out; !strings.Contains(out, "4 sessions") {
				t.Errorf("a dry run: %s", out)
			}
			ctlOf(t, "", "-s", sock, "shutdownSessions", "web", "main", "a")
			for _, conn := range open {
				_ = conn.SetReadDeadline(time.Now().Add(patience))
				if _, err := conn.Read(make([]byte, 1)); err == nil {
					t.Error("a session goes on")
				}
			}
			agree("without sessions", 0, 6)
			// The old address becomes the host's past a second later. Nothing shows
			// when, and that is the point.
			time.Sleep(2 * time.Second)
			agree("later", 0, 6)
		})
	}
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		// One result is written without a list around it.
		if err := json.Unmarshal([]byte("["+text+"]"), into); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
	}
}
