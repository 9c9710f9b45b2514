package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/admin/users"
	"github.com/txlb/txlb/internal/edits"
	"github.com/txlb/txlb/internal/words"
)

func TestRefusalsSayWhatWouldBeRight(t *testing.T) {
	r := newRig(t, plainDoc())
	for line, want := range map[string]string{
		"adHost web main c 1.2.3.4:80":                    `did you mean "addHost"?`,
		"show":                                            "services, hosts",
		"show host":                                       `did you mean "hosts"?`,
		"addHost wep main c 1.2.3.4:80":                   `unknown service "wep"; did you mean "web"?`,
		"addHost web mian c 1.2.3.4:80":                   `unknown group "mian" in service "web"; did you mean "main"?`,
		"setHost web main aa weight=1":                    `unknown host "aa" in group "main"; did you mean "a"?`,
		"setHost web main a wieght=1":                     `unknown option "wieght"; did you mean "weight"?`,
		"setHost web main a weight=70000":                 `"70000" is not between 0 and 65535`,
		"setHost web main a state=dran":                   "ready, drain, maint",
		"setHost web main a":                              "weight=N",
		"setHost web main a maxSessions=-5":               "is not between 0 and",
		"changeScheduler web main leastcon":               `did you mean "leastc"?`,
		"addHost web main c 1.2.3.4":                      "write host:port",
		"addHost web main c":                              "IP is missing; write addHost SERVICE GROUP NAME IP",
		"addHost web main c 1.2.3.4:80 x":                 `unexpected argument "x"; write addHost`,
		"addHost web main a 1.2.3.4:80":                   `host "a" in group "main" already exists`,
		"addHost web main c 1.2.3.4:80 name=d":            `"c" is not an address`,
		"addGroup web main":                               "already",
		"addService web 127.0.0.1:0":                      "already",
		"addService new 127.0.0.1:99999":                  "is not a number between 0 and 65535",
		"delHost web main 9.9.9.9:80":                     "unknown host",
		"delHost web main a drain=5":                      "5s",
		"delAllHosts web main":                            "enable another group first",
		"delGroup web main":                               "enable another group first",
		"delListen web 127.0.0.1:0":                       "the last address",
		"addRoute web mian percent=5":                     `did you mean "main"?`,
		"addRoute web main percent=101":                   `"101" is not between 0 and 100`,
		"addRoute web main sni=a..b":                      "is not a host name",
		"addRoute web main at=2":                          `service "web" has 0 routes, so the new one is at most number 1`,
		"setRoute web 1 percent=5":                        `service "web" has no routes`,
		"setRoute mail 2 percent=5":                       `service "mail" has no route 2; the last is number 1`,
		"setRoute mail 1 group=onyl":                      `did you mean "only"?`,
		"setRoute mail 1":                                 "nothing to set",
		"addRoute mail only net=192.0.2.0/24":             "has the same conditions and takes all these clients",
		"delRoute mail":                                   "NUMBER is missing",
		"delListen web 127.0.0.1:1":                       `did you mean "127.0.0.1:0"?`,
		"switchPort mail 1":                               "say which",
		"delUser admin":                                   "the last user with full access",
		"delUser amdin":                                   `did you mean "admin"?`,
		"shutdownSessions web name=a":                     "GROUP is missing",
		"addGroup web x generation=7":                     "is at generation 1; generation 7 does not exist yet",
		"addGroup web x generation=7 --dry-run":           "is at generation 1; generation 7 does not exist yet",
		"retryHost web main a generation=7":               "is at generation 1; generation 7 does not exist yet",
		"shutdownSessions web generation=7":               "is at generation 1; generation 7 does not exist yet",
		"show hosts web nope":                             "unknown group",
		"help nope":                                       "unknown verb",
		"help status now":                                 "has no parameters",
		"addHost web main c 1.2.3.4:80 weight=1 = 2":      "unexpected argument",
		`addHost web main "" 1.2.3.4:80`:                  "empty",
		"addHost web main c 1.2.3.4:80 weight=1 weight=2": "given twice",
	} {
		r.refused(line, want)
	}
}

