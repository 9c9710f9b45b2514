//go:build linux

package servers

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Other runs one test of this test binary in a process of its own, as a server, and
// returns the first line that it writes. It has the variable env in its
// environment, and is to end when its standard input does: at the end of t.
func Other(t Test, test, env string) (line string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+test+"$")
	cmd.Env = append(os.Environ(), env+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	line, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(fmt.Errorf("the process of %s said %q: %w", test, line, err))
	}
	return strings.TrimSpace(line)
}

// Here waits, in the process that Other has started, until it is to end.
func Here() { _, _ = bufio.NewReader(os.Stdin).ReadByte() }
