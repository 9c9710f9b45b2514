package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// A document with one mistake, and what is said of it.
func TestEveryMistakeNamesItsLineAndWhatIsRight(t *testing.T) {
	// %s stands in line 3, within a service that is right.
	frame := "<config>\n<service name=\"a\"><listen ip=\":80\"/>\n%s\n<group name=\"g\" enable=\"yes\"><host name=\"h\" ip=\"10.0.0.1:80\"/></group></service></config>"
	outside := "<config><service name=\"a\"><listen ip=\":80\"/><group name=\"g\"><host name=\"h\" ip=\"10.0.0.1:80\"/></group></service>\n\n%s</config>"
	for _, test := range []struct{ frame, doc, want string }{
		{frame, `<liste ip=":81"/>`, `c.xml:3: unknown element <liste> in <service>; did you mean "listen"?`},
		{frame, `<group name="x" scheduler="custom:best"><host name="h" ip="10.0.0.1:80"/></group>`, `c.xml:3: <group scheduler>: "best" is a program's own, given by txlb.Config.Schedulers; a file can have leastc, `},
		{frame, `<group name="x" scheduler="custom:best,sticky"><host name="h" ip="10.0.0.1:80"/></group>`, `"best" is a program's own`},
		{frame, `<group name="x" scheduler="custom:"><host name="h" ip="10.0.0.1:80"/></group>`, `unknown scheduler "custom:"`},
		{frame, `<listen ipp=":81"/>`, `<listen> has no attribute "ipp"; did you mean "ip"?`},
		{frame, `<listen/>`, `<listen> needs the attribute ip`},
		{frame, `<listen ip="unix:/x" interface="lo"/>`, `c.xml:3: <listen interface>: unix:/x is a UNIX socket, which has no interface; leave it out`},
		{frame, `<listen ip="unix:/x" deferAccept="yes"/>`, `<listen deferAccept>: unix:/x is a UNIX socket, which has no handshake; leave it out`},
		{frame, `<listen ip="unix:/x" fastOpen="yes"/>`, `<listen fastOpen>: unix:/x is a UNIX socket, which has no handshake; leave it out`},
		{frame, `<listen ip="unix:/x" mptcp="yes"/>`, `<listen mptcp>: unix:/x is a UNIX socket, which has one path; leave it out`},
		{frame, `<listen ip=":81" interface="a/b"/>`, `<listen interface>: "a/b" is not an interface; a name has at most 15 letters`},
		{frame, `<listen ip=":81" interface="much-too-long-for-one"/>`, `is not an interface`},
		{frame, `<listen ip="[fe80::1%eth0]:81" interface="eth1"/>`, `<listen interface>: "eth1" is another interface than that of [fe80::1%eth0]:81; leave it out`},
		{frame, `<listen ip="80"/>`, `"80" is not an address; write host:port`},
		{frame, `<listen ip=":70000"/>`, `port "70000" is not a number between 0 and 65535`},
		{frame, `<listen ip="1.2.3.4.5:80"/>`, `"1.2.3.4.5" is not an IPv4 address`},
		{frame, `<listen ip="unix:relative"/>`, `is not unix: and an absolute path`},
		{frame, `<listen ip="*:80"/>`, `service "a" listens on *:80, which service "a" has taken in line 2`},
		{frame, `<listen ip="127.0.0.1:80"/>`, `has taken in line 2 (:80)`},
		{frame, `<timeouts connect="5"/>`, `<timeouts connect>: "5" has no unit; write 5ms or 5s`},
		{frame, `<timeouts idle="soon"/>`, `"soon" is not a duration such as 500ms`},
		{frame, `<timeouts idle="1s"/><timeouts idle="2s"/>`, `a second <timeouts> in <service>`},
		{frame, `<listen ip=":81" ip=":82"/>`, `<listen> has the attribute ip twice`},
		{frame, `<listen x:ip=":81" ip=":82"/>`, `<listen> has no attribute "x:ip"; did you mean "ip"?`},
		{frame, `<x:limits tries="1"/>`, `unknown element <x:limits> in <service>; did you mean "limits"?`},
		{frame, `<listen ip="unix:/a&#10;b"/>`, `has a non-printable character`},
		{frame, `<listen ip="[fe80::1%&#9;]:1"/>`, `has a non-printable character`},
		{frame, `<listen ip="[::1]:81"/><listen ip="[0::1]:81"/>`, `service "a" listens on [0::1]:81, which service "a" has taken in line 3 ([::1]:81)`},
		{frame, `<listen ip="localhost:81"/><listen ip="127.0.0.1:81"/>`, `which service "a" has taken in line 3 (localhost:81)`},
		{frame, `<listen ip="127.0.0.1:81"/><listen ip="*:81"/>`, `which service "a" has taken in line 3 (127.0.0.1:81)`},
		{frame, `<listen ip="127.0.0.1:81"/><listen ip="0.0.0.0:81"/>`, `which service "a" has taken in line 3 (127.0.0.1:81)`},
		{frame, `<listen ip="[::]:81"/><listen ip="0.0.0.0:81"/>`, `which service "a" has taken in line 3 ([::]:81)`},
		{frame, `<listen ip="unix:/a"/><listen ip="unix:/b/../a"/>`, `which service "a" has taken in line 3 (unix:/a)`},
		{frame, `<listen ip=":81" proxyProtocol="v1"/>`, `<listen proxyProtocol>: "v1" is not one of off, accept, require`},
		{frame, `<listen ip=":81" proxyProtocol="accept"/>`, `<listen proxyProtocol="accept"> needs proxyFrom: the addresses or networks of the proxies`},
		{frame, `<listen ip=":81" proxyProtocol="accept" proxyFrom="10.0.0.1/8"/>`, `<listen proxyFrom>: 10.0.0.1/8 is an address within a network`},
		{frame, `<listen ip=":81" proxyProtocol="require" proxyFrom="*"/>`, `<listen proxyFrom>: "*" has every address: anybody could claim to be anybody; name the proxies`},
		{frame, `<listen ip=":81" proxyProtocol="accept" proxyFrom="10.0.0.0/8 ::/0"/>`, `<listen proxyFrom>: "10.0.0.0/8 ::/0" has every address`},
		{frame, `<listen ip="unix:/a" proxyProtocol="accept" proxyFrom="10.0.0.0/8"/>`, `<listen proxyFrom>: unix:/a is a UNIX socket, whose clients have no address`},
		{frame, `<listen ip="unix:/a" proxyProtocol="accept"/>`, `<listen proxyProtocol>: unix:/a is a UNIX socket, whose clients have no address to accept a header from; write "require"`},
		{frame, `<listen ip=":81" tls="c.pem"/>`, `c.xml:3: <listen tls>: "c.pem" is not pairs of files; write a certificate, a space and its key, such as cert.pem key.pem, and the same file twice if it has both`},
		{frame, `<listen ip=":81" tls="c.pem,c.key"/>`, `<listen tls>: "c.pem,c.key" is not pairs of files; write a certificate, a space and its key`},
		{frame, `<listen ip=":81" tls="c k c k"/>`, `<listen tls>: "c k" is there twice`},
		{frame, `<listen ip=":81" clientCA="ca.pem"/>`, `<listen clientCA> needs tls="CERTIFICATE KEY": without it, no client shows its certificate`},
		{frame, `<listen ip=":81" alpn="h2"/>`, `<listen alpn> needs tls="CERTIFICATE KEY": without it, no protocol is negotiated`},
		{frame, `<listen ip=":81" tls="c k" alpn="h2 h2"/>`, `<listen alpn>: "h2" is there twice`},
		{frame, `<group name="x"><host ip="b:1" tls="maybe"/></group>`, `<host tls>: "maybe" is not one of no, yes, unverified`},
		{frame, `<group name="x"><host ip="b:1" ca="ca.pem"/></group>`, `<host ca> needs tls="yes": without it, connections to host "host.0" are not encrypted`},
		{frame, `<group name="x"><host ip="b:1" sni="b.example"/></group>`, `<host sni> needs tls="yes"`},
		{frame, `<group name="x"><host ip="b:1" tls="yes" sni="a b"/></group>`, `<host sni>: "a b" is not a name; want one such as db.example, or an IP address`},
		{frame, `<group name="x"><host ip="unix:/x" tls="yes"/></group>`, `<host tls>: unix:/x of host "host.0" is a UNIX socket, which no certificate is for; give sni="NAME", or tls="unverified"`},
		{frame, `<group name="x"><host ip="_pg._tcp.example" tls="yes"/></group>`, `<host tls>: _pg._tcp.example of host "host.0" is a name of SRV records, which no certificate is for`},
		{frame, `<timeouts hello="5"/>`, `<timeouts hello>: "5" has no unit`},
		{frame, `<timeouts queue="6"/>`, `<timeouts queue>: "6" has no unit`},
		{frame, `<timeouts idle="500us"/>`, `"500us" is shorter than 1ms`},
		{frame, `<timeouts idle="900000h"/>`, `"900000h" is longer than 87600h; 0 means no limit`},
		{frame, `<timeouts idle="-1s"/>`, `"-1s" is not a duration such`},
		{frame, `<limits perClient="x"/>`, `<limits perClient>: "x" is not a number`},
		{frame, `<limits rate="1000001"/>`, `<limits rate>: "1000001" is not between 0 and 1000000`},
		{frame, `<limits tries="-1"/>`, `"-1" is not between 0 and 10000`},
		{frame, `<limits sessions="-5"/>`, `<limits sessions>: "-5" is not between 0 and 10000000`},
		{frame, `<access><alow net="*"/></access>`, `unknown element <alow> in <access>; did you mean "allow"?`},
		{frame, `<access><allow/></access>`, `<allow> needs net or file, and not both`},
		{frame, `<access><deny net="*" file="/f"/></access>`, `<deny> needs net or file, and not both`},
		{frame, `<access><deny net="10.0.0.1/8"/></access>`, `<deny net>: 10.0.0.1/8 is an address within a network; want 10.0.0.0/8 or 10.0.0.1`},
		{frame, `<access><deny net="all"/></access>`, `<deny net>: "all" is not a network; want one such as 10.0.0.0/8`},
		{frame, `<access order="x"/>`, `<access> has no attribute "order"`},
		{frame, `<access/><access/>`, `a second <access> in <service>`},
		{frame, `<route/>`, `c.xml:3: <route> needs the attribute group`},
		{frame, `<route group="h"/>`, `c.xml:3: <route group="h">: service "a" has no such group; possible: g`},
		{frame, `<route sni="*db.example" group="g"/>`, `<route sni>: "*db.example" has * in the wrong place`},
		{frame, `<route sni="a..b" group="g"/>`, `<route sni>: "a..b" is not a host name; want one such as db.example or *.db.example`},
		{frame, `<route sni="10.0.0.1" group="g"/>`, `<route sni>: "10.0.0.1" is an address; TLS clients send names alone`},
		{frame, `<route sni="a.b A.B." group="g"/>`, `<route sni>: "A.B." is there twice`},
		{frame, `<listen ip=":81" tls="c k" alpn="h2,http/1.1"/>`, `<listen alpn>: "h2,http/1.1" has a comma; write spaces between protocols`},
		{frame, `<route alpn="h2 h2" group="g"/>`, `<route alpn>: "h2" is there twice`},
		{frame, `<route net="10.0.0.1/8" group="g"/>`, `<route net>: 10.0.0.1/8 is an address within a network; want 10.0.0.0/8 or 10.0.0.1`},
		{frame, `<route percent="101" group="g"/>`, `<route percent>: "101" is not between 0 and 100`},
		{frame, `<route net="10.0.0.0/8" group="g"/><route net="10.0.0.0/8" percent="5" group="g"/>`, `<route>: the one in line 3 has the same conditions and takes all these clients; remove one of them`},
		{frame, `<route name="x" group="g"/>`, `<route> has no attribute "name"`},
		{frame, `<group name="g"/>`, `a second group "g"; names are unique`},
		{frame, `<group/>`, `<group> needs the attribute name`},
		{frame, `<group name="x" enable="yes"/>`, `service "a" has two enabled groups, "x" and "g"`},
		{frame, `<group name="x" enable="maybe"/>`, `"maybe" is not yes or no`},
		{frame, `<group name="x" scheduler="leastcon"/>`, `unknown scheduler "leastcon"; did you mean "leastc"?`},
		{frame, `<group name="x" scheduler="roundr,stick"/>`, `unknown scheduler "roundr,stick"; did you mean "roundr,sticky"?`},
		{frame, `<group name="x" scheduler=",sticky"/>`, `unknown scheduler ",sticky"`},
		{frame, `<group name="x" scheduler="maglev,sticky,sticky"/>`, `unknown scheduler "maglev,sticky,sticky"`},
		{frame, `<group name="x" stickySize="0"/>`, `"0" is not between 1 and 10000000`},
		{frame, `<group name="x" stickyFor="0"/>`, `<group stickyFor>: 0 is not between 1s and`},
		{frame, `<group name="x" scheduler=""/>`, `unknown scheduler ""`},
		{frame, `<group name="x" maxEjected="101"/>`, `"101" is not between 0 and 100`},
		{frame, `<group name="x" slow="1"/>`, `<group slow>: "1" is not between 2 and 1000`},
		{frame, `<group name="x" silent="500ms"/>`, `<group silent>: 500ms is not between 1s and 24h`},
		{frame, `<group name="x" ejectFor="0"/>`, `<group ejectFor>: 0 is not between 1s and 24h`},
		{frame, `<group name="x"><host ip="b:1" eject="no"/></group>`, `<host eject>: "no" is not one of auto, never`},
		{frame, `<group name="x" maxFails="-1"/>`, `"-1" is not between 0 and 1000`},
		{frame, `<group name="x" failWindow="10"/>`, `"10" has no unit; write 10ms or 10s`},
		{frame, `<group name="x" failWindow="0"/>`, `<group failWindow>: 0 is not between 1ms and 24h`},
		{frame, `<group name="x"><host ip="b:1" maxSessions="-1"/></group>`, `<host maxSessions>: "-1" is not between 0 and`},
		{frame, `<group name="x"><host ip="b:1" slowStart="1"/></group>`, `"1" has no unit`},
		{frame, `<group name="x"><host ip="b:1" proxyProtocol="v3"/></group>`, `<host proxyProtocol>: "v3" is not one of off, v1, v2`},
		{frame, `<group name="x"><host ip="b:1" resolve="500ms"/></group>`, `<host resolve>: 500ms is not between 1s and 87600h0m0s, nor 0 for once`},
		{frame, `<timeouts unacked="500ms"/>`, `<timeouts unacked>: 500ms is not between 1s and 24h, nor 0`},
		{frame, `<timeouts keepAlive="10h"/>`, `<timeouts keepAlive>: 10h is not between 1s and 9h, nor 0`},
		{frame, `<listen ip="unix:/a" freeBind="yes"/>`, `c.xml:3: <listen freeBind>: unix:/a is a UNIX socket, which needs no interface; leave it out`},
		{frame, `<group name="x"><host ip="b:1" interface="a b"/></group>`, `<host interface>: "a b" is not an interface`},
		{frame, `<group name="x"><host ip="unix:/x" source="client"/></group>`, `<host source>: host "host.0" is a UNIX socket, to which connections have no source; leave it out`},
		{frame, `<group name="x"><host ip="unix:/x" interface="lo"/></group>`, `<host interface>: host "host.0" is a UNIX socket, to which no interface leads; leave it out`},
		{frame, `<group name="x"><host ip="b:1" source="here"/></group>`, `<host source>: "here" is not an IP address; give one of this machine, without a port`},
		{frame, `<group name="x"><host ip="b:1" source="10.0.0.1:80"/></group>`, `"10.0.0.1:80" is not an IP address`},
		{frame, `<group name="x"><host ip="b:1" source="fe80::1%eth0"/></group>`, `"fe80::1%eth0" has a zone; leave it out`},
		{frame, `<group name="x"><host ip="b:1" source="0.0.0.0"/></group>`, `"0.0.0.0" is not an address to connect from`},
		{frame, `<group name="x"><host name="h" ip="10.0.0.1:1" source="::1"/></group>`, `<host source>: ::1 and the address of host "h", 10.0.0.1:1, are not both IPv4 or both IPv6`},
		{frame, `<group name="x"><host name="h" ip="unix:/a" source="10.0.0.1"/></group>`, `<host source>: host "h" is a UNIX socket, to which connections have no source`},
		{frame, `<group name="x"><host ip="b:1" resolve="30"/></group>`, `"30" has no unit; write 30ms or 30s`},
		{frame, `<group name="x"><host ip="_pg._tcp.example.:5432"/></group>`, `"_pg._tcp.example.:5432": SRV records say the port; leave it out`},
		{frame, `<group name="x"><host ip="_pg._udp.example."/></group>`, `write host:port, or _service._tcp.domain for SRV records`},
		{frame, `<group name="x"><host ip="_tcp.example."/></group>`, `write host:port, or _service._tcp.domain for SRV records`},
		{frame, `<group name="x"><host ip="_pg._tcp.ex ample"/></group>`, `"_pg._tcp.ex ample" is not a host name`},
		{frame, `<listen ip="_pg._tcp.example."/>`, `"_pg._tcp.example." is not an address; write host:port`},
		{frame, `<group name="x"><client ip="b:1"/></group>`, `unknown element <client> in <group>; possible: host, check`},
		{frame, `<group name="x&#10;"/>`, `group name "x\n" has a non-printable character`},
		{frame, `<group nam="x"/><enable group="x"/>`, `<group> has no attribute "nam"; did you mean "name"?`},
		{frame, `<enable/>`, `<enable> needs the attribute group`},
		{frame, `<group name="x" allDown="panic"/>`, `"panic" is not one of try, refuse`},
		{frame, `<group name="x"><check type="udp"/></group>`, `<check type>: "udp" is not one of tcp, http, tls, expect`},
		{frame, `<group name="x"><check/><check/></group>`, `a second <check> in <group>`},
		{frame, `<group name="x"><check><host/></check></group>`, `<check> cannot contain elements; remove <host>`},
		{frame, `<group name="x"><check interval="2"/></group>`, `<check interval>: "2" has no unit; write 2ms or 2s`},
		{frame, `<group name="x"><check interval="0"/></group>`, `<check interval>: 0 is not between 10ms and 24h`},
		{frame, `<group name="x"><check interval="25h"/></group>`, `<check interval>: 25h is not between 10ms and 24h`},
		{frame, `<group name="x"><check fastInterval="1ms"/></group>`, `<check fastInterval>: 1ms is not between 10ms`},
		{frame, `<group name="x"><check downInterval="48h"/></group>`, `<check downInterval>: 48h is not between 10ms`},
		{frame, `<group name="x"><check rise="0"/></group>`, `<check rise>: "0" is not between 1 and 1000`},
		{frame, `<group name="x"><check fall="1001"/></group>`, `<check fall>: "1001" is not between 1 and 1000`},
		{frame, `<group name="x"><check timeout="0"/></group>`, `<check timeout>: 0 is not between 1ms and 5m`},
		{frame, `<group name="x"><check port="0"/></group>`, `<check port>: "0" is not between 1 and 65535`},
		{frame, `<group name="x"><check port="81"/><host ip="unix:/s"/></group>`, `host "host.0" is a UNIX socket, which has no port`},
		{frame, `<group name="x"><check type="http" path="status"/></group>`, `<check path>: "status" is not a path; write / and`},
		{frame, `<group name="x"><check type="http" path="/a b"/></group>`, `"/a b" is not a path`},
		{frame, `<group name="x"><check type="http" host="a b"/></group>`, `<check host>: "a b": "a b" is not a host name`},
		{frame, `<group name="x"><check type="http" host="a:0"/></group>`, `port "0" is not a number between 1 and 65535`},
		{frame, `<group name="x"><check type="http" host="::1%&#10;"/></group>`, `is neither a host name nor an address`},
		{frame, `<group name="x"><check type="http" status="200-"/></group>`, `"200-" in "200-" is not a status; write numbers from 100 to 599`},
		{frame, `<group name="x"><check type="http" status="399-200"/></group>`, `"399-200" in "399-200" is not a status`},
		{frame, `<group name="x"><check type="http" status="200,2xx"/></group>`, `"2xx" in "200,2xx" is not a status`},
		{frame, `</service><admin><web names="https://ops.example/"/></admin><service name="z"><listen ip=":9"/>`, `<web names>: "https://ops.example/" is not a host name; want a name such as ops.example, without scheme, port and path`},
		{frame, `</service><admin><web trustedProxies="10.0.0.1 proxy"/></admin><service name="z"><listen ip=":9"/>`, `<web trustedProxies>: "proxy" is not a network; want one such as 10.0.0.0/8 or 2001:db8::/32, or an address`},
		{frame, `</service><admin><web trustedProxies="10.0.0.1/8"/></admin><service name="z"><listen ip=":9"/>`, `<web trustedProxies>: 10.0.0.1/8 is an address within a network; want 10.0.0.0/8 or 10.0.0.1`},
		{frame, `</service><admin><web trustedProxies="::/0"/></admin><service name="z"><listen ip=":9"/>`, `<web trustedProxies>: ::/0 is every address: anybody could claim to come from anywhere; name the proxies`},
		{frame, `</service><admin><web readyz="some"/></admin><service name="z"><listen ip=":9"/>`, `<web readyz>: "some" is not one of any, all, nor process`},
		{frame, `<group name="x" start="off"/>`, `"off" is not one of up, down`},
		{frame, `<group name="x" start="down"/></service><manager><hostCheck enable="no"/></manager><service name="y"><listen ip=":9"/>`, `group "x" of service "a": start="down" waits for a check, and there is none; add a <check/>`},
		{frame, `<group name="x"><check type="tls" verify="yes"/><host ip="unix:/s"/></group>`, `host "host.0" is a UNIX socket, which has no name to verify; give <check host="NAME">`},
		{frame, `<group name="x"><check type="tls" verify="maybe"/></group>`, `<check verify>: "maybe" is`},
		{frame, `<group name="x"><check type="expect" send="a"/></group>`, `<check type="expect"> needs the attribute expect`},
		{frame, `<group name="x"><check type="expect" expect="\q"/></group>`, `<check expect>: \q is not an escape; there are \r \n \t \\ and \xNN`},
		{frame, `<group name="x"><check type="expect" expect="\x4"/></group>`, `\x4 is not a byte; write two hexadecimal digits`},
		{frame, `<group name="x"><check type="expect" expect="a\"/></group>`, `ends within an escape; a backslash itself is \\`},
		{frame, `<group name="x"><check type="expect" expect="` + strings.Repeat("a", 5000) + `"/></group>`, `<check expect>: 5000 bytes are more than 4096`},
		{frame, `<group name="x"><check type="expect" expct="a"/></group>`, `did you mean "expect"?`},
		{frame, `<group name="x"><host ip="b:80" weight="70000"/></group>`, `"70000" is not between 0 and 65535`},
		{frame, `<group name="x"><host ip="b"/></group>`, `"b" is not an address`},
		{frame, `<group name="x"><host ip="*:80"/></group>`, `"*:80" names no host to connect to`},
		{frame, `<group name="x"><host ip="b:0"/></group>`, `port "0" is not a number between 1 and 65535`},
		{frame, `<group name="x"><host ip="b_a d:1"/></group>`, `is not a host name`},
		{frame, `<group name="x"><host name="b" ip="b:1"/><host name="b" ip="b:2"/></group>`, `a second host "b"`},
		{frame, `<group name="x"><host name="b" ip="b:1" state="off"/></group>`, `"off" is not one of ready, drain, maint`},
		{frame, `<group name="x"><host name="b" ip="b:1"><x/></host></group>`, `<host> cannot contain elements; remove <x>`},
		{frame, `<enable group="gg"/>`, `service "a" has no group "gg"; did you mean "g"?`},
		{frame, `<group name="x"/><enable group="x"/>`, `<enable group="x"> disagrees with <group name="g" enable> in line 4; keep one of them`},
		{outside, `<serice/>`, `c.xml:3: unknown element <serice> in <config>; did you mean "service"?`},
		{outside, `<service name="a"><listen ip=":81"/></service>`, `c.xml:3: a second service "a"`},
		{outside, `<service><listen ip=":81"/></service>`, `<service> needs the attribute name`},
		{outside, `<service name="b"/>`, `service "b" listens nowhere`},
		{outside, `<service name="b"><listen ip=":81"/><group name="g"/><group name="h"/></service>`, `service "b" has no enabled group`},
		{outside, `<service name="b"><listen ip="0.0.0.0:80"/></service>`, `service "b" listens on 0.0.0.0:80, which service "a" has taken in line 1`},
		{outside, `<service name="b"><lisen ip=":81"/></service>`, `unknown element <lisen> in <service>; did you mean "listen"?`},
		{outside, `<service name="b"><listen ip=":81"/><group name="g" enable="maybe"/><group name="h"/></service>`, `"maybe" is not yes or no`},
		{outside, `<engine pipeMemory="0"/>`, `"0" is not a size`},
		{outside, `<engine drain="30"/>`, `"30" has no unit; write 30ms or 30s`},
		{outside, `<engine loops="0"/>`, `"0" is not between 1 and 1024, nor auto`},
		{outside, `<engine splice="sometimes"/>`, `"sometimes" is not one of auto, always, never`},
		{outside, `<engine pipeSize="1MB"/>`, `"1MB" is not a size such as 64KiB`},
		{outside, `<engine pipeSize="4KiB"/>`, `4KiB is not between 64KiB and 64MiB`},
		{outside, `<manager><hostCheck interval="0"/></manager>`, `"0" is not a number of seconds above 0`},
		{outside, `<manager><heartbeat interval="-1"/></manager>`, `"-1" is not a number of seconds`},
		{outside, `<manager><heartbeat interval="1e400"/></manager>`, `"1e400" is not a number of seconds`},
		{outside, `<manager><heartbeat interval="NaN"/></manager>`, `"NaN" is not a number of seconds`},
		{outside, `<manager><configCheck backups="-1"/></manager>`, `"-1" is not between 0 and 10000`},
		{outside, `<manager><hostChek/></manager>`, `did you mean "hostCheck"?`},
		{outside, `<admin><metrics listen="localhost:80"/></admin>`, `<metrics> listens on localhost:80, which service "a" has taken`},
		{outside, `<admin targets="10.0.0.0/8 tcp"/>`, `<admin targets>: "tcp" is not a network; write tcp, any, or networks such as 10.0.0.0/8`},
		{outside, `<admin targets=""/>`, `<admin targets>: "" is neither tcp nor any nor networks such as 10.0.0.0/8`},
		{outside, `<admin><user password="x"/></admin>`, `<user> needs the attribute name`},
		{outside, `<admin><user name="u" access="root"/></admin>`, `"root" is not one of full, readonly`},
		{outside, `<admin><user name="u" password="&#10;"/></admin>`, `<user password>: "\n" has a non-printable character`},
		{outside, `<admin><user name="u"><key>ssh-ed25519 A</key></user></admin>`, `c.xml:3: <key> of user "u": what follows ssh-ed25519 is not base64; want a line as in ~/.ssh/id_ed25519.pub: ssh-ed25519 AAAA… name`},
		{outside, `<admin><user name="u"><key type="x">` + edKey + `</key></user></admin>`, `<key> has no attribute "type"; none exists`},
		{outside, `<admin><user name="u"><key><key/>` + edKey + `</key></user></admin>`, `<key> cannot contain elements; remove <key>`},
		{outside, `<admin><user name="u"/><user name="u"/></admin>`, `a second user "u"`},
		{outside, `<admin><web enable="1" listen=":80"/></admin>`, `<web> listens on :80, which service "a" has taken`},
		{outside, `<admin><web enable="1" listen="localhost:81"/><ssh enable="1" listen="localhost:81"/></admin>`, `<ssh> listens on localhost:81, which <web> has taken in line 3`},
		{outside, `<admin><web enable="1" listen="nowhere"/></admin>`, `"nowhere" is not an address`},
		{outside, `<admin><web certificate="/c"/></admin>`, `c.xml:3: <web> has one of certificate and key; give both, or none`},
		{outside, `<admin><web key="/c"/></admin>`, `<web> has one of certificate and key; give both, or none`},
		{outside, `<admin><web refresh="true"/></admin>`, `"true" is not a number of seconds`},
		{outside, `<admin><web certificate="&#10;" key="/k"/></admin>`, `<web certificate>: "\n" has a non-printable character`},
		{outside, `<admin><ssh hostKey="&#10;"/></admin>`, `<ssh hostKey>: "\n" has a non-printable character`},
		{outside, `<admin><ssh key="/c"/></admin>`, `<ssh> has no attribute "key"`},
		{outside, `<admin><ssh secure="no"/></admin>`, `<ssh> has no attribute "secure"`},
		{outside, `<admin><socket/></admin>`, `<socket> needs the attribute path`},
		{outside, `<admin><socket path="run/s"/></admin>`, `<socket path>: "run/s" is not the path of a socket; write an absolute one of at most 107 bytes`},
		{outside, `<admin><socket path="/s" mode="rw"/></admin>`, `<socket mode>: "rw" is not a mode; write octal digits such as 0600 or 0660`},
		{outside, `<admin><socket path="/s" mode="1777"/></admin>`, `"1777" is not a mode`},
		{outside, `<admin><socket path="/s" group="&#10;"/></admin>`, `<socket group>: "\n" has a non-printable character`},
		{outside, `<admin><socket path="/s"/><socket path="/t"/></admin>`, `a second <socket> in <admin>`},
		{outside, `<service name="b"><listen ip="unix:/s"/></service><admin><socket path="/s"/></admin>`, `<socket path> listens on unix:/s, which service "b" has taken`},
		{outside, `<admin><socket path="/s"/></admin><control socket="/s"/>`, `<control socket> listens on unix:/s, which <socket path> has taken`},
		{outside, `<control socket="` + strings.Repeat("s", 108) + `"/>`, `is not the path of a socket, which has at most 107 bytes`},
		{outside, `<admin secure="yes"/>`, `<admin> without listen has no page`},
		{outside, `<admin listen="localhost:1"><web/></admin>`, `<web> and <admin listen> both say where the page is`},
		{outside, `<logging access="syslog:/dev/log"/>`, `"syslog:/dev/log": want syslog:udp:HOST:PORT, syslog:tcp:HOST:PORT or syslog:unix:PATH`},
		{outside, `<logging access="syslog:udp:10.0.0.1"/>`, `"syslog:udp:10.0.0.1" is not a host and a port`},
		{outside, `<logging access="syslog:tcp:log:0"/>`, `"syslog:tcp:log:0" is not a host and a port`},
		{outside, `<logging access="syslog:unix:log"/>`, `"syslog:unix:log" is not the path of a socket`},
		{outside, `<logging access="&#10;"/>`, `<logging access>: "\n" has a non-printable character`},
		{outside, `<logging accessFormat="xml"/>`, `"xml" is not one of tcplog, json`},
		{outside, `<logging file="&#10;"/>`, `<logging file>: "\n" has a non-printable character`},
		{outside, `<note/><wrong/>`, `unknown element <wrong> in <config>; possible: engine, fleet, service, admin`},
		{outside, `<fleet name="edge" store=""/>`, `c.xml:3: <fleet> needs the attribute store`},
		{outside, `<fleet name="a/b" store="http://h:1"/>`, `<fleet name>: "a/b" is not a name; use 1 to 64 letters, digits`},
		{outside, `<fleet name="edge" store="10.0.0.5:2379"/>`, `"10.0.0.5:2379" is not the address of a store; want http://HOST:PORT or https://HOST:PORT`},
		{outside, `<fleet name="edge" store="http://10.0.0.5"/>`, `"http://10.0.0.5" is not the address of a store`},
		{outside, `<fleet name="edge" store="http://u:p@h:1"/>`, `the address of a store at h:1 has a user; give it by user and password`},
		{outside, `<fleet name="edge" store="http://h:1 https://h:2"/>`, `<fleet store>: http://h:1 is not encrypted and others are; use https for all`},
		{outside, `<fleet name="edge" store="http://h:1" ca="/ca.pem"/>`, `its store has no https address`},
		{outside, `<fleet name="edge" store="https://h:1" cert="/c.pem"/>`, `<fleet> needs both cert and key, or none of them`},
		{outside, `<fleet name="edge" store="https://h:1" user="lb"/>`, `<fleet> needs both user and password, or none of them`},
		{outside, `<fleet name="edge" store="https://h:1" lease="1s"/>`, `1s is not between 3s and 10m`},
		{outside, `<fleet name="edge" store="https://h:1" advertise="10.0.0.1:7946"/>`, `<fleet> has advertise or secret, but no listen`},
		{outside, `<fleet name="edge" store="https://h:1" listen="10.0.0.1:7946"/>`, `<fleet listen> needs a secret, or cert, key and ca`},
		{outside, `<fleet name="edge" store="https://h:1" listen=":7946" secret="0123456789abcdef"/>`, `other nodes cannot connect to :7946; say advertise="HOST:PORT"`},
		{outside, `<fleet name="edge" store="https://h:1" listen=":7946" advertise="[fe80::1%eth0]:7946" cert="c" key="k" ca="a"/>`, `a certificate cannot be for [fe80::1%eth0]:7946, which has a zone`},
		{outside, `<fleet name="edge" store="https://h:1" listen="[fe80::1%eth0]:7946" cert="c" key="k" ca="a"/>`, `a certificate cannot be for [fe80::1%eth0]:7946, which has a zone`},
		{outside, `<fleet name="edge" store="https://h:1" listen="10.0.0.1:7946" secret="0123456789abcde"/>`, `it has less than 16 characters, which can be guessed`},
		{outside, `<fleet name="edge" store="https://h:1" listen="10.0.0.1:7946" secret="0123456789abcdef short"/>`, `it has less than 16 characters, which can be guessed, and spaces separate several secrets`},
		{outside, `<fleet name="edge" store="https://h:1" listen="10.0.0.1:7946" secret="0123456789abcdef 1123456789abcdef 2123456789abcdef 3123456789abcdef 4123456789abcdef"/>`, `5 secrets are more than 4`},
		{outside, `<fleet name="edge" store="https://h:1" listen="10.0.0.1:7946" secret=" "/>`, `it has no characters`},
		{outside, `<fleet name="edge" store="https://h:1" listen="10.0.0.1" secret="0123456789abcdef"/>`, `"10.0.0.1" is not HOST:PORT`},
		{outside, `<fleet name="edge" store="https://h:1" node="a b"/>`, `<fleet node>: "a b" is not a name`},
		{outside, `<admin/><admin/>`, `a second <admin> in <config>`},
		{outside, `<logging level="loud"/>`, `"loud" is not one of debug, info, warn, error`},
		{outside, `<dns servers="1.1.1.1 ns.example"/>`, `c.xml:3: <dns servers>: "ns.example" is not a DNS server; write addresses such as 10.0.0.1 or [::1]:5353`},
		{outside, `<dns servers="1.1.1.1:0"/>`, `"1.1.1.1:0" is not a DNS server`},
		{outside, `<dns servers="1.1.1.1,1.1.1.2"/>`, `write addresses such as 10.0.0.1 or [::1]:5353, with spaces between them`},
		{outside, `<dns servers="[::1"/>`, `"[::1" is not a DNS server`},
		{outside, `<dns servers="::1 [::1]:53"/>`, `"[::1]:53" is there twice`},
		{outside, `<dns servers="1.0.0.1 1.0.0.2 1.0.0.3 1.0.0.4 1.0.0.5 1.0.0.6 1.0.0.7 1.0.0.8 1.0.0.9"/>`, `<dns servers> names 9 servers; at most 8 are asked`},
		{outside, `<dns server="1.1.1.1"/>`, `<dns> has no attribute "server"; did you mean "servers"?`},
		{outside, `<dns/><dns/>`, `a second <dns> in <config>`},
		{"%s", ``, `c.xml:1: the document is empty`},
		{"%s", `<proxy/>`, `c.xml:1: the root element is <proxy>; it must be <config>`},
		{"%s", "<config></config>\n<config/>", `c.xml:2: a second root element <config>`},
		{"%s", "<config>\n<service></config>", `c.xml:2: not well-formed XML`},
		{"%s", `<config/>trailing`, `text outside the root element`},
		{"%s", `<config/>`, `there is no <service>`},
		{"%s", "<!DOCTYPE config [<!ENTITY a \"b\">]>\n<config/>", `a document type with declarations of its own`},
		{"%s", `<?xml version="1.0" encoding="EBCDIC"?><config/>`, `unknown encoding "EBCDIC"; use UTF-8`},
		{"%s", `<x:config xmlns:x="u"/>`, `the root element is <x:config>; it must be <config>`},
		{"%s", `<config wrong="1"><service name="a"><listen ip=":1"/></service></config>`, `<config> has no attribute "wrong"; none exists`},
		{"%s", "<config>\n&undefined;</config>", `c.xml:2: not well-formed XML: invalid character entity &undefined;`},
		{"%s", "<config>\n\n<service name=\"\xff\"/></config>", `c.xml:3: not well-formed XML: invalid UTF-8`},
		{"%s", "\xff\xfe<\x00c\x00", `c.xml:1: the file is UTF-16; save it as UTF-8`},
		{"%s", strings.Repeat("<a>", 100), `elements are nested more than 16 deep`},
		{"%s", "\x00\x01\x02", `not well-formed XML`},
	} {
		doc := fmt.Sprintf(test.frame, test.doc)
		c, problems := Parse("c.xml", []byte(doc))
		if c != nil || problems.Err() == nil {
			t.Errorf("%s: accepted", test.doc)
			continue
		}
		found := slices.ContainsFunc(problems, func(p Problem) bool {
			return !p.Warning && strings.Contains(p.String(), test.want)
		})
		if !found {
			t.Errorf("%s:\nsaid %v\nwant %s", test.doc, problems, test.want)
		}
		errors := 0
		for _, p := range problems {
			if !p.Warning {
				errors++
			}
		}
		if errors != 1 {
			t.Errorf("%s: %d errors for one mistake:\n%v", test.doc, errors, problems)
		}
	}
}

