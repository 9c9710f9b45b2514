package main

import (
	"context"
	"fmt"
	"net"
	"path/filepath"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/admin/ssh"
)

// hostKeyFile is the host key that is made at the first start, in the directory
// of state.
const hostKeyFile = "ssh_host_ed25519_key"

// sshSurface is <ssh>.
func (p parts) sshSurface() surface {
	type words struct{ listen, hostKey string }
	var opt ssh.Options // of the server that runs, or comes next
	return surface{
		name: "ssh",
		words: func(c *config.Config) any {
			if s := c.Admin.SSH; s != nil && s.Enable {
				return words{s.Listen, s.HostKey}
			}
			return nil
		},
		listen: func(c *config.Config) (net.Listener, error) {
			path := c.Admin.SSH.HostKey
			if path == "" {
				path = filepath.Join(p.stateDir, hostKeyFile)
			}
			key, err := ssh.HostKey(path)
			if err != nil {
				return nil, fmt.Errorf("<ssh>: %w", err)
			}
			opt = ssh.Options{Admin: p.admin, Key: key, Log: p.log}
			return listenFor("ssh", c.Admin.SSH.Listen)
		},
		serve: func(ctx context.Context, ln net.Listener, _ *config.Config) error {
			return ssh.Serve(ctx, ln, opt)
		},
	}
}
