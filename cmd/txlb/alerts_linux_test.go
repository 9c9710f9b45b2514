package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	embedded "github.com/txlb/txlb"
	"github.com/txlb/txlb/internal/admin/socket"
	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/sandbox"
	"github.com/txlb/txlb/internal/servers"
	"github.com/txlb/txlb/internal/testkit"
)

const alertRules = "etc/prometheus/txlb.rules.yml"

// watched is a program that Prometheus scrapes: a txlb for each alert, so that none
// disturbs another.
type watched struct {
	t        *testing.T
	alert    string
	instance string // where its metrics are
	dir      string
	prom     string // URL of Prometheus

	engine, services, admin, more string // of the configuration
	argv                          []string
	files                         []*os.File // that it inherits
	process                       *process
}

// trouble is how an alert is provoked and how its cause ends.
type trouble struct{ begin, end func() }

// troubles has a row for each alert of etc/prometheus. A row starts what is watched, in good
// order, and says what to do then.
var troubles = map[string]func(w *watched) trouble{
	"TxlbMetricsDown": func(w *watched) trouble {
		w.service(``, w.host("a"))
		w.start()
		return trouble{w.kill, w.start}
	},
	"TxlbRestarts": func(w *watched) trouble {
		w.service(``, w.host("a"))
		w.start()
		return w.repeat(func() {
			w.kill()
			w.start()
			w.seen(`process_start_time_seconds`, "", fmt.Sprint(w.own("process_start_time_seconds")))
		})
	},
	"TxlbServiceWithoutHost": func(w *watched) trouble {
		w.service(``, w.host("a"))
		w.start()
		return trouble{func() { w.ctl("hostAdminDown web g a") }, func() { w.ctl("hostAdminUp web g a") }}
	},
	"TxlbServiceWithoutGroup": func(w *watched) trouble {
		w.service(``, w.host("a"))
		good := w.services
		w.start()
		return trouble{
			func() {
				w.services = `<service name="web"><listen ip="127.0.0.1:0"/></service>`
				w.reload()
			},
			func() {
				w.services = good
				w.reload()
			},
		}
	},
	"TxlbHostDown": func(w *watched) trouble {
		b := w.backend("127.0.0.1")
		w.service(``, w.host("a")+`<check type="tcp" interval="100ms"/>`+b.host("b"))
		w.start()
		return trouble{b.stop, b.start}
	},
	"TxlbHostPartlyDown": func(w *watched) trouble {
		dns := w.dns("two.example.", "127.0.0.2", "127.0.0.3")
		b := w.backend("127.0.0.3")
		w.backendAt("127.0.0.2:" + b.port())
		w.service(``, `<check type="tcp" interval="100ms"/><host name="a" ip="two.example:`+b.port()+`"/>`)
		w.more = `<dns servers="` + dns.address + `"/>`
		w.start()
		return trouble{b.stop, b.start}
	},
	"TxlbHostFlapping": func(w *watched) trouble {
		b := w.backend("127.0.0.1")
		w.service(``, w.host("a")+`<check type="tcp" interval="100ms" fall="1" rise="1"/>`+b.host("b"))
		w.start()
		return w.repeat(func() {
			b.stop()
			w.seen("txlb_host_up", `host="b"`, "0")
			b.start()
			w.seen("txlb_host_up", `host="b"`, "1")
		})
	},
	"TxlbHostEjected": func(w *watched) trouble {
		b := w.backendThat(fmt.Sprintf("127.0.0.1:%d", freePort(w.t)), func(c net.Conn) {
			_, _ = c.Read(make([]byte, 1))
			_ = c.(*net.TCPConn).SetLinger(0)
		})
		w.service(``, w.host("a")+b.host("b")+w.host("c"))
		w.start()
		n := byte(0)
		return w.repeat(func() { // three clients in a row, and others that keep the other hosts busy
			n++
			from := &net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2+n%9)}}
			if c, err := from.Dial("tcp4", w.front()); err == nil {
				_ = c.SetDeadline(time.Now().Add(patience))
				_, _ = c.Write([]byte("x"))
				_, _ = c.Read(make([]byte, 1))
				_ = c.Close()
			}
		}, func() { w.ctl("setHost web g b eject=never") })
	},
	"TxlbNameFailing": func(w *watched) trouble {
		dns := w.dns("a.example.", "127.0.0.1")
		w.service(``, `<host name="a" ip="a.example:`+w.backend("127.0.0.1").port()+`" resolve="1s"/>`)
		w.more = `<dns servers="` + dns.address + `"/>`
		w.start()
		return trouble{func() { dns.fails.Store(true) }, func() { dns.fails.Store(false) }}
	},
	"TxlbMirrorDown": func(w *watched) trouble {
		b := w.backend("127.0.0.1")
		w.service(``, w.host("a")+`<mirror ip="127.0.0.1:`+b.port()+`"/>`)
		w.start()
		until := func(up float64) { // it shows when a client comes
			eventually(w.t, "the mirror is seen", func() bool {
				w.client(w.front(), "x")
				return w.own(fmt.Sprintf(`txlb_mirror_up{service="web",group="g",mirror="127.0.0.1:%s"}`, b.port())) == up
			})
		}
		return trouble{func() { b.stop(); until(0) }, func() { b.start(); until(1) }}
	},
	"TxlbConnectFailures": func(w *watched) trouble {
		b := w.backend("127.0.0.1")
		w.service(``, w.host("a")+b.host("b"))
		w.services = strings.Replace(w.services, "<group ", `<group maxFails="0" scheduler="roundr" `, 1)
		w.start()
		b.stop()
		return w.repeat(func() { w.client(w.front(), "x") })
	},
	"TxlbConnectsSlow": func(w *watched) trouble {
		path := filepath.Join(w.dir, "slow.sock")
		accept := w.narrow(path)
		w.service(`<timeouts connect="1m" total="1m"/>`, `<host name="a" ip="unix:`+path+`"/>`)
		w.start()
		clients := make(chan struct{}, 8)
		return w.repeat(func() {
			for len(clients) < cap(clients) {
				clients <- struct{}{}
				go func() { w.client(w.front(), ""); <-clients }()
			}
			time.Sleep(1200 * time.Millisecond) // the slowness itself
			accept()
		})
	},
	"TxlbAnswersSlow": func(w *watched) trouble {
		b := w.backendThat(fmt.Sprintf("127.0.0.1:%d", freePort(w.t)), func(c net.Conn) {
			_, _ = c.Read(make([]byte, 1))
			time.Sleep(1200 * time.Millisecond) // the slowness itself
			_, _ = c.Write([]byte("late"))
		})
		w.service(``, b.host("a"))
		w.start()
		clients := make(chan struct{}, 8)
		return w.repeat(func() {
			clients <- struct{}{}
			go func() {
				defer func() { <-clients }()
				c, err := net.Dial("tcp4", w.front())
				if err != nil {
					return
				}
				defer func() { _ = c.Close() }()
				_ = c.SetDeadline(time.Now().Add(patience))
				_, _ = c.Write([]byte("x"))
				_, _ = c.Read(make([]byte, 1))
			}()
		})
	},
	"TxlbHostsReset": func(w *watched) trouble {
		b := w.backendThat(fmt.Sprintf("127.0.0.1:%d", freePort(w.t)), func(c net.Conn) {
			_, _ = c.Read(make([]byte, 1))
			_, _ = c.Write([]byte("some"))
			_, _ = c.Read(make([]byte, 1))
			_ = c.(*net.TCPConn).SetLinger(0)
		})
		w.service(``, b.host("a"))
		w.start()
		return w.repeat(func() {
			c, err := net.Dial("tcp4", w.front())
			if err != nil {
				return
			}
			defer func() { _ = c.Close() }()
			_ = c.SetDeadline(time.Now().Add(patience))
			_, _ = c.Write([]byte("x"))
			_, _ = io.ReadFull(c, make([]byte, 4))
			_, _ = c.Write([]byte("x"))
			_, _ = c.Read(make([]byte, 1))
		})
	},
	"TxlbClientsRefused": func(w *watched) trouble {
		w.service(``, w.host("a"))
		w.start()
		return w.repeat(func() { // as somebody does who takes the last host away
			w.ctl("setHost web g a state=drain")
			w.client(w.front(), "x")
		}, func() { w.ctl("setHost web g a state=ready") })
	},
	"TxlbClientHandshakesFail": func(w *watched) trouble {
		w.service(``, w.host("a"))
		w.services = strings.Replace(w.services, "<listen ", `<listen proxyProtocol="require" `, 1)
		w.start()
		return w.repeat(func() { w.client(w.front(), "GET / HTTP/1.0\r\n\r\n") })
	},
	"TxlbQueueWaits": func(w *watched) trouble {
		w.service(`<timeouts queue="1h"/>`, w.backend("127.0.0.1").host("a", `maxSessions="1"`))
		w.start()
		return w.sessions(3)
	},
	"TxlbSessionsNearLimit": func(w *watched) trouble {
		w.engine = `maxSessions="10"`
		w.service(``, w.host("a"))
		w.start()
		return w.sessions(9)
	},
	"TxlbServiceNearLimit": func(w *watched) trouble {
		w.service(`<limits sessions="10"/>`, w.host("a"))
		w.start()
		return w.sessions(9)
	},
	"TxlbDescriptorsNearLimit": func(w *watched) trouble {
		w.argv = []string{"/bin/sh", "-c", `ulimit -n 1024 && exec "$0" "$@"`}
		w.service(``, w.host("a"))
		w.start()
		return trouble{
			func() { // it inherits what it will never close
				for range 920 {
					w.files = append(w.files, os.Stdin)
				}
				w.kill()
				w.start()
			},
			func() {
				w.files = nil
				w.kill()
				w.start()
			},
		}
	},
	"TxlbListenOverflows": func(w *watched) trouble {
		w.engine = `maxSessions="1" backlog="1"`
		w.service(``, w.host("a"))
		w.start()
		var open []net.Conn
		return w.repeat(func() {
			c, err := net.DialTimeout("tcp4", w.front(), 100*time.Millisecond)
			if err == nil {
				open = append(open, c)
			}
		}, func() {
			for _, c := range open {
				_ = c.Close()
			}
		})
	},
	"TxlbLoopStuck": func(w *watched) trouble {
		w.engine = `loops="2"`
		w.service(``, w.host("a"))
		w.start()
		var release func()
		var clients []trouble // many, as each waits for its turn on a busy machine
		for range 4 {
			clients = append(clients, w.repeat(func() { w.client(w.front(), "") }))
		}
		return trouble{
			func() {
				release = w.stopLoop()
				for _, c := range clients {
					c.begin()
				}
			},
			func() {
				release() // first, as a client may wait for this loop
				for _, c := range clients {
					c.end()
				}
			},
		}
	},
	"TxlbLoopBusy": func(w *watched) trouble {
		w.engine = `loops="1" ring="off"`
		w.service(``, w.host("a"))
		w.start()
		var slow *process
		t := w.sessions(4, func(c net.Conn) { // each says the next thing as soon as it has an answer
			for {
				if _, err := c.Write([]byte("x")); err != nil {
					return
				}
				if _, err := c.Read(make([]byte, 1)); err != nil {
					return
				}
			}
		})
		return trouble{
			func() { // each of its calls takes as long as if others had the processor
				slow = run(w.t, "strace", "-f", "-o", "/dev/null", "-p", fmt.Sprint(w.pid()), "-e", "trace=recvfrom", "-e", "inject=recvfrom:delay_enter=20000")
				slow.expect(`attached`)
				t.begin()
			},
			func() { t.end(); slow.signal(syscall.SIGINT); slow.wait() },
		}
	},
	"TxlbReloadFailed": func(w *watched) trouble {
		w.service(``, w.host("a"))
		good := w.services
		w.start()
		return trouble{
			func() {
				w.services = `<service name="web" nonsense="yes"/>`
				w.write()
				if err := w.try("reload"); err == nil {
					w.t.Error("a wrong file was taken")
				}
			},
			func() { w.services = good; w.reload() },
		}
	},
	"TxlbFleetNode": func(w *watched) trouble {
		w.service(``, w.host("a"))
		w.start()
		return trouble{
			func() {
				w.kill()
				w.more = fmt.Sprintf(`<fleet name="edge" node="a" store="http://127.0.0.1:%d"/>`, freePort(w.t)) // where no etcd is
				w.start()
			},
			func() {
				w.kill()
				w.more = ""
				w.start()
			},
		}
	},
	"TxlbFleetUpgrade": func(w *watched) trouble {
		store := runEtcd(w.t)
		installed := filepath.Join(w.dir, "txlb")
		path, err := binary()
		if err = errors.Join(err, os.Symlink(path, installed)); err != nil {
			w.t.Fatal(err)
		}
		w.argv = []string{"/bin/sh", "-c", "exec " + installed + ` "$@"`}
		w.service(``, w.host("a"))
		w.more = fmt.Sprintf(`<fleet name="edge" node="a" store="http://%s"/>`, store.Addr)
		w.start()
		eventually(w.t, "the node has joined", func() bool { return w.own(`txlb_fleet_joined{fleet="edge",node="a"}`) == 1 })
		return trouble{
			func() { // the program that is installed does not start
				if err := os.Remove(installed); err != nil {
					w.t.Error(err)
				}
				testkit.Put(w.t, installed, []byte("#!/bin/sh\nexit 1\n"))
				if err := errors.Join(os.Chmod(installed, 0o700), w.try("upgrade --fleet")); err == nil || !strings.Contains(err.Error(), "stopped after 0 of 1 node") {
					w.t.Errorf("the upgrade of the fleet: %v", err)
				}
			},
			func() { w.ctl("upgrade --cancel") },
		}
	},
	"TxlbUnsavedChanges": func(w *watched) trouble {
		w.service(``, w.host("a"))
		w.start()
		return trouble{func() { w.ctl("setHost web g a weight=7") }, func() { w.ctl("saveConfig") }}
	},
	"TxlbUndoFailed": func(w *watched) trouble {
		list := filepath.Join(w.dir, "list")
		there := func() { testkit.Put(w.t, list, []byte("192.0.2.0/24\n")) }
		w.service(`<access><deny file="`+list+`"/></access>`, w.host("a"))
		there()
		w.start()
		return trouble{
			func() {
				if err := os.Remove(list); err != nil {
					w.t.Fatal(err)
				}
				w.ctl("delAccess web 1 confirm=1s")
			},
			there,
		}
	},
	"TxlbCertificateExpires": func(w *watched) trouble {
		put := w.encrypted()
		put(365)
		w.start()
		return trouble{func() { put(3) }, func() { put(365) }}
	},
	"TxlbCertificateUnusable": func(w *watched) trouble {
		put := w.encrypted()
		put(365)
		w.start()
		return trouble{
			func() { testkit.Put(w.t, filepath.Join(w.dir, "key.pem"), []byte("no key\n")) },
			func() { put(365) },
		}
	},
	"TxlbLogDropped": func(w *watched) trouble {
		f := w.logTo()
		w.start()
		_ = f.Close()
		return w.repeat(func() {
			for range 200 { // more than the memory for lines holds
				_ = w.try("shutdownSession " + strings.Repeat("x", 7000))
			}
		})
	},
	"TxlbLogNotWritten": func(w *watched) trouble {
		f := w.logTo()
		w.start()
		return trouble{
			func() { _ = f.Close(); w.ctl("setHost web g a weight=7") },
			func() { w.readLog() },
		}
	},
	"TxlbAdminInterfaceOff": func(w *watched) trouble {
		var ln net.Listener
		w.service(``, w.host("a"))
		w.start()
		return trouble{
			func() { // another program has the port when txlb starts
				ln = listenFree(w.t)
				w.admin = fmt.Sprintf(`<web listen="%s" secure="no"/>`, ln.Addr())
				w.kill()
				w.start()
			},
			func() { _ = ln.Close() },
		}
	},
	"TxlbAdminUnderPressure": func(w *watched) trouble {
		page := fmt.Sprintf("127.0.0.1:%d", freePort(w.t))
		w.admin = fmt.Sprintf(`<web listen="%s" secure="no" allow="192.0.2.1"/>`, page)
		w.service(``, w.host("a"))
		w.start()
		return w.repeat(func() { w.client(page, "") })
	},
	"TxlbDraining": func(w *watched) trouble {
		w.engine = `drain="1h"`
		w.service(``, w.host("a"))
		w.start()
		t := w.sessions(1)
		return trouble{func() { t.begin(); w.process.signal(syscall.SIGTERM) }, t.end}
	},
	"TxlbCallbackPanics": func(w *watched) trouble {
		change := w.program(nil)
		return trouble{change, func() {}}
	},
	"TxlbSchedulerFaults": func(w *watched) trouble {
		var wrong atomic.Bool
		w.program(embedded.SchedulerFunc(func(_ netip.Addr, hosts []embedded.Candidate) int {
			if wrong.Load() {
				return len(hosts)
			}
			return 0
		}))
		return w.repeat(func() { wrong.Store(true); w.client(w.services, "x") }, func() { wrong.Store(false) })
	},
}