// All mistakes are told at once, in the order of their lines: those of form
// and those that only the whole shows.
func TestAllMistakesAtOnce(t *testing.T) {
	_, problems := Parse("c.xml", []byte(`<config>
<engine loops="x"/>
<service nam="a">
<listen ip=":1" port="2"/>
</service>
<oops/>
<service name="b">
<listen ip="*:1"/>
<group name="g" enable="1"/><group name="g"/>
<group name="h" enable="1">
<host ip="nowhere"/>
<host ip="b:1" wait="3"/>
</group></service>
<manager><hostCheck interval="0"/></manager>
</config>`))
	var lines []int
	for _, p := range problems {
		if !p.Warning {
			lines = append(lines, p.Line)
		}
	}
	if !slices.Equal(lines, []int{2, 3, 4, 6, 8, 9, 10, 11, 12, 14}) {
		t.Errorf("lines %v:\n%v", lines, problems)
	}
}

// No number of warnings hides an error, and what is not listed is counted.
func TestManyProblems(t *testing.T) {
	var doc strings.Builder
	doc.WriteString("<config>")
	for i := range 150 {
		fmt.Fprintf(&doc, "<service name=\"a %d\"><listen ip=\":%d\"/></service>\n", i, 1000+i)
	}
	c, problems := Parse("c.xml", []byte(doc.String()+`<service name="last"><listen ip=":1000"/></service></config>`))
	if c != nil || !strings.Contains(problems.Error(), `c.xml:151: service "last" listens on :1000, which service "a 0" has taken in line 1`) {
		t.Errorf("an error after 300 warnings:\n%v", problems)
	}
	if last := problems[len(problems)-1].String(); last != "c.xml: warning: and 201 more warnings" {
		t.Errorf("the last problem: %s", last)
	}
	_, problems = Parse("c.xml", []byte("<config>"+strings.Repeat("<wrong/>\n", 250)+"</config>"))
	if len(problems) != 101 || problems[100].String() != "c.xml: and 150 more errors" {
		t.Errorf("%d problems:\n%v", len(problems), problems)
	}
}

