package main

import (
	"context"
	"fmt"
	"net"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/admin/socket"
)

// socketSurface is <socket>. What it has seen of the traffic outlives a change
// of path or mode.
func (p parts) socketSurface() surface {
	server := socket.New(socket.Options{
		Admin: p.admin, Director: p.director, Engine: p.engine, Version: version, Log: p.log,
		SessionsLimit: p.metrics.SessionsLimit, FDLimit: p.metrics.FDLimit, PipesLimit: p.pipes,
		MaxConns: socketFiles(p.metrics.FDLimit),
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
		listen: func(c *config.Config) (net.Listener, error) {
			s := c.Admin.Socket
			ln, err := socket.Listen(s.Path, s.Mode, s.Group)
			if err != nil {
				return nil, fmt.Errorf("<socket path=%q>: %w", s.Path, err)
			}
			return ln, nil
		},
		serve: func(ctx context.Context, ln net.Listener, _ *config.Config) error { return server.Serve(ctx, ln) },
	}
}

// socketFiles is how many connections the local socket may have with so many
// open files; 0: not known.
func socketFiles(files uint64) int {
	if files == 0 {
		return 128
	}
	return int(max(min(files/32, 128), 4))
}