// repeat does a thing again and again until the trouble ends, and last at the end.
func (w *watched) repeat(do func(), last ...func()) trouble {
	stop, ended := make(chan struct{}), make(chan struct{})
	var begun atomic.Bool
	end := sync.OnceFunc(func() {
		close(stop)
		if begun.Load() {
			<-ended
		}
		for _, f := range last {
			f()
		}
	})
	w.t.Cleanup(end)
	return trouble{func() {
		begun.Store(true)
		go func() {
			defer close(ended)
			for {
				select {
				case <-stop:
					return
				case <-time.After(25 * time.Millisecond): // so that it is no flood
					do()
				}
			}
		}()
	}, end}
}

// sessions are clients that stay; talk is what each does, nil: nothing after a first byte.
func (w *watched) sessions(n int, talk ...func(net.Conn)) trouble {
	var open []net.Conn
	end := func() {
		for _, c := range open {
			_ = c.Close()
		}
	}
	w.t.Cleanup(func() { end() })
	return trouble{func() {
		for range n {
			c, err := net.Dial("tcp4", w.front())
			if err != nil {
				w.t.Error(err)
				return
			}
			open = append(open, c)
			_, _ = c.Write([]byte("x"))
			for _, f := range talk {
				go f(c)
			}
		}
	}, end}
}

