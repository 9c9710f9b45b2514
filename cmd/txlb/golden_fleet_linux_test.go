package main

import (
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/txlb/txlb/internal/testkit"
)

// TestGoldenFleet holds what programs parse of a node of a fleet against testdata/golden/fleet: the
// fleet itself, and hosts with their sessions on other nodes, of which there are none here. One
// node does not share checks, and so is one whose sessions are not known.
func TestGoldenFleet(t *testing.T) {
	testkit.Long(t)
	store := runEtcd(t)
	backend := answering(t, repeat)
	_, port, _ := net.SplitHostPort(backend)
	page, peer := freePort(t), freePort(t)
	socket := filepath.Join(socketFolder(t), "a.sock")
	txlbFile(t, fmt.Sprintf(`<config>
  <fleet name="edge" node="lb1" store="http://%s" lease="6s" listen="127.0.0.1:%d" secret="7d1c0f4b9a52e6838f0b64c2d95e7a13"/>
  <service name="web">
    <listen ip="127.0.0.1:0"/>
    <group name="main" scheduler="roundr" enable="yes">
      <host name="here" ip="%s"/>
      <host name="there" ip="192.0.2.1:80"/>
    </group>
  </service>
  <admin>
    <web listen="127.0.0.1:%d" secure="no"/>
    <socket path="%s"/>
    <user name="boss" password="$1$abcdefgh$hqvCbNwzGGtJDzHd8m2pC1" access="full"/>
  </admin>
  <manager><hostCheck enable="no"/></manager>
</config>
`, store.Addr, peer, backend, page, socket))
	ctl := func(words ...string) string {
		s := ctlOf(t, "", append([]string{"-s", socket}, words...)...)
		return s.out + s.err
	}
	eventually(t, "the node has joined", func() bool { return strings.Contains(ctl("show", "fleet"), "this node is lb1, joined") })
	alone := newFleetNode(t, "lb2", store.Addr, backend)
	alone.sees("\nlb1 ", "\nlb2 ")
	eventually(t, "both see both", func() bool {
		text := ctl("show", "fleet")
		return strings.Contains(text, "\nlb2 ") && strings.Contains(text, "node lb2 tells nothing")
	})
	answers := map[string]string{}
	for _, words := range []string{"show fleet", "show hosts"} {
		name := strings.ReplaceAll(words, " ", "-")
		answers[name+".txt"] = ctl(strings.Fields(words)...)
		answers[name+".json"] = ctl(append([]string{"--json"}, strings.Fields(words)...)...)
	}
	_, body, err := visit("127.0.0.1", "http", fmt.Sprint("127.0.0.1:", page), "/api/v1/fleet")
	if err != nil {
		t.Fatal(err)
	}
	answers["http-api-v1-fleet"] = body
	of := regexp.MustCompile(`"instance":"[^"]*"`)
	versions := regexp.MustCompile(`(?m)^(lb\d) +\S+`)
	ago := regexp.MustCompile(`(joined) [0-9hms.]+ ago`)
	for name, text := range answers {
		if !strings.HasSuffix(name, ".txt") {
			text = strings.ReplaceAll(text, ",\"", ",\n\"")
		} else {
			text = versions.ReplaceAllString(text, "$1  @VERSION")
		}
		text = strings.NewReplacer(":"+port, ":@ECHO", fmt.Sprint(":", peer), ":@PEER").Replace(text)
		text = ago.ReplaceAllString(of.ReplaceAllString(text, `"instance":"@"`), "$1 @ ago")
		golden(t, "fleet/"+name, withoutNoise(text))
	}
}
