package web

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/admin/web/page"
	"github.com/txlb/txlb/internal/guard"
	"github.com/txlb/txlb/internal/testkit"
)

// stream is one that watches.
type stream struct {
	t      testing.TB
	answer *http.Response
	lines  *bufio.Scanner
}

// event is one of a stream.
type event struct{ id, name, data string }

// watch opens a stream as a user.
func (r *rig) watch(user, path string, header ...string) *stream {
	r.t.Helper()
	client := *r.http
	client.Timeout = 0
	ctx, cancel := context.WithTimeout(r.t.Context(), 3*patience)
	r.t.Cleanup(cancel)
	a, err := client.Do(r.request(user, "GET", path, nil, header...).WithContext(ctx))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = a.Body.Close() })
	if a.StatusCode != http.StatusOK || a.Header.Get("Content-Type") != "text/event-stream" {
		r.t.Fatalf("%s: %s %s", path, a.Status, a.Header.Get("Content-Type"))
	}
	lines := bufio.NewScanner(a.Body)
	lines.Buffer(nil, 16<<20)
	return &stream{r.t, a, lines}
}

// next returns the next event; false: the stream has ended.
func (s *stream) next() (e event, ok bool) {
	for s.lines.Scan() {
		line := s.lines.Text()
		field, value, _ := strings.Cut(line, ": ")
		switch field {
		case "id":
			e.id = value
		case "event":
			e.name = value
		case "data":
			e.data = value
		case "":
			if e.name != "" {
				return e, true
			}
		}
	}
	return e, false
}

// until returns the next event with a name, and reads its data.
func (s *stream) until(name string, data any) event {
	s.t.Helper()
	for {
		e, ok := s.next()
		if !ok {
			s.t.Fatalf("the stream has ended before the event %s: %v", name, s.lines.Err())
		}
		if e.name == name {
			if err := json.Unmarshal([]byte(e.data), data); err != nil {
				s.t.Fatalf("%s: %v", name, err)
			}
			return e
		}
	}
}

// TestStreamTellsWhatHappens watches a change and a host that goes down.
func TestStreamTellsWhatHappens(t *testing.T) {
	testkit.Long(t)
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprint("secure=", secure), func(t *testing.T) {
			r := newRig(t, twoHosts, func(o *Options) { o.Secure = secure })
			s := r.watch("guest", "/api/v1/events")
			var hello Hello
			s.until("hello", &hello)
			if hello.Version != "test" || hello.Generation != 1 || hello.Boot == "" || hello.Resync {
				t.Errorf("hello is %+v", hello)
			}
			var figures page.Figures
			if e := s.until("figures", &figures); e.id != "" || len(figures.Hosts) != 3 || len(figures.Services) != 1 || figures.Generation != 1 {
				t.Errorf("the first figures are %+v, id %q", figures, e.id)
			}
			r.post("/setHost", "service", "web", "group", "main", "name", "a", "weight", "7")
			var change admin.EventInfo
			e := s.until("change", &change)
			if change.Generation != 2 || change.By != "boss" || !strings.Contains(change.Verb, "weight=7") || len(change.Edits) != 1 || e.id == "" {
				t.Errorf("the change is %+v, id %q", change, e.id)
			}
			r.post("/hostAdminDown", "service", "web", "group", "main", "name", "b")
			s.until("change", &change)
			r.post("/closeLog")
			var order admin.EventInfo
			if s.until("order", &order); order.Verb != "closeLog" {
				t.Errorf("the order is %+v", order)
			}
			// Who comes back is told what he has missed.
			back := r.watch("guest", "/api/v1/events", "Last-Event-ID", e.id)
			if back.until("hello", &hello); hello.Resync {
				t.Errorf("after %s: %+v", e.id, hello)
			}
			if back.until("change", &change); !strings.HasPrefix(change.Verb, "hostAdminDown") {
				t.Errorf("missed was %+v", change)
			}
			back.until("order", &order)
			since := r.watch("guest", "/api/v1/events?since=0")
			since.until("hello", &hello)
			if since.until("change", &change); change.Seq != 1 {
				t.Errorf("the first change is %+v", change)
			}
			for _, other := range []string{"other-3", "rubbish"} {
				lost := r.watch("guest", "/api/v1/events", "Last-Event-ID", other)
				if lost.until("hello", &hello); !hello.Resync {
					t.Errorf("the id %s of another process: %+v", other, hello)
				}
			}
			for _, one := range []*stream{s, back, since} {
				one.until("figures", &figures) // all go on
			}
			if a := r.do("guest", "HEAD", "/api/v1/events", ""); a.StatusCode != http.StatusOK {
				t.Errorf("HEAD: %s", a.Status)
			}
		})
	}
}