// client says something and waits for the end or an answer.
func (w *watched) client(address, text string) {
	c, err := net.DialTimeout("tcp4", address, patience)
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	if text == "" {
		return
	}
	_ = c.SetDeadline(time.Now().Add(time.Second))
	_, _ = c.Write([]byte(text))
	_, _ = c.Read(make([]byte, 1))
}

// service sets the one service: elements of it, and those of its group.
func (w *watched) service(elements, group string) {
	w.services = `<service name="web"><listen ip="` + w.listen() + `"/>` + elements + `<group name="g">` + group + `</group></service>`
}

// listen is the address of the service, the same after a restart.
func (w *watched) listen() string {
	host, port, _ := net.SplitHostPort(w.instance)
	n, _ := strconv.Atoi(port)
	return fmt.Sprintf("%s:%d", host, n+1000)
}

func (w *watched) front() string { return w.listen() }

func (w *watched) write() {
	text := fmt.Sprintf(`<config><engine %s/>%s<admin><metrics listen="%s"/><socket path="%s/s"/>%s</admin>%s</config>`,
		w.engine, w.services, w.instance, w.dir, w.admin, w.more)
	if err := os.WriteFile(filepath.Join(w.dir, "config.xml"), []byte(text), 0o600); err != nil {
		w.t.Error(err)
	}
}

