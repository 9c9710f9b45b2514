// Package page is what an operator sees: it turns one state of the director
// and one snapshot of the engine into HTML, and keeps the figures of the last
// ten minutes for the charts. It does no HTTP and knows no passwords.
//
// Whoever serves it makes one [Meter], calls [Meter.Sample] once a second and
// sends what that returns to every live page as the SSE event "figures" at
// /api/v1/events. The pages expect to be served like this, all of it from the
// root of the server:
//
//	GET  /           Pages.Running    parameters as ParseQuery reads them; refresh
//	GET  /manage     Pages.Manage     service, group, name: what can be done with one of them
//	GET  /ask        Pages.Ask        verb and its parameters: the question before it is done
//	GET  /configs    Pages.Configs
//	GET  /events     Pages.Events
//	GET  /sessions   Pages.Sessions
//	GET  /history    Meter.History    id, repeated: JSON
//	GET  /static/…   Pages.Static     names with hashes of the content: cacheable for ever
//	POST /VERB       Pages.Done       the answer to a verb, done or refused
//
// A request that htmx makes has the header HX-Request: true; Source.Part is to
// be set then, and only what changes is written. Forms post the parameters that
// package admin gives its verbs, by their names, and generation.
//
// Everything works without JavaScript; with it, the page is live. The pages need
// no more than ContentSecurityPolicy allows.
package page

// ContentSecurityPolicy is what the pages need, as the header of that name.
const ContentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
