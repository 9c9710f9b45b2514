package config

// New returns a configuration without services in which everything has its
// default.
func New() *Config {
	c := &Config{Root: "config"}
	reset("engine", &c.Engine)
	reset("fleet", &c.Fleet)
	reset("admin", &c.Admin)
	for _, task := range []string{"hostCheck", "heartbeat", "configCheck"} {
		reset(task, &c.Manager)
	}
	reset("logging", &c.Logging)
	return c
}

// NewService returns a service without listeners and groups.
func NewService(name string) *Service {
	s := &Service{Name: name}
	reset("timeouts", &s.Timeouts)
	reset("limits", &s.Limits)
	return s
}

// NewGroup returns a group without hosts.
func NewGroup(name string) *Group {
	g := reset("group", new(Group))
	g.Name = name
	return g
}

// NewSocket returns a socket that its owner alone may open.
func NewSocket(path string) *Socket {
	s := reset("socket", new(Socket))
	s.Path = path
	return s
}

// NewHost returns a host with the default of everything else.
func NewHost(name, address string) *Host {
	h := reset("host", new(Host))
	h.Name, h.Address = name, address
	return h
}

// NewHealthCheck returns a check by TCP connect with its defaults.
func NewHealthCheck() *HealthCheck {
	return reset("check", new(HealthCheck))
}

// reset gives every field of p that has a row its default.
func reset[P any](element string, p *P) *P {
	rows := schema[element]
	for i := range rows {
		rows[i].reset(p)
	}
	return p
}
