//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// attacks are what strangers do to the admin interfaces, and to a service with TLS. Each
// workload compares the latency of clients of another service while their txlb is attacked
// with what it is while another txlb is.
func attacks() []workload {
	return []workload{
		attackLoad("attacked-keys", "64 strangers exchange SSH keys", 64, exchangeKeys),
		attackLoad("attacked-requests", "64 strangers pipeline requests for /healthz", 64, pipelineRequests),
		attackLoad("attacked-metrics", "200 strangers fetch /metrics", 200, fetchMetrics),
		attackLoad("attacked-hellos", "64 strangers begin TLS with another service and go", 64, beginTLS),
		attackLoad("attacked-idle", "1,100 idle connections to the metrics", 1100, stayIdle),
	}
}

// attackFigure is the name of the ratio.
const attackFigure = "attacked"

// stranger attacks until ctx ends.
type stranger func(ctx context.Context, v *victim)

func attackLoad(name, title string, strangers int, attack stranger) workload {
	const rate = 1000
	figs := []figure{{name: attackFigure, title: "p50 under attack / beside it", proxy: true, of: noted(attackFigure)}}
	return workload{
		name: name, title: title, unit: "request",
		how: fmt.Sprintf("open loop of %d small requests a second over %d connections, through a txlb that is attacked, and beside one", rate, lanes),
		// The peer only passes on to the backend: the two programs that are compared
		// have the same way to it.
		backend: web, alone: true, once: true, longer: 2, around: 4 * time.Second, group: attacked, rounds: fewest, figures: figs,
		run: func(ctx context.Context, t *trial) error {
			dir, err := os.MkdirTemp("", "txlb-bench")
			if err != nil {
				return err
			}
			defer func() { _ = os.RemoveAll(dir) }()
			var both [2]*victim
			for i := range both {
				if both[i], err = startVictim(ctx, t, filepath.Join(dir, strconv.Itoa(i)+".xml")); err != nil {
					return err
				}
				defer both[i].stop()
			}
			peer := t.addr
			defer func() { t.addr = peer }()
			t.addr = both[0].service
			var p50s [2]float64
			failed := 0
			for i := len(both) - 1; i >= 0; i-- { // the figures of the trial are those under attack
				attacking, stop := context.WithCancel(ctx)
				var running sync.WaitGroup
				for range strangers {
					running.Go(func() { attack(attacking, both[i]) })
				}
				err := pause(ctx, time.Second) // all are there
				if err == nil {
					err = latency(ctx, t, lanes, rate)
				}
				stop()
				running.Wait()
				if err != nil {
					return err
				}
				p50s[i], failed = t.noted["p50"], failed+t.failed
			}
			t.failed = failed
			t.note(attackFigure, p50s[0]/p50s[1])
			return nil
		},
	}
}

// victim is a txlb with all admin interfaces, and with a service that has TLS.
type victim struct {
	service, secure, page, ssh, metrics string
	stop                                func()
}

// startVictim starts one that passes on to where the trial's load goes.
func startVictim(ctx context.Context, t *trial, file string) (*victim, error) {
	cert, key, err := selfSigned(ecdsaKey)
	if err != nil {
		return nil, err
	}
	pair := strings.TrimSuffix(file, ".xml") + ".pem"
	if err := os.WriteFile(pair, append(cert, key...), 0o600); err != nil {
		return nil, err
	}
	group := fmt.Sprintf(`<group name="main"><host name="backend" ip=%q/></group>`, t.addr)
	config := fmt.Sprintf(`<config><service name="bench"><listen ip="127.0.0.1:0"/>%s</service>
<service name="secure"><listen ip="127.0.0.1:0" tls="%s %[2]s"/>%[1]s</service>
<admin><web listen="127.0.0.1:0"/><ssh listen="127.0.0.1:0"/><metrics listen="127.0.0.1:0"/></admin></config>`, group, pair)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	cmd := command(ctx, t.programs["txlb"], "run", "-c", file)
	log, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, err
	}
	v := &victim{}
	var reading sync.WaitGroup
	v.stop = func() {
		cancel()
		reading.Wait()
		_ = cmd.Wait() // killed
	}
	listens := regexp.MustCompile(`(?:service|part)=(\S+) addr=(\S+)`)
	lines := bufio.NewScanner(log)
	for lines.Scan() && v.missing() {
		if m := listens.FindStringSubmatch(lines.Text()); m != nil {
			switch m[1] {
			case "bench":
				v.service = m[2]
			case "secure":
				v.secure = m[2]
			case "web":
				v.page = m[2]
			case "ssh":
				v.ssh = m[2]
			case "metrics":
				v.metrics = m[2]
			}
		}
	}
	reading.Go(func() { _, _ = io.Copy(io.Discard, log) })
	if v.missing() {
		v.stop()
		return nil, errors.New("a txlb to attack did not start")
	}
	return v, nil
}

