package main

import (
	"context"
	"fmt"
	"net"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/admin/control"
	"github.com/txlb/txlb/internal/admin/socket"
	"github.com/txlb/txlb/internal/guard"
)

// controlSurface is <control socket>.
func (p parts) controlSurface() surface {
	return surface{
		name: "control",
		words: func(c *config.Config) any {
			if c.Control.Socket == "" {
				return nil
			}
			return c.Control.Socket
		},
		pos:     func(c *config.Config) config.Pos { return c.Control.Pos },
		address: func(c *config.Config) string { return "unix:" + c.Control.Socket },
		listen: func(c *config.Config) (net.Listener, error) {
			ln, err := socket.Listen(c.Control.Socket, ownerOnly, "")
			if err != nil {
				return nil, fmt.Errorf("<control socket=%q>: %w", c.Control.Socket, err)
			}
			return ln, nil
		},
		serve: func(ln net.Listener, _ func() *config.Config) (func(context.Context) error, error) {
			opt := control.Options{Find: p.engine.FindByLocal, Log: p.log}
			guarded := p.guard.Listen(guard.Control, ln, nil)
			return func(ctx context.Context) error { return control.Serve(ctx, guarded, opt) }, nil
		},
	}
}
