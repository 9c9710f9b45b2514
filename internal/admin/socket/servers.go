package socket

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/status"
	"github.com/txlb/txlb/internal/words"
)

// exactTries is how often a command is retried because the configuration changed
// between reading and changing it.
const exactTries = 1000

// by ends HAProxy's message about a new address.
const by = " by 'stats socket command'"

// server is a host as HAProxy names it.
type server struct {
	service *director.Service
	group   *director.Group
	host    *director.Host
}

// proxyName is the name of a group as a backend.
func proxyName(s *director.Service, g *director.Group) string {
	return s.Config.Name + "." + g.Config.Name
}

// backends returns the groups with a backend name. There may be two, because names
// may contain dots.
func backends(state *director.State, name string) []server {
	var found []server
	for _, s := range state.Services {
		rest, ok := strings.CutPrefix(name, s.Config.Name+".")
		if !ok {
			continue
		}
		for _, g := range s.Groups {
			if g.Config.Name == rest {
				found = append(found, server{service: s, group: g})
			}
		}
	}
	return found
}

// backend returns the only group with a backend name.
func backend(state *director.State, name string) (server, error) {
	switch found := backends(state, name); len(found) {
	case 0:
		return server{}, errNoBackend
	case 1:
		return found[0], nil
	}
	return server{}, fmt.Errorf("%s is the name of two groups; use the verbs of txlb, which name service and group apart", name)
}

// split splits a word of the form SERVICE.GROUP/HOST into the group and the name of
// the host.
func split(state *director.State, word string) (server, string, error) {
	if !strings.Contains(word, "/") {
		return server{}, "", errNoName
	}
	var err error = errNoBackend
	for i, c := range word {
		if c != '/' {
			continue
		}
		b, why := backend(state, word[:i])
		if why == nil {
			return b, word[i+1:], nil
		}
		if why != errNoBackend {
			err = why
		}
	}
	return server{}, "", err
}

// find returns the host of a word of the form SERVICE.GROUP/HOST.
func find(state *director.State, word string) (server, error) {
	b, name, err := split(state, word)
	if err != nil {
		return server{}, err
	}
	for _, h := range b.group.Hosts {
		if h.Config.Name == name {
			b.host = h
			return b, nil
		}
	}
	return server{}, errNoServer
}

// verb returns a command about the host.
func (s server) verb(name string, options ...words.Word) words.Command {
	c := words.Command{Verb: name, Words: []words.Word{{Value: s.service.Config.Name}, {Value: s.group.Config.Name}}}
	if s.host != nil {
		c.Words = append(c.Words, words.Word{Value: s.host.Config.Name})
	}
	c.Words = append(c.Words, options...)
	return c
}

// edit executes the verb that a command stands for.
func (r *request) edit(make func(*director.State) (c words.Command, text string, err error)) answer {
	c, text, err := make(r.opt.Director.State())
	if err != nil {
		return answer{err: err}
	}
	result, err := r.opt.Admin.Execute(r.ctx, r.caller, c)
	if err != nil {
		return answer{err: err}
	}
	return answer{text: text, generation: result.Generation}
}

// exactly is edit for a verb that depends on the running configuration. If that
// changes meanwhile, it makes the verb again.
func (r *request) exactly(make func(*director.State) (c words.Command, text string, err error)) answer {
	for try := 1; ; try++ {
		a := r.edit(func(state *director.State) (words.Command, string, error) {
			c, text, err := make(state)
			c.Words = append(c.Words, words.Word{Key: "generation", Value: strconv.FormatUint(state.Generation, 10)})
			return c, text, err
		})
		if a.err == nil || !errors.Is(a.err, admin.ErrMovedOn) || try == exactTries || r.ctx.Err() != nil {
			return a
		}
	}
}

// set returns a verb that sets attributes of the host named by the first word.
func (r *request) set(options func(server) (set []words.Word, text string, err error)) func(*director.State) (words.Command, string, error) {
	return func(state *director.State) (words.Command, string, error) {
		s, err := find(state, r.words[0])
		if err != nil {
			return words.Command{}, "", err
		}
		set, text, err := options(s)
		return s.verb("setHost", set...), text, err
	}
}

// tooMany refuses more words than a command takes.
func (r *request) tooMany(most int) error {
	if len(r.words) > most {
		return fmt.Errorf("'%s' is one word too many", r.words[most])
	}
	return nil
}

