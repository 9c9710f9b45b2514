package main

import (
	"context"
	"fmt"
	"net"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/admin/socket"
	"github.com/txlb/txlb/internal/guard"
)

// socketSurface is <socket>.
func (p parts) socketSurface() surface {
	server := socket.New(socket.Options{
		Admin: p.admin, Director: p.director, Engine: p.engine, Status: p.status, Log: p.log, PipesLimit: p.pipes,
	})
	return surface{
		name: "socket",
		words: func(c *config.Config) any {
			if c.Admin.Socket == nil {
				return nil
			}
			words := *c.Admin.Socket
			words.Pos = config.Pos{} // another line is no other socket
			return words
		},
		pos:     func(c *config.Config) config.Pos { return c.Admin.Socket.Pos },
		address: func(c *config.Config) string { return "unix:" + c.Admin.Socket.Path },
		listen: func(c *config.Config) (net.Listener, error) {
			is := c.Admin.Socket
			ln, err := socket.Listen(is.Path, is.Mode, is.Group)
			if err != nil {
				return nil, fmt.Errorf("<socket path=%q>: %w", is.Path, err)
			}
			return ln, nil
		},
		files: func(c *config.Config, _ bool) error {
			if err := socket.CheckGroup(c.Admin.Socket.Group); err != nil {
				return fmt.Errorf("<socket group=%q>: %w", c.Admin.Socket.Group, err)
			}
			return nil
		},
		serve: func(ln net.Listener, _ func() *config.Config) (func(context.Context) error, error) {
			guarded := p.guard.Listen(guard.Socket, ln, nil)
			return func(ctx context.Context) error { return server.Serve(ctx, guarded) }, nil
		},
	}
}