// A port that another process has is found by trying: the change is refused,
// whole, on one line.
func TestPortInUseIsRefused(t *testing.T) {
	a := serve(t, "a")
	r := newRig(t, plainDoc())
	r.refused("addListen web "+a.addr, "in use")
	r.refused("switchPort web "+a.addr, "in use")
	r.refused("addService new "+r.addr, "in use") // by this process
}

// Routes are added, changed, listed and deleted by their place; what they lead to stays.
func TestRouteVerbs(t *testing.T) {
	r := newRig(t, plainDoc())
	for _, step := range [][2]string{
		{`addRoute web spare percent=5`, `add route 1 to service "web": 5 % of clients to group "spare"`},
		{`addRoute web spare sni="DB.example *.db.example" at=1`, `add route 1 to service "web": clients with sni="db.example *.db.example" to group "spare"`},
		{`setRoute web 2 percent=10 net=10.0.0.0/8`, `set route 2 of service "web": net "" -> 10.0.0.0/8, percent 5 -> 10`},
		{`show routes web`, `web      spare      1      100      0  sni=db.example *.db.example`},
		{`show diff`, "addRoute web spare sni=\"db.example *.db.example\"\naddRoute web spare net=10.0.0.0/8 percent=10"},
	} {
		if text := r.do(step[0]); !strings.Contains(text, step[1]) {
			t.Errorf("%s: %s\nwant %s", step[0], text, step[1])
		}
	}
	r.refused("delGroup web spare", `route 1 of service "web" leads to group "spare"; delete the route first: delRoute web 1`)
	r.refused("delAllHosts web spare", `route 1 of service "web" leads to group "spare"`)
	r.refused("delHost web spare c", `last host of group "spare", to which route 1 leads`, "--force")
	if text := r.do("addRoute web main; addRoute web main alpn=h2"); !strings.Contains(text, "warning: the route is never reached") {
		t.Errorf("no warning: %s", text)
	}
	r.do("delRoute web 4; delRoute web 1; delRoute web 1; delRoute web 1")
	if n := len(r.dir.State().Config.Services[0].Routes); n != 0 {
		t.Errorf("%d routes are left", n)
	}
	r.do("delGroup web spare")
}

// Mirrors are added, changed, listed and deleted by their address.
func TestMirrorVerbs(t *testing.T) {
	r := newRig(t, plainDoc())
	for _, step := range [][2]string{
		{`addMirror web main 10.0.0.9:80 percent=5`, `copy what clients of group "main" of service "web" send to mirror 10.0.0.9:80, percent 5`},
		{`addMirror web main copy.example:80 percent=0 --dry-run`, `would copy what clients of group "main"`},
		{`setMirror web main 10.0.0.9:80 percent=50 proxyProtocol=v2`, `set mirror 10.0.0.9:80 of group "main" of service "web": percent 5 -> 50, proxyProtocol`},
		{`setMirror web main 10.0.0.9:80 percent=50`, `nothing to change`},
		{`show mirrors web`, `web      main   10.0.0.9:80       50       0      0      0     0  up`},
		{`show mirrors`, `mail     only   127.0.0.1:9`},
		{`show diff`, "addMirror web main 10.0.0.9:80 percent=50 proxyProtocol=v2"},
	} {
		if text := r.do(step[0]); !strings.Contains(text, step[1]) {
			t.Errorf("%s: %s\nwant %s", step[0], text, step[1])
		}
	}
	for line, want := range map[string]string{
		"addMirror web main 10.0.0.9:80":             `has a mirror "10.0.0.9:80" already; change it with setMirror`,
		"addMirror web main 10.0.0.9":                "10.0.0.9",
		"addMirror web main unix:/m":                 `lets commands name only TCP addresses`,
		"addMirror web main 10.0.0.8:80 percent=101": `"101" is not between 0 and 100`,
		"setMirror web main 10.0.0.9:80":             "nothing to set",
		"setMirror web main 10.0.0.8:80 percent=1":   `group "main" has no mirror "10.0.0.8:80"`,
		"delMirror web spare 10.0.0.9:80":            `group "spare" of service "web" has no mirror`,
		"delMirror web main":                         "IP is missing",
		"show mirrors wbe":                           `unknown service "wbe"`,
	} {
		r.refused(line, want)
	}
	results, err := r.a.Run(t.Context(), boss, "show services web")
	if err != nil {
		t.Fatal(err)
	}
	if m := results[0].Data.([]ServiceInfo)[0].Mirrors; len(m) != 1 || m[0].IP != "10.0.0.9:80" || m[0].Percent != 50 || !m[0].Up || m[0].Settings["proxyProtocol"] != "v2" {
		t.Errorf("show services has %+v", m)
	}
	r.do("delMirror web main 10.0.0.9:80")
	if text := r.do("show diff"); strings.Contains(text, "addMirror") {
		t.Errorf("a mirror is left: %s", text)
	}
	r.do("rollback 1")
	if n := len(r.dir.State().Config.Services[0].Groups[0].Mirrors); n != 1 {
		t.Errorf("after the rollback there are %d mirrors", n)
	}
}

