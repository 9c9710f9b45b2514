package web

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/status"
)

// object is a JSON object. Its keys are written sorted.
type object = map[string]any

// describe makes the OpenAPI document of the routes below /api/v1 and of
// /metrics, /healthz and /readyz.
func describe(version string, routes []route) object {
	schemas := schemas{"Problem": nil}
	schemas["Problem"] = schemas.of(reflect.TypeFor[Problem]())
	paths := object{}
	for i := range routes {
		r := &routes[i]
		if !strings.HasPrefix(r.path, apiPath) && r.path != "/metrics" && !r.open {
			continue
		}
		path, ok := paths[r.path].(object)
		if !ok {
			path = object{}
			paths[r.path] = path
		}
		path[strings.ToLower(r.method)] = schemas.operation(r)
	}
	if version == "" {
		version = "unknown"
	}
	return object{
		"openapi": "3.1.0",
		"info": object{
			"title": "txlb admin API", "version": version,
			"description": "What can be told to a running txlb: every verb that reads is a GET, every verb that changes a POST. " +
				"A change is whole or not at all. The ETag of an answer is the generation of the configuration; " +
				"a change with If-Match is refused with 409 if there is another one, and told what has changed.",
		},
		"security":   []any{object{"basic": []any{}}},
		"paths":      paths,
		"components": object{"schemas": schemas, "securitySchemes": object{"basic": object{"type": "http", "scheme": "basic"}}},
	}
}

// serveOpenAPI writes the document with where the client finds the server.
func (s *server) serveOpenAPI(q *request) (answer, error) {
	doc := maps.Clone(s.openapi)
	doc["servers"] = []any{object{"url": cmp.Or(q.prefix, "/")}}
	body, err := json.MarshalIndent(doc, "", "  ")
	return answer{kind: "application/json", body: body}, err
}

// schemas are those that the document names.
type schemas map[string]any

func reference(name string) object { return object{"$ref": "#/components/schemas/" + name} }

// operation describes one route.
func (all schemas) operation(r *route) object {
	op := object{"summary": r.about, "operationId": operationID(r)}
	answers := object{}
	op["responses"] = answers
	problem := func(status int, what string) {
		media := "application/json"
		if !strings.HasPrefix(r.path, apiPath) {
			media = "text/plain"
			answers[strconv.Itoa(status)] = object{"description": what, "content": object{media: object{"schema": object{"type": "string"}}}}
			return
		}
		answers[strconv.Itoa(status)] = object{"description": what, "content": object{media: object{"schema": reference("Problem")}}}
	}
	if r.open {
		op["security"] = []any{}
		problem(http.StatusServiceUnavailable, "it is not so")
	} else {
		op["x-role"] = r.role.String()
		problem(http.StatusUnauthorized, "no login, or a wrong one")
		problem(http.StatusForbidden, "the role does not allow it, or another site sent the request")
		problem(http.StatusTooManyRequests, "too many wrong logins; Retry-After tells when to try again")
		problem(http.StatusServiceUnavailable, "too much is being done, or txlb is stopping")
	}
	switch {
	case r.verb == nil && strings.HasSuffix(r.path, "/events"):
		answers["200"] = object{
			"description": "a stream of the events hello, figures, change, health and order",
			"content":     object{"text/event-stream": object{"schema": object{"type": "string"}}},
		}
		op["parameters"] = []any{
			parameter("header", "Last-Event-ID", "the id of the last event that is known", object{"type": "string"}),
			parameter("query", "since", "the same, or its number alone", object{"type": "string"}),
		}
	case r.verb == nil && strings.HasSuffix(r.path, ".json"):
		answers["200"] = object{"description": "this document", "content": object{"application/json": object{"schema": object{"type": "object"}}}}
	case r.verb == nil:
		answers["200"] = object{"description": r.about, "content": object{"text/plain": object{"schema": object{"type": "string"}}}}
		if r.path == "/metrics" {
			op["parameters"] = []any{parameter("query", "service", "only the metrics of this service; may be repeated", object{"type": "array", "items": object{"type": "string"}})}
			problem(http.StatusNotFound, "no such service")
		}
	default:
		all.verb(op, answers, r, problem)
	}
	return op
}

