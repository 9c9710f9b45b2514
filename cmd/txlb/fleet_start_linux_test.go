package main

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/txlb/txlb/internal/testkit"
)

// A node whose port another program has starts without that listener and says so, also after
// an upgrade. It opens it when it can. A txlb of no fleet refuses to start.
func TestFleetStartsWithoutItsPort(t *testing.T) {
	testkit.Long(t)
	t.Parallel()
	taken := listenFree(t) // no other test gets the port when it is closed
	defer func() { _ = taken.Close() }()
	backend := answering(t, repeat)
	service := func(name, addr string) string {
		return fmt.Sprintf(`<service name=%q><listen ip=%q/><group name="g"><host name="a" ip=%q/></group></service>`, name, addr, backend)
	}
	services := service("web", "127.0.0.1:0") + service("other", taken.Addr().String())

	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path, "run", "-c", write(t, "<config>"+services+"</config>")).CombinedOutput()
	if err == nil || !strings.Contains(string(out), `txlb: service "other": listen on `+taken.Addr().String()+": the address is in use by another process") {
		t.Errorf("without <fleet>: %v\n%s", err, out)
	}

	fleet := fmt.Sprintf(`<fleet name="edge" node="a" store="http://%s"/>`, testkit.Nobody(t))
	line := newLineage(t, fleet+services, "", "STATE_DIRECTORY="+t.TempDir(), "GRPC_GO_LOG_SEVERITY_LEVEL=info")
	n := &fleetNode{t: t, name: "a", socket: line.socket}
	problem := `this node: service "other" does not listen on ` + taken.Addr().String() + ": listen on " + taken.Addr().String() + ": the address is in use by another process"
	n.sees(problem)
	repeats(t, line.addr("web"))
	if status, out := n.ctl("upgrade"); status != 0 {
		t.Fatalf("status %d: %s", status, out)
	}
	n.sees(problem)
	repeats(t, line.addr("web"))
	_ = taken.Close()
	eventually(t, "it listens", func() bool {
		_, out := n.ctl("show", "fleet")
		return !strings.Contains(out, problem)
	})
	repeats(t, taken.Addr().String())
	// All of it is in the log's own form: libraries are silent.
	for text := range strings.Lines(line.log()) {
		if !strings.HasPrefix(text, "time=") && !strings.HasPrefix(text, "{") {
			t.Errorf("it wrote %q", text)
		}
	}
}
