package web

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/txlb/txlb/internal/admin"
)

// TestAPIDoesVerbs changes things with JSON, a form and a query, and reads
// them back.
func TestAPIDoesVerbs(t *testing.T) {
	r := newRig(t, twoHosts)
	status, a := r.api("addHost", map[string]any{"service": "web", "group": "main", "name": "c", "ip": "127.0.0.1:9", "weight": 3, "backup": true, "state": nil})
	if status != http.StatusOK || a["generation"] != 2.0 || !strings.Contains(a["text"].(string), "add host") {
		t.Errorf("JSON: %d %v", status, a)
	}
	b := r.do("boss", "POST", "/api/v1/setHost?service=web&group=main", "name=c&weight=5", "Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	if b.StatusCode != http.StatusOK || b.Header.Get("ETag") != `"3"` || b.Header.Get("Content-Type") != "application/json" {
		t.Errorf("query and form: %s %v %s", b.Status, b.Header, b.body)
	}
	if status, a = r.api("setHost", map[string]any{"service": "web", "group": "main", "name": "c", "weight": 6, "dryRun": true}); status != http.StatusOK || a["generation"] != 3.0 {
		t.Errorf("dry run: %d %v", status, a)
	}
	var hosts struct {
		Text       string
		Data       []admin.HostInfo
		Generation uint64
	}
	for _, path := range []string{"/api/v1/hosts?service=web&group=main", "/api/v1/show/hosts?group=main&service=web"} {
		if err := json.Unmarshal([]byte(r.get(path)), &hosts); err != nil {
			t.Fatal(err)
		}
		if len(hosts.Data) != 3 || hosts.Data[2].Weight != 5 || !hosts.Data[2].Backup || hosts.Generation != 3 {
			t.Errorf("%s: %+v", path, hosts)
		}
	}
	for _, path := range []string{"status", "services", "hosts", "sessions", "config", "stored", "diff", "metrics", "show/events", "help", "help?verb=addHost"} {
		var result struct {
			Text string
			Data any
		}
		if err := json.Unmarshal([]byte(r.get("/api/v1/"+path)), &result); err != nil || result.Text == "" {
			t.Errorf("%s: %v, text %q", path, err, result.Text)
		}
	}
}

// TestAPIErrorsHaveTheirStatus makes every mistake that can be made.
func TestAPIErrorsHaveTheirStatus(t *testing.T) {
	r := newRig(t, twoHosts)
	long := strings.Repeat("x", maxBody)
	for _, c := range []struct {
		path, kind, body string
		status           int
		want             string
	}{
		{"setHost", "application/json", `{"service":"web","group":"main","name":"a","weight":"many"}`, 400, "bad_request"},
		{"setHost", "application/json", `{"service":"web","group":"main","name":"a","wieght":1}`, 400, "bad_request"},
		{"setHost", "application/json", `{"service":"web","group":"main"}`, 400, "bad_request"},
		{"setHost", "application/json", `{"service":["web"]}`, 400, "bad_request"},
		{"setHost", "application/json", `["web"]`, 400, "bad_request"},
		{"setHost", "application/json", `{"service":"web"} {}`, 400, "bad_request"},
		{"setHost", "application/json", `{"service":"web"`, 400, "bad_request"},
		{"setHost", "application/json", `{"":"web"}`, 400, "bad_request"},
		{"setHost", "application/json", `null`, 400, "bad_request"},
		{"setHost?service=web", "application/x-www-form-urlencoded", "service=web&group=main&name=a&weight=1", 400, "bad_request"},
		{"setHost?%zz", "", "", 400, "bad_request"},
		{"setHost", "application/x-www-form-urlencoded", "a=%zz", 400, "bad_request"},
		{"setHost", "text/plain", "hello", 415, "media_type"},
		{"setHost", "application/json", `{"service":"` + long + `"}`, 413, "too_large"},
		{"setHost", "application/json", `{"service":"wbe","group":"main","name":"a","weight":1}`, 404, "unknown_name"},
		{"setHost", "application/json", `{"service":"web","group":"main","name":"z","weight":1}`, 404, "unknown_name"},
		{"delUser", "application/json", `{"name":"boss"}`, 422, "refused"},
		{"delGroup", "application/json", `{"service":"web","group":"main"}`, 422, "refused"},
		{"setHost", "application/json", `{"service":"web","group":"main","name":"a","weight":1,"generation":7}`, 409, "moved_on"},
		{"nothing", "application/json", `{}`, 404, "unknown_path"},
	} {
		a := r.do("boss", "POST", "/api/v1/"+c.path, c.body, "Content-Type", c.kind)
		var problem Problem
		if err := json.Unmarshal([]byte(a.body), &problem); err != nil {
			t.Errorf("%s %.80s: %v: %s", c.path, c.body, err, a.body)
		}
		if a.StatusCode != c.status || problem.Kind != c.want || problem.Error == "" || strings.Contains(problem.Error, "\n") {
			t.Errorf("%s %.80s: %s, want %d %s: %s", c.path, c.body, a.Status, c.status, c.want, a.body)
		}
	}
	if g := r.dir.State().Generation; g != 1 {
		t.Errorf("something has changed: generation %d", g)
	}
	if a := r.do("boss", "POST", "/api/v1/setHost?service=web&group=main&name=a&weight=2", "", "If-Match", "two"); a.StatusCode != http.StatusBadRequest {
		t.Errorf("If-Match that is none: %s", a.Status)
	}
	// The server reads no more of it, so that the client may see the end first.
	a, err := r.http.Do(r.request("boss", "GET", "/"+strings.Repeat("x", maxHeader+8<<10), nil))
	if err == nil {
		_ = a.Body.Close()
		if a.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("a very long address: %s", a.Status)
		}
	}
}

