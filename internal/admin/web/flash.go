package web

import (
	"crypto/rand"
	"net/http"
	"sync"
	"time"

	"github.com/txlb/txlb/internal/admin/web/page"
)

const (
	flashCookie = "txlb-answer"
	flashLife   = time.Minute
	maxFlashes  = 256
)

// flashes keep the answer to a posted form until the browser has followed the
// redirect to the page that shows it. The browser has only a number that cannot be
// guessed in a cookie. So neither a link nor another site can put text into a
// page.
type flashes struct {
	mu  sync.Mutex
	all map[string]flash
}

type flash struct {
	user    string
	message *page.Message
	until   time.Time
}

func newFlashes() *flashes { return &flashes{all: map[string]flash{}} }

// put keeps a message for a user and returns the cookie for it.
func (f *flashes) put(user string, m *page.Message, secure bool) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	for id, one := range f.all {
		if now.After(one.until) || len(f.all) >= maxFlashes {
			delete(f.all, id)
		}
	}
	id := rand.Text()
	f.all[id] = flash{user, m, now.Add(flashLife)}
	return (&http.Cookie{
		// Without Path it is for the folder that the browser has posted to.
		Name: flashCookie, Value: id, MaxAge: int(flashLife.Seconds()), HttpOnly: true, Secure: secure, SameSite: http.SameSiteStrictMode,
	}).String()
}

// take returns the message of a request's cookie, once; nil if there is none.
func (f *flashes) take(q *request) *page.Message {
	c, err := q.Cookie(flashCookie)
	if err != nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	one, ok := f.all[c.Value]
	if !ok || one.user != q.caller.Name || time.Now().After(one.until) {
		return nil
	}
	delete(f.all, c.Value)
	return one.message
}