// A long value is cut in the middle, so that the advice stays.
func TestLongValuesAreCut(t *testing.T) {
	_, problems := Parse("c.xml", []byte(`<config><service name="a"><listen ip="`+strings.Repeat("é", 20_000)+`"/></service></config>`))
	text := problems.Error()
	if len(text) > 1000 || !strings.Contains(text, "write host:port, [v6]:port or unix:/path") || !utf8.ValidString(text) {
		t.Errorf("%d bytes: %s", len(text), text)
	}
	// The decoder repeats what it cannot read.
	_, problems = Parse("c.xml", []byte("<config\n"+strings.Repeat("\x88", 1000)+"\x1b[2J/>"))
	if text := problems.Error(); len(text) > 1000 || !utf8.ValidString(text) || strings.ContainsAny(text, "\n\x1b") {
		t.Errorf("%d bytes: %q", len(text), text)
	}
}

// What says the default of a later feature is right today.
func TestHarmlessValuesOfLaterFeatures(t *testing.T) {
	parse(t, `<config>
	<service name="a"><listen ip=":1" proxyProtocol="off" proxyFrom=""/>
		<timeouts queue="5s"/><limits sessions="0" perClient="0" rate="0"/>
		<group name="g"><host ip="b:1" maxSessions="0" proxyProtocol="off" resolve="30s"/></group></service>
	<admin><web certificate="" key=""/><ssh hostKey=""/></admin>
	<logging access="" accessFormat="tcplog"/></config>`)
}