// verb describes what only routes of verbs have.
func (all schemas) verb(op, answers object, r *route, problem func(int, string)) {
	v := r.verb
	result := object{
		"type": "object", "required": []any{"text", "generation"},
		"properties": object{
			"text":       object{"type": "string", "description": "for people"},
			"generation": object{"type": "integer", "minimum": 0, "description": "of the configuration afterwards"},
		},
	}
	if r.shape != nil {
		result["properties"].(object)["data"] = all.of(reflect.TypeOf(r.shape))
	}
	answers["200"] = object{
		"description": "done", "content": object{"application/json": object{"schema": result}},
		"headers": object{"ETag": object{"description": "the generation, quoted", "schema": object{"type": "string"}}},
	}
	problem(http.StatusBadRequest, "a parameter is missing, unknown or wrong")
	problem(http.StatusNotFound, "there is nothing of a name")
	problem(http.StatusUnprocessableEntity, "it cannot be done; the error says why")
	properties, required, list := object{}, []any{}, []any{}
	for i := range v.Params {
		p := &v.Params[i]
		schema := paramSchema(p)
		if p.Required {
			required = append(required, p.Name)
		}
		properties[p.Name] = schema
		one := parameter("query", p.Name, "", schema)
		one["required"] = p.Required
		list = append(list, one)
	}
	if !v.Changes {
		op["parameters"] = list
		return
	}
	op["x-destructive"] = v.Destructive
	problem(http.StatusConflict, "the configuration has moved on from the generation that was named")
	problem(http.StatusRequestEntityTooLarge, "the body is too long")
	problem(http.StatusUnsupportedMediaType, "the body is neither JSON nor a form")
	problem(http.StatusInternalServerError, "a file cannot be written or read")
	body := object{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		body["required"] = required
	}
	op["requestBody"] = object{
		"required": len(required) > 0, "description": "all of these may be in the query instead",
		"content": object{"application/json": object{"schema": body}, "application/x-www-form-urlencoded": object{"schema": body}},
	}
	if _, ok := properties["generation"]; ok {
		op["parameters"] = []any{parameter("header", "If-Match", "an ETag: do it only at that generation", object{"type": "string"})}
	}
}

// operationID names a route: its method and its path in letters.
func operationID(r *route) string {
	name, ok := strings.CutPrefix(r.path, apiPath)
	if !ok {
		name = "server" + r.path
	}
	return strings.ToLower(r.method) + "_" + strings.NewReplacer("/", "_", ".", "_").Replace(name)
}

func parameter(in, name, about string, schema object) object {
	p := object{"in": in, "name": name, "schema": schema}
	if about != "" {
		p["description"] = about
	}
	return p
}

// paramSchema describes the values of a parameter. Names of services, groups and
// hosts are not listed, because they change while txlb runs.
func paramSchema(p *admin.Param) object {
	s := object{"type": "string"}
	switch p.Kind {
	case admin.Number, admin.Unconfirmed:
		s = object{"type": "integer", "minimum": p.Low, "maximum": p.High}
	case admin.Bool, admin.Flag:
		s = object{"type": "boolean"}
	case admin.Choice:
		choices := []any{}
		for _, c := range p.Choices {
			choices = append(choices, c)
		}
		s["enum"] = choices
	case admin.Duration:
		s["description"] = "a number with a unit, such as 500ms, 30s or 5m"
		s["examples"] = []any{"30s"}
	case admin.Address, admin.Mirror:
		s["description"] = "host:port, [v6]:port or unix:/path"
	case admin.Listen, admin.Listener:
		s["description"] = "host:port, [v6]:port, *:port or unix:/path; port 0 takes a free one"
	case admin.Hash:
		s["description"] = "a crypt(3) hash, as txlb passwd prints it"
		s["writeOnly"] = true
	}
	if len(p.Aliases) > 0 {
		about := "also called " + strings.Join(p.Aliases, ", ")
		if d, ok := s["description"].(string); ok {
			about = d + "; " + about
		}
		s["description"] = about
	}
	return s
}

// of describes a Go type as it is written in JSON. Structs get a name.
func (all schemas) of(t reflect.Type) object {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case t.Kind() == reflect.Pointer:
		return all.of(t.Elem())
	case t.Kind() == reflect.Slice:
		return object{"type": "array", "items": all.of(t.Elem())}
	case t.Kind() == reflect.Map:
		return object{"type": "object", "additionalProperties": all.of(t.Elem())}
	case t.Kind() == reflect.Struct && all[t.Name()] == nil:
		all[t.Name()] = object{} // for types that contain themselves
		properties, required := object{}, []any{}
		for _, field := range reflect.VisibleFields(t) {
			if field.Anonymous || !field.IsExported() {
				continue // the fields of an anonymous one are visible themselves
			}
			if field.Tag.Get("counters") == "host" {
				for n := range status.HostCounters {
					c := &status.HostCounters[n]
					properties[c.Key] = object{"type": "integer", "minimum": 0, "description": c.Help}
					required = append(required, c.Key)
				}
				continue
			}
			name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
			properties[name] = all.of(field.Type)
			if !strings.Contains(options, "omitempty") {
				required = append(required, name)
			}
		}
		all[t.Name()] = object{"type": "object", "properties": properties, "required": required}
		return reference(t.Name())
	case t.Kind() == reflect.Struct:
		return reference(t.Name())
	case t.Kind() == reflect.String:
		return object{"type": "string"}
	case t.Kind() == reflect.Bool:
		return object{"type": "boolean"}
	case t.Kind() == reflect.Float64:
		return object{"type": "number"}
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Int64:
		return object{"type": "integer"}
	case t.Kind() >= reflect.Uint && t.Kind() <= reflect.Uint64:
		return object{"type": "integer", "minimum": 0}
	}
	panic(fmt.Sprintf("no schema is known for %v", t))
}