// TestLaterIsToldWhatChanged lets two admins change the same thing.
func TestLaterIsToldWhatChanged(t *testing.T) {
	r := newRig(t, twoHosts)
	tag := r.do("boss", "GET", "/api/v1/hosts", "").Header.Get("ETag")
	if tag != `"1"` {
		t.Fatalf("ETag is %q", tag)
	}
	params := map[string]any{"service": "web", "group": "main", "name": "a", "weight": 7}
	if status, a := r.api("setHost", params, "If-Match", tag); status != http.StatusOK {
		t.Fatal(status, a)
	}
	params["weight"] = 9
	for _, header := range [][]string{{"If-Match", tag}, {"If-Match", "W/" + tag}, nil} {
		if header == nil {
			params["generation"] = 1
		}
		status, a := r.api("setHost", params, header...)
		if status != http.StatusConflict || a["generation"] != 2.0 {
			t.Errorf("the later one: %d %v", status, a)
		}
		if text := a["error"].(string); !strings.Contains(text, "by boss") || !strings.Contains(text, "weight=7") {
			t.Errorf("the later one is told %q", text)
		}
		changes := a["changes"].([]any)
		if len(changes) != 1 || changes[0].(map[string]any)["by"] != "boss" || !strings.Contains(fmt.Sprint(changes[0]), "weight=7") {
			t.Errorf("the later one is told %v", changes)
		}
	}
	if w := r.dir.State().Config.Services[0].Groups[0].Hosts[0].Weight; w != 7 {
		t.Errorf("the weight is %d", w)
	}
}

// TestManyChangesAtOnce has each change name the generation that it has seen:
// of those that name the same one, one is made.
func TestManyChangesAtOnce(t *testing.T) {
	r := newRig(t, twoHosts)
	const clients = 16
	statuses := make(chan int, clients)
	for i := range clients {
		q := r.request("boss", "POST", fmt.Sprintf("/api/v1/setHost?service=web&group=main&name=a&generation=1&weight=%d", i+2), nil)
		go func() {
			a, err := r.http.Do(q)
			if err != nil {
				statuses <- 0
				return
			}
			_ = a.Body.Close()
			statuses <- a.StatusCode
		}()
	}
	count := map[int]int{}
	for range clients {
		count[<-statuses]++
	}
	if count[http.StatusOK] != 1 || count[http.StatusConflict] != clients-1 {
		t.Errorf("the answers are %v", count)
	}
}

