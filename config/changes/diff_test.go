package changes

import (
	"reflect"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/internal/models"
	"github.com/txlb/txlb/internal/words"
)

// Whatever two models are, the edits lead from one to the other, and after each
// the configuration is right.
func TestDiffWorksOneByOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := models.Draw(t, "a"), models.Draw(t, "b")
		before, after := a.Clone(), b.Clone()
		edits := Diff(a, b)
		if (len(edits) == 0) != gocmp.Equal(a, b, models.SameMeaning) {
			t.Fatalf("edits %v:\n%s", edits, gocmp.Diff(a, b, models.SameMeaning))
		}
		at := a
		for i, e := range edits {
			if e.Live() == strings.HasPrefix(e.Command(), "#") || strings.ContainsAny(e.Command(), "\n\r") {
				t.Fatalf("live %v: %q", e.Live(), e.Command())
			}
			if strings.Contains(e.String(), "secret") {
				t.Fatalf("shows a secret: %s", e)
			}
			obeysRules(t, at, e)
			next, err := Apply(at, edits[i:i+1])
			if err != nil {
				t.Fatalf("%s: %v\nof\n%v", e, err, edits)
			}
			at = next
		}
		if diff := gocmp.Diff(b, at, models.SameMeaning); diff != "" {
			t.Fatalf("the edits %v lead elsewhere:\n%s", edits, diff)
		}
		if all, err := Apply(a, edits); err != nil || !gocmp.Equal(all, b, models.SameMeaning) {
			t.Fatalf("all at once: %v", err)
		}
		if !gocmp.Equal(a, before) || !gocmp.Equal(b, after) {
			t.Fatal("a model has changed")
		}
	})
}

// obeysRules fails if a verb would be refused.
func obeysRules(t *rapid.T, c *config.Config, e Edit) {
	if !e.Live() || strings.HasSuffix(e.Command(), "--force") {
		return
	}
	for _, s := range c.Services {
		g := s.Enabled()
		if g == nil {
			continue
		}
		group := words.QuoteName(s.Name) + " " + words.QuoteName(g.Name)
		if e.Command() == "delGroup "+group {
			t.Fatalf("%s: the group is enabled", e)
		}
		if len(g.Hosts) == 1 && e.Command() == "delHost "+group+" "+words.QuoteName(g.Hosts[0].Name) {
			t.Fatalf("%s: the last host of the enabled group", e)
		}
	}
	full := 0
	for _, u := range c.Admin.Users {
		full += count(u.Access == "full")
	}
	for _, u := range c.Admin.Users {
		if e.Command() == "delUser "+words.QuoteName(u.Name) && u.Access == "full" && full == 1 {
			t.Fatalf("%s: the last full user", e)
		}
	}
}

// Every field of the model, also one that somebody adds tomorrow, is seen.
func TestDiffSeesEveryField(t *testing.T) {
	// What no document says.
	unsaid := map[string]bool{"Config.Admin.SSH.Secure": true, "Config.Admin.SSH.Refresh": true,
		"Config.Admin.SSH.Certificate": true, "Config.Admin.SSH.Key": true, "Config.Admin.SSH.Readyz": true, "Config.Admin.Web.HostKey": true,
		"Config.Admin.SSH.Names": true, "Config.Admin.SSH.TrustedProxies": true, "Config.Program": true}
	c := config.New()
	fill(reflect.ValueOf(c).Elem())
	seen := 0
	var visit func(v reflect.Value, path string)
	visit = func(v reflect.Value, path string) {
		if v.Type() == posType || unsaid[path] {
			return
		}
		switch v.Kind() {
		case reflect.Pointer:
			visit(v.Elem(), path)
			was := v.Elem().Interface()
			if strings.Contains(path, "[") {
				return // one of a list, which is looked at as a whole
			}
			v.SetZero()
			expectSeen(t, c, func() { v.Set(reflect.New(v.Type().Elem())); v.Elem().Set(reflect.ValueOf(was)) }, path+" without")
		case reflect.Struct:
			for i := range v.NumField() {
				visit(v.Field(i), path+"."+v.Type().Field(i).Name)
			}
		case reflect.Slice:
			for i := range v.Len() {
				visit(v.Index(i), path+"[]")
			}
			was := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
			reflect.Copy(was, v)
			v.SetLen(v.Len() - 1)
			expectSeen(t, c, func() { v.Set(was) }, path+" shorter")
		default:
			was := reflect.New(v.Type()).Elem()
			was.Set(v)
			if !alter(v) {
				t.Fatalf("%s has a kind that this test does not know: %v", path, v.Kind())
			}
			expectSeen(t, c, func() { v.Set(was) }, path)
			seen++
		}
	}
	visit(reflect.ValueOf(c).Elem(), "Config")
	if seen < 40 {
		t.Errorf("looked at %d fields", seen)
	}
}