func TestTheLastHost(t *testing.T) {
	r := newRig(t, plainDoc())
	r.do("delHost web main a")
	r.refused("delHost web main b", "last host of the active group", "--force")
	r.refused("delHost web main b force=no", "--force")
	if text := r.do("delHost web main b --force"); !strings.Contains(text, "warning: ") {
		t.Errorf("no warning: %s", text)
	}
	r.do("delHost web spare c") // not enabled
	r.refused("enableGroup web spare", "no host that is up", "--force")
	r.do("enableGroup web spare --force")
	r.do("delGroup web main")
}

// A group whose hosts are down, draining or without weight is enabled by force
// only.
func TestEnableGroupWantsAHost(t *testing.T) {
	r := newRig(t, plainDoc())
	host := r.dir.State().Services[0].Groups[1].Hosts[0].Targets[0].Host
	for _, spoil := range []func(){
		func() { host.MarkDown() },
		func() { host.MarkUp(); r.do("setHost web spare c state=drain") },
		func() { r.do("setHost web spare c state=ready weight=0") },
	} {
		spoil()
		r.refused("enableGroup web spare", "--force")
	}
	r.do("setHost web spare c weight=1")
	r.do("enableGroup web spare")
	if text := r.do("enableGroup web spare"); !strings.HasPrefix(text, "nothing to change") {
		t.Errorf("said %q", text)
	}
}

func TestDelHostByAddress(t *testing.T) {
	r := newRig(t, plainDoc())
	r.do("addHost web main x 127.0.0.1:2")
	r.refused("delHost web main 127.0.0.1:2", "2 hosts", "b, x")
	r.do("delHost web main 127.0.0.1:1")
	r.do("delHost SERVICE=web Group=main HOST=x generation=3")
	hosts := r.dir.State().Config.Services[0].Groups[0].Hosts
	if len(hosts) != 1 || hosts[0].Name != "b" {
		t.Errorf("left %+v", hosts)
	}
}

func TestSwitchPort(t *testing.T) {
	a := serve(t, "a")
	r := newRig(t, doc(a.addr, a.addr, a.addr))
	old, _ := r.dial()
	r.do("switchPort web localhost:0")
	if text := r.do("switchPort web localhost:0"); !strings.HasPrefix(text, "nothing to change") {
		t.Errorf("said %q", text)
	}
	r.do("switchPort web 127.0.0.1:0; switchPort mail localhost:0 127.0.0.1:0")
	if _, err := old.ask(); err != nil {
		t.Errorf("the session: %v", err)
	}
	if got := r.dir.State().Config.Services[0].Listen; len(got) != 1 || got[0].Address != "127.0.0.1:0" {
		t.Errorf("listens on %+v", got)
	}
	r.refused("switchPort web 70000", "65535")
}

