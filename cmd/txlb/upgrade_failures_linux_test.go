package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/internal/handover"
)

// mischiefVariable makes this program, the test's, stand between both processes of an upgrade.
// It starts the program under test, passes all messages on, and spoils one.
const mischiefVariable = "TXLB_TEST_MISCHIEF"

// mischief is what becomes of a message: "kill move 2 done".
type mischief struct {
	// what is one of
	//	kill: SIGKILL ends the new process
	//	term: SIGTERM tells it to stop, and what it says then is the answer
	//	hang: nothing more is passed on
	//	format: its hello has another format
	//	moves: its hello says that it reads no session
	//	garble: the message comes as rubbish
	//	orphan: SIGKILL ends the old process, and what becomes of the new one is reported
	//	drop: the UNIX socket of a service is missing
	what, kind string
	nth        int
	// untold: the new process never gets the message; done: it has answered, which the old one never learns; over: the old one has the answer
	when string

	old  int // process
	pair int // descriptor of the socket to the new one
}

// mischievous is the program that does it. It returns the exit status.
func mischievous(order string) int {
	var m mischief
	if _, err := fmt.Sscan(order, &m.what, &m.kind, &m.nth, &m.when); err != nil {
		return complain(err)
	}
	return complain(m.between())
}

func complain(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "between both processes:", err)
	return 1
}