// expectSeen compares a changed model with what it was before undo's change.
func expectSeen(t *testing.T, c *config.Config, undo func(), path string) {
	t.Helper()
	changed := c.Clone()
	undo()
	if edits := Diff(c, changed); len(edits) == 0 {
		t.Errorf("Diff does not see %s: does Marshal write it?", path)
	}
	if !equal(c, c.Clone()) {
		t.Fatalf("after %s a clone differs", path)
	}
}

// fill makes every part of a value be there.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		fill(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.String:
		if v.String() == "" {
			v.SetString("filled")
		}
	}
}

// alter gives a value another one.
func alter(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 7)
	case reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(v.Uint() + 7)
	default:
		return false
	}
	return true
}

func TestDiffPrintsVerbs(t *testing.T) {
	doc := func(body string) *config.Config {
		return models.MustParse(t, "<config>"+body+"</config>")
	}
	const plain = `<service name="web"><listen ip=":80"/><group name="main"><host name="a" ip="h:1"/></group></service>`
	for name, test := range map[string]struct{ old, new, want string }{
		"the same": {plain, `<service name="web"><limits tries="0"/><listen ip=":80"/><group name="main" enable="yes"><host ip="h:1" weight="1" name="a"/></group></service>`, ""},
		"a service": {plain, plain + `<service name="a b"><listen ip=":81"/><listen ip=":82"/><timeouts idle="5m"/><group name="g" scheduler="rand"><host ip="x:1" weight="5" state="drain"/></group></service>`,
			`addService "a b" :81
addListen "a b" :82
setService "a b" idle=5m
addGroup "a b" g rand
addHost "a b" g host.0 x:1 weight=5 state=drain`},
		"another host": {plain, strings.ReplaceAll(plain, `"a"`, `"b"`), "addHost web main b h:1\ndelHost web main a"},
		"another address of the last host": {plain, strings.ReplaceAll(plain, `"h:1"`, `"h:2"`),
			"setHost web main a ip=h:2"},
		"all that setHost knows": {plain, strings.ReplaceAll(plain, `ip="h:1"`, `ip="h:1" weight="2" slowStart="5s" resolve="1m"`),
			"setHost web main a weight=2 slowStart=5s resolve=1m"},
		"its defaults": {strings.ReplaceAll(plain, `ip="h:1"`, `ip="h:1" slowStart="5s" resolve="0"`), plain,
			"setHost web main a slowStart=0 resolve=30s"},
		"a new group with all that addGroup knows": {plain, strings.ReplaceAll(strings.ReplaceAll(plain, `"main"`, `"main" enable="yes"`), `</service>`, `<group name="g" allDown="refuse" maxFails="3"><host name="n" ip="h:3" slowStart="1h" resolve="90s"/></group></service>`),
			"addGroup web g leastc allDown=refuse maxFails=3\naddHost web g n h:3 slowStart=1h resolve=1m30s"},
		"a host changes": {plain, strings.ReplaceAll(plain, `ip="h:1"`, `ip="h:1" state="maint" weight="7"`), "setHost web main a weight=7 state=maint"},
		"and back":       {strings.ReplaceAll(plain, `ip="h:1"`, `ip="h:1" state="maint" weight="7"`), plain, "setHost web main a weight=1 state=ready"},
		"the group is emptied": {plain, strings.ReplaceAll(plain, `<host name="a" ip="h:1"/>`, ""),
			"delHost web main a --force"},
		"another group": {plain, strings.ReplaceAll(plain, `"main"`, `"new"`), "addGroup web new leastc\naddHost web new a h:1\nenableGroup web new\ndelGroup web main"},
		"no group":      {plain, `<service name="web"><listen ip=":80"/></service>`, `# <service name="web"><group name="main"> deleted: needs reload`},
		"a service takes an address": {
			`<service name="a"><listen ip=":80"/><listen ip=":81"/></service>`, `<service name="a"><listen ip=":81"/></service><service name="b"><listen ip="127.0.0.1:80"/></service>`,
			"delListen a :80\naddService b 127.0.0.1:80"},
		"a service is renamed": {plain + `<service name="x"><listen ip=":9"/></service>`, strings.ReplaceAll(plain, "web", "api") + `<service name="x"><listen ip=":9"/></service>`,
			"delService web\naddService api :80\naddGroup api main leastc\naddHost api main a h:1"},
		"the only service is renamed": {plain, strings.ReplaceAll(plain, "web", "api"),
			"# at once: delService web; addService api :80: needs reload\n# addGroup api main leastc: needs reload\n# addHost api main a h:1: needs reload"},
		"a group whose hosts take no clients": {strings.ReplaceAll(plain, `"main"`, `"main" enable="yes"`), strings.ReplaceAll(plain, `</service>`, `<group name="g" enable="yes"><host name="n" ip="h:3" weight="0"/></group></service>`),
			"addGroup web g leastc\naddHost web g n h:3 weight=0\nenableGroup web g --force"},
		"full access changes hands": {plain + `<admin><user name="a" password="$6$x" access="full"/><user name="b" password="$6$y" access="readonly"/></admin>`,
			plain + `<admin><user name="b" password="$6$y" access="full"/></admin>`,
			"setUser b access=full\ndelUser a"},
		"full access changes hands among those who stay": {plain + `<admin><user name="a" password="$6$x" access="full"/><user name="b" password="$6$y" access="readonly"/></admin>`,
			plain + `<admin><user name="a" password="$6$x" access="readonly"/><user name="b" password="$6$z" access="full"/></admin>`,
			"setUser b hash=$6$z access=full\nsetUser a access=readonly"},
		"nobody keeps full access": {plain + `<admin><user name="a" password="$6$x" access="full"/></admin>`, plain + `<admin><user name="a" password="$6$x" access="readonly"/></admin>`,
			"# <admin><user name=\"a\"> access full -> readonly: needs reload"},
		"hashes that verbs refuse": {plain + `<admin><user name="a" password="$6$x" access="full"/></admin>`,
			plain + `<admin><user name="a" password="CCNf8Sbh3HDfQ" access="full"/><user name="b" password="CCNf8Sbh3HDfQ" access="full"/></admin>`,
			"# <admin><user name=\"a\"> password $6$x -> CCNf8Sbh3HDfQ: needs reload\n# addUser b CCNf8Sbh3HDfQ full: needs reload"},
		"a service takes the address of the metrics": {plain + `<admin><metrics listen=":9107"/></admin>`, strings.ReplaceAll(plain, `<listen ip=":80"/>`, `<listen ip=":9107"/>`),
			"# <admin><metrics listen=\":9107\"/> deleted: needs reload\n# addListen web :9107: needs reload\n# delListen web :80: needs reload"},
		"addresses swapped": {
			`<service name="a"><listen ip=":80"/></service><service name="b"><listen ip=":81"/></service>`, `<service name="a"><listen ip=":81"/></service><service name="b"><listen ip=":80"/></service>`,
			"# at once: delListen a :80; delListen b :81; addListen a :81; addListen b :80: needs reload"},
		"what no verb does": {plain, `<engine loops="2"/>` + plain + `<admin><metrics listen=":9107"/></admin><manager><hostCheck interval="5"/></manager><logging level="debug"/>`,
			`# <engine> loops auto -> 2: needs restart
# <admin><metrics listen=":9107"/> added: needs reload
# <manager><hostCheck> interval 10 -> 5: needs reload
# <logging> level info -> debug: needs reload`},
		"files and sockets": {plain + `<admin><web listen="localhost:1"/><ssh/><socket path="/run/s"/></admin><control socket="/run/c"/>`,
			plain + `<admin><web listen="localhost:1" certificate="/c" key="/k"/><ssh hostKey="/h"/><socket path="/run/s" mode="0660" group="adm"/></admin>`,
			`# <admin><web> certificate default -> /c, key default -> /k: needs reload
# <admin><ssh> hostKey default -> /h: needs reload
# <admin><socket> mode 0600 -> 0660, group default -> adm: needs reload
# <control> socket /run/c -> default: needs reload`},
		"a user with a key": {plain, plain + `<admin><user name="a" password="$6$x" access="full"><key>` + models.EdKey + `</key></user></admin>`,
			"addUser a $6$x full\n# <admin><user name=\"a\"><key>" + models.EdKey + "</key> added: needs reload"},
		"a key more": {plain + `<admin><user name="a"><key>` + models.EdKey + `</key></user></admin>`, plain + `<admin><user name="a"><key>` + models.EdKey + `</key><key>` + models.EcKey + `</key></user></admin>`,
			"# <admin><user name=\"a\"> <key>" + models.EdKey + "</key> -> <key>" + models.EdKey + "</key><key>" + models.EcKey + "</key>: needs reload"},
		"users": {plain + `<admin><user name="a" password="$6$x" access="full"/></admin>`, plain + `<admin><user name="b" password="$6$y" access="full"/></admin>`,
			"addUser b $6$y full\ndelUser a"},
		"the last full user": {plain + `<admin><user name="a" password="$6$x" access="full"/></admin>`, plain,
			`# <admin><user name="a"> deleted, the last with full access: needs reload`},
	} {
		var lines []string
		for _, e := range Diff(doc(test.old), doc(test.new)) {
			lines = append(lines, e.Command())
		}
		if got := strings.Join(lines, "\n"); got != test.want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, test.want)
		}
	}
}