// TestCancelledRequestsLeaveNothing breaks off requests while they are done.
func TestCancelledRequestsLeaveNothing(t *testing.T) {
	r := newRig(t, twoHosts)
	for i := range 40 {
		ctx, cancel := context.WithCancel(t.Context())
		q := r.request("boss", "POST", fmt.Sprintf("/api/v1/setHost?service=web&group=main&name=a&weight=%d", i), nil).WithContext(ctx)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if a, err := r.http.Do(q); err == nil {
				_ = a.Body.Close()
			}
		}()
		if i%2 == 0 {
			cancel()
		}
		<-ended
		cancel()
	}
	if status, a := r.api("setHost", map[string]any{"service": "web", "group": "main", "name": "a", "weight": 77}); status != http.StatusOK {
		t.Errorf("afterwards: %d %v", status, a)
	}
}

// TestThrottledLoginsAreToldWhen guesses a password.
func TestThrottledLoginsAreToldWhen(t *testing.T) {
	r := newRig(t, twoHosts)
	for i := range 30 {
		q := r.request("", "GET", "/api/v1/status", nil)
		q.SetBasicAuth("boss", fmt.Sprint("guess", i))
		a := r.send(q)
		switch a.StatusCode {
		case http.StatusUnauthorized:
		case http.StatusTooManyRequests:
			if !regexp.MustCompile(`^[1-9][0-9]*$`).MatchString(a.Header.Get("Retry-After")) {
				t.Errorf("Retry-After is %q", a.Header.Get("Retry-After"))
			}
			if a := r.do("", "GET", "/healthz", ""); a.StatusCode != http.StatusOK {
				t.Errorf("healthz meanwhile: %s", a.Status)
			}
			return
		default:
			t.Fatal(a.Status, a.body)
		}
	}
	t.Error("thirty wrong passwords, and no wait")
}

// TestOpenAPIIsTrue holds the description against the table of routes and
// against answers.
func TestOpenAPIIsTrue(t *testing.T) {
	r := newRig(t, twoHosts)
	var doc map[string]any
	if err := json.Unmarshal([]byte(r.get("/api/v1/openapi.json")), &doc); err != nil {
		t.Fatal(err)
	}
	if doc["openapi"] != "3.1.0" || doc["info"].(object)["title"] == "" || doc["info"].(object)["version"] != "test" {
		t.Errorf("the head is %v %v", doc["openapi"], doc["info"])
	}
	paths := doc["paths"].(object)
	described := 0
	ids := map[string]bool{}
	for _, route := range r.walk() {
		if !strings.HasPrefix(route.path, apiPath) && !route.open && route.path != "/metrics" {
			continue
		}
		described++
		path, _ := paths[route.path].(object)
		op, ok := path[strings.ToLower(route.method)].(object)
		if !ok {
			t.Errorf("%s %s is not described", route.method, route.path)
			continue
		}
		id := op["operationId"].(string)
		if ids[id] || !regexp.MustCompile(`^[a-zA-Z0-9_]+$`).MatchString(id) {
			t.Errorf("%s: operationId %q", route.path, id)
		}
		ids[id] = true
		if !route.open && op["x-role"] != route.role.String() {
			t.Errorf("%s: the role is %v", route.path, op["x-role"])
		}
		checkOperation(t, route, op)
	}
	operations := 0
	for path, methods := range paths {
		for method := range methods.(object) {
			operations++
			if method != "get" && method != "post" {
				t.Errorf("%s has the method %s", path, method)
			}
		}
	}
	if operations != described {
		t.Errorf("%d operations are described, of %d", operations, described)
	}
	checkReferences(t, doc, doc)
	r.api("setHost", map[string]any{"service": "web", "group": "main", "name": "a", "weight": 7}) // an event
	for _, path := range []string{
		"/api/v1/status", "/api/v1/hosts", "/api/v1/services", "/api/v1/config", "/api/v1/help", "/api/v1/diff", "/api/v1/stored",
		"/api/v1/sessions", "/api/v1/show/events",
	} {
		var answer any
		if err := json.Unmarshal([]byte(r.get(path)), &answer); err != nil {
			t.Fatal(err)
		}
		schema := paths[path].(object)["get"].(object)["responses"].(object)["200"].(object)["content"].(object)["application/json"].(object)["schema"].(object)
		if schema["properties"].(object)["data"] == nil {
			t.Errorf("%s: data is not described", path)
		}
		conform(t, doc, path, schema, answer)
	}
}

