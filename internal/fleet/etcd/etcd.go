// Package etcd keeps a fleet's configuration in an etcd, version 3.4 or newer, with the client
// of that project.
package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/grpclog"
	"google.golang.org/grpc/status"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/fleet"
)

// dialWithin bounds a connection to one member, and silentFor is how long one may say nothing
// before it is asked whether it is there.
const (
	dialWithin = 3 * time.Second
	silentFor  = 3 * time.Second
)

// store is an etcd as a [fleet.Store].
type store struct {
	client  *clientv3.Client
	members []string
	secure  *tls.Config // nil: connections are not encrypted
}

// Open returns the store that <fleet> says. It reads the files of certificates. With a user it
// waits until the store has taken the password; otherwise it does not wait for an answer.
func Open(ctx context.Context, c *config.Fleet) (fleet.Store, error) {
	silence()
	secure, err := tlsOf(c)
	if err != nil {
		return nil, err
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: c.Store, TLS: secure, Username: c.User, Password: c.Password,
		DialTimeout: dialWithin, DialKeepAliveTime: silentFor, DialKeepAliveTimeout: silentFor,
		Context: ctx, Logger: zap.NewNop(),
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil, fmt.Errorf("the store has not answered within %v: %s", dialWithin, diagnose(ctx, c.Store, secure))
	}
	if err != nil {
		return nil, failure(err)
	}
	return &store{client, c.Store, secure}, nil
}

// silence keeps gRPC from writing about connections to standard error. What is wrong with them is
// in the errors of the calls.
var silence = sync.OnceFunc(func() { grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard)) })

// tlsOf returns how connections are encrypted, nil if they are not.
func tlsOf(c *config.Fleet) (*tls.Config, error) {
	if !strings.HasPrefix(c.Store[0], "https:") { // all are, or none
		return nil, nil
	}
	secure := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		text, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("<fleet ca>: %w", err)
		}
		secure.RootCAs = x509.NewCertPool()
		if !secure.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("<fleet ca>: %s has no certificate in PEM", c.CA)
		}
	}
	if c.Cert != "" {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, fmt.Errorf("<fleet cert key>: %w", err)
		}
		secure.Certificates = []tls.Certificate{pair}
	}
	return secure, nil
}

// Close implements [fleet.Store].
func (s *store) Close() error { return s.client.Close() }

// Get implements [fleet.Store].
func (s *store) Get(ctx context.Context, prefix string) ([]fleet.Entry, int64, error) {
	r, err := s.client.Get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return nil, 0, failure(err)
	}
	entries := make([]fleet.Entry, len(r.Kvs))
	for i, kv := range r.Kvs {
		entries[i] = entry(kv)
	}
	return entries, r.Header.Revision, nil
}

func entry(kv *mvccpb.KeyValue) fleet.Entry {
	return fleet.Entry{Key: string(kv.Key), Value: kv.Value, Revision: kv.ModRevision}
}

// Swap implements [fleet.Store].
func (s *store) Swap(ctx context.Context, key string, value []byte, was int64, lease fleet.Lease, also ...fleet.Write) (int64, fleet.Entry, error) {
	writes := []clientv3.Op{clientv3.OpDelete(key)}
	if value != nil {
		writes[0] = put(key, value, lease)
	}
	for _, w := range also {
		if w.Delete {
			writes = append(writes, clientv3.OpDelete(w.Key))
		} else {
			writes = append(writes, put(w.Key, w.Value, w.Lease))
		}
	}
	r, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(key), "=", was)).
		Then(writes...).
		Else(clientv3.OpGet(key)).
		Commit()
	switch {
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		return 0, fleet.Entry{}, fleet.ErrLeaseGone
	case err != nil && refused(err):
		return 0, fleet.Entry{}, failure(err)
	case err != nil:
		return 0, fleet.Entry{}, &fleet.UnknownError{Err: failure(err)}
	case r.Succeeded:
		return r.Header.Revision, fleet.Entry{}, nil
	}
	var is fleet.Entry
	if len(r.Responses) == 1 {
		if got := r.Responses[0].GetResponseRange(); got != nil && len(got.Kvs) == 1 {
			is = entry(got.Kvs[0])
		}
	}
	return 0, is, fleet.ErrMoved
}

func put(key string, value []byte, lease fleet.Lease) clientv3.Op {
	if lease == 0 {
		return clientv3.OpPut(key, string(value))
	}
	return clientv3.OpPut(key, string(value), clientv3.WithLease(clientv3.LeaseID(lease)))
}

// Watch implements [fleet.Store].
func (s *store) Watch(ctx context.Context, prefix string, after int64, hear func([]fleet.Entry)) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx)) // else a member without one is silent
	defer cancel()
	for r := range s.client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(after+1)) {
		if r.CompactRevision != 0 {
			return fleet.ErrCompacted
		}
		if err := r.Err(); err != nil {
			return failure(err)
		}
		entries := make([]fleet.Entry, len(r.Events))
		for i, e := range r.Events {
			entries[i] = entry(e.Kv)
			entries[i].Deleted = e.Type == clientv3.EventTypeDelete
		}
		if len(entries) > 0 {
			hear(entries)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return errors.New("the store has ended the watch")
}

// Grant implements [fleet.Store].
func (s *store) Grant(ctx context.Context, ttl time.Duration) (fleet.Lease, error) {
	r, err := s.client.Grant(ctx, int64((ttl+time.Second-1)/time.Second))
	if err != nil {
		return 0, failure(err)
	}
	return fleet.Lease(r.ID), nil
}

// Renew implements [fleet.Store].
func (s *store) Renew(ctx context.Context, lease fleet.Lease) error {
	_, err := s.client.KeepAliveOnce(ctx, clientv3.LeaseID(lease))
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return fleet.ErrLeaseGone
	}
	return failure(err)
}

// Revoke implements [fleet.Store].
func (s *store) Revoke(ctx context.Context, lease fleet.Lease) error {
	_, err := s.client.Revoke(ctx, clientv3.LeaseID(lease))
	return failure(err)
}

// refused tells whether the store has said that it does not do what it was asked for, and
// will not.
func refused(err error) bool {
	switch code(err) {
	case codes.InvalidArgument, codes.PermissionDenied, codes.Unauthenticated, codes.FailedPrecondition, codes.ResourceExhausted, codes.NotFound, codes.OutOfRange, codes.Unimplemented:
		return true
	}
	return false
}

func code(err error) codes.Code {
	if e := (rpctypes.EtcdError{}); errors.As(err, &e) {
		return e.Code()
	}
	return status.Code(err)
}

// failure is an error in the words of the store, without the prefixes of its client.
func failure(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	text := err.Error()
	if e := (rpctypes.EtcdError{}); errors.As(err, &e) {
		text = e.Error()
	} else if s, is := status.FromError(err); is {
		text = s.Message()
	}
	return fmt.Errorf("etcd: %s", strings.TrimPrefix(text, "etcdserver: "))
}