func (v *victim) missing() bool {
	return v.service == "" || v.secure == "" || v.page == "" || v.ssh == "" || v.metrics == ""
}

// visits opens one connection after the other, with a pause after each.
func visits(ctx context.Context, addr string, wait time.Duration, on func(net.Conn)) {
	for ctx.Err() == nil {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			_ = pause(ctx, again)
			continue
		}
		end := context.AfterFunc(ctx, func() { _ = c.Close() })
		on(c)
		end()
		_ = c.Close()
		_ = pause(ctx, wait)
	}
}

// again is the pause after a connection that was refused.
const again = 10 * time.Millisecond

func stayIdle(ctx context.Context, v *victim) {
	visits(ctx, v.metrics, time.Second, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
}

func fetchMetrics(ctx context.Context, v *victim) {
	visits(ctx, v.metrics, 0, func(c net.Conn) {
		_, _ = io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
		_, _ = io.Copy(io.Discard, c)
	})
}

func pipelineRequests(ctx context.Context, v *victim) {
	visits(ctx, v.page, 0, func(c net.Conn) {
		over := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
		if over.HandshakeContext(ctx) != nil {
			return
		}
		var reading sync.WaitGroup
		reading.Go(func() { _, _ = io.Copy(io.Discard, over) })
		many := strings.Repeat("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 100)
		for err := error(nil); err == nil; {
			_, err = io.WriteString(over, many)
		}
		_ = c.Close()
		reading.Wait()
	})
}

// exchangeKeys has the server exchange keys (RFC 4253 and RFC 8731), which costs
// it most, and does no work itself.
func exchangeKeys(ctx context.Context, v *victim) {
	lists := []string{
		"curve25519-sha256", "ssh-ed25519", "aes128-gcm@openssh.com", "aes128-gcm@openssh.com",
		"hmac-sha2-256-etm@openssh.com", "hmac-sha2-256-etm@openssh.com", "none", "none", "", "",
	}
	const kexInit, ecdhInit, cookie = 20, 30, 16
	offer := append([]byte{kexInit}, make([]byte, cookie)...)
	for _, l := range lists {
		offer = append(binary.BigEndian.AppendUint32(offer, uint32(len(l))), l...)
	}
	offer = append(offer, make([]byte, 5)...)
	key := binary.BigEndian.AppendUint32([]byte{ecdhInit}, 32)
	key = append(append(key, 9), make([]byte, 31)...) // the base point
	hello := append([]byte("SSH-2.0-bench\r\n"), append(sshPacket(offer), sshPacket(key)...)...)
	visits(ctx, v.ssh, 0, func(c net.Conn) {
		_, _ = c.Write(hello)
		// Its name, its offer and its answer; it has computed then.
		_, _ = io.CopyN(io.Discard, c, 600)
	})
}

// beginTLS has the server answer the first message of a TLS client, which costs it a key
// exchange and a signature, and goes.
func beginTLS(ctx context.Context, v *victim) {
	hello := clientHello()
	visits(ctx, v.secure, 0, func(c net.Conn) {
		_, _ = c.Write(hello)
		_, _ = io.CopyN(io.Discard, c, 1) // it has computed then
	})
}

// clientHello returns the first message of a TLS client.
func clientHello() []byte {
	client, server := net.Pipe()
	defer func() { _ = server.Close() }()
	var shaking sync.WaitGroup
	defer shaking.Wait()
	shaking.Go(func() { _ = tls.Client(client, clientTLS()).Handshake() }) // it fails when server is closed
	defer func() { _ = client.Close() }()
	const header = 5 // with the size of what comes behind it
	b := make([]byte, header)
	_, _ = io.ReadFull(server, b) // a pipe: nothing is lost or short
	rest := make([]byte, binary.BigEndian.Uint16(b[header-2:]))
	_, _ = io.ReadFull(server, rest)
	return append(b, rest...)
}

// sshPacket is a packet before keys are exchanged (RFC 4253, 6).
func sshPacket(payload []byte) []byte {
	padding := 8 - (len(payload)+5)%8
	if padding < 4 {
		padding += 8
	}
	p := binary.BigEndian.AppendUint32(nil, uint32(1+len(payload)+padding))
	p = append(append(p, byte(padding)), payload...)
	return append(p, make([]byte, padding)...)
}