// What changes nothing makes no generation.
func TestNothingToChange(t *testing.T) {
	r := newRig(t, plainDoc())
	for _, line := range []string{
		"setHost web main a weight=1 state=ready", "hostAdminUp web main a", "changeScheduler web main roundrobin", "enableGroup web main",
		"enableGroup web main --dry-run", "retryHost web main a",
	} {
		if text := r.do(line); !strings.HasPrefix(text, "nothing to change") && !strings.HasPrefix(text, "would ") || r.dir.State().Generation != 1 {
			t.Errorf("%s: %q, generation %d", line, text, r.dir.State().Generation)
		}
	}
}

// No hash, and no word that may be one by mistake, comes into log, answers or
// errors; show config has them for full users alone.
func TestSecretsAreShownToNobody(t *testing.T) {
	const secret = "$6$salt$topsecret"
	r := newRig(t, plainDoc())
	var said strings.Builder
	for _, line := range []string{
		"addUser bob " + secret + " full",
		"addUser eve " + secret + " readonly --dry-run",
		"addUser bob " + secret + " full",
		"addUser " + secret + " bob full",
		"addUser bob full " + secret,
		"addUser bob2 topsecret full",
		"addUser bob2 " + secret + " full " + secret,
		"addUser bob2 hash=" + secret + " access=" + secret,
		"addUser bob2 full hash=" + secret + " generation=" + "9",
		"addUser bob2 " + secret + " full force=" + secret,
		"addUser bob2 " + secret + " full dry-run=" + secret,
		"adUser bob2 " + secret + " full",
		`addUser bob2 "` + secret,
		"help addUser", "show hosts", "status", "help",
	} {
		results, err := r.a.Run(t.Context(), boss, line)
		data, _ := json.Marshal(results)
		said.Write(data)
		if err != nil {
			said.WriteString(err.Error())
		}
	}
	said.WriteString(r.log.String())
	for _, caller := range []users.Caller{guest} {
		results, err := r.a.Run(t.Context(), caller, "show config")
		if err != nil {
			t.Fatal(err)
		}
		data, _ := json.Marshal(results)
		said.Write(data)
	}
	for _, hidden := range []string{"topsecret", "secrethash", "otherhash"} {
		if strings.Contains(said.String(), hidden) {
			i := strings.Index(said.String(), hidden)
			t.Errorf("%q is shown: …%s", hidden, said.String()[max(0, i-200):i+20])
		}
	}
	if text := r.do("show config"); !strings.Contains(text, secret) || !strings.Contains(text, "secrethash") {
		t.Errorf("a full user does not see the hashes:\n%s", text)
	}
	if users := r.dir.State().Config.Admin.Users; len(users) != 3 || users[2].Password != secret {
		t.Errorf("users %d", len(users))
	}
	if !strings.Contains(r.log.String(), `verb="addUser bob *** full"`) {
		t.Errorf("the log has:\n%s", r.log.String())
	}
}

// Verbs take no DES hashes, which look like passwords of 13 letters, and no
// passwords that begin as hashes do. A file may hold them.
func TestVerbsTakeNoDESHashes(t *testing.T) {
	r := newRig(t, strings.Replace(plainDoc(), `"$6$salt$otherhash"`, `"CCNf8Sbh3HDfQ"`, 1))
	for _, word := range []string{"CCNf8Sbh3HDfQ", "correcthorse1", "$ecret", "$ec ret$x", "$$x", "$6$", "$6", "$Ab$x", ""} {
		r.refused("addUser new "+words.Quote(word)+" full", "neither a password nor a DES hash")
		r.refused("setUser looker hash="+words.Quote(word), "neither a password nor a DES hash")
	}
	if got := r.dir.State().Config.Admin.Users[1].Password; got != "CCNf8Sbh3HDfQ" {
		t.Errorf("the file's hash is %s", got)
	}
}

