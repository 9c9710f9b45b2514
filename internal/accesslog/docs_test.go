package accesslog

import (
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/txlb/txlb/engine"
)

var update = flag.Bool("update", false, "write the documentation and golden files again")

// docs/operations.md has every termination code with its meaning.
func TestDocumentationHasTheTerminations(t *testing.T) {
	const page = "../../docs/operations.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	marked := regexp.MustCompile(`(?s)(<!-- terminations -->\n).*?(<!-- end -->)`)
	if !marked.Match(text) {
		t.Fatalf("%s has no <!-- terminations --> and <!-- end -->", page)
	}
	var b strings.Builder
	b.WriteString("| code | the session | what to look at |\n|---|---|---|\n")
	escape := strings.NewReplacer("<", "`<", ">", ">`", "``", "`", "|", `\|`)
	for _, end := range engine.Terminations() {
		b.WriteString("| `" + end.Code + "` | " + end.Meaning + " | " + escape.Replace(end.Advice) + " |\n")
	}
	want := marked.ReplaceAllString(string(text), "${1}"+b.String()+"${2}")
	switch {
	case want == string(text):
	case *update:
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s has another table of terminations; run go test ./internal/accesslog -run TestDocumentation -update", page)
	}
}
