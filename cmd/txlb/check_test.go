//go:build linux

package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What a valid configuration needs of the machine and does not have is told with
// its line, and nothing is changed by looking.
func TestCheckLooksAround(t *testing.T) {
	if os.Getuid() != 0 {
		t.Log("permissions are looked at as this user")
	}
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pem := file("cert.pem", "no certificate", 0o644)
	doc := fmt.Sprintf(`<config><service name="web">
<listen ip="203.0.113.77:80"/>
<group name="g"><check type="tls" verify="yes" ca="%[1]s/none.pem"/>
<host name="a" ip="no-such-name.invalid:80"/></group></service>
<admin>
<web listen="127.0.0.1:0" certificate="%[2]s" key="%[2]s"/>
<ssh listen="127.0.0.1:0" hostKey="%[1]s/no/folder/key"/>
<metrics listen="203.0.113.78:9107"/>
<socket path="%[2]s" group="no-such-group"/>
%[3]s</admin>
<control socket="%[1]s/a/b/control"/>
<logging file="%[1]s/no/folder/log" access="%[1]s/no/folder/access"/>
</config>`, dir, pem, operator)
	path := file("config.xml", doc, 0o644)
	before, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	status, out := call(t, "check", "-c", path)
	if status != exitUsage {
		t.Errorf("exit status %d", status)
	}
	for _, want := range []string{
		":2: warning: <listen> of service \"web\": no interface of this machine has the address 203.0.113.77",
		":3: service \"web\", group \"g\": <check ca>: open ",
		":4: warning: host \"a\": ",
		":6: <web certificate=",
		":6: warning: everybody can read ",
		":7: <ssh>: the SSH host key: stat ",
		":8: warning: <metrics>: no interface of this machine has the address 203.0.113.78",
		":9: <socket group=\"no-such-group\">: unknown group \"no-such-group\"",
		":9: <socket>: " + pem + " exists and is not a socket",
		":11: <control>: stat ",
		": <logging file>: stat ",
		": <logging access>: stat ",
		": warning: everybody can read " + path,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if t.Failed() {
		t.Log(out)
	}
	if after, err := os.ReadDir(dir); err != nil || len(after) != len(before) {
		t.Errorf("files were made: %v, %v", after, err)
	}
	// Beside a running txlb with the same file there is nothing to say.
	good := filepath.Join(socketFolder(t), "config.xml")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	if err := os.WriteFile(good, fmt.Appendf(nil, `<config><service name="web"><listen ip="%s"/><group name="g"><host name="a" ip="127.0.0.1:1"/></group></service>
		<admin><web listen="127.0.0.1:0"/><ssh listen="127.0.0.1:0"/><socket path="%s.sock"/>%s</admin></config>`, ln.Addr(), good, operator), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, out := call(t, "check", "-c", good); status != exitOK || strings.Count(out, "\n") != 1 {
		t.Errorf("of a good one: exit status %d: %s", status, out)
	}
}
