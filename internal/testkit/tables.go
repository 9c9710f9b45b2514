package testkit

import (
	"os"
	"regexp"
	"testing"
)

// Tables holds the tables of a page of documentation and the code together: behind
// <!-- NAME --> and before <!-- end -->, the page must have what tables has under NAME.
// With update it is written there; again is the command that does so.
func Tables(t testing.TB, page string, update bool, again string, tables map[string]string) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	want := string(text)
	for name, table := range tables { // other comments, and tables of other tests, stay
		marked := regexp.MustCompile(`(?s)(<!-- ` + regexp.QuoteMeta(name) + ` -->\n).*?(<!-- end -->)`)
		if !marked.MatchString(want) {
			t.Errorf("%s has no <!-- %s --> with an <!-- end -->", page, name)
			continue
		}
		want = marked.ReplaceAllStringFunc(want, func(part string) string {
			m := marked.FindStringSubmatch(part)
			return m[1] + table + m[2]
		})
	}
	switch {
	case want == string(text):
	case !update:
		t.Errorf("%s has other tables; run %s", page, again)
	default:
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
