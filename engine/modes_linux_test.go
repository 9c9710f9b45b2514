//go:build !portable

package engine

// modes are all ways in which bytes can be moved. Where there is a ring, every
// send goes through it.
var modes = map[string]Options{
	"auto":   {Splice: SpliceAuto, ringFrom: 1},
	"always": {Splice: SpliceAlways, ringFrom: 1},
	"never":  {Splice: SpliceNever, ringFrom: 1},
	"plain":  {Splice: SpliceAuto, Ring: RingOff},
}
