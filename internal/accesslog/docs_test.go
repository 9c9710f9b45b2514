package accesslog

import (
	"flag"
	"strings"
	"testing"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/testkit"
)

var update = flag.Bool("update", false, "write the documentation and golden files again")

// docs/logs.md has every termination code with its meaning.
func TestDocumentationHasTheTerminations(t *testing.T) {
	var b strings.Builder
	b.WriteString("| code | the session | what to look at |\n|---|---|---|\n")
	escape := strings.NewReplacer("<", "`<", ">", ">`", "``", "`", "|", `\|`)
	for _, end := range engine.Terminations() {
		b.WriteString("| `" + end.Code + "` | " + end.Meaning + " | " + escape.Replace(end.Advice) + " |\n")
	}
	testkit.Tables(t, "../../docs/logs.md", *update, "go test ./internal/accesslog -run TestDocumentation -update",
		map[string]string{"terminations": b.String()})
}