// start runs txlb, and returns when it is ready.
func (w *watched) start() {
	path, err := binary()
	if err != nil {
		w.t.Fatal(err)
	}
	w.write()
	argv := append(slices.Clip(w.argv), path, "run", "-c", filepath.Join(w.dir, "config.xml"))
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.ExtraFiles = w.files
	w.process = start(w.t, cmd)
	// What it says may go elsewhere.
	eventually(w.t, w.alert+": txlb is ready", func() bool { return w.own("txlb_config_generation") > 0 })
}

func (w *watched) kill() {
	_ = w.process.cmd.Process.Kill()
	<-w.process.done
}

func (w *watched) pid() int { return w.process.cmd.Process.Pid }

// own returns a sample from txlb itself, -1 if there is none.
func (w *watched) own(name string) float64 {
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}).Get("http://" + w.instance + "/metrics")
	if err != nil {
		return -1
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(resp.Body)
	for line := range strings.Lines(string(body)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			v, _ := strconv.ParseFloat(strings.TrimSpace(value), 64)
			return v
		}
	}
	return -1
}

// try gives a command, and ctl one that succeeds.
func (w *watched) try(line string) error {
	c, err := socket.Dial(filepath.Join(w.dir, "s"))
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	a, err := c.Do(w.t.Context(), line)
	return errors.Join(err, a.Err())
}