// oneName refuses a command that does not name exactly one server.
func (r *request) oneName() error {
	if len(r.words) == 0 {
		return errNoName
	}
	return r.tooMany(1)
}

func stateTo(state string) func(*request) answer {
	return func(r *request) answer {
		if err := r.oneName(); err != nil {
			return answer{err: err}
		}
		return r.setState(state)
	}
}

func (r *request) setState(state string) answer {
	return r.edit(r.set(func(server) ([]words.Word, string, error) {
		return []words.Word{{Key: "state", Value: state}}, "", nil
	}))
}

func setServer(r *request) answer {
	if len(r.words) == 0 {
		return answer{err: errNoName}
	}
	if _, err := find(r.opt.Director.State(), r.words[0]); err != nil {
		return answer{err: err}
	}
	what := ""
	if len(r.words) > 1 {
		what = r.words[1]
	}
	values := r.words[min(2, len(r.words)):]
	r.words = append(r.words[:1:1], values...)
	switch what {
	case "state":
		if len(values) != 1 || !slices.Contains([]string{"ready", "drain", "maint"}, values[0]) {
			return answer{err: sentence("'set server <srv> state' expects 'ready', 'drain' and 'maint'.")}
		}
		return r.setState(values[0])
	case "weight":
		return setWeight(r)
	case "addr":
		return setAddr(r)
	}
	return answer{err: errors.New("usage: set server <backend>/<server> addr | state | weight")}
}

func setWeight(r *request) answer {
	if len(r.words) == 0 {
		return answer{err: errNoName}
	}
	if err := r.tooMany(2); err != nil {
		return answer{err: err}
	}
	return r.edit(r.set(func(s server) ([]words.Word, string, error) {
		if len(r.words) < 2 {
			return nil, "", sentence("Require <weight> or <weight%>.")
		}
		w, err := weight(r.words[1], r.initial(s))
		return []words.Word{{Key: "weight", Value: strconv.Itoa(w)}}, "", err
	}))
}

// weight reads a weight, absolute or in percent of the initial one.
func weight(word string, initial int) (int, error) {
	digits, percent := strings.CutSuffix(word, "%")
	n, err := strconv.ParseUint(digits, 10, 31)
	switch {
	case err != nil || digits == "":
		return 0, fmt.Errorf("'%s' is not a weight: want a number, or one with %% for a share of the initial weight", word)
	case !percent && n > config.MaxWeight:
		return 0, sentencef("Absolute weight can only be between 0 and %d inclusive.", config.MaxWeight)
	case !percent:
		return int(n), nil
	}
	w := uint64(initial) * n / 100
	if w == 0 && n > 0 && initial > 0 {
		w = 1 // a small share is not none
	}
	if w > config.MaxWeight {
		return 0, fmt.Errorf("%s of the initial weight %d is more than %d", word, initial, config.MaxWeight)
	}
	return int(w), nil
}

// initial is the weight of a host in the file or, if it is not there, the weight that
// it was first seen with.
func (s *Server) initial(of server) int {
	key := status.Key{Service: of.service.Config.Name, Group: of.group.Config.Name, Host: of.host.Config.Name}
	if w, ok := s.storedWeights()[key]; ok {
		return w
	}
	if _, _, h := s.opt.Status.Read().Find(key.Service, key.Group, key.Host); h != nil {
		return h.Traffic.FirstWeight
	}
	return of.host.Config.Weight
}

// storedWeights are the weights of hosts in the file.
func (s *Server) storedWeights() map[status.Key]int {
	doc := s.opt.Director.Stored()
	if doc == nil {
		return nil
	}
	weights := map[status.Key]int{}
	for _, svc := range doc.Config.Services {
		for _, g := range svc.Groups {
			for _, h := range g.Hosts {
				weights[status.Key{Service: svc.Name, Group: g.Name, Host: h.Name}] = h.Weight
			}
		}
	}
	return weights
}

func getWeight(r *request) answer {
	if err := r.oneName(); err != nil {
		return answer{err: err}
	}
	s, err := find(r.opt.Director.State(), r.words[0])
	if err != nil {
		return answer{err: err}
	}
	return answer{text: fmt.Sprintf("%d (initial %d)", s.host.Config.Weight, r.initial(s))}
}

