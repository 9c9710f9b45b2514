package admin

import (
	"strings"
	"testing"
)

// No verb makes connections go round through this process; a chain of services
// is fine, and what goes round already stops nobody.
func TestVerbsRefuseLoops(t *testing.T) {
	r := newRig(t, `<config>
		<service name="web"><listen ip="127.0.0.1:28101"/><group name="main"><host name="a" ip="10.255.0.1:80"/></group></service>
		<service name="api"><listen ip="127.0.0.1:28102"/>
			<group name="main" enable="yes"><host name="b" ip="10.255.0.1:80"/></group>
			<group name="round"><host name="w" ip="127.0.0.1:28101"/></group></service>
		<service name="old"><listen ip="127.0.0.1:28103"/><group name="main"><host name="o" ip="127.0.0.1:28103"/></group></service></config>`)
	const round = "would loop forever"
	r.do("addHost web main chain 127.0.0.1:28102") // web -> api
	for _, line := range []string{
		"addHost web main self 127.0.0.1:28101",
		"addHost api main back 127.0.0.1:28101",
		"setHost web main a ip=127.0.0.1:28101",
		"setHost api main b ip=127.0.0.1:28101",
		"enableGroup api round --force",
		"addHost api main back 127.0.0.1:28101 --dry-run",
	} {
		r.refused(line, round)
	}
	// Such a host may be there as long as it takes no clients.
	r.do("addHost api main back 127.0.0.1:28101 state=maint; setHost api main b weight=2")
	r.refused("hostAdminUp api main back", round)
	r.refused("setHost api main back state=ready", round)
	r.do("delHost api main back; addHost web main away 127.0.0.1:28104")
	r.refused("addListen web 127.0.0.1:28104", round)
	r.refused("switchPort web 28104", round)
	r.refused("addListen web *:28104", round)
	r.do("addService new 127.0.0.1:28104; addGroup new main")
	r.refused("addHost new main x 127.0.0.1:28101", round)
	if text := r.do("show config"); strings.Contains(text, `"self"`) {
		t.Error(text)
	}
}