// checkOperation looks at what OpenAPI 3.1 asks of an operation, and at the
// parameters of a verb.
func checkOperation(t *testing.T, r route, op object) {
	t.Helper()
	responses := op["responses"].(object)
	if responses["200"] == nil {
		t.Errorf("%s has no good answer", r.path)
	}
	for status, a := range responses {
		if a.(object)["description"] == "" || !regexp.MustCompile(`^[2-5][0-9][0-9]$`).MatchString(status) {
			t.Errorf("%s: the answer %s is %v", r.path, status, a)
		}
	}
	if r.verb == nil {
		return
	}
	var names []string
	if r.verb.Changes {
		for _, media := range []string{"application/json", "application/x-www-form-urlencoded"} {
			schema := op["requestBody"].(object)["content"].(object)[media].(object)["schema"].(object)
			names = nil
			for name := range schema["properties"].(object) {
				names = append(names, name)
			}
		}
	} else if list, ok := op["parameters"].([]any); ok {
		for _, p := range list {
			if p := p.(object); p["in"] != "query" || p["schema"] == nil || reflect.TypeOf(p["required"]) != reflect.TypeFor[bool]() {
				t.Errorf("%s: the parameter %v", r.path, p)
			} else {
				names = append(names, p["name"].(string))
			}
		}
	}
	var want []string
	for _, p := range r.verb.Params {
		want = append(want, p.Name)
	}
	slices.Sort(names)
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Errorf("%s describes %v, and takes %v", r.path, names, want)
	}
}

// checkReferences follows every $ref.
func checkReferences(t *testing.T, doc object, at any) {
	t.Helper()
	switch v := at.(type) {
	case object:
		if ref, ok := v["$ref"].(string); ok && follow(doc, ref) == nil {
			t.Errorf("%s leads nowhere", ref)
		}
		for _, below := range v {
			checkReferences(t, doc, below)
		}
	case []any:
		for _, below := range v {
			checkReferences(t, doc, below)
		}
	}
}

func follow(doc object, ref string) object {
	name, ok := strings.CutPrefix(ref, "#/components/schemas/")
	if !ok {
		return nil
	}
	schema, _ := doc["components"].(object)["schemas"].(object)[name].(object)
	return schema
}

// conform holds a value against a schema, as far as describe uses schemas.
func conform(t *testing.T, doc object, at string, schema object, v any) {
	t.Helper()
	if ref, ok := schema["$ref"].(string); ok {
		schema = follow(doc, ref)
	}
	wrong := func() { t.Errorf("%s is %T, described as %v", at, v, schema["type"]) }
	switch schema["type"] {
	case "object":
		o, ok := v.(object)
		if !ok {
			wrong()
			return
		}
		properties, _ := schema["properties"].(object)
		for name, below := range o {
			described, ok := properties[name].(object)
			if !ok {
				described, ok = schema["additionalProperties"].(object)
			}
			if !ok {
				t.Errorf("%s.%s is not described", at, name)
				continue
			}
			conform(t, doc, at+"."+name, described, below)
		}
		required, _ := schema["required"].([]any)
		for _, name := range required {
			if _, ok := o[name.(string)]; !ok {
				t.Errorf("%s.%s is missing", at, name)
			}
		}
	case "array":
		list, ok := v.([]any)
		if !ok {
			wrong()
		}
		for i, below := range list {
			conform(t, doc, fmt.Sprintf("%s[%d]", at, i), schema["items"].(object), below)
		}
	case "string":
		if _, ok := v.(string); !ok {
			wrong()
		}
	case "boolean":
		if _, ok := v.(bool); !ok {
			wrong()
		}
	case "integer":
		if n, ok := v.(float64); !ok || n != float64(int64(n)) {
			wrong()
		}
	case "number":
		if _, ok := v.(float64); !ok {
			wrong()
		}
	default:
		t.Errorf("%s is described as %v", at, schema)
	}
}
