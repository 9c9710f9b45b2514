package config

// Masked returns a copy that shows no secret: *** stands for password hashes, for what
// checks send, for the programs of groups and for the password of a fleet's store.
func (c *Config) Masked() *Config {
	c = c.Clone()
	for _, s := range c.Services {
		for _, g := range s.Groups {
			mask("group", g)
			if g.Check != nil {
				mask("check", g.Check)
			}
		}
	}
	for _, u := range c.Admin.Users {
		mask("user", u)
	}
	mask("fleet", &c.Fleet)
	return c
}

// masked replaces what only full users may see.
const masked = "***"

// mask replaces the secrets that an element has.
func mask(element string, p any) {
	rows := schema[element]
	for i := range rows {
		if a := &rows[i]; a.Secret && a.Get(p) != "" {
			_ = a.Set(p, masked) // text, all of them
		}
	}
}
