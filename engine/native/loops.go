//go:build linux && !portable

package native

import (
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/loops"
)

func newEngine(opt engine.Options) (engine.Engine, error) { return loops.New(opt) }