func TestSetUser(t *testing.T) {
	const hash = "$6$salt$newhash"
	r := newRig(t, plainDoc())
	user := func(name string) config.User {
		t.Helper()
		u, _, err := edits.Find(r.dir.State().Config.Admin.Users, userName, name, edits.ErrUnknownName, "user", "")
		if err != nil {
			t.Fatal(err)
		}
		return *u
	}
	lost := "warning: this is lost when txlb stops, unless saveConfig saves it"
	for _, c := range []struct{ line, says string }{
		{"setUser looker hash=" + hash, "set user \"looker\": password\nwarning: user \"looker\" cannot log in"},
		{"setUser looker access=full", "set user \"looker\": access readonly -> full\n" + lost},
		{"setUser looker access=full", "nothing to change"},
		{"setUser looker hash=" + hash, "nothing to change"},
		{"setUser admin access=readonly", "set user \"admin\": access full -> readonly\n" + lost},
		{"setUser admin access=full --dry-run", "would set user"},
		{"delUser admin", lost},
		{"addUser eve " + hash + " readonly", lost},
	} {
		if text := r.do(c.line); !strings.Contains(text, c.says) {
			t.Errorf("%s: %s; want %s", c.line, text, c.says)
		}
	}
	r.refused("setUser looker access=readonly", "the last user with full access")
	r.refused("setUser looker", "give at least one of: hash=HASH, access=full|readonly")
	r.refused("setUser luker access=full", `did you mean "looker"?`)
	if u := user("looker"); u.Password != hash || u.Access != "full" {
		t.Errorf("%+v", u)
	}
	r.do("rollback 5")
	if u := user("looker"); u.Password != "$6$salt$otherhash" || u.Access != "readonly" {
		t.Errorf("after a rollback: %+v", u)
	}
	if _, err := r.a.Run(t.Context(), guest, "setUser looker access=full"); !errors.Is(err, ErrNotAllowed) {
		t.Errorf("a readonly user: %v", err)
	}
	if log := r.log.String(); strings.Contains(log, "newhash") {
		t.Errorf("a hash is in the log:\n%s", log)
	}
}

// Which commands a person is asked a password for.
func TestNeedsPassword(t *testing.T) {
	for line, want := range map[string]string{
		"addUser ann full":                       "addUser ann full hash=H",
		"addUser ann access=full":                "addUser ann access=full hash=H",
		"adduser user=ann access=full --dry-run": "adduser user=ann access=full dry-run=yes hash=H",
		"setUser ann":                            "setUser ann hash=H",
		"setUser ann generation=3":               "setUser ann generation=3 hash=H",
		"addUser ann":                            "",
		"addUser":                                "",
		"addUser ann $6$salt$hash full":          "",
		"addUser ann notahash full":              "",
		"addUser ann full hash=x":                "",
		"addUser ann full password=x":            "",
		"setUser":                                "",
		"setUser ann access=full":                "",
		"setUser ann hash=x":                     "",
		"setUser ann bob":                        "",
		"delUser ann":                            "",
		"nonsense":                               "",
	} {
		commands, err := words.Parse(line)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if with, ok := NeedsPassword(commands[0]); ok {
			got = with("H").String()
		}
		if got != want {
			t.Errorf("%s: becomes %q, want %q", line, got, want)
		}
	}
}

func TestRetryHost(t *testing.T) {
	a := serve(t, "a")
	r := newRig(t, doc(a.addr, a.addr, a.addr))
	target := r.dir.State().Services[0].Groups[0].Hosts[0].Targets[0]
	target.Host.MarkDown()
	if text := r.do("retryHost web main a --dry-run"); !strings.HasPrefix(text, "would") || target.Host.Up() {
		t.Errorf("said %q", text)
	}
	if text := r.do("retryHost web main a"); !strings.Contains(text, "marked up") || !target.Host.Up() || !target.Status().Up {
		t.Errorf("said %q", text)
	}
}