func (m *mischief) between() error {
	runtime.LockOSThread() // whose end would kill the process below
	unix.CloseOnExec(handoverFile)
	old, err := handover.Open(os.NewFile(handoverFile, "handover"))
	if err != nil {
		return err
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	here, there := os.NewFile(uintptr(fds[0]), "here"), os.NewFile(uintptr(fds[1]), "there")
	m.pair = fds[0]
	dup, err := duplicate(here, "dup")
	if err != nil {
		return err
	}
	next, err := handover.Open(dup)
	if err != nil {
		return err
	}
	cmd := exec.Command(os.Getenv(programVariable), os.Args[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdout, os.Stderr, []*os.File{there, here}
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(entry string) bool {
		return strings.HasPrefix(entry, "TXLB_")
	}), fmt.Sprintf("%s=%d", handoverVariable, handoverFile))
	// It has both ends, and so never takes the end of this process for that of the old one: a
	// moment later, it is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer runtime.KeepAlive(here)
	_ = there.Close()
	seen := map[handover.Kind]int{}
	for {
		message, err := old.Receive()
		if err != nil {
			return err
		}
		seen[message.Kind]++
		if message.Kind == handover.KindHello {
			var h handover.Hello
			if err := json.Unmarshal(message.Body, &h); err != nil {
				return err
			}
			m.old = h.PID
		}
		now := func(when string) bool {
			return message.Kind.String() == m.kind && seen[message.Kind] == m.nth && when == m.when
		}
		if now("untold") {
			if err := m.spoil(&message, cmd); err != nil {
				return err
			}
		}
		if err := next.Send(message.Kind, message.Body, message.Files...); err != nil {
			return err
		}
		switch message.Kind {
		case handover.KindState, handover.KindYours, handover.KindLeft:
			message.Close()
			continue
		}
		message.Close()
		answer, err := next.Receive()
		if err != nil {
			return err
		}
		if now("done") {
			if err := m.spoil(&answer, cmd); err != nil {
				return err
			}
			if m.what == "term" {
				if answer, err = next.Receive(); err != nil {
					return err
				}
			}
		}
		if err := old.Send(answer.Kind, answer.Body); err != nil {
			return err
		}
		if now("over") {
			if err := m.spoil(&answer, cmd); err != nil {
				return err
			}
		}
	}
}

// spoil does it to a message that is at hand.
func (m *mischief) spoil(message *handover.Message, cmd *exec.Cmd) error {
	switch m.what {
	case "kill":
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return unix.Kill(os.Getpid(), unix.SIGKILL)
	case "term":
		return cmd.Process.Signal(unix.SIGTERM)
	case "orphan":
		if err := unix.Kill(m.old, unix.SIGKILL); err != nil {
			return err
		}
		if err := unix.Shutdown(m.pair, unix.SHUT_RDWR); err != nil {
			return err
		}
		return fmt.Errorf("the new process has ended: %w", cmd.Wait())
	case "hang":
		select {}
	case "format":
		var h handover.Hello
		err := json.Unmarshal(message.Body, &h)
		h.Format = 99
		if err == nil {
			message.Body, err = json.Marshal(h)
		}
		return err
	case "moves":
		var h handover.Hello
		err := json.Unmarshal(message.Body, &h)
		h.Moves = 0
		if err == nil {
			message.Body, err = json.Marshal(h)
		}
		return err
	case "garble":
		message.Body = []byte("{")
		return nil
	case "drop":
		parcels, err := handover.Unpack(message.Body, len(message.Files))
		at := slices.IndexFunc(parcels, func(p handover.Parcel) bool {
			return bytes.Contains(p.State, []byte(`"service"`)) && bytes.Contains(p.State, []byte(`unix:`))
		})
		if err != nil || at < 0 {
			return fmt.Errorf("no socket to drop: %w", err)
		}
		_ = message.Files[at].Close()
		message.Files = slices.Delete(message.Files, at, at+1)
		message.Body = handover.Pack(slices.Delete(parcels, at, at+1))
		return nil
	}
	return fmt.Errorf("unknown mischief %q", m.what)
}

// mischief installs a program that takes over, but for one thing that goes wrong.
func (l *lineage) mischief(order string) {
	l.t.Helper()
	path, err := binary()
	if err == nil {
		var me string
		if me, err = os.Executable(); err == nil {
			l.script(fmt.Sprintf(`exec env %s=%q %s=%q %q "$@"`, mischiefVariable, order, programVariable, path, me))
		}
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

// Wherever the new process fails before the end, the old one goes on with all sessions, also
// with those that it had given away, with all listeners and admin interfaces, and with what is
// not saved; and changes are possible again. The next upgrade succeeds.
func TestB56TakenBack(t *testing.T) {
	t.Parallel()
	dir := socketFolder(t)
	web := filepath.Join(dir, "web")
	services := fmt.Sprintf(`<engine loops="2"/><service name="web"><listen ip="127.0.0.1:0"/><listen ip=%q/><group name="main"><host name="a" ip=%q/></group></service>`,
		"unix:"+web, backend(t, echo))
	l := newLineage(t, services, `<web listen="127.0.0.1:0" secure="no"/>`+operator)
	page := "http://" + l.first(`msg="admin listening" part=web addr=(\S+)`)
	address := l.addr("web")
	program, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	sessions := make([]net.Conn, 80) // two batches of a loop at least
	for i := range sessions {
		if sessions[i], err = net.Dial("tcp", address); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = sessions[i].Close() }()
		if err := ask(sessions[i], "hello"); err != nil {
			t.Fatal(err)
		}
	}
	works := func(after string) {
		t.Helper()
		for i, c := range sessions {
			if err := ask(c, strconv.Itoa(i)); err != nil {
				t.Fatalf("%s: session %d: %v", after, i, err)
			}
		}
		for range 4 { // all listeners of all loops, more or less
			if err := errors.Join(short("tcp", address), short("unix", web)); err != nil {
				t.Fatalf("%s: %v", after, err)
			}
		}
		if body, err := get(page + "/healthz"); err != nil {
			t.Errorf("%s: the page: %q, %v", after, body, err)
		}
		if status, out := l.ctl("show", "diff"); status != 0 || !strings.Contains(out, "weight=") {
			t.Errorf("%s: the change that was not saved: status %d: %s", after, status, out)
		}
	}
	weight := 7
	change := func(after string) {
		t.Helper()
		if status, out := l.ctl("setHost", "web", "main", "a", fmt.Sprint("weight=", weight)); status != 0 {
			t.Errorf("%s: a change: %s", after, out)
		}
		weight++
	}
	change("the start")
	const died = `the new process \d+ has ended`
	for _, c := range []struct{ order, want string }{
		{"format hello 1 done", `the new process \d+: version \S+ hands over in format 99, and this program in format \d+`},
		{"drop sockets 1 untold", `the new process \d+: .*address already in use`},
		{"kill prepare 1 done", died},
		{"kill serve 1 done", died},
		{"garble news 1 untold", `the new process \d+: .*JSON`},
		{"term news 1 done", `the new process \d+: it was told to stop`},
		{"kill news 1 over", died},
		{"kill move 1 done", died},
		{"kill move 2 untold", died},
		{"garble move 2 untold", `the new process \d+: handover: the parcels`},
		{"term move 2 done", `the new process \d+: it was told to stop`},
		{"kill commit 1 untold", died},
		{"kill commit 1 done", died},
	} {
		l.mischief(c.order)
		status, out := l.ctl("upgrade")
		if status == 0 || !regexp.MustCompile(c.want).MatchString(out) {
			t.Errorf("%s: status %d, %q, want %q", c.order, status, out, c.want)
		}
		if status == 0 {
			return
		}
		works(c.order)
		change(c.order)
	}
	if lost := regexp.MustCompile(`msg="sessions taken back".* lost=[1-9].*`).FindString(l.log()); lost != "" {
		t.Error(lost)
	}
	if !regexp.MustCompile(`msg="sessions taken back" back=80 lost=0`).MatchString(l.log()) {
		t.Error("not all sessions were taken back at once, ever")
	}
	before := l.pid
	l.install(program)
	l.upgrade()
	l.ends(before)
	works("the upgrade")
	change("the upgrade")
}

// oneSession starts a process, whose next one will play a mischief unless that is "", with a session.
func oneSession(t *testing.T, mischief string) (l *lineage, session net.Conn) {
	t.Helper()
	l = newLineage(t, fmt.Sprintf(`<engine drain="1h"/><service name="web"><listen ip="127.0.0.1:0"/><group name="main"><host name="a" ip=%q/></group></service>`, backend(t, echo)), "")
	if mischief != "" {
		l.mischief(mischief)
	}
	session, err := net.Dial("tcp", l.addr("web"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close() })
	if err := ask(session, "hello"); err != nil {
		t.Fatal(err)
	}
	return l, session
}

// If the old process dies, the new one ends as long as it does not serve. Else it goes on, with
// the sessions that it has by then.
func TestB56TheOldProcessDies(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		order string
		ends  bool
	}{{"orphan serve 1 untold", true}, {"orphan serve 1 done", false}, {"orphan commit 1 untold", false}} {
		t.Run(c.order, func(t *testing.T) {
			t.Parallel()
			l, session := oneSession(t, c.order)
			if err := syscall.Kill(l.pid, syscall.SIGUSR2); err != nil {
				t.Fatal(err)
			}
			reap(l.pid)
			l.pids = nil
			if c.ends {
				l.expect("the new process has ended: exit status 1")
				return
			}
			l.expect("the former process has ended in the middle of the upgrade, going on")
			l.expect("msg=ready")
			if err := short("tcp", l.addr("web")); err != nil {
				t.Error(err)
			}
			if strings.Contains(c.order, "commit") {
				if err := ask(session, "still there"); err != nil {
					t.Error(err)
				}
			}
			if status, out := l.ctl("shutdown"); status != 0 {
				t.Error(out)
			}
			_ = session.Close()
			l.expect("the new process has ended")
		})
	}
}

// A new process that hangs is killed when its time is over; then another upgrade is possible.
func TestB56Hangs(t *testing.T) {
	t.Parallel()
	u := newUpgrader(slog.New(slog.DiscardHandler))
	u.refusal, u.within = "", 200*time.Millisecond
	u.program = executable(t, "#!/bin/sh\nexec sleep 3600\n")
	for range 2 {
		_, err := u.upgrade(context.Background(), "test", "")
		m := regexp.MustCompile(`the new process (\d+) has not answered within 200ms`).FindStringSubmatch(fmt.Sprint(err))
		if m == nil {
			t.Fatal(err)
		}
		// It is no child of this process: it may be a zombie.
		if stat, err := os.ReadFile("/proc/" + m[1] + "/stat"); err == nil && !bytes.Contains(stat, []byte(") Z ")) {
			t.Errorf("it is there: %s", stat)
		}
	}
}

// A process that is to stop ends an upgrade that hangs, and refuses others.
func TestB56StopsAndRefuses(t *testing.T) {
	t.Parallel()
	l, session := oneSession(t, "")
	l.mischief("hang prepare 1 untold")
	if err := syscall.Kill(l.pid, syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	l.expect(`msg="upgrade begun"`)
	if status, out := l.ctl("upgrade"); status == 0 || !strings.Contains(out, errUpgrading.Error()) {
		t.Errorf("a second one: status %d: %s", status, out)
	}
	if err := syscall.Kill(l.pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	l.expect(`msg="upgrade failed, going on".*txlb is going to stop`)
	l.expect(`msg=draining`)
	if status, out := l.ctl("upgrade"); status == 0 || !strings.Contains(out, "txlb is draining") {
		t.Errorf("while it drains: status %d: %s", status, out)
	}
	if err := ask(session, "still there"); err != nil {
		t.Error(err)
	}
	_ = session.Close()
	l.ends(l.pid)
}

// A program that does not read what this one would write of a session gets none: sessions finish here.
func TestB56AnOlderProgramGetsNoSessions(t *testing.T) {
	t.Parallel()
	l, session := oneSession(t, "")
	l.mischief("moves hello 1 done")
	if status, out := l.ctl("upgrade"); status != 0 || !strings.Contains(out, fmt.Sprintf("1 session to finish in process %d", l.pid)) {
		t.Errorf("status %d: %s", status, out)
	}
	if err := errors.Join(ask(session, "still there"), short("tcp", l.addr("web"))); err != nil {
		t.Error(err)
	}
}

// SIGTERM to a process that has handed over a moment ago is meant for the service: who sends it has
// not learned of the new process yet, which drains.
func TestB56StopsTheNewProcess(t *testing.T) {
	t.Parallel()
	l := newLineage(t, fmt.Sprintf(`<service name="web"><listen ip="127.0.0.1:0"/><group name="main"><host name="a" ip=%q/></group></service>`, backend(t, echo)), "")
	for range 5 { // on a busy machine the signal may come too late: then nothing is to be seen
		before := l.pid
		l.upgrade()
		if err := syscall.Kill(before, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		said := l.expect(`msg=(draining|stopped) `)
		l.ends(before)
		if said == "draining" {
			l.ends(l.pid)
			return
		}
	}
	t.Error("the new process goes on")
}

// Process 1 is not upgraded: with its end the container would end.
func TestB56Process1(t *testing.T) {
	t.Parallel()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(socketFolder(t), "admin.sock")
	cmd := exec.Command(path, "run", "-c", write(t, socketDoc(socket, "")))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if id := os.Geteuid(); id != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: id, HostID: id, Size: 1}}
	}
	p := start(t, cmd)
	p.expect("msg=ready")
	if status, out := call(t, "ctl", "--yes", "-s", socket, "upgrade"); status == 0 || !strings.Contains(out, "txlb is process 1") {
		t.Errorf("status %d: %s", status, out)
	}
	p.signal(syscall.SIGUSR2)
	p.expect(`msg="no upgrade" err="txlb is process 1`)
	p.signal(syscall.SIGTERM)
	if status := p.wait(); status != 0 {
		t.Errorf("status %d", status)
	}
}
