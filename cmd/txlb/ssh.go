package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/admin/ssh"
	"github.com/txlb/txlb/internal/guard"
)

// hostKeyFile is the host key in the state directory, which is made at the first
// start.
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
		pos:     func(c *config.Config) config.Pos { return c.Admin.SSH.Pos },
		address: func(c *config.Config) string { return c.Admin.SSH.Listen },
		listen:  func(c *config.Config) (net.Listener, error) { return listenFor("ssh", c.Admin.SSH.Listen) },
		files: func(c *config.Config, create bool) (err error) {
			if create {
				_, err = ssh.HostKey(p.hostKey(c))
			} else {
				err = ssh.CheckHostKey(p.hostKey(c))
			}
			if err != nil {
				return fmt.Errorf("<ssh>: %w", err)
			}
			return nil
		},
		serve: func(ln net.Listener, current func() *config.Config) (func(context.Context) error, error) {
			key, err := ssh.HostKey(p.hostKey(current()))
			if err != nil {
				return nil, errors.Join(fmt.Errorf("<ssh>: %w", err), ln.Close())
			}
			guarded := p.guard.Listen(guard.SSH, ln, func() []netip.Prefix { return current().Admin.SSH.Allow.Prefixes() })
			opt := ssh.Options{Admin: p.admin, Users: p.users, Key: key, Log: p.log}
			return func(ctx context.Context) error { return ssh.Serve(ctx, guarded, opt) }, nil
		},
	}
}

// hostKey returns where the host key is.
func (p parts) hostKey(c *config.Config) string {
	return cmp.Or(c.Admin.SSH.HostKey, filepath.Join(p.stateDir, hostKeyFile))
}
