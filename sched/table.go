package sched

// Verdict tells why Pick returned a host, or none.
type Verdict uint8

const (
	Picked     Verdict = iota // a host that is up
	LastResort                // every host is down; this one was not tried yet
	None                      // no host is left to try
	Full                      // hosts are up, but each is at its session limit
)

// Member is one host's place in a table.
type Member struct {
	Host   *Host
	Weight int  // 0 to 65535; 0 takes no new session
	Backup bool // picked only when no other host is up
}

// Policy says how a table chooses.
type Policy struct {
	Scheduler string // a name or alias, see Names; "" is leastc
	Refuse    bool   // allDown="refuse": no last resort when every host is down
	Seed      uint64 // of the random schedulers; 0 takes one from the system
	Start     uint64 // where the round robins go on, see Table.Next
}

// Tried is the set of hosts that one session has tried. The zero value is
// empty; it must not be copied while in use.
type Tried struct {
	few  [4]*Host
	n    int
	more []*Host
}

// Table is an immutable choice of hosts.
type Table struct{}

// NewTable builds a table.
func NewTable(p Policy, members []Member) (*Table, error) { return nil, nil }

// Next returns where the round robin of a successor table should Start.
func (t *Table) Next() uint64 { return 0 }

// Pick chooses a host that is not in tried, counts the session on it and adds
// it to tried. Every Pick that returned a host needs one Release.
func (t *Table) Pick(client Addr, tried *Tried) (*Host, Verdict) { return nil, None }

// Names returns the canonical scheduler names.
func Names() []string { return nil }

// Canonical returns the canonical name of a scheduler or alias.
func Canonical(name string) (string, bool) { return "", false }
