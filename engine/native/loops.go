//go:build linux && !portable

package native

import (
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/loops"
)

func checkListen(listen string, o engine.ListenOptions) error { return loops.CheckListen(listen, o) }

func newEngine(opt engine.Options) (engine.Engine, error) { return loops.New(opt) }