// TestStreamTellsOfHealth has a host go down and come back.
func TestStreamTellsOfHealth(t *testing.T) {
	addr := testkit.Nobody(t) // which stays free while nobody listens
	ln, err := net.Listen("tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	doc := strings.Replace(twoHosts, `enable="true"><host name="a" ip="127.0.0.1:1"/>`,
		`enable="true"><check type="tcp" interval="20ms" fall="1" rise="1"/><host name="a" ip="`+addr+`"/>`, 1)
	r := newRig(t, doc)
	s := r.watch("guest", "/api/v1/events")
	var hello Hello
	s.until("hello", &hello)
	var first admin.EventInfo
	for first.Verb != "host down" || !strings.Contains(first.Text, "web main a") {
		if first.Seq == 0 {
			_ = ln.Close()
		}
		s.until("health", &first)
	}
	if !strings.Contains(first.Text, "refused") {
		t.Errorf("down: %+v", first)
	}
	if ln, err = net.Listen("tcp4", addr); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	for first.Verb != "host up" {
		s.until("health", &first)
	}
}

// TestStreamEndsWithTheUser takes away what one who watches may see by.
func TestStreamEndsWithTheUser(t *testing.T) {
	r := newRig(t, twoHosts)
	s := r.watch("guest", "/api/v1/events")
	var hello Hello
	s.until("hello", &hello)
	r.post("/delUser", "name", "guest")
	for {
		if e, ok := s.next(); !ok {
			break
		} else if strings.Contains(e.data, "never") {
			t.Fatal(e)
		}
	}
}

// TestStreamsAreBounded opens more than there may be, and sees the places come
// free.
func TestStreamsAreBounded(t *testing.T) {
	r := newRig(t, twoHosts)
	var hello Hello
	var streams []*stream
	for range maxPerUser {
		s := r.watch("boss", "/api/v1/events")
		s.until("hello", &hello)
		streams = append(streams, s)
	}
	a := r.do("boss", "GET", "/api/v1/events", "")
	if a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" || !strings.Contains(a.body, "of one user") {
		t.Errorf("one more: %s %s", a.Status, a.body)
	}
	if a := r.do("guest", "GET", "/", ""); a.StatusCode != http.StatusOK {
		t.Errorf("the page meanwhile: %s", a.Status)
	}
	s := r.watch("guest", "/api/v1/events")
	s.until("hello", &hello)
	_ = streams[0].answer.Body.Close()
	eventually(t, "a place is free", func() bool {
		q := r.request("boss", "HEAD", "/api/v1/events", nil)
		return r.send(q).StatusCode == http.StatusOK
	})
	all, err := newServer(r.opt, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7000})
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxWatchers {
		if _, _, err := all.live.watch(fmt.Sprint("user", i), ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := all.live.watch("another", ""); err == nil || !strings.Contains(err.Error(), "limit of 64 live clients") {
		t.Errorf("one more of all: %v", err)
	}
}

// TestManyClients has many look and change at once, while some watch.
func TestManyClients(t *testing.T) {
	r := newRig(t, twoHosts)
	r.http.Transport.(*http.Transport).MaxConnsPerHost = guard.LimitsFor(guard.Page, 0).PerSource
	var hello Hello
	for range 8 {
		s := r.watch("guest", "/api/v1/events")
		s.until("hello", &hello)
	}
	paths := []string{"/", "/running.txt", "/api/v1/hosts", "/running.xml", "/configs"}
	var clients sync.WaitGroup
	for i := range 100 {
		q := r.request("boss", "GET", paths[i%len(paths)], nil)
		if i%10 == 9 {
			q = r.request("boss", "POST", fmt.Sprintf("/api/v1/setHost?service=web&group=main&name=a&weight=%d", i), nil)
		}
		clients.Go(func() {
			a, err := r.http.Do(q)
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = a.Body.Close() }()
			if _, err := io.Copy(io.Discard, a.Body); err != nil || a.StatusCode != http.StatusOK {
				t.Errorf("%s %s: %s %v", q.Method, q.URL.Path, a.Status, err)
			}
		})
	}
	clients.Wait()
	if g := r.dir.State().Generation; g != 11 {
		t.Errorf("ten changes make generation %d", g)
	}
}

