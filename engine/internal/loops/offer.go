//go:build linux

package loops

// offer decides when a loop that has nothing to do offers its processor to others
// (sched_yield(2)) before it sleeps: once it has been awake for offerAfter, less often
// after an offer that found no work, and rarely after a slow one. Programs that share the
// processor can then bring new work before the loop sleeps and has to be woken. A loop
// that sleeps often is woken sooner than its turn would come, so it makes no offers.
type offer struct {
	awake   int64 // ns: when the loop last woke
	skip    int   // chances to let pass
	useless int   // offers in a row that found no work
}

func (o *offer) due(now int64) bool {
	if now-o.awake < offerAfter {
		return false
	}
	if o.skip > 0 {
		o.skip--
		return false
	}
	return true
}

// made takes in what became of an offer.
func (o *offer) made(took int64, found bool) {
	switch {
	case took > longOffer:
		o.skip = offerLater
	case found:
		o.useless = 0
	default:
		o.skip = 1 << min(o.useless, offerLess)
		o.useless++
	}
}