func TestShutdownSessions(t *testing.T) {
	a, b, c := serve(t, "a"), serve(t, "b"), serve(t, "c")
	r := newRig(t, doc(a.addr, b.addr, c.addr))
	byHost := map[string][]*client{}
	for range 4 {
		one, host := r.dial()
		byHost[host] = append(byHost[host], one)
	}
	if text := r.do("shutdownSessions web main a --dry-run"); text != "would close 2 sessions" {
		t.Errorf("said %q", text)
	}
	if text := r.do("shutdownSessions web spare; shutdownSessions mail"); text != "0 sessions closed\n0 sessions closed" {
		t.Errorf("said %q", text)
	}
	if text := r.do("shutdownSessions web main a"); text != "2 sessions closed" {
		t.Errorf("said %q", text)
	}
	for _, one := range byHost["a"] {
		one.expectGone(t)
	}
	for _, one := range byHost["b"] {
		if host, err := one.ask(); host != "b" || err != nil {
			t.Errorf("the other host: %q, %v", host, err)
		}
	}
	eventually(t, "two sessions are left", func() bool { return r.eng.Snapshot().Services["web"].Active == 2 })
	if text := r.do("shutdownSessions web"); text != "2 sessions closed" {
		t.Errorf("said %q", text)
	}
	for _, one := range byHost["b"] {
		one.expectGone(t)
	}
}

