package fleet

import (
	"context"
	"errors"
	"time"
)

// Store is what a fleet needs of a store that all nodes reach: reads and compare-and-swaps
// that are linearizable, watches and leases. Its methods may be called from any goroutine. An
// error that ctx has ended is returned as soon as it has.
type Store interface {
	// Get returns the entries whose keys begin with prefix, and the revision of the store
	// that has them. It is never older than what has been written by then.
	Get(ctx context.Context, prefix string) (entries []Entry, revision int64, err error)
	// Swap writes a value if the key is at the revision was; 0: if it is not there. A nil value
	// deletes the key. With a lease, the key goes when that ends. The error is ErrMoved if the key is at another
	// revision; is then has what is there, which is the zero Entry if nothing is. It is an
	// *UnknownError if the write may still take effect. also is written together with it, or
	// not at all.
	Swap(ctx context.Context, key string, value []byte, was int64, lease Lease, also ...Write) (revision int64, is Entry, err error)
	// Watch calls hear with what changes below prefix after a revision, in order and nothing
	// left out, until it fails or ctx ends. The error is ErrCompacted if the store has
	// forgotten what came after the revision.
	Watch(ctx context.Context, prefix string, after int64, hear func([]Entry)) error
	// Grant makes a lease that ends when it is not renewed for so long.
	Grant(ctx context.Context, ttl time.Duration) (Lease, error)
	// Renew renews a lease. The error is ErrLeaseGone if it has ended.
	Renew(ctx context.Context, lease Lease) error
	// Revoke ends a lease and deletes its keys.
	Revoke(ctx context.Context, lease Lease) error
	// Close closes all connections.
	Close() error
}

// Entry is a key with its value.
type Entry struct {
	Key      string
	Value    []byte
	Revision int64 // of the write, or of what deleted it
	Deleted  bool  // in a Watch
}

// Write is a write of another key, whatever that has. A Watch tells of both at once.
type Write struct {
	Key    string
	Value  []byte
	Lease  Lease // with which the key goes; 0: with none
	Delete bool  // delete it, if it is there
}

// Lease is the number of a lease; 0 is none.
type Lease int64

// What a Store may answer.
var (
	ErrMoved     = errors.New("the key has changed meanwhile")
	ErrCompacted = errors.New("the store has forgotten these revisions")
	ErrLeaseGone = errors.New("the lease has ended")
)

// UnknownError means that nobody can tell whether a write has taken effect, or will.
type UnknownError struct{ Err error }

func (e *UnknownError) Error() string { return e.Err.Error() }
func (e *UnknownError) Unwrap() error { return e.Err }

// Diagnoser is what a Store may be, too.
type Diagnoser interface {
	// Diagnose says in one line why no answer may have come, for each address of the store. It
	// may take a second.
	Diagnose(ctx context.Context) string
}
