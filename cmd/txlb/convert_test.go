//go:build linux

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/txlb/txlb/internal/servers"
	"github.com/txlb/txlb/internal/testkit"
)

// converted runs the command in this process.
func converted(t *testing.T, args ...string) (status int, out, said string) {
	t.Helper()
	var o, e bytes.Buffer
	status = convertCommand(t.Context(), console{&answers{to: &o}, &e}, args)
	return status, o.String(), e.String()
}

// What convert prints passes txlb check, whatever was converted.
func TestConvertedFilesPassTheCheck(t *testing.T) {
	testkit.Long(t) // names are looked up
	cert, key := servers.Certify(t, t.TempDir(), "any.example", nil)
	trusted := regexp.MustCompile(`\b(clientCA|ca)="/[^"]*"`)
	pairs := regexp.MustCompile(`\btls="/[^"]*"`)
	for from, pattern := range map[string]string{"haproxy": "haproxy/*.cfg", "nginx": "nginx/*.conf"} {
		files, err := filepath.Glob("../../internal/convert/testdata/" + pattern)
		if err != nil || len(files) < 10 {
			t.Fatalf("%d files of %s: %v", len(files), from, err)
		}
		for _, file := range files {
			status, out, said := converted(t, from, file)
			if status != exitOK || !strings.HasPrefix(said, file+": ") {
				t.Errorf("%s: status %d: %s", file, status, said)
				continue
			}
			// A list of networks is found from where the configuration is.
			path := filepath.Join(t.TempDir(), "config.xml")
			out = strings.ReplaceAll(out, `"testdata/`, `"`+abs(t, "../../internal/convert/testdata")+"/")
			// The certificates are those of another machine.
			out = trusted.ReplaceAllString(out, `$1="`+cert+`"`)
			out = pairs.ReplaceAllString(out, `tls="`+cert+" "+key+`"`)
			if err := os.WriteFile(path, []byte(out), 0o600); err != nil {
				t.Fatal(err)
			}
			if status, said := call(t, "check", "-c", path); status != exitOK {
				t.Errorf("%s: check: status %d: %s", file, status, said)
			}
		}
	}
}

func abs(t *testing.T, path string) string {
	t.Helper()
	full, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return full
}

// Mistakes come with file and line, and print nothing that could be taken for a
// configuration.
func TestConvertTellsMistakes(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "broken.cfg")
	if err := os.WriteFile(broken, []byte("listen x\n bind :80\n timeout connect never\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ file, want string }{
		{broken, broken + `:3: timeout connect: "never" is not a time`},
		{broken + ".not", "no such file"},
		{t.TempDir(), "is a directory"},
	} {
		status, out, said := converted(t, "haproxy", test.file)
		if status != exitUsage || out != "" || !strings.Contains(said, test.want) {
			t.Errorf("%s: status %d, %q, %q", test.file, status, out, said)
		}
	}
}