func TestStatusAndTables(t *testing.T) {
	a, b, c := serve(t, "a"), serve(t, "b"), serve(t, "c")
	r := newRig(t, doc(a.addr, b.addr, c.addr))
	if _, host := r.dial(); host != "a" {
		t.Fatalf("the first client came to %s", host)
	}
	r.dir.State().Services[0].Groups[0].Hosts[1].Targets[0].Host.MarkDown()
	get := func(line string) Result {
		t.Helper()
		results, err := r.a.Run(t.Context(), guest, line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if _, err := json.Marshal(results); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		return results[0]
	}
	status := get("status")
	if s := status.Data.(Status); s.Services != 2 || s.Hosts != 4 || s.Sessions != 1 || len(s.Problems) != 1 || status.Generation != 1 {
		t.Errorf("status %+v", s)
	}
	if !strings.Contains(status.Text, "2 services, 4 hosts, 1 session, up ") || !strings.Contains(status.Text, `1 of 2 hosts of web / main is down: b (`) {
		t.Errorf("status:\n%s", status.Text)
	}
	services := get("show services")
	if s := services.Data.([]ServiceInfo); len(s) != 2 || s[0].HostsUp != 1 || s[0].Hosts != 2 || s[0].Sessions != 1 || s[0].Listen[0] != r.addr {
		t.Errorf("services %+v", s)
	}
	hosts := get("show hosts web main").Data.([]HostInfo)
	if len(hosts) != 2 || !hosts[0].Up || hosts[0].Counters["sessions"] != 1 || hosts[1].Up || hosts[0].Address != a.addr || hosts[1].Targets[0].Up {
		t.Errorf("hosts %+v", hosts)
	}
	if n := len(get("show hosts web").Data.([]HostInfo)); n != 3 {
		t.Errorf("%d hosts of web", n)
	}
	for _, line := range []string{"show services", "show hosts"} {
		text := get(line).Text
		lines := strings.Split(text, "\n")
		column := strings.Index(lines[0], "sessions") + len("sessions")
		for _, l := range lines[1:] {
			if len(l) < column || l[column-1] < '0' || l[column-1] > '9' {
				t.Errorf("not aligned:\n%s", text)
				break
			}
		}
	}
	if x := get("show config").Data.(ConfigInfo); x.Generation != 1 || !strings.Contains(x.XML, `name="looker"`) {
		t.Errorf("config %+v", x)
	}
	if c, problems := config.Parse("", []byte(r.do("show config"))); c == nil {
		t.Errorf("show config gives no configuration: %v", problems)
	}
}

func TestReportsComeFromOutside(t *testing.T) {
	r := newRig(t, plainDoc(), func(o *Options) {
		o.Reports = map[string]Report{"show metrics": func(ctx context.Context) (string, any, error) {
			c, _ := CallerOf(ctx)
			return "for " + c.Name, 7, nil
		}}
	})
	results, err := r.a.Run(t.Context(), guest, "show metrics")
	if err != nil || results[0].Text != "for guest" || results[0].Data != 7 {
		t.Errorf("%+v, %v", results, err)
	}
	if _, err := r.a.Run(t.Context(), guest, "show log"); !errors.Is(err, ErrNotServed) {
		t.Errorf("show log: %v", err)
	}
}

func TestHelp(t *testing.T) {
	r := newRig(t, plainDoc())
	all := r.do("help")
	if !strings.Contains(all, "delHost SERVICE GROUP NAME [drain=DUR] [--force]") || strings.Contains(all, "closeLog") {
		t.Errorf("help:\n%s", all)
	}
	results, err := r.a.Run(t.Context(), guest, "help")
	if err != nil || strings.Contains(results[0].Text, "delHost") || len(results[0].Data.([]VerbInfo)) != len(Verbs()) {
		t.Errorf("help for readonly: %+v, %v", results, err)
	}
	for _, v := range Verbs() {
		for _, name := range append([]string{v.Name}, v.Aliases...) {
			if text := r.do("help " + name); !strings.HasPrefix(text, v.Syntax()+"\n") || !strings.Contains(text, v.Help) {
				t.Errorf("help %s:\n%s", name, text)
			}
		}
	}
}

func TestHelpForAParameter(t *testing.T) {
	r := newRig(t, plainDoc())
	for line, want := range map[string][]string{
		"help setHost weight":         {"[weight=N] of setHost\n", "share of new clients", "values: 0 to 65535", "default: 1"},
		"help SETHOST SLOW-START":     {"slowStart", "type: a duration", "default: 0"},
		"help addHost address":        {"IP of addHost", "also called address"},
		"help delHost drain":          {"[drain=DUR] of delHost", "sessions still open then are closed"},
		"help addGroup scheduler":     {"type: a scheduler", "values: leastc, roundr, rand"},
		"help show sessions max":      {"[max=N] of show sessions", "values: 1 to 10"},
		"help addService name":        {"NAME of addService", "required"},
		"help enableGroup force":      {"[--force] of enableGroup", "type: a flag"},
		"help setGroup allDown":       {"values: try, refuse", "default: try"},
		"help verb=setHost word=name": {"NAME of setHost", "the name of a host", "also called host"},
	} {
		got := r.do(line)
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s:\n%s\nwant %q", line, got, w)
			}
		}
	}
	r.refused("help setHost weigth", `setHost has no parameter "weigth"; did you mean "weight"?`)
	r.refused("help status x", "status has no parameters")
	r.refused("help setHost weight more", `unexpected argument "more"; write help setHost weight`)
	results, err := r.a.Run(t.Context(), guest, "help setHost weight")
	if err != nil {
		t.Fatal(err)
	}
	if p := results[0].Data.(VerbInfo).Params; len(p) != 1 || p[0].Default != "1" || p[0].Min == nil || *p[0].Max != 65535 {
		t.Errorf("the data is %+v", p)
	}
	// Every parameter has a type and words for people.
	for _, v := range Verbs() {
		for i := range v.Params {
			if p := v.Params[i].info(); p.Type == "" || v.Params[i].manual(&v) == "" {
				t.Errorf("%s %s has no help", v.Name, p.Name)
			}
		}
	}
	for line, want := range map[string]string{"help setHost we": "weight", "help show sessions m": "max", "help show ses": "sessions"} {
		if got := r.a.Complete(line); len(got) != 1 || got[0] != want {
			t.Errorf("%s<Tab>: %q", line, got)
		}
	}
}