func (w *watched) ctl(line string) {
	if err := w.try(line); err != nil {
		w.t.Errorf("%s: %s: %v", w.alert, line, err)
	}
}

func (w *watched) reload() {
	w.write()
	w.ctl("reload")
}

// back is a backend that can be stopped, and started at the same address.
type back struct {
	w       *watched
	address string
	talk    func(net.Conn)
	mu      sync.Mutex
	ln      net.Listener
}

func (w *watched) backend(ip string) *back {
	return w.backendAt(fmt.Sprintf("%s:%d", ip, freePort(w.t)))
}

func (w *watched) backendAt(address string) *back { return w.backendThat(address, repeat) }

func (w *watched) backendThat(address string, talk func(net.Conn)) *back {
	b := &back{w: w, address: address, talk: talk}
	b.start()
	w.t.Cleanup(b.stop)
	return b
}

// host is a host that answers.
func (w *watched) host(name string) string { return w.backend("127.0.0.1").host(name) }

func (b *back) host(name string, attributes ...string) string {
	return fmt.Sprintf(`<host name="%s" ip="%s" %s/>`, name, b.address, strings.Join(attributes, " "))
}

func (b *back) port() string {
	_, port, _ := net.SplitHostPort(b.address)
	return port
}

func (b *back) start() {
	ln, err := net.Listen("tcp4", b.address)
	if err != nil {
		b.w.t.Errorf("%s: %v", b.w.alert, err)
		return
	}
	b.mu.Lock()
	b.ln = ln
	b.mu.Unlock()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				b.talk(c)
			}()
		}
	}()
}

