package txlb

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/txlb/txlb/config"
)

// Load reads a configuration as the program txlb has it in its file. The error has everything
// that is wrong, each with its line; it is a [config.Problems].
//
// Load refuses <admin>, <control> and <fleet>: a program has interfaces of its own. It reads
// over <logging>, <configCheck> and the drain and grace of <engine>, because a program has Logger, no
// file to save to, and the context of Shutdown. Everything else is in the Config. Services
// need not listen.
func Load(document []byte) (Config, error) {
	refused := refusals(document)
	m, found := config.ParseProgram(loaded, document)
	var wrong config.Problems
	for _, p := range found {
		known := func(r config.Problem) bool {
			return r.Line == p.Line && strings.HasPrefix(p.Text, "unknown element <"+elementOf(r)+">")
		}
		if !p.Warning && !slices.ContainsFunc(refused, known) {
			wrong = append(wrong, p)
		}
	}
	wrong = append(wrong, refused...)
	slices.SortStableFunc(wrong, func(a, b config.Problem) int { return a.Line - b.Line })
	if len(wrong) > 0 {
		return Config{}, wrong
	}
	return configOf(m), nil
}

// loaded stands for the document in errors.
const loaded = "config.xml"

// onlyDaemon are elements that a program has no use for, with what it does in their place.
var onlyDaemon = map[string]string{
	"admin":   "remove it, and change services through the Balancer; MetricsHandler has the metrics",
	"control": "remove it: a host learns the client from Host.ProxyProtocol",
	"fleet":   "remove it, and give each program its configuration with Apply",
}

// refusals returns a problem for each element of onlyDaemon. What is wrong with the form of
// the document is for others to say.
func refusals(document []byte) (list config.Problems) {
	d := xml.NewDecoder(bytes.NewReader(document))
	d.CharsetReader = func(_ string, r io.Reader) (io.Reader, error) { return r, nil } // names are ASCII
	d.Strict = false
	for depth := 0; ; {
		line, _ := d.InputPos()
		token, err := d.Token()
		if err != nil {
			return list
		}
		switch t := token.(type) {
		case xml.StartElement:
			if instead, refused := onlyDaemon[t.Name.Local]; refused && depth == 1 && t.Name.Space == "" {
				list = append(list, config.Problem{File: loaded, Line: line, Text: fmt.Sprintf("<%s> is for the program txlb; %s", t.Name.Local, instead)})
			}
			if depth++; len(list) > 100 {
				return list
			}
		case xml.EndElement:
			depth--
		}
	}
}

// elementOf is the element that a problem of refusals is about.
func elementOf(p config.Problem) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(p.Text, "<"), ">")
	return name
}
