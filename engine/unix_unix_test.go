//go:build unix

package engine

import (
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// A descriptor that is passed over a UNIX socket ends a read early: what is
// behind it arrives all the same. The descriptor itself is not passed on; it is
// closed.
func TestB61PassedDescriptorsEndNoStream(t *testing.T) {
	eachMode(t, func(t *testing.T, opt Options) {
		dir := t.TempDir()
		words := payload(40<<10, 38)
		// say sends words with a descriptor at every tenth of them, and returns a
		// reader that ends when nobody has these descriptors any more.
		say := func(p *peer) io.Reader {
			r, w, err := os.Pipe()
			if err != nil {
				p.t.Error(err)
				return nil
			}
			p.t.Cleanup(func() { _ = r.Close() })
			for i := range 10 {
				at := i * len(words) / 10
				p.send(words[at : at+100])
				_, _, err := p.Conn.(*net.UnixConn).WriteMsgUnix(words[at+100:at+200], syscall.UnixRights(int(w.Fd())), nil)
				if err != nil {
					p.t.Error(err)
				}
				p.send(words[at+200 : at+len(words)/10])
			}
			_ = w.Close()
			_ = r.SetReadDeadline(time.Now().Add(patience))
			return r
		}
		freed := func(r io.Reader) {
			if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("a descriptor that was passed is still open: %d, %v", n, err)
			}
		}
		r := newRig(t, opt, Route{}, serveOn(t, listenOn(t, "unix", dir+"/backend.sock"), func(p *peer) {
			p.expect(words)
			passed := say(p)
			p.expect([]byte("bye"))
			freed(passed)
		}))
		r.apply(Service{Name: "web", Listen: []string{"unix:" + dir + "/front.sock"}, Route: r.route})
		for range 5 {
			c := dial(t, r.e.Listeners()[0].Addr)
			passed := say(c)
			c.expect(words)
			freed(passed)
			c.send([]byte("bye"))
			c.expectEOF()
			_ = c.Close()
			if t.Failed() {
				return
			}
		}
		r.quiet()
	})
}
