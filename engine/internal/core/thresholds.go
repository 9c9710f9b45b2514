package core

import "time"

// The thresholds that both engines share, each with its measurement or what it
// bounds. Pages are those of docs/design. Those of the event loops alone are in
// package loops, in a file of the same name.

// What a session may use and wait for.
const (
	// lastResorts is how many hosts that are down a session tries where the route says
	// nothing about tries. Without it, a group of 4,000 dead hosts took 30 s of CPU per
	// client (failed-connects.md).
	lastResorts = 3
	// minQueueWait and maxQueueWait bound how long a session waits before it asks a full
	// queue of a UNIX socket again. A server empties one within milliseconds; one that has
	// not for 200 ms need not be asked more often than 20 times a second.
	minQueueWait = int64(time.Millisecond)
	maxQueueWait = int64(50 * time.Millisecond)
	// PauseFor is how long an engine without descriptors waits before it tries again,
	// in ns. It bounds how late a client is served after one is free; ten tries a
	// second cost nothing.
	PauseFor = int64(100 * time.Millisecond)
	// maxClients is how many clients of one service are counted against perClient and
	// perClientRate: 32 MiB, and 512 KiB for the 1<<clientBits lists. So many have sessions or
	// have had one in the last second.
	maxClients = 1 << 20
	clientBits = 16
	// tidyAtOnce bounds the work of a session that finds the table full.
	tidyAtOnce = 64
	// MaxLinger bounds the wait for the last bytes before a reset.
	MaxLinger = 30 * time.Second
	// NotSent is TCP_NOTSENT_LOWAT: how many bytes may wait in the kernel that TCP has not
	// sent yet. More would only move a queue from the source's buffer to ours. With it, 300
	// stalled readers pin 10 MiB instead of 208; streams are no slower with 512 KiB
	// (splice.md).
	NotSent = 128 << 10
	// TuneAfter is the age in ns at which a session gets the socket options that only a long
	// one needs: a short session pays for none (tcp-segments.md).
	TuneAfter = int64(5e9)
	// keepAliveProbes is how many unanswered keep-alive probes end a connection. The
	// kernel counts seconds, so keepAlive is exact from four seconds on.
	keepAliveProbes = 4
)

// What an engine may use.
const (
	// DefaultPipeSize is what streams gain from: bulk takes 523 µs per MB with pipes of
	// 64 KiB, 374 with 256 KiB, 314 with 1 MiB (splice.md).
	DefaultPipeSize = 1 << 20
	// defaultPipeMemory bounds what stalled streams pin in the kernel: 256 full pipes.
	defaultPipeMemory = 256 << 20
	// defaultBacklog is what somaxconn has been since Linux 5.4: more has no effect there.
	defaultBacklog = 4096
	// failureQueue is how many reports wait for the director; further ones are dropped, and
	// its scan of the hosts finds what they said.
	failureQueue = 1024
	// zoneEvery is how often the interfaces of listeners with a zone are checked. The
	// address of a new interface is not usable for a second or two anyway.
	zoneEvery = time.Second
)