// Addresses that do not get in each other's way.
func TestListenersThatGoTogether(t *testing.T) {
	parse(t, `<config>
	<service name="a"><listen ip="127.0.0.1:80"/><listen ip="127.0.0.2:80"/><listen ip="[::1]:80"/><listen ip=":0"/></service>
	<service name="b"><listen ip="*:0"/><listen ip="*:81"/><listen ip="unix:/80"/><listen ip="unix:/81"/></service>
	<service name="c"><listen ip="0.0.0.0:82"/><listen ip="[::1]:82"/></service>
	<admin><web listen=":80" enable="no"/><ssh listen="anything" enable="no"/></admin></config>`)
}

// A group may stand in one line with its neighbours.
func TestEnableInOneLine(t *testing.T) {
	c := parse(t, `<config><service name="a"><listen ip=":1"/><group name="x" enable="no"/><group name="y" enable="yes"/><group name="z"/><enable group="y"/></service></config>`)
	if g := c.Services[0].Enabled(); g.Name != "y" {
		t.Errorf("group %q is enabled, want y", g.Name)
	}
}

func TestWarnings(t *testing.T) {
	for doc, want := range map[string]string{
		`<config><service name="a"><listen ip=":1" proxyProtocol="require"/></service></config>`:                                                                  `c.xml:1: warning: <listen proxyProtocol="require"> on :1 without proxyFrom: anybody who can connect may claim any address`,
		`<config><service name="a"><listen ip=":1" proxyFrom="10.0.0.1"/></service></config>`:                                                                     `c.xml:1: warning: <listen proxyFrom> means nothing without proxyProtocol="accept" or "require"`,
		`<config><service name="a"><listen ip=":1"/></service></config>`:                                                                                          `service "a" has no group`,
		`<config><service name="a"><listen ip=":1"/><group name="g"><check path="/x"/><host ip="b:1"/></group></service></config>`:                                `c.xml:1: warning: <check path> means nothing to type "tcp"; it is for http`,
		`<config><service name="a"><listen ip=":1"/><group name="g"/></service></config>`:                                                                         `group "g" of service "a" is empty`,
		`<config><service name="a"><listen ip=":1"/><group name="g"><host ip="b:1" weight="0"/></group></service></config>`:                                       `every host of group "g" has weight 0`,
		`<config><service name="a b"><listen ip=":1"/></service></config>`:                                                                                        `service name "a b" has to be quoted`,
		`<config><service name="a"><listen ip=":1"/></service><admin><user name="u" password="abJnggxhB/yWI"/></admin></config>`:                                  `is a DES hash`,
		`<config><service name="a"><listen ip=":1"/></service><admin><web listen="*:7000" enable="1" secure="0"/></admin></config>`:                               `without TLS on *:7000`,
		`<config><service name="a"><listen ip=":1"/></service><admin><web listen="*:7000" enable="1"/><user name="u" password="..xpoEyRReGzk"/></admin></config>`: `nobody can log in with it; make another with txlb passwd`,
		`<config><service name="a"><listen ip=":1"/></service><admin><user name="u" password="secret"/></admin></config>`:                                         `the password of user "u" is not a known crypt(3) hash`,
		`<config><service name="a"><listen ip=":1"/></service><admin><web/></admin></config>`:                                                                     `the admin page is on, but no <user> can log in`,
		`<config><service name="a"><listen ip=":1"/></service><admin><user name="u"/></admin></config>`:                                                           `user "u" has no password and cannot log in`,
		`<config><service name="a"><listen ip=":1"/><access><allow net="10.0.0.0/8"/></access></service></config>`:                                                `<access> only allows, and who matches no rule is allowed as well; end it with <deny net="*"/>`,
		`<config><service name="a"><listen ip=":1"/><access><deny net="*"/><allow net="::1"/></access></service></config>`:                                        `this rule and those after it are never reached: <deny net="*"> matches every address`,
		`<config><service name="a"><listen ip=":1"/></service><admin><socket path="/s" mode="0666"/></admin></config>`:                                            `<socket mode> is 0666: everybody on this machine has full access`,
		`<config><service name="a"><listen ip=":1"/><group name="g"><host name="h" ip="[fe80::1]:1"/></group></service></config>`:                                 `c.xml:1: warning: host "h": fe80::1 is a link-local address without its interface; want one such as [fe80::1%eth0]`,
		`<config><service name="a"><listen ip="[fe80::1]:1"/><group name="g"><host name="h" ip="[fe80::1%eth0]:1"/></group></service></config>`:                   `c.xml:1: warning: service "a" listens on fe80::1, a link-local address without its interface; want one such as [fe80::1%eth0]`,
		`<config><service name="a"><listen ip=":1"/><group name="g"><host name="h" ip="b:1" zone="z"/></group></service></config>`:                                `c.xml:1: warning: <host zone> means nothing without <engine zone>, which says where this node is`,
		`<config><engine zone="y"/><service name="a"><listen ip=":1"/><group name="g"><host name="h" ip="b:1" zone="z"/></group></service></config>`:              `c.xml: warning: no host is in <engine zone="y">; hosts are in z`,
		`<config><service name="a"><listen ip=":1" mptcp="yes"/><timeouts unacked="5s"/></service></config>`:                                                      `c.xml:1: warning: <timeouts unacked> does not hold for clients that use Multipath TCP, which :1 allows`,
		`<config><engine zone="y"/><service name="a"><listen ip=":1"/><group name="g"><host name="h" ip="b:1"/></group></service></config>`:                       `c.xml: warning: <engine zone="y"> means nothing: no host has a zone`,
		`<config><service name="a"><listen ip=":1"/></service><admin><ssh/></admin></config>`:                                                                     `c.xml:1: warning: the SSH admin is on, but no <user> can log in`,
		`<config><service name="a"><listen ip=":1"/></service><admin><user name="u" password="iy9l0V1MkG1DE"/></admin></config>`:                                  `is that of a published sample: nobody can log in with it; make another with txlb passwd`,
	} {
		c, problems := Parse("c.xml", []byte(doc))
		if c == nil || !slices.ContainsFunc(problems, func(p Problem) bool { return p.Warning && strings.Contains(p.String(), want) }) {
			t.Errorf("%s:\nsaid %v\nwant %s", doc, problems, want)
		}
		if strings.Contains(problems.Error(), "xpoEy") || strings.Contains(problems.Error(), "secret") {
			t.Errorf("a password is shown: %v", problems)
		}
	}
	// Without enable, an admin surface is on only where nobody else can reach it.
	c := parse(t, `<config><service name="a"><listen ip=":1"/></service><admin><web listen="*:7000"/><ssh listen="127.0.0.1:2222"/></admin></config>`)
	if c.Admin.Web.Enable || !c.Admin.SSH.Enable {
		t.Errorf("page on %v, SSH on %v; want the SSH alone", c.Admin.Web.Enable, c.Admin.SSH.Enable)
	}
}

