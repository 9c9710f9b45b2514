//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Real protocols: PostgreSQL under pgbench and Redis under redis-benchmark,
// each with a server of the bench's own whose data is in its folder.

// clients is how many connections they keep busy.
const clients = 16

// sqlLoad selects single rows over kept connections.
func sqlLoad() workload {
	return workload{
		name: "pgbench", title: "PostgreSQL, one row a query", unit: "transaction", how: fmt.Sprintf("pgbench -S -M prepared -c %d -j 2", clients), backend: sql,
		minor: true, brief: time.Second, figures: figures("transaction", "transactions"),
		run: func(ctx context.Context, t *trial) error {
			host, port, err := net.SplitHostPort(t.addr)
			if err != nil {
				return err
			}
			return programLoad(ctx, t, parsePgbench, beside(t.programs["postgres"], "pgbench"), "-h", host, "-p", port, "-U", sqlUser,
				"-S", "-n", "-M", "prepared", "-c", strconv.Itoa(clients), "-j", "2", "-T", seconds(t.length), "postgres")
		},
	}
}

// redisLoad sets a key with a number of requests under way on each connection.
// redis-benchmark takes a number of requests, not a time: about what would
// take as long here without a proxy.
func redisLoad(pipeline, perSecond int) workload {
	return workload{
		name: fmt.Sprintf("redis-p%d", pipeline), title: fmt.Sprintf("Redis, %d requests at a time", pipeline), unit: "request",
		how: fmt.Sprintf("redis-benchmark -t set -d 64 -c %d -P %d", clients, pipeline), backend: redis, needs: []string{"redis-benchmark"},
		minor: true, brief: 300 * time.Millisecond, figures: figures("request", "requests"),
		run: func(ctx context.Context, t *trial) error {
			host, port, err := net.SplitHostPort(t.addr)
			if err != nil {
				return err
			}
			n := int(float64(perSecond) * t.length.Seconds())
			parse := func(out string) (tally, error) { return parseRedis(out, n) }
			return programLoad(ctx, t, parse, t.programs["redis-benchmark"], "-h", host, "-p", port,
				"-t", "set", "-d", "64", "-c", strconv.Itoa(clients), "-P", strconv.Itoa(pipeline), "-n", strconv.Itoa(n), "--csv")
		},
	}
}

// parsePgbench reads pgbench's report.
func parsePgbench(out string) (tally, error) {
	var t tally
	var err error
	if t.done, err = number(out, `transactions actually processed: (\d+)`); err != nil {
		return t, err
	}
	// Before PostgreSQL 15 a failure ended the client, and pgbench said so.
	if strings.Contains(out, "failed transactions:") {
		t.failed, err = number(out, `failed transactions: (\d+)`)
	}
	if strings.Contains(out, "aborted") {
		t.failed++
	}
	return t, err
}

// parseRedis reads what redis-benchmark says of n requests. It ends with an
// error unless all of them were answered.
func parseRedis(out string, n int) (tally, error) {
	if _, err := number(out, `(?m)^"SET[^"]*","(\d+)`); err != nil {
		return tally{}, err
	}
	if strings.Contains(out, "Error") || strings.Contains(out, "WARNING: Could not") {
		return tally{}, fmt.Errorf("its output speaks of an error: %s", strings.TrimSpace(out))
	}
	return tally{done: n}, nil
}

// sqlUser owns the database.
const sqlUser = "bench"

// beside returns the path of a program in the folder of another.
func beside(program, name string) string { return filepath.Join(filepath.Dir(program), name) }

// startSQL makes a database in a folder of its own and starts its server.
// PostgreSQL refuses to run as root, so it is somebody else then.
func startSQL(ctx context.Context, r *rig, at route) (*server, error) {
	host, port, err := net.SplitHostPort(at.listen)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(r.dir, "sql")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	as := func(*exec.Cmd) {}
	if os.Geteuid() == 0 {
		who, err := unprivileged()
		if err != nil {
			return nil, err
		}
		if err := os.Chown(dir, int(who.Uid), int(who.Gid)); err != nil {
			return nil, err
		}
		as = func(cmd *exec.Cmd) { cmd.SysProcAttr.Credential = who }
	}
	do := func(argv ...string) error {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		cmd := command(ctx, argv...)
		cmd.Dir = dir
		as(cmd)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", argv[0], err, strings.TrimSpace(string(out)))
		}
		return nil
	}
	server := r.programs["postgres"]
	data := filepath.Join(dir, "data")
	if err := do(beside(server, "initdb"), "-D", data, "-U", sqlUser, "-A", "trust", "-N", "--no-locale", "-E", "UTF8"); err != nil {
		return nil, err
	}
	gently := func(cmd *exec.Cmd) {
		// Killed, it would leave a segment of shared memory behind.
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
		cmd.WaitDelay = 5 * time.Second
		cmd.Dir = dir
	}
	s, err := serve(ctx, longestRun, r.dir, "backend-"+sql, []string{
		server, "-D", data, "-h", host, "-p", port, "-k", dir, "-c", "fsync=off", "-c", "max_connections=200", "-c", "shared_buffers=64MB", "-c", "autovacuum=off",
	}, as, gently)
	if err != nil {
		return nil, err
	}
	err = s.await(ctx, func() error { return do(beside(server, "pg_isready"), "-q", "-h", host, "-p", port) })
	if err == nil {
		err = do(beside(server, "pgbench"), "-i", "-q", "-s", "5", "-h", host, "-p", port, "-U", sqlUser, "postgres")
	}
	if err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

// unprivileged returns an account without rights of its own.
func unprivileged() (*syscall.Credential, error) {
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, err
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is no user postgres or nobody")
}

// probeSQL asks whether the server encrypts: the one question that it answers
// before it knows who asks.
func probeSQL(address string) error {
	const length, sslRequest = 8, 80877103
	question := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, length), sslRequest)
	answer, err := ask(address, question, 1)
	if err != nil {
		return err
	}
	if a := answer[0]; a != 'N' && a != 'S' {
		return fmt.Errorf("PostgreSQL answers %q, want N or S", a)
	}
	return nil
}

// startRedis starts a Redis that stores nothing.
func startRedis(ctx context.Context, r *rig, at route) (*server, error) {
	host, port, err := net.SplitHostPort(at.listen)
	if err != nil {
		return nil, err
	}
	return serve(ctx, longestRun, r.dir, "backend-"+redis, []string{
		r.programs["redis-server"], "--bind", host, "--port", port, "--save", "", "--appendonly", "no", "--dir", r.dir,
	})
}

func probeRedis(address string) error {
	const want = "+PONG\r\n"
	answer, err := ask(address, []byte("PING\r\n"), len(want))
	if err != nil {
		return err
	}
	if string(answer) != want {
		return fmt.Errorf("redis answers %q, want %q", answer, want)
	}
	return nil
}

// ask sends a question over a new connection and returns the first bytes of
// the answer.
func ask(address string, question []byte, length int) ([]byte, error) {
	conn, err := net.DialTimeout("tcp", address, 2*time.Second)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return nil, err
	}
	if _, err := conn.Write(question); err != nil {
		return nil, err
	}
	answer := make([]byte, length)
	_, err = io.ReadFull(conn, answer)
	return answer, err
}
