// Package floor is a relay that does no more than it has to: it shows what any proxy
// costs on this kernel. It has a fixed pair of addresses, and neither timeouts nor
// counters, limits, checks or logs. It is fit for measuring alone.
package floor
