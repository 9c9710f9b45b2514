package admin

import (
	"fmt"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/edits"
)

// mirror is the address of a mirror that is there.
func mirror() Param {
	return Param{Name: "ip", Aliases: []string{"mirror", "address"}, Kind: Mirror, Required: true, Label: "Mirror"}
}

func (e *edit) mirror() (service, group, ip string) {
	service, group, _ = e.names()
	return service, group, e.args.text("ip")
}

func addMirror(e *edit) error {
	service, group, ip := e.mirror()
	m := config.NewMirror(ip)
	e.assign("mirror", m)
	return e.AddMirror(service, group, m)
}

func delMirror(e *edit) error { return e.DeleteMirror(e.mirror()) }

func setMirror(e *edit) error {
	if err := e.some("mirror"); err != nil {
		return err
	}
	service, group, ip := e.mirror()
	return e.SetMirror(service, group, ip, func(m *config.Mirror) []string { return e.assign("mirror", m) })
}

func hasMirrors(s *Scene) bool { return len(s.Group.Config.Mirrors) > 0 }

// MirrorInfo is one mirror in the Data of show mirrors.
type MirrorInfo struct {
	Service  string            `json:"service"`
	Group    string            `json:"group"`
	IP       string            `json:"ip"` // as configured
	Percent  int               `json:"percent"`
	Address  string            `json:"address"` // where copies go; "": the name has not resolved
	Up       bool              `json:"up"`      // no connect has failed since the last one that succeeded
	Reason   string            `json:"reason,omitempty"`
	Since    *time.Time        `json:"since,omitempty"`   // when it went down
	Problem  string            `json:"problem,omitempty"` // with its name
	Settings map[string]string `json:"settings"`          // every attribute that setMirror knows
	Copies   int64             `json:"copies"`            // connections to it now
	Sessions uint64            `json:"sessions_total"`    // that were to be copied
	Bytes    uint64            `json:"bytes"`             // that it has taken
	Lost     uint64            `json:"lost"`              // copies that are not whole
	Reasons  map[string]uint64 `json:"lost_reasons"`
}

func mirrorInfo(service, group string, m *director.Mirror) MirrorInfo {
	s := m.Stats()
	i := MirrorInfo{
		Service: service, Group: group, IP: m.Config.Address, Percent: m.Config.Percent, Address: m.Addr(), Up: m.Addr() != "", Problem: m.Problem,
		Settings: map[string]string{}, Copies: s.Active, Sessions: s.Sessions, Bytes: s.Bytes, Lost: s.LostAll(), Reasons: s.Lost,
	}
	if t := m.Trouble(); t != nil {
		i.Up, i.Reason, i.Since = false, t.Reason, &t.Since
	}
	rows := config.Attributes("mirror")
	for n := range rows {
		if rows[n].Runtime {
			i.Settings[rows[n].Name] = rows[n].Get(m.Config)
		}
	}
	return i
}

// health is what people read about the mirror.
func (i *MirrorInfo) health() string {
	switch {
	case i.Reason != "":
		return "down: " + i.Reason
	case !i.Up:
		return "down: " + i.Problem
	case i.Problem != "":
		return "up, but " + i.Problem
	}
	return "up"
}

func (k *call) showMirrors() (Result, error) {
	state, want := k.state(), k.args.text("service")
	if want != "" {
		if _, err := edits.Service(state.Config, want); err != nil {
			return Result{}, err
		}
	}
	infos := []MirrorInfo{}
	t := table{head: []string{"service", "group", "mirror", "percent", "copies", "total", "bytes", "lost", "health"}, right: 3}
	for _, s := range state.Services {
		if want != "" && s.Config.Name != want {
			continue
		}
		for _, g := range s.Groups {
			for _, m := range g.Mirrors {
				i := mirrorInfo(s.Config.Name, g.Config.Name, m)
				infos = append(infos, i)
				t.row(i.Service, i.Group, i.IP, fmt.Sprint(i.Percent), i.Copies, i.Sessions, i.Bytes, i.Lost, i.health())
			}
		}
	}
	t.moved = true
	return Result{Text: t.String(), Data: infos, Generation: state.Generation}, nil
}
