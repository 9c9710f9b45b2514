package main

import (
	"context"
	"fmt"

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
		open: func(current func() *config.Config) (opened, error) {
			path := current().Control.Socket
			ln, err := socket.Listen(path, controlMode, "")
			if err != nil {
				return opened{}, fmt.Errorf("<control socket=%q>: %w", path, err)
			}
			opt := control.Options{Find: p.engine.FindByLocal, Log: p.log}
			return opened{ln.Addr(), func(ctx context.Context) error { return control.Serve(ctx, ln, opt) }}, nil
		},
	}
}
