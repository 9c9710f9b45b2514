package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/txlb/txlb/internal/sandbox"
)

// sysctl sets a setting of the test's own network.
func sysctl(t *testing.T, name, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/"+strings.ReplaceAll(name, ".", "/"), []byte(value), 0); err != nil {
		t.Skipf("%s cannot be set: %v", name, err)
	}
}

// checkSays expects warnings of txlb check, behind the file's name.
func checkSays(t *testing.T, doc string, want ...string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.xml")
	if err := os.WriteFile(path, []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	read, path := readConfig(path, &out)
	if read == nil {
		t.Fatal(out.String())
	}
	found := surroundings(path, read)
	if found.Err() != nil {
		t.Error(found)
	}
	said := found.Error()
	for _, w := range want {
		if !strings.Contains(said, path+w) {
			t.Errorf("it does not say %q:\n%s", w, said)
		}
	}
	if n := strings.Count(said, "warning: "); n != len(want) {
		t.Errorf("%d warnings, want %d:\n%s", n, len(want), said)
	}
}

// Check tells with the line which option of a listener the machine lacks, or makes
// useless.
func TestB91CheckListenOptions(t *testing.T) {
	if !sandbox.Network(t) {
		return
	}
	sysctl(t, "net.ipv4.tcp_fastopen", "1")
	sysctl(t, "net.mptcp.enabled", "0")
	const doc = `<config><service name="s">
<listen ip="127.0.0.1:80" interface="none0"/>
<listen ip="127.0.0.1:81" fastOpen="yes" deferAccept="yes" interface="lo"/>
<listen ip="127.0.0.1:82" mptcp="yes"/>
<group name="g"><host name="h" ip="127.0.0.1:90"/></group></service></config>`
	checkSays(t, doc,
		`:2: warning: <listen> of service "s": cannot listen on 127.0.0.1:0: there is no interface "none0": no such device`,
		`:3: warning: <listen> of service "s": fastOpen has no effect while net.ipv4.tcp_fastopen is 1; set it to 3, bit 2 is for listeners`,
		`:4: warning: <listen> of service "s": cannot listen on 127.0.0.1:0: mptcp: it is switched off; set net.mptcp.enabled=1`,
	)
	sysctl(t, "net.ipv4.tcp_fastopen", "3")
	sysctl(t, "net.mptcp.enabled", "1")
	checkSays(t, strings.Replace(doc, "none0", "lo", 1))
}
