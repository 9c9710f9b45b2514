package edits

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/txlb/txlb/config"
)

// AddService adds a service, whose groups are to follow.
func (e *Edit) AddService(s *config.Service) error {
	if err := Fresh(e.Config.Services, serviceName, s.Name, "service", ""); err != nil {
		return err
	}
	e.Config.Services = append(e.Config.Services, s)
	e.Named(s.Name)
	if len(s.Groups) == 0 {
		e.Warn("service %s has no group: its clients will be rejected until addGroup and addHost", Show(s.Name))
	}
	var addresses []string
	for _, l := range s.Listen {
		addresses = append(addresses, l.Address)
	}
	if len(addresses) == 0 {
		return e.Do("add service %s", Show(s.Name))
	}
	return e.Do("add service %s on %s", Show(s.Name), strings.Join(addresses, " "))
}

// DeleteService takes a service away.
func (e *Edit) DeleteService(name string) error {
	s, err := Service(e.Config, name)
	if err != nil {
		return err
	}
	if len(e.Config.Services) == 1 && !e.Program {
		return fmt.Errorf("service %s is the last service; a configuration needs at least one", Show(s.Name))
	}
	e.Config.Services = slices.DeleteFunc(e.Config.Services, func(o *config.Service) bool { return o == s })
	for _, g := range s.Groups {
		e.leave(StateGroup(e.State, s.Name, g.Name).Hosts...)
	}
	return e.Do("delete service %s; %s", Show(s.Name), e.sessions("its hosts"))
}

// SameAddress compares addresses as they are written, but for the case of letters in host
// names.
func SameAddress(a, b string) bool {
	if strings.HasPrefix(a, "unix:") {
		return a == b
	}
	return strings.EqualFold(a, b)
}

// AddListener opens one more listener.
func (e *Edit) AddListener(service string, l config.Listen) error {
	s, err := Service(e.Config, service)
	if err != nil {
		return err
	}
	if _, err := listener(s, l.Address); err == nil && !strings.HasSuffix(l.Address, ":0") { // a free port may be another one each time
		return fmt.Errorf("service %s has the listener %s already; status says if it could not be opened", Show(s.Name), l.Address)
	}
	s.Listen = append(s.Listen, l)
	return e.Do("listen on %s for service %s", l.Address, Show(s.Name))
}

// listener returns the place of a listener of the service.
func listener(s *config.Service, address string) (int, error) {
	i := slices.IndexFunc(s.Listen, func(l config.Listen) bool { return SameAddress(l.Address, address) })
	if i >= 0 {
		return i, nil
	}
	var all []string
	for _, l := range s.Listen {
		all = append(all, l.Address)
	}
	return 0, fmt.Errorf("service %s does not listen on %s%s", Show(s.Name), Show(address), Suggest(address, all))
}

// DeleteListener closes a listener.
func (e *Edit) DeleteListener(service, address string) error {
	s, err := Service(e.Config, service)
	if err != nil {
		return err
	}
	i, err := listener(s, address)
	if err != nil {
		return err
	}
	if len(s.Listen) == 1 && !e.Program {
		return fmt.Errorf("%s is the last address of service %s; add another first, or delete the service", s.Listen[i].Address, Show(s.Name))
	}
	address = s.Listen[i].Address
	s.Listen = slices.Delete(s.Listen, i, i+1)
	return e.Do("stop listening on %s for service %s%s", address, Show(s.Name), e.closes(s, address))
}

// SwitchPort opens a listener in the place of an old one, and keeps its options. A bare port
// as the address keeps the host. old may be "" if there is one.
func (e *Edit) SwitchPort(service, address, old string) error {
	s, err := Service(e.Config, service)
	if err != nil {
		return err
	}
	i := 0
	switch {
	case old != "":
		if i, err = listener(s, old); err != nil {
			return err
		}
	case len(s.Listen) == 0:
		return fmt.Errorf("service %s listens nowhere; add a listener", Show(s.Name))
	case len(s.Listen) > 1 && e.Program:
		return fmt.Errorf("service %s listens on %d addresses; say which to leave", Show(s.Name), len(s.Listen))
	case len(s.Listen) > 1:
		return fmt.Errorf("service %s listens on %d addresses; say which to leave: switchPort SERVICE ADDRESS OLD", Show(s.Name), len(s.Listen))
	}
	was := s.Listen[i].Address
	if strings.Trim(address, "0123456789") == "" { // a bare port
		host, _, err := net.SplitHostPort(was)
		if err != nil {
			return fmt.Errorf("%s has no port to switch; give the whole address", was)
		}
		address = net.JoinHostPort(host, address)
	}
	if err := config.CheckAddress(address, true); err != nil {
		return fmt.Errorf("address: %w", Shorten(err))
	}
	if SameAddress(was, address) {
		return e.Nothing("service %s listens on %s", Show(s.Name), was)
	}
	s.Listen[i].Address = address
	return e.Do("listen on %s instead of %s for service %s%s", address, was, Show(s.Name), e.closes(s, was))
}