// TestWatchersMissNothing has watchers come while events happen: whoever names the
// last event that he has seen gets the one after it first.
func TestWatchersMissNothing(t *testing.T) {
	r := newRig(t, twoHosts)
	s, err := newServer(r.opt, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7000})
	if err != nil {
		t.Fatal(err)
	}
	defer s.live.close()
	id := regexp.MustCompile(`(?m)^id: (\S+-(\d+))$`)
	first := func(text []byte) (string, int) {
		found := id.FindSubmatch(text)
		if found == nil {
			return "", 0
		}
		n, err := strconv.Atoi(string(found[2]))
		if err != nil {
			t.Error(err)
		}
		return string(found[1]), n
	}
	all, _, err := s.live.watch("boss", "")
	if err != nil {
		t.Fatal(err)
	}
	var seen atomic.Pointer[string] // the id of the newest event that a watcher has got
	read := make(chan struct{})
	go func() {
		defer close(read)
		for m := range all.messages {
			if id, n := first(m); n > 0 {
				seen.Store(&id)
			}
		}
	}()
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-quit:
				return
			default:
				for range waitingFor / 2 {
					r.dir.Note("boss", "here", "closeLog", "")
				}
				s.live.tellEvents()
				eventually(t, "all is read", func() bool { return len(all.messages) == 0 })
			}
		}
	}()
	eventually(t, "an event is seen", func() bool { return seen.Load() != nil })
	for range 300 {
		last := *seen.Load()
		w, backlog, err := s.live.watch("boss", last)
		if err != nil {
			t.Fatal(err)
		}
		got, n := first(backlog)
		for n == 0 {
			m, open := <-w.messages
			if !open {
				t.Fatal("the watcher is dropped")
			}
			got, n = first(m)
		}
		s.live.leave(w)
		if _, after := first([]byte("id: " + last)); n != after+1 && !strings.Contains(string(backlog), `"resync":true`) {
			t.Errorf("after %s came %s", last, got)
			break
		}
	}
	close(quit)
	<-ended
	s.live.leave(all)
	<-read
}

// TestSlowWatcherIsDropped never reads, while others watch.
func TestSlowWatcherIsDropped(t *testing.T) {
	r := newRig(t, twoHosts)
	s, err := newServer(r.opt, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7000})
	if err != nil {
		t.Fatal(err)
	}
	slow, _, err := s.live.watch("boss", "")
	if err != nil {
		t.Fatal(err)
	}
	good, _, err := s.live.watch("boss", "")
	if err != nil {
		t.Fatal(err)
	}
	for i := range waitingFor + 1 {
		s.live.broadcast(message("", "figures", i), nil)
		if m := <-good.messages; !strings.Contains(string(m), fmt.Sprintf("data: %d\n", i)) {
			t.Errorf("message %d is %q", i, m)
		}
	}
	n := 0
	for range slow.messages {
		n++
	}
	if n != waitingFor || len(s.live.watchers) != 1 {
		t.Errorf("the slow one got %d messages, %d watch", n, len(s.live.watchers))
	}
	s.live.leave(slow) // as its handler does
	s.live.close()
	if _, open := <-good.messages; open {
		t.Error("the end does not end the others")
	}
	if _, _, err := s.live.watch("boss", ""); err == nil {
		t.Error("one can watch after the end")
	}
}

// TestEndEndsStreamsAndConnections ends the server under all kinds of clients.
func TestEndEndsStreamsAndConnections(t *testing.T) {
	for _, secure := range []bool{false, true} {
		r := newRig(t, twoHosts, func(o *Options) { o.Secure = secure })
		var hello Hello
		s := r.watch("guest", "/api/v1/events")
		s.until("hello", &hello)
		silent, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = silent.Close() }()
		r.get("/status.txt") // leaves a connection that is kept
		began := time.Now()
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		t.Logf("the end took %v", time.Since(began))
		if _, err := io.Copy(io.Discard, s.answer.Body); err != nil && secure {
			t.Logf("the stream ended with %v", err)
		}
		if _, err := net.DialTimeout("tcp", r.addr, patience); err == nil {
			t.Error("it listens on")
		}
	}
}
