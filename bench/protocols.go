//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/txlb/txlb/internal/servers"
)

// Real protocols: PostgreSQL under pgbench and Redis under redis-benchmark,
// each with a server of the bench's own whose data is in its folder.

// clients is how many connections they keep busy.
const clients = 16

// sqlLoad selects single rows over kept connections. Programs of this kind take a
// number of requests: about what takes as long as a slice.
func sqlLoad() workload {
	const perSecond = 32_000
	return workload{
		name: "pgbench", title: "PostgreSQL, one row a query", unit: "transaction", how: fmt.Sprintf("pgbench -S -M prepared -c %d -j 2", clients), backend: sql,
		group: flows, with: []string{large}, figures: figures("transaction", "transactions"),
		run: func(ctx context.Context, t *trial) error {
			host, port, err := net.SplitHostPort(t.addr)
			if err != nil {
				return err
			}
			n := max(1, int(perSecond*t.length.Seconds())/clients)
			return programLoad(ctx, t, parsePgbench, servers.InPostgreSQL("pgbench"), "-h", host, "-p", port, "-U", sqlUser,
				"-S", "-n", "-M", "prepared", "-c", strconv.Itoa(clients), "-j", "2", "-t", strconv.Itoa(n), "postgres")
		},
	}
}

// redisLoad sets a key with a number of requests under way on each connection.
func redisLoad(pipeline, perSecond int) workload {
	return workload{
		name: fmt.Sprintf("redis-p%d", pipeline), title: fmt.Sprintf("Redis, %d requests at a time", pipeline), unit: "request",
		how: fmt.Sprintf("redis-benchmark -t set -d 64 -c %d -P %d", clients, pipeline), backend: redis, needs: []string{"redis-benchmark"},
		group: flows, with: []string{large}, figures: figures("request", "requests"),
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
	if t.perSecond, err = decimal(out, `tps = ([\d.]+) \(without initial`); err != nil {
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
	perSecond, err := decimal(out, `(?m)^"SET[^"]*","([\d.]+)`)
	if err != nil {
		return tally{}, err
	}
	if strings.Contains(out, "Error") || strings.Contains(out, "WARNING: Could not") {
		return tally{}, fmt.Errorf("its output speaks of an error: %s", strings.TrimSpace(out))
	}
	return tally{done: n, perSecond: perSecond}, nil
}

// sqlUser owns the database.
const sqlUser = "bench"

// startSQL makes a database in a folder of its own and starts its server.
// PostgreSQL refuses to run as root, so it is somebody else then.
func startSQL(ctx context.Context, r *rig, at route) (*servers.Server, error) {
	host, port, err := net.SplitHostPort(at.listen)
	if err != nil {
		return nil, err
	}
	as, err := servers.Unprivileged()
	if err != nil {
		return nil, err
	}
	s, err := servers.New(r.dir, "backend-"+sql, at.listen, as)
	if err != nil {
		return nil, err
	}
	s.Limit = longestRun
	within, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := s.PostgreSQL(within, sqlUser, "", "-c", "max_connections=200", "-c", "shared_buffers=64MB", "-c", "autovacuum=off"); err != nil {
		return nil, err
	}
	if err := s.Launch(ctx); err != nil {
		return nil, err
	}
	err = s.Await(ctx, func() error { return s.Probe(at.listen) })
	if err == nil {
		_, err = servers.Call(within, s.Dir, as, nil, servers.InPostgreSQL("pgbench"), "-i", "-q", "-s", "5", "-h", host, "-p", port, "-U", sqlUser, "postgres")
	}
	if err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

// probeSQL asks whether the server encrypts: the one question that it answers
// before it knows who asks.
func probeSQL(to dialer) error {
	const length, sslRequest = 8, 80877103
	question := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, length), sslRequest)
	answer, err := ask(to, question, 1)
	if err != nil {
		return err
	}
	if a := answer[0]; a != 'N' && a != 'S' {
		return fmt.Errorf("PostgreSQL answers %q, want N or S", a)
	}
	return nil
}

// startRedis starts a Redis that stores nothing.
func startRedis(ctx context.Context, r *rig, at route) (*servers.Server, error) {
	s, err := servers.New(r.dir, "backend-"+redis, at.listen, nil)
	if err != nil {
		return nil, err
	}
	if err := s.Redis(); err != nil {
		return nil, err
	}
	s.Limit = longestRun
	return s, s.Launch(ctx)
}

func probeRedis(to dialer) error {
	const want = "+PONG\r\n"
	answer, err := ask(to, []byte("PING\r\n"), len(want))
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
func ask(to dialer, question []byte, length int) ([]byte, error) {
	conn, err := to.dial(probeLimit)
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
