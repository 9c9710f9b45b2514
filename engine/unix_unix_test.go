//go:build unix

package engine_test

import (
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
)

// A descriptor that is passed over a UNIX socket ends a read early: what is
// behind it arrives all the same. The descriptor itself is not passed on; it is
// closed.
func TestB61PassedDescriptorsEndNoStream(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		dir := t.TempDir()
		words := enginetest.Payload(40<<10, 38)
		// say sends words with a descriptor at every tenth of them, and returns a
		// reader that ends when nobody has these descriptors any more.
		say := func(p *enginetest.Peer) io.Reader {
			r, w, err := os.Pipe()
			if err != nil {
				p.T.Error(err)
				return nil
			}
			p.T.Cleanup(func() { _ = r.Close() })
			for i := range 10 {
				at := i * len(words) / 10
				p.Send(words[at : at+100])
				_, _, err := p.Conn.(*net.UnixConn).WriteMsgUnix(words[at+100:at+200], syscall.UnixRights(int(w.Fd())), nil)
				if err != nil {
					p.T.Error(err)
				}
				p.Send(words[at+200 : at+len(words)/10])
			}
			_ = w.Close()
			_ = r.SetReadDeadline(time.Now().Add(testkit.Patience))
			return r
		}
		freed := func(r io.Reader) {
			if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("a descriptor that was passed is still open: %d, %v", n, err)
			}
		}
		r := newRig(t, opt, engine.Route{}, enginetest.ServeOn(t, enginetest.ListenOn(t, "unix", dir+"/backend.sock"), func(p *enginetest.Peer) {
			p.Expect(words)
			passed := say(p)
			p.Expect([]byte("bye"))
			freed(passed)
		}))
		r.Apply(engine.Service{Name: "web", Listen: []string{"unix:" + dir + "/front.sock"}, Route: r.Route})
		for range 5 {
			c := enginetest.Dial(t, r.E.Listeners()[0].Addr)
			passed := say(c)
			c.Expect(words)
			freed(passed)
			c.Send([]byte("bye"))
			c.ExpectEOF()
			_ = c.Close()
			if t.Failed() {
				return
			}
		}
		r.Quiet()
	})
}
