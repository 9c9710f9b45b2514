package fleet

import "time"

// meter counts what has happened in the last second.
type meter struct {
	slots [meterSlots]int64
	at    int64 // the number of the last slot
	total uint64
	begun bool
}

const (
	meterSlots = 10
	meterSlot  = time.Second / meterSlots
)

// note takes in how much has happened ever.
func (m *meter) note(total uint64, now time.Time) {
	at := now.UnixNano() / int64(meterSlot)
	if at-m.at >= meterSlots || at < m.at {
		m.slots, m.at = [meterSlots]int64{}, at
	}
	for ; m.at < at; m.at++ {
		m.slots[(m.at+1)%meterSlots] = 0
	}
	if m.begun && total > m.total {
		m.slots[at%meterSlots] += int64(total - m.total)
	}
	m.total, m.begun = total, true
}

// last is how much that was in the last slots, the one that runs included.
func (m *meter) last(slots int64) (n int64) {
	for i := range slots {
		n += m.slots[(m.at-i+meterSlots)%meterSlots]
	}
	return n
}
