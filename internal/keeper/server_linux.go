package keeper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/txlb/txlb/engine"
)

// maxTakes is how often what a process has left is given: one that dies of it should not die of
// it for ever.
const maxTakes = 3

// Server keeps what its clients give it.
type Server struct {
	log      *slog.Logger
	limit    int           // of descriptors
	patience time.Duration // see Patience

	mu      sync.Mutex
	files   int // that it has
	left    []*hoard
	clients map[*client]bool // those that are connected
}

// client is one that is connected.
type client struct {
	conn *net.UnixConn
	over chan struct{} // closed when what it has given is what it has left
}

// hoard is what one client has given.
type hoard struct {
	entries map[uint64]engine.Kept
	takes   int
	giving  int  // clients that are being given it: its descriptors stay open for them
	dropped bool // it is closed when nobody is given it any more
	expire  *time.Timer
}

// FilesFor returns how many descriptors a process needs that keeps so many sessions: its own, and
// those of messages that come while it is full, from two clients.
func FilesFor(sessions int) int { return 64 + 2*2*perMessage + 2*sessions }

// NewServer returns one that keeps so many descriptors at most. The process needs some more, see
// [FilesFor].
func NewServer(limit int, log *slog.Logger) *Server {
	return &Server{log: log, limit: limit, patience: Patience, clients: map[*client]bool{}}
}

// Serve serves the clients of a listener until it is closed.
func (s *Server) Serve(ln *net.UnixListener) error {
	for {
		conn, err := ln.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil { // no descriptor, for one
			time.Sleep(10 * time.Millisecond)
			continue
		}
		go s.serve(conn)
	}
}

// serve serves one client.
func (s *Server) serve(conn *net.UnixConn) {
	h := &hoard{entries: map[uint64]engine.Kept{}}
	c := &client{conn, make(chan struct{})}
	s.mu.Lock()
	s.clients[c] = true
	s.mu.Unlock()
	room := make([]byte, maxMessage)
	var err error
	for err == nil {
		var b []byte
		var files []int
		if b, files, err = receive(conn, room); err == nil {
			err = s.answer(c, h, b, files)
		}
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, syscall.ECONNRESET) {
		s.log.Warn("client failed", "err", err)
	}
	s.leave(h)
	s.mu.Lock()
	delete(s.clients, c)
	s.mu.Unlock()
	_ = conn.Close()
	close(c.over)
}

// answer carries out one message.
func (s *Server) answer(c *client, h *hoard, b []byte, files []int) error {
	conn, kind, body := c.conn, b[0], b[1:]
	if kind != keep && len(files) > 0 {
		closeAll(files)
		return errors.New("descriptors came with a message that has none")
	}
	switch kind {
	case hello:
		if len(body) != 1 || body[0] != version {
			return fmt.Errorf("a client speaks another version than %d", version)
		}
		return send(conn, b, nil)
	case keep:
		list, err := decodeEntries(body, files)
		if err != nil {
			closeAll(files)
			return err
		}
		return send(conn, binary.BigEndian.AppendUint16([]byte{keep}, uint16(s.keep(h, list))), nil)
	case forget:
		ids, err := decodeIDs(body)
		if err != nil {
			return err
		}
		s.forget(h, ids)
		return nil
	case take:
		s.await(c)
		return s.give(conn)
	case done:
		s.drop(s.all())
		return send(conn, []byte{done}, nil)
	}
	return fmt.Errorf("unknown message %q", kind)
}

// keep keeps entries, as many of the first as there is room for, and closes the others.
func (s *Server) keep(h *hoard, list []engine.Kept) (kept int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, one := range list {
		if before, ok := h.entries[one.ID]; ok {
			delete(h.entries, one.ID)
			s.close(before)
		}
		if s.files+2 > s.limit {
			for _, other := range list[i:] {
				closeAll([]int{other.Client, other.Backend})
			}
			return i
		}
		h.entries[one.ID] = one
		s.files += 2
	}
	return len(list)
}

func (s *Server) forget(h *hoard, ids []uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		if one, ok := h.entries[id]; ok {
			delete(h.entries, id)
			s.close(one)
		}
	}
}

// close closes what an entry has. mu is held.
func (s *Server) close(one engine.Kept) {
	closeAll([]int{one.Client, one.Backend})
	s.files -= 2
}

// leave makes what a client has given what it has left.
func (s *Server) leave(h *hoard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(h.entries) == 0 {
		return
	}
	s.log.Info("process is gone", "sessions_left", len(h.entries))
	s.left = append(s.left, h)
	h.expire = time.AfterFunc(s.patience, func() { s.drop([]*hoard{h}) })
}

// await waits for clients that are gone: what they have sent before may still be on the way.
func (s *Server) await(but *client) {
	s.mu.Lock()
	var gone []*client
	for c := range s.clients {
		if c != but && hungUp(c.conn) {
			gone = append(gone, c)
		}
	}
	s.mu.Unlock()
	for _, c := range gone {
		<-c.over
	}
}

// all returns all that was left.
func (s *Server) all() []*hoard {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*hoard(nil), s.left...)
}

// drop closes what was left.
func (s *Server) drop(list []*hoard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range list {
		h.dropped = true
		s.empty(h)
		h.expire.Stop()
		for i := range s.left {
			if s.left[i] == h {
				s.left = append(s.left[:i], s.left[i+1:]...)
				break
			}
		}
	}
}

// empty closes what was dropped, unless it is being given: other entries would get the numbers of its
// descriptors, and a client the sockets of other sessions. mu is held.
func (s *Server) empty(h *hoard) {
	if !h.dropped || h.giving > 0 {
		return
	}
	for id, one := range h.entries {
		delete(h.entries, id)
		s.close(one)
	}
}

// given notes that a client is not being given these any more.
func (s *Server) given(list []*hoard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range list {
		h.giving--
		s.empty(h)
	}
}

// give gives a client what was left. All stays here until the client says that it is done.
func (s *Server) give(conn *net.UnixConn) error {
	var worn, giving []*hoard
	s.mu.Lock()
	var list []engine.Kept
	for _, h := range s.left {
		if h.takes++; h.takes > maxTakes {
			worn = append(worn, h)
			continue
		}
		h.expire.Reset(s.patience)
		h.giving++
		giving = append(giving, h)
		for _, one := range h.entries {
			list = append(list, one)
		}
	}
	s.mu.Unlock()
	defer func() { s.given(giving) }()
	if len(worn) > 0 {
		s.log.Warn("what a process has left was taken too often, and is dropped", "takes", maxTakes)
		s.drop(worn)
	}
	for {
		b, files, n := pack([]byte{give}, list)
		if err := send(conn, b, files); err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		list = list[n:]
		answer, more, err := receive(conn, make([]byte, maxMessage))
		closeAll(more)
		if err != nil {
			return err
		}
		if answer[0] != next {
			return errors.New("a client does not acknowledge what it takes")
		}
	}
}

// pack appends as many entries to b as fit into a message. n says how many.
func pack(b []byte, list []engine.Kept) (_ []byte, files []int, n int) {
	for ; n < min(len(list), perMessage); n++ {
		one := &list[n]
		if len(b)+entryHeader+len(one.State) > maxMessage {
			break
		}
		b = appendEntry(b, one.ID, one.State)
		files = append(files, one.Client, one.Backend)
	}
	return b, files, n
}