func (b *back) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	_ = b.ln.Close()
}

// narrow listens on a UNIX socket whose queue has room for one. accept takes one in.
func (w *watched) narrow(path string) (accept func()) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err == nil {
		err = errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0))
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = unix.Close(fd) })
	return func() {
		if c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC); err == nil {
			_ = unix.Close(c)
		}
	}
}

// encrypted makes the service one with TLS. put writes its certificate, for some days.
func (w *watched) encrypted() (put func(days int)) {
	cert, key := filepath.Join(w.dir, "cert.pem"), filepath.Join(w.dir, "key.pem")
	w.service(``, w.host("a"))
	w.services = strings.Replace(w.services, "<listen ", fmt.Sprintf(`<listen tls="%s %s" `, cert, key), 1)
	ca := testkit.NewAuthority(w.t, "ca")
	return func(days int) {
		c, k := ca.Issue(w.t, testkit.Leaf{Names: []string{"www.example"}, From: time.Now().Add(-time.Hour), To: time.Now().AddDate(0, 0, days)})
		testkit.Put(w.t, key, k)
		testkit.Put(w.t, cert, c)
	}
}

// logTo gives txlb a log that is a FIFO. It is read until the file is closed.
func (w *watched) logTo() *os.File {
	path := filepath.Join(w.dir, "log")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.service(``, w.host("a"))
	w.more = `<logging file="` + path + `"/>`
	return w.readLog()
}

// readLog reads the FIFO until the file is closed.
func (w *watched) readLog() *os.File {
	f, err := os.OpenFile(filepath.Join(w.dir, "log"), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = f.Close() })
	go func() {
		for { // while nobody writes, a read is at its end
			if _, err := io.Copy(io.Discard, f); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	return f
}

// names is a DNS server that knows one name.
type names struct {
	address string
	fails   atomic.Bool
}

func (w *watched) dns(name string, addresses ...string) *names {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	s := &names{address: conn.LocalAddr().String()}
	go func() {
		for buf := make([]byte, 1500); ; {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			m = dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true}, Questions: m.Questions}
			switch {
			case s.fails.Load():
				m.RCode = dnsmessage.RCodeServerFailure
			case q.Name.String() == name && q.Type == dnsmessage.TypeA:
				for _, a := range addresses {
					m.Answers = append(m.Answers, dnsmessage.Resource{
						Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1},
						Body:   &dnsmessage.AResource{A: netip.MustParseAddr(a).As4()},
					})
				}
			}
			if out, err := m.Pack(); err == nil {
				_, _ = conn.WriteTo(out, from)
			}
		}
	}()
	return s
}

// program runs package txlb in this process, as part of a program whose OnEvent panics. It
// returns what makes an event. The service listens where w.services says.
func (w *watched) program(scheduler embedded.Scheduler) (change func()) {
	cfg := embedded.Config{
		Logger:  slog.New(slog.DiscardHandler),
		OnEvent: func(embedded.Event) { panic("of the test") },
		Engine:  embedded.Engine{Loops: 1},
		Services: []embedded.Service{{
			Name: "web", Listen: []string{w.listen()}, Hosts: []embedded.Host{{Name: "a", Addr: w.backend("127.0.0.1").address}},
		}},
	}
	if scheduler != nil {
		cfg.OnEvent = nil
		cfg.Schedulers = map[string]embedded.Scheduler{"own": scheduler}
		cfg.Services[0].Scheduler = embedded.Custom("own")
	}
	lb, err := embedded.Start(w.t.Context(), cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = lb.Close() })
	w.services = w.listen()
	ln, err := net.Listen("tcp4", w.instance)
	if err != nil {
		w.t.Fatal(err)
	}
	server := &http.Server{Handler: lb.MetricsHandler()}
	go func() { _ = server.Serve(ln) }()
	w.t.Cleanup(func() { _ = server.Close() })
	return func() {
		if err := lb.Service("web").AddHost(embedded.Host{Name: "b", Addr: w.backend("127.0.0.1").address}); err != nil {
			w.t.Error(err)
		}
	}
}

