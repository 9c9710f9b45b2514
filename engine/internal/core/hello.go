package core

import "github.com/txlb/txlb/internal/clienthello"

// MaxHello is how many bytes of a client's stream have its ClientHello at most.
const MaxHello = clienthello.MaxStream

// asksFor tells whether the choice of a group depends on what the client's TLS asks for,
// and has not been made.
func (a *Admission) asksFor() bool {
	r := a.Svc.Route.Load()
	return r.ByHello && r.Choose != nil && !a.attempt.group.made && a.attempt.tls == nil && !a.attempt.dialed
}

// awaitHello waits for the rest of the client's hello.
func (a *Admission) awaitHello(need int) Step {
	return Step{Do: Hear, Until: a.helloLimit(), Need: need}
}

// heardHello takes in the beginning of the client's stream. What is no hello, or none
// that can be read, is the business of the host: no group is chosen by it.
func (a *Admission) heardHello(now int64, b []byte, ended bool, free *Attempts) (take int, step Step) {
	if a.attempt.startTLS == smtp {
		return a.command(now, b, ended)
	}
	if a.attempt.startTLS == smtpPromised && len(b) > 0 && b[0] != tlsRecord {
		return 0, a.refuse(notAsked)
	}
	if take, step, ok := a.asksForTLS(now, b, ended); ok {
		return take, step
	}
	if a.awaitsTLS() {
		return 0, a.heardTLS(now, b)
	}
	h, need, state := clienthello.Parse(b, free.helloRoom())
	if state == clienthello.Short && !ended {
		return 0, a.awaitHello(need)
	}
	if state == clienthello.Whole {
		a.noteHeard(now, free)
	}
	return 0, a.choose(now, h)
}

// choose chooses the session's group and goes on to a host.
func (a *Admission) choose(now int64, h clienthello.Hello) Step {
	a.noteName(h.Name)
	if r := a.Svc.Route.Load(); r.Choose != nil {
		asking := a.asking()
		asking.Name, asking.ALPN = h.Name, h.ALPN
		a.attempt.group = chosen{r.Choose(asking), true}
	}
	a.state, a.attempt.since = looking, now
	return a.Next(now)
}

// helloRoom returns the room of the goroutine to read hellos in.
func (l *Attempts) helloRoom() *clienthello.Room {
	if l.hello == nil {
		l.hello = new(clienthello.Room)
	}
	return l.hello
}
