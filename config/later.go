package config

// laterAttributes are the attributes of features that do not exist yet. One is
// accepted if its value asks for nothing. Delete its line when the feature exists.
var laterAttributes = [...]struct {
	element, name string
	harmless      []string
}{
	{"timeouts", "queue", []string{"5s"}},
	{"host", "maxSessions", []string{"0"}},
}

// laterAttribute tells whether an attribute is one of a later version, and
// what it may say in this one.
func laterAttribute(element, name string) (harmless []string, later bool) {
	for _, l := range laterAttributes {
		if l.element == element && l.name == name {
			return l.harmless, true
		}
	}
	return nil, false
}