// stopLoop makes an event loop stand still: the thread that waits for its events is stopped
// by ptrace(2). All else of the process goes on.
func (w *watched) stopLoop() (release func()) {
	stopped, stop, ended := make(chan error), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // tracing is of a thread
		defer runtime.UnlockOSThread()
		var thread int
		for end := time.Now().Add(patience); thread == 0; {
			if thread = w.loopThread(); thread == 0 && time.Now().After(end) {
				stopped <- errors.New("no thread waits for events of the service")
				return
			}
		}
		const seize, interrupt = 0x4206, 0x4207
		for _, request := range []uintptr{seize, interrupt} {
			if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, request, uintptr(thread), 0, 0, 0, 0); errno != 0 {
				stopped <- fmt.Errorf("ptrace: %w", errno)
				return
			}
		}
		var status unix.WaitStatus
		_, err := unix.Wait4(thread, &status, unix.WALL, nil)
		stopped <- err
		<-stop
		_ = unix.PtraceDetach(thread)
	}()
	if err := <-stopped; err != nil {
		w.t.Errorf("%s: %v", w.alert, err)
	}
	release = sync.OnceFunc(func() { close(stop); <-ended })
	w.t.Cleanup(release)
	return release
}

// loopThread returns a thread that waits in a poll of which a listener of the service is
// part, 0 if none does now.
func (w *watched) loopThread() int {
	_, port, _ := net.SplitHostPort(w.listen())
	n, _ := strconv.Atoi(port)
	table, _ := os.ReadFile("/proc/net/tcp")
	listeners := map[string]bool{}
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) > 9 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", n)) && f[3] == "0A" {
			listeners["socket:["+f[9]+"]"] = true
		}
	}
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", w.pid()))
	for _, path := range threads {
		text, _ := os.ReadFile(path)
		f := strings.Fields(string(text))
		if len(f) < 2 {
			continue
		}
		fd, err := strconv.ParseUint(strings.TrimPrefix(f[1], "0x"), 16, 31)
		if err != nil {
			continue
		}
		info, _ := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", w.pid(), fd))
		for _, m := range regexp.MustCompile(`tfd: +(\d+)`).FindAllSubmatch(info, -1) {
			if to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", w.pid(), m[1])); listeners[to] {
				thread, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
				return thread
			}
		}
	}
	return 0
}

// askPrometheus gets an answer of its API.
func askPrometheus(base, path string, answer any) error {
	resp, err := (&http.Client{Timeout: patience}).Get(base + path)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	return json.NewDecoder(resp.Body).Decode(answer)
}

// seen waits until Prometheus has a value of a metric.
func (w *watched) seen(metric, labels, value string) {
	query := url.QueryEscape(fmt.Sprintf(`%s{instance="%s",%s} == %s`, metric, w.instance, labels, value))
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		var answer struct{ Data struct{ Result []any } }
		if err := askPrometheus(w.prom, "/api/v1/query?query="+query, &answer); err == nil && len(answer.Data.Result) > 0 {
			return
		}
	}
	w.t.Errorf("Prometheus has not seen %s{%s} == %s within %v", metric, labels, value, patience)
}

// quickly are the rules as they are, but for time: `for` is a second, ranges of 15 minutes are
// half a minute, and others, such as [5m], ten seconds. Nothing else is changed, so what fires
// here is what is shipped. The longer ranges are of rules that count what takes a busy machine
// some time, such as three restarts.
func quickly(rules string) string {
	rules = regexp.MustCompile(`(?m)^( +for:) .*$`).ReplaceAllString(rules, "$1 1s")
	rules = strings.ReplaceAll(rules, "[15m]", "[30s]")
	return regexp.MustCompile(`\[\d+m\]`).ReplaceAllString(rules, "[10s]")
}

// programVariable and folderVariable tell a test in a sandbox where the program under test
// and the source are.
const programVariable, folderVariable = "TXLB_TEST_PROGRAM", "TXLB_TEST_FOLDER"

