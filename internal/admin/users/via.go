package users

import "context"

// viaKey is where a context holds the way in.
type viaKey struct{}

// WithVia returns a context that says by which interface a caller comes: web, ssh
// or socket. It is for the audit file.
func WithVia(ctx context.Context, via string) context.Context {
	return context.WithValue(ctx, viaKey{}, via)
}

// Via returns the interface that WithVia has named, "" without.
func Via(ctx context.Context) string {
	via, _ := ctx.Value(viaKey{}).(string)
	return via
}
