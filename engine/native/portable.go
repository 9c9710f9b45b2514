//go:build !linux || portable

package native

import (
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/portable"
)

func checkListen(listen string, o engine.ListenOptions) error { return portable.CheckListen(listen, o) }

func newEngine(opt engine.Options) (engine.Engine, error) { return portable.New(opt) }