func setAddr(r *request) answer {
	var ip, port string
	switch {
	case len(r.words) == 2:
		ip = r.words[1]
	case len(r.words) == 4 && r.words[2] == "port":
		ip, port = r.words[1], r.words[3]
	default:
		return answer{err: sentence("set server <b>/<s> addr requires an address and optionally a port.")}
	}
	if _, err := netip.ParseAddr(ip); err != nil {
		return answer{err: sentencef("Invalid addr '%s'%s", ip, by)}
	}
	if n, err := strconv.ParseUint(port, 10, 16); port != "" && (err != nil || n == 0) {
		return answer{err: fmt.Errorf("invalid port '%s'%s", port, by)}
	}
	return r.exactly(r.set(func(s server) ([]words.Word, string, error) {
		oldIP, oldPort, err := net.SplitHostPort(s.host.Config.Address)
		newPort := port
		if newPort == "" {
			if newPort = oldPort; err != nil {
				return nil, "", fmt.Errorf("%s has no port to keep; say one: addr %s port <port>", s.host.Config.Address, ip)
			}
		}
		if err != nil {
			oldIP = s.host.Config.Address
		}
		text := "no need to change the addr"
		if ip != oldIP {
			text = fmt.Sprintf("IP changed from '%s' to '%s'", oldIP, ip)
		}
		switch {
		case port != "" && newPort != oldPort:
			text += fmt.Sprintf(", port changed from '%s' to '%s'", oldPort, newPort)
		case port != "":
			text += ", no need to change the port"
		}
		return []words.Word{{Key: "ip", Value: net.JoinHostPort(ip, newPort)}}, text + by, nil
	}))
}

func addServer(r *request) answer {
	if len(r.words) == 0 {
		return answer{err: errNoName}
	}
	if len(r.words) == 1 {
		return answer{err: sentence("'server' expects <name> and <addr>[:<port>] as arguments.")}
	}
	address := strings.TrimPrefix(strings.TrimPrefix(r.words[1], "ipv4@"), "ipv6@")
	if path, ok := strings.CutPrefix(address, "unix@"); ok {
		address = "unix:" + path
	}
	state := "maint" // as with HAProxy, so that what follows can be set first
	options := []words.Word{}
	checked := false
	for rest := r.words[2:]; len(rest) > 0; rest = rest[1:] {
		switch rest[0] {
		case "enabled":
			state = "ready"
		case "disabled":
			state = "maint"
		case "backup":
			options = append(options, words.Word{Key: "backup", Value: "yes"})
		case "check":
			checked = true
		case "weight":
			if len(rest) == 1 {
				return answer{err: sentence("'weight' expects an argument")}
			}
			w, err := weight(strings.TrimSuffix(rest[1], "%"), 0)
			if err != nil {
				return answer{err: err}
			}
			options = append(options, words.Word{Key: "weight", Value: strconv.Itoa(w)})
			rest = rest[1:]
		default:
			return answer{err: fmt.Errorf("unknown keyword '%s'; there are weight, backup, enabled, disabled, check", rest[0])}
		}
	}
	options = append(options, words.Word{Key: "state", Value: state})
	return r.edit(func(now *director.State) (words.Command, string, error) {
		b, name, err := split(now, r.words[0])
		switch {
		case err != nil:
			return words.Command{}, "", err
		case checked && b.group.Config.Check == nil:
			return words.Command{}, "", errors.New("the hosts of this backend have no <check>, which is said of all of them together; leave 'check' out")
		}
		for _, h := range b.group.Hosts {
			if h.Config.Name == name {
				return words.Command{}, "", sentence("Already exists a server with the same name in backend.")
			}
		}
		words := append([]words.Word{{Value: name}, {Value: address}}, options...)
		return b.verb("addHost", words...), "New server registered.", nil
	})
}

func delServer(r *request) answer {
	if err := r.oneName(); err != nil {
		return answer{err: err}
	}
	return r.exactly(func(now *director.State) (words.Command, string, error) {
		s, err := find(now, r.words[0])
		if err == nil && s.host.Config.State != "maint" {
			err = sentence("Only servers in maintenance mode can be deleted.")
		}
		if err != nil {
			return words.Command{}, "", err
		}
		return s.verb("delHost"), "Server deleted.", nil
	})
}

func shutdownServer(r *request) answer {
	if err := r.oneName(); err != nil {
		return answer{err: err}
	}
	return r.edit(func(now *director.State) (words.Command, string, error) {
		s, err := find(now, r.words[0])
		if err != nil {
			return words.Command{}, "", err
		}
		return s.verb("shutdownSessions"), "", nil
	})
}