// What checks send may have a password, like what users have. Neither is in what
// everybody may see.
func TestEditsHideSecrets(t *testing.T) {
	frame := func(check, user string) *config.Config {
		return models.MustParse(t, `<config><service name="a"><listen ip=":1"/><group name="g">`+check+`</group></service><admin><user name="u" access="full"`+user+`/></admin></config>`)
	}
	const send, later = "AUTH topsecret", "AUTH topsecret2"
	check := func(send string) string { return `<check type="expect" expect="OK" send="` + send + `"/>` }
	all := []*config.Config{frame("", ` password="$6$topsecret"`), frame(check(send), ` password="CCtopsecretHQ"`), frame(check(later), ""), frame(check(""), ` password="$6$topsecret2"`)}
	for _, a := range all {
		for _, b := range all {
			for _, e := range Diff(a, b) {
				if strings.Contains(e.String(), "topsecret") {
					t.Errorf("shown: %s", e)
				}
			}
		}
		xml, err := a.Masked().Marshal()
		if err != nil || strings.Contains(string(xml), "topsecret") {
			t.Errorf("%v, masked:\n%s", err, xml)
		}
		if got := a.Masked().Admin.Users[0].Password; (got == "") != (a.Admin.Users[0].Password == "") {
			t.Errorf("masked as %q", got)
		}
	}
	if all[1].Services[0].Groups[0].Check.Send != send {
		t.Error("the model itself was masked")
	}
}