func TestRoutesThatWaitInVain(t *testing.T) {
	doc := "<config><service name=\"a\">\n<listen ip=\":3306\"/>\n<route sni=\"x\" group=\"g\"/><group name=\"g\"><host ip=\"h:1\"/></group></service></config>"
	_, problems := Parse("c.xml", []byte(doc))
	want := `c.xml:2: warning: service "a" listens on :3306, the port of MySQL, where the server speaks first: the route in line 3 waits for a ClientHello`
	if !strings.Contains(problems.Error(), want) {
		t.Errorf("said:\n%v\nwant %s", problems, want)
	}
}

func TestRouteThatIsNeverReached(t *testing.T) {
	doc := "<config><service name=\"a\"><listen ip=\":1\"/>\n<route net=\"*\" group=\"g\"/>\n<route percent=\"5\" group=\"g\"/><group name=\"g\"><host ip=\"h:1\"/></group></service></config>"
	_, problems := Parse("c.xml", []byte(doc))
	want := `c.xml:3: warning: service "a": this route and those after it are never reached: the one in line 2 matches every client`
	if !strings.Contains(problems.Error(), want) {
		t.Errorf("said:\n%v\nwant %s", problems, want)
	}
}

// With startTLS="smtp", txlb speaks first itself. Then nobody may wait for clients to.
func TestStartTLSForSMTP(t *testing.T) {
	for options, want := range map[string]string{"": "", ` deferAccept="yes"`: "c.xml:2: warning: <listen deferAccept>: with startTLS=\"smtp\""} {
		doc := "<config><service name=\"a\">\n<listen ip=\":25\" startTLS=\"smtp\"" + options + "/>\n<route sni=\"x\" group=\"g\"/><group name=\"g\"><host ip=\"h:1\"/></group></service></config>"
		c, problems := Parse("c.xml", []byte(doc))
		if c == nil || !strings.Contains(problems.Error(), want) || want == "" && strings.Contains(problems.Error(), "c.xml:2") {
			t.Errorf("%s: said:\n%v\nwant %q", options, problems, want)
		}
	}
}
