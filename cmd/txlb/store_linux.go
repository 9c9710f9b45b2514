package main

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine"
)

// A store keeps duplicates of the listening sockets in systemd's descriptor store
// (FileDescriptorStoreMax=), which gives them to the next process: after a restart, and after a
// crash. Whatever is in the store has to be served, for clients wait in its queue. The engine
// ends the sockets of listeners that go, wherever they are open.
type store struct {
	log    *slog.Logger
	engine engine.Engine

	mu  sync.Mutex
	has map[string]string // by the name that systemd has sockets under: which those are
}

// storePrefix begins the names of our sockets in the store.
const storePrefix = "txlb-listen-"

// storeName is the name of the sockets of an address: without a colon, which systemd does not
// take.
func storeName(address string) string { return storePrefix + strings.ReplaceAll(address, ":", "_") }

// newStore returns the store that systemd has for this process, nil if there is none. has is
// what is in it, as stored returns it.
func newStore(log *slog.Logger, e engine.Engine, has map[string]string) *store {
	if !managed() || os.Getenv("FDSTORE") == "" {
		return nil
	}
	s := &store{log: log, engine: e, has: map[string]string{}}
	maps.Copy(s.has, has)
	return s
}

// givenBack is what the store of another process had of which systemd has given back names.
// All is stored again.
func givenBack(names []string) map[string]string {
	has := map[string]string{}
	for _, one := range names {
		if strings.HasPrefix(one, storePrefix) {
			has[one] = "given back"
		}
	}
	return has
}

// stored returns what is in the store, for the process that has the same sockets and is the
// next to use it; nil: there is no store.
func (s *store) stored() map[string]string {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.has)
}

// follow makes the store have what the engine listens on.
func (s *store) follow() {
	if s == nil {
		return
	}
	sockets, err := s.engine.Sockets()
	if errors.Is(err, engine.ErrClosed) {
		return
	}
	if err != nil {
		s.log.Warn("cannot keep listeners in the descriptor store of systemd", "err", err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now, which := map[string][]*os.File{}, map[string]string{}
	for _, one := range sockets {
		defer func() { _ = one.File.Close() }()
		if one.Lent || strings.HasPrefix(one.File.Name(), "unix:") {
			continue
		}
		name := storeName(one.File.Name())
		now[name] = append(now[name], one.File)
		which[name] += identity(one.File)
	}
	for name, had := range s.has {
		if which[name] != had {
			s.send(nil, "FDSTOREREMOVE=1", "FDNAME="+name)
			delete(s.has, name)
		}
	}
	for name, files := range now {
		if s.has[name] != "" {
			continue
		}
		for some := range slices.Chunk(files, maxRights) {
			s.send(some, "FDSTORE=1", "FDNAME="+name, "FDPOLL=0")
		}
		s.has[name] = which[name]
	}
}

// identity tells a socket from others that are open.
func identity(file *os.File) string {
	info, err := file.Stat()
	if err != nil {
		return "?"
	}
	return fmt.Sprintf("%d ", info.Sys().(*syscall.Stat_t).Ino)
}

// maxRights is how many descriptors fit into a message (SCM_MAX_FD of unix(7)).
const maxRights = 253

// send sends systemd lines with descriptors.
func (s *store) send(files []*os.File, lines ...string) {
	err := notifyWith(files, strings.Join(lines, "\n"))
	if err != nil {
		s.log.Warn("cannot keep listeners in the descriptor store of systemd", "err", err)
	}
}

// notifyWith is daemon.SdNotify with descriptors. They stay open in the process.
func notifyWith(files []*os.File, text string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer func() { _ = unix.Close(fd) }()
	var fds []int
	for _, file := range files {
		raw, err := file.SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) { fds = append(fds, int(fd)) })
		}
		if err != nil {
			return err
		}
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	return os.NewSyscallError("sendmsg", unix.Sendmsg(fd, []byte(text), rights, &unix.SockaddrUnix{Name: os.Getenv("NOTIFY_SOCKET")}, 0))
}