// Who may not see a secret still sees whether there is one.
func TestEditsSayWhetherThereIsASecret(t *testing.T) {
	fleet := func(secret string) *config.Config {
		return models.MustParse(t, `<config><fleet name="edge" store="http://127.0.0.1:1"`+secret+`/><service name="a"><listen ip=":1"/></service></config>`)
	}
	const one, other = ` listen="127.0.0.1:2" secret="a-secret-of-sixteen"`, ` listen="127.0.0.1:2" secret="another-of-sixteen"`
	for _, c := range []struct{ a, b, want string }{
		{"", one, "secret default -> ***"}, {one, "", "secret *** -> default"}, {one, other, "secret *** -> ***"},
	} {
		edits := Diff(fleet(c.a), fleet(c.b))
		if len(edits) != 1 || !strings.Contains(edits[0].String(), c.want) || strings.Contains(edits[0].String(), "sixteen") {
			t.Errorf("%v; want %s", edits, c.want)
		}
	}
}

// What a change leaves as it was is shared, nothing else is, and both models say
// what they said; an error is found wherever the change made it.
func TestShareAndCheckSince(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		was := models.Draw(t, "was")
		c := was.Clone()
		models.Mutate(t, c)
		if rapid.Bool().Draw(t, "wrong") {
			s := c.Services[len(c.Services)-1]
			switch rapid.IntRange(0, 2).Draw(t, "how") {
			case 0:
				s.Listen = append(s.Listen, config.Listen{Address: "nowhere"})
			case 1:
				s.Name = c.Services[0].Name
			case 2:
				s.Timeouts.Idle = -1
			}
		}
		want := c.Clone()
		before := was.Clone()
		Share(c, was)
		if !gocmp.Equal(want, c) || !gocmp.Equal(before, was) {
			t.Fatal("a model has changed")
		}
		for i, s := range c.Services {
			if i < len(was.Services) && gocmp.Equal(s, was.Services[i]) && s != was.Services[i] {
				t.Fatalf("service %q is not shared", s.Name)
			}
		}
		if one, other := c.Check("").Err(), c.CheckSince(was, "").Err(); (one == nil) != (other == nil) {
			t.Fatalf("Check says %v, CheckSince %v", one, other)
		}
	})
}

