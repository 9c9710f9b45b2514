package peers

// hostName is a host, whatever addresses its name has: on each node it may have others.
type hostName struct{ service, group, name string }

func (h *Host) host() hostName { return hostName{h.Service, h.Group, h.Name} }

// totals are the sessions that several nodes have with hosts, added up; hosts without any are not
// in it.
type totals map[hostName]int64

func (t totals) add(h hostName, n int64) {
	if n == 0 {
		return
	}
	if n += t[h]; n == 0 {
		delete(t, h)
	} else {
		t[h] = n
	}
}

// setSessions notes how many sessions a node has with a host; 0: none, and nothing is kept.
func (t *tables) setSessions(h Host, n int64) error {
	was := t.sessions[h]
	if n == 0 {
		drop(t.sessions, h, &t.text)
	} else if err := put(t.sessions, h, n, &t.text); err != nil {
		return err
	}
	if t.into != nil {
		t.into.add(h.host(), n-was)
	}
	return nil
}

// join makes the sessions of a node part of the totals, and leave takes them out. Both do it once.
func (t *tables) join(into totals) {
	if t.into != nil {
		return
	}
	t.into = into
	for h, n := range t.sessions {
		into.add(h.host(), n)
	}
}

func (t *tables) leave() {
	if t.into == nil {
		return
	}
	for h, n := range t.sessions {
		t.into.add(h.host(), -n)
	}
	t.into = nil
}

// Sessions is how many sessions the live nodes have with a host, with all addresses that its name
// has there. Nodes whose Peer.Counted is false may have more.
func (x *Exchange) Sessions(service, group, name string) int64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.totals[hostName{service, group, name}]
}

// counts tells whether the node knows how many sessions its hosts have.
func (x *Exchange) counts() bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.known
}
