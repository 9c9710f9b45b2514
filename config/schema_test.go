package config

import (
	"flag"
	"fmt"
	"strings"
	"testing"

	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

var update = flag.Bool("update", false, "write the tables of docs/configuration.md")

// models returns a struct for each element that has rows.
func models() map[string]any {
	return map[string]any{
		"engine": &Engine{}, "fleet": &Fleet{}, "service": &Service{}, "listen": &Listen{}, "timeouts": &Timeouts{}, "limits": &Limits{},
		"route": &Route{}, "allow": &AccessRule{}, "deny": &AccessRule{Deny: true},
		"group": &Group{}, "check": &HealthCheck{}, "host": &Host{}, "mirror": &Mirror{}, "web": &AdminListen{}, "ssh": &AdminListen{},
		"socket": &Socket{}, "metrics": &Admin{}, "admin": &Admin{}, "user": &User{}, "hostCheck": &Manager{}, "heartbeat": &Manager{},
		"configCheck": &Manager{}, "dns": &DNS{}, "control": &Control{}, "logging": &Logging{},
	}
}

// Each row can be read, written and reset; its default is right and in the form
// in which it is written.
func TestRowsOfTheSchema(t *testing.T) {
	for element, rows := range schema {
		p := models()[element]
		if p == nil {
			t.Errorf("<%s>: add it to models", element)
			continue
		}
		for i := range rows {
			a := &rows[i]
			a.reset(p)
			if !a.isDefault(p) || a.Get(p) != a.Default {
				t.Errorf("<%s %s> is %q after a reset, want %q", element, a.Name, a.Get(p), a.Default)
			}
			if a.Default != "" {
				if text, err := a.Parse(a.Default); err != nil || text != a.Default {
					t.Errorf("<%s %s=%q> is read as %q: %v", element, a.Name, a.Default, text, err)
				}
				if a.check != nil && a.check(p) != nil {
					t.Errorf("<%s %s>: the default is wrong: %v", element, a.Name, a.check(p))
				}
			}
			if a.Help == "" || strings.HasSuffix(a.Help, ".") {
				t.Errorf("<%s %s>: help %q; want a line without a full stop", element, a.Name, a.Help)
			}
			if Find(element, a.Name) != a {
				t.Errorf("<%s %s> is there twice", element, a.Name)
			}
			if a.Type == TypeNumber {
				before := a.Get(p)
				if err := a.Set(p, "-1"); err == nil || a.Get(p) != before {
					t.Errorf("<%s %s=\"-1\">: %v, now %q", element, a.Name, err, a.Get(p))
				}
			}
		}
	}
}

// The tables of docs/configuration.md are made from the schema, each behind a
// comment that names its element.
func TestDocumentationHasTheSchema(t *testing.T) {
	tables := map[string]string{"table: schedulers": schedulerTable()}
	for element := range schema {
		if element != "service" && element != "metrics" {
			tables["table: "+element] = attributeTable(element)
		}
	}
	testkit.Tables(t, "../docs/configuration.md", *update, "go test ./config -run TestDocumentationHasTheSchema -update", tables)
}

func attributeTable(element string) string {
	var b strings.Builder
	b.WriteString("| attribute | values | default | meaning |\n|---|---|---|---|\n")
	for i := range schema[element] {
		a := &schema[element][i]
		std := a.Default
		if a.Type == TypeBool {
			std = map[string]string{"true": "yes", "false": "no"}[std]
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", a.Name, a.Values(), std, strings.ReplaceAll(a.Help, "|", `\|`))
	}
	return b.String()
}

func schedulerTable() string {
	var b strings.Builder
	b.WriteString("| scheduler | also | picks | weights | of equals |\n|---|---|---|---|---|\n")
	for _, name := range sched.Names() {
		aliases, picks, equals := sched.Describe(name)
		weights := "only 0"
		if _, same := sched.Weighted(name); same {
			weights = "yes"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", name, strings.Join(aliases, ", "), picks, weights, equals)
	}
	return b.String()
}