// What a change leaves alone is not kept in memory by what it has made: Clone makes many
// at once, and one that stays would keep all.
func TestShareLeavesTheClone(t *testing.T) {
	was := models.Large(t)
	c := was.Clone()
	s := c.Services[0]
	g := s.Groups[0]
	h := g.Hosts[7]
	h.Weight++
	Share(c, was)
	now := c.Services[0]
	if now == s || now.Groups[0] == g || now.Groups[0].Hosts[7] == h {
		t.Error("what has changed lies in the clone still")
	}
	if &now.Listen[0] == &s.Listen[0] || &now.Groups[0] == &s.Groups[0] || &now.Groups[0].Hosts[0] == &g.Hosts[0] {
		t.Error("its lists lie in the clone still")
	}
	if now.Groups[0].Hosts[7].Weight != h.Weight || now.Groups[0].Hosts[8] != was.Services[0].Groups[0].Hosts[8] {
		t.Error("the change is lost, or what is the same is not shared")
	}
}

// Addresses in conflict are found wherever the change is, and services that are new, gone
// or in another order do not confuse the check.
func TestCheckSinceFindsConflicts(t *testing.T) {
	was := config.New()
	for _, name := range []string{"a", "b", "c"} {
		s := config.NewService(name)
		s.Listen = []config.Listen{{Address: "127.0.0.1:" + map[string]string{"a": "1", "b": "2", "c": "3"}[name]}}
		g := config.NewGroup("g")
		g.Enabled = true
		g.Hosts = []*config.Host{config.NewHost("h", "10.0.0.1:80")}
		s.Groups = []*config.Group{g}
		was.Services = append(was.Services, s)
	}
	was.Admin.Metrics = "127.0.0.1:9"
	for name, change := range map[string]func(c *config.Config){
		"a service takes another's address": func(c *config.Config) { c.Services[1].Listen[0].Address = "127.0.0.1:1" },
		"a service takes every address":     func(c *config.Config) { c.Services[2].Listen[0].Address = "*:2" },
		"a second address":                  func(c *config.Config) { c.Services[0].Listen = append(c.Services[0].Listen, c.Services[2].Listen[0]) },
		"a service takes that of <metrics>": func(c *config.Config) { c.Services[0].Listen[0].Address = "127.0.0.1:9" },
		"<metrics> takes that of a service": func(c *config.Config) { c.Admin.Metrics = "127.0.0.1:2" },
		"<web> takes that of a service":     func(c *config.Config) { c.Admin.Web = &config.AdminListen{Enable: true, Listen: "127.0.0.1:3"} },
		"a new service":                     func(c *config.Config) { n := *c.Services[0]; n.Name = "d"; c.Services = append(c.Services, &n) },
		"another order and a new name": func(c *config.Config) {
			c.Services[0], c.Services[2] = c.Services[2], c.Services[0]
			c.Services[1].Name = "d"
			c.Services[1].Listen[0].Address = "127.0.0.1:3"
		},
		"a name twice":       func(c *config.Config) { c.Services[1].Name = "a" },
		"a wrong time-out":   func(c *config.Config) { c.Services[1].Timeouts.Idle = -1 },
		"freeBind of a path": func(c *config.Config) { c.Services[1].Listen[0] = config.Listen{Address: "unix:/x", FreeBind: true} },
	} {
		c := was.Clone()
		change(c)
		whole := c.Check("")
		Share(c, was)
		if c.CheckSince(was, "").Err() == nil || whole.Err() == nil {
			t.Errorf("%s: CheckSince finds %v, Check %v", name, c.CheckSince(was, "").Err(), whole.Err())
		}
	}
	c := was.Clone()
	c.Services[0], c.Services[2] = c.Services[2], c.Services[0]
	c.Services = append(c.Services[:1], c.Services[2:]...)
	Share(c, was)
	if err := c.CheckSince(was, "").Err(); err != nil {
		t.Errorf("fewer services in another order: %v", err)
	}
}
