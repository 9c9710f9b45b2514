//go:build !unix

package splice

import "net"

// readiness is for systems whose connections can be waited for without a buffer.
type readiness struct{}

func readinessOf(net.Conn) *readiness { return nil }

func (*readiness) read(*Source) (int, error) { return 0, nil }