// TestAlerts lets each alert that is shipped come and go: a real Prometheus, and a real txlb
// in real trouble. The durations of the rules are the business of promtool's tests.
func TestAlerts(t *testing.T) {
	testkit.Long(t)
	t.Parallel()
	debian.NeedFor(t, "prometheus", "strace", "etcd")
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv(folderVariable) == "" {
		here, err := os.Getwd()
		if err := errors.Join(err, os.Setenv(folderVariable, here), os.Setenv(programVariable, path)); err != nil {
			t.Fatal(err)
		}
	}
	// In a network of its own, so that addresses are free, and the kernel counts no listen
	// queues of others.
	if !sandbox.Network(t) {
		return
	}
	rules, err := os.ReadFile(filepath.Join(os.Getenv(folderVariable), "../..", alertRules))
	if err != nil {
		t.Fatal(err)
	}
	var alerts []string
	for _, m := range regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(string(rules), -1) {
		alerts = append(alerts, m[1])
		if troubles[m[1]] == nil {
			t.Errorf("the test does not know how to provoke %s", m[1])
		}
	}
	for name := range troubles {
		if !slices.Contains(alerts, name) {
			t.Errorf("%s is no alert of %s", name, alertRules)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
	dir := socketFolder(t)
	address := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	all := map[string]*watched{}
	targets := ""
	for i, alert := range alerts {
		w := &watched{t: t, alert: alert, instance: fmt.Sprintf("127.0.0.1:%d", 7001+i), dir: fmt.Sprintf("%s/%d", dir, i), prom: "http://" + address}
		if err := os.Mkdir(w.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		all[alert] = w
		targets += fmt.Sprintf("'%s', ", w.instance)
	}
	begin := map[string]trouble{}
	for _, alert := range alerts {
		begin[alert] = troubles[alert](all[alert])
	}
	prometheus(t, address, dir, quickly(string(rules)), targets)
	up := func() bool {
		var answer struct{ Data struct{ Result []any } }
		return askPrometheus("http://"+address, "/api/v1/query?query="+url.QueryEscape("up == 1"), &answer) == nil && len(answer.Data.Result) == len(alerts)
	}
	eventually(t, "Prometheus has seen all", up)
	state := func() map[string]bool { // of the alerts: true if one fires for what should cause it
		var answer struct {
			Data struct {
				Alerts []struct {
					Labels map[string]string
					State  string
				}
			}
		}
		firing := map[string]bool{}
		if err := askPrometheus("http://"+address, "/api/v1/alerts", &answer); err != nil {
			t.Fatal(err)
		}
		for _, a := range answer.Data.Alerts {
			instance, has := a.Labels["instance"] // what is about a fleet has none
			if w := all[a.Labels["alertname"]]; w != nil && (instance == w.instance || !has) && a.State == "firing" {
				firing[w.alert] = true
			}
		}
		return firing
	}
	if firing := state(); len(firing) > 0 {
		t.Errorf("before any trouble there are %v", firing)
	}
	fired, clear := map[string]time.Duration{}, map[string]time.Duration{}
	began := time.Now()
	for _, alert := range alerts {
		begin[alert].begin()
	}
	ended := map[string]bool{}
	for time.Since(began) < 2*patience && len(clear) < len(alerts) {
		firing := state()
		for _, alert := range alerts {
			switch {
			case firing[alert] && !ended[alert]:
				fired[alert] = time.Since(began)
				ended[alert] = true
				begin[alert].end()
			case !firing[alert] && ended[alert] && clear[alert] == 0:
				clear[alert] = time.Since(began)
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	for _, alert := range alerts {
		switch {
		case fired[alert] == 0:
			t.Errorf("%s does not fire", alert)
		case clear[alert] == 0:
			t.Errorf("%s fires when the trouble is over", alert)
		default:
			t.Logf("%-26s fires after %v, is over after %v", alert, fired[alert].Round(time.Second/10), clear[alert].Round(time.Second/10))
		}
	}
}

// prometheus runs one with rules and targets.
func prometheus(t *testing.T, address, dir, rules, targets string) {
	t.Helper()
	config := filepath.Join(dir, "prometheus.yml")
	testkit.Put(t, filepath.Join(dir, "rules.yml"), []byte(rules))
	testkit.Put(t, config, fmt.Appendf(nil, `global: {scrape_interval: 2s, scrape_timeout: 2s, evaluation_interval: 500ms}
rule_files: [%s/rules.yml]
scrape_configs:
  - job_name: txlb
    static_configs: [{targets: [%s]}]
`, dir, strings.TrimSuffix(targets, ", ")))
	s, err := servers.New(dir, "prometheus", address, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Argv = []string{debian.Path("prometheus"), "--config.file=" + config, "--storage.tsdb.path=" + dir + "/data", "--web.listen-address=" + address, "--log.level=warn"}
	s.RunFor(t)
}
