//go:build unix

package manual

import (
	"bytes"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/txlb/txlb/internal/debian"
)

// groff and mandoc take the pages without a complaint.
func TestPagesAreCleanRoff(t *testing.T) {
	for _, with := range []struct {
		program string
		args    []string
	}{
		{"mandoc", []string{"-T", "lint", "-W", "style"}},
		{"groff", []string{"-mandoc", "-Tutf8", "-ww", "-rLL=100n"}},
	} {
		t.Run(with.program, func(t *testing.T) {
			debian.NeedFor(t, with.program)
			for name, text := range pages() {
				cmd := exec.Command(debian.Path(with.program), with.args...)
				cmd.Stdin = strings.NewReader(text)
				var out, complaints bytes.Buffer
				cmd.Stdout, cmd.Stderr = &out, &complaints
				err := cmd.Run()
				if with.program == "mandoc" { // it complains on standard output
					complaints.Write(out.Bytes())
				}
				missing := regexp.MustCompile(`(?m)^.*referenced manual not found: Xr txlb.*\n`) // they are not installed here
				if left := missing.ReplaceAll(complaints.Bytes(), nil); len(left) > 0 || err != nil && with.program != "mandoc" {
					t.Errorf("%s: %v\n%s", name, err, left)
				}
			}
		})
	}
}
