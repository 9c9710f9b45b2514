//go:build linux

package loops

// offer decides when a loop that has nothing to do offers its processor to
// others (sched_yield(2)) before it sleeps. Where programs share a processor
// with the loop and bring it new work as soon as they run, neither sleeps nor
// has to be woken then. It pays only while there is no end of work: a loop that
// sleeps often is woken sooner than its turn would come. An offer without effect is
// not repeated for some chances, and one that took long not for many.
type offer struct {
	awake int64 // ns: when the loop last woke
	skip  int   // chances to let pass
	vain  int   // offers without effect in a row
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
		o.vain = 0
	default:
		o.skip = 1 << min(o.vain, offerLess)
		o.vain++
	}
}
