package main

import (
	"context"
	"fmt"
	"net"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/admin/control"
	"github.com/txlb/txlb/internal/admin/socket"
)

// controlMode is who may ask for clients: the owner alone.
const controlMode = 0o600

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
		listen: func(c *config.Config) (net.Listener, error) {
			ln, err := socket.Listen(c.Control.Socket, controlMode, "")
			if err != nil {
				return nil, fmt.Errorf("<control socket=%q>: %w", c.Control.Socket, err)
			}
			return ln, nil
		},
		serve: func(ctx context.Context, ln net.Listener, _ *config.Config) error {
			return control.Serve(ctx, ln, control.Options{Find: p.engine.FindByLocal, Log: p.log})
		},
	}
}
