package main

import (
	"context"
	"fmt"
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
	return surface{
		name: "ssh",
		words: func(c *config.Config) any {
			if s := c.Admin.SSH; s != nil && s.Enable {
				return words{s.Listen, s.HostKey}
			}
			return nil
		},
		open: func(current func() *config.Config) (opened, error) {
			is := current().Admin.SSH
			path := is.HostKey
			if path == "" {
				path = filepath.Join(p.stateDir, hostKeyFile)
			}
			key, err := ssh.HostKey(path)
			if err != nil {
				return opened{}, fmt.Errorf("<ssh>: %w", err)
			}
			ln, err := listenFor("ssh", is.Listen)
			if err != nil {
				return opened{}, err
			}
			opt := ssh.Options{Admin: p.admin, Key: key, Log: p.log}
			return opened{ln.Addr(), func(ctx context.Context) error { return ssh.Serve(ctx, ln, opt) }}, nil
		},
	}
}