func TestComplete(t *testing.T) {
	r := newRig(t, plainDoc())
	r.do(`addHost web spare "two words" 127.0.0.1:1`)
	for line, want := range map[string]string{
		"addH":                            "addHost",
		"status; delS":                    "delService",
		"DELs":                            "delService",
		"show s":                          "services sessions stored",
		"show hosts ":                     "mail web",
		"show hosts web m":                "main",
		"delHost ":                        "--dry-run --force confirm= drain= generation= mail web",
		"delHost w":                       "web",
		"delHost web ":                    "--dry-run --force confirm= drain= generation= main spare",
		"delHost web main ":               "--dry-run --force a b confirm= drain= generation=",
		"delHost web main a --f":          "--force",
		"delHost web main a --force --":   "--dry-run",
		"delHost group=main service=web ": "--dry-run --force a b confirm= drain= generation=",
		`delHost web spare `:              `"two words" --dry-run --force c confirm= drain= generation=`,
		"setHost web m":                   "main",
		"setHost web main a m":            "maxSessions=",
		"setHost web main a st":           "state=",
		"setHost web main a state=":       "state=drain state=maint state=ready",
		"setHost web main a state=d":      "state=drain",
		"changeScheduler web main weight": "weightlc weightlc,sticky weightr weightr,sticky weightrr weightrr,sticky",
		"delUser ":                        "--dry-run admin confirm= generation= looker",
		"delListen web ":                  "--dry-run 127.0.0.1:0 confirm= drain= generation=",
		"help sw":                         "switchPort",
		"nope ":                           "",
		"delHost nope ":                   "--dry-run --force confirm= drain= generation=",
		`delHost "we`:                     "web",
		`delHost web spare "two w`:        `"two words"`,
		`delHost web spare tw`:            `"two words"`,
		`delHost "web" "sp`:               "spare",
		`setHost web main a "st`:          "",
		"delHost web # s":                 "",
		"setHost web main a nope=":        "",
	} {
		if got := strings.Join(r.a.Complete(line), " "); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
	r.do("setHost web main b weight=2 confirm=1h")
	if got := r.a.Complete("confirm "); strings.Join(got, " ") != fmt.Sprint(r.dir.State().Generation) {
		t.Errorf("confirm: %q", got)
	}
	if n := len(r.a.Complete("")); n < 25 {
		t.Errorf("%d verbs at the beginning", n)
	}
	if !reflect.DeepEqual(r.a.Complete(""), r.a.Complete("status;")) || !reflect.DeepEqual(r.a.Complete(""), r.a.Complete("status\n")) {
		t.Error("a new command is not completed like the first")
	}
}

// FuzzRun: whatever a line says, it is answered or refused on one line, and a
// readonly user changes nothing. Words of a right kind come from the seeds.
func FuzzRun(f *testing.F) {
	r := newRig(f, plainDoc())
	for verb, words := range samples {
		f.Add(verb + " " + words)
	}
	before := r.dir.State()
	f.Fuzz(func(t *testing.T, line string) {
		r.a.Complete(line)
		_, err := r.a.Run(context.Background(), guest, line)
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: more than a line: %q", line, err)
		}
		commands, _ := words.Parse(line)
		for _, c := range commands {
			c.Words = append(c.Words, words.Word{Key: "dry-run", Value: "yes"})
			if _, err := r.a.Execute(context.Background(), boss, c); err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("%q: more than a line: %q", line, err)
			}
		}
		if r.dir.State() != before {
			t.Errorf("%q: the state has changed", line)
		}
	})
}
