//go:build linux

package loops

import "time"

// The thresholds of the loops, each with what it was measured by or what it bounds.
// "Best peer" is the better of HAProxy and nginx in the same run; pages are those of
// docs/design. What the kernel or a data structure fixes stands beside it: keys, sizes of
// IDs, the ring's and the wheel's layout.

// Bytes of a turn.
const (
	// readSize is the room of one recv, and so what one turn copies of a flow. A read
	// that fills it makes the flow splice: splicing pays from 16 KB on, and streams fill
	// 64 KB (splice.md). Messages of 18 KB are copied at 0.76 of HAProxy's CPU.
	readSize = 64 << 10
	// arenaSize is what one batch may read before it has to send: four streams, or a few
	// thousand small requests in one call of the ring. It bounds a loop's memory.
	arenaSize = 4 * readSize
	// spliceTurn is what all spliced flows together move in a turn that had small
	// messages not long ago, so that those never wait long behind bulk: with 1 MiB pipes
	// and no bound, p99 of 8 small connections beside 64 streams was 41 to 198 ms, with
	// 256 KiB 38 to 53 (prototype).
	spliceTurn = 256 << 10
	// bulkTurn is what they move when there have been none for quietFor: four pipes, so that
	// what one flow leaves does not cut the next one's in pieces. 4 files at once take 2.6
	// splices per MiB with it, and 4.1 with one pipe (splice.md). The first message after a
	// silence waits for it, about 1 ms.
	bulkTurn = 4 << 20
	// quietFor is how long after a small message another is expected: the time between
	// the requests of a client that waits for each answer, with room.
	quietFor = int64(50 * time.Millisecond)
)

// What a flow does next, see flow.
const (
	// trickle is how little may come between two empty states of the source, in bytes, for
	// the stream to be copied again. Splicing pays from here on (splice.md).
	trickle = 16 << 10
	// gap is how many reads a stream may copy in a row without being taken for small
	// messages. It bounds how long a stream that has turned into messages is mistaken.
	gap = 8
	// minWindow and maxWindow bound what one fill may move, in bytes. A destination that
	// takes little gets fills of 64 KiB, so that a stalled reader pins no more: 300 of them
	// held 208 MiB in pipes of 1 MiB, 10 MiB with this and TCP_NOTSENT_LOWAT (splice.md).
	minWindow = 64 << 10
	maxWindow = 1 << 30
	// A destination that is full and has taken paceBytes within fast ticks may have as much
	// unsent in the kernel as a pipe holds, instead of core.NotSent, until paceBytes take it
	// slow ticks. With BBR, 4 streams take 2.4 splices per MiB then instead of 4.1, and 0.84
	// [0.75 0.91] of the CPU (splice.md). What all of them have unsent is bounded by
	// pipeMemory, and by what the network takes in a second.
	paceBytes = 1 << 20
	paceTick  = int64(time.Millisecond)
	fast      = 100
	slow      = 1000
	// spareBuffers is how many unused buffers of each size a loop keeps, 2.6 MiB at most.
	spareBuffers = 32
)

// The size of a batch.
const (
	// batchSize is how many events one poll returns at most. The kernel returns them in
	// the order in which they came (epoll_wait(2) goes round through what is ready).
	// It bounds how long the first of them waits for its send.
	batchSize = 256
	// worthARing is the size of a batch from which on its sends go through the ring. Of one
	// or two the difference was within the noise on every workload, tried twice, and at
	// 5,000 requests/s it cost 1.10 of HAProxy's CPU (io-uring.md).
	worthARing = 4
	// acceptBurst is how many connections one event accepts at most, so that a full queue
	// does not keep the sessions waiting.
	acceptBurst = 32
	// maxFaults is how many accepts in a row may fail until the listener rests. Clients
	// that have gone again cause one failure each; four in a row are the listener's own.
	maxFaults = 4
	// retriesPerTurn is how many connects may fail at once in one turn of a loop before
	// sessions have to wait for the next turn. Hosts on this machine refuse within the
	// call, and thousands of them must not delay the other sessions: a client of 4,000 dead
	// hosts took 30 s of CPU (failed-connects.md).
	retriesPerTurn = 16
)

// How sessions move to another process, see moving-sessions.md.
const (
	// movedAtOnce and movedBytes bound a batch: it takes as long as the sessions in it
	// stand still, and their loop looks after nobody else while it lets go of them.
	movedAtOnce = 32
	movedBytes  = 1 << 20
	// meterTries bounds how often the counts of a socket are read on which segments come.
	meterTries = 64
	// maxAway is how long a session may have been on its way, in ns; a clock that says more
	// is another machine's.
	maxAway = int64(24 * time.Hour)
)

// When a loop yields.
const (
	// rescheduleEvery is how long a loop runs before it goes through the scheduler. A
	// goroutine that has not for 10 ms is taken for one that hogs its processor: the
	// runtime's monitor signals it, takes the processor away whenever it meets it in a
	// system call, and never comes to rest itself. 64 kept-alive connections take 7.4
	// instead of 8.3 µs a request; 6 or 8 ms are no different (go-scheduler.md).
	rescheduleEvery = int64(4 * time.Millisecond)
)

// How long things may take.
const (
	// publishEvery is how old the published byte counts of a session may be. Metrics are
	// read every few seconds, the page every second.
	publishEvery = int64(time.Second)
	// refuseFor is how long a refused client may take to end, in ns. It bounds what a client
	// can hold that never ends.
	refuseFor = 1e9
	// maxLook is the longest pause between two looks at whether a peer has acknowledged all,
	// in ns; the pauses grow with the time waited.
	maxLook = 1e9
	// stoodStill is how late the clock must be for the loop to have stood still: far more
	// than a loop of a busy machine is late.
	stoodStill = int64(time.Second)
	// catchUp is how long timers wait then. Where the whole machine stood still, what has
	// come lies in its network interface, or is sent again by the peer: TCP does so within
	// a second. Without it, 545 of 800 sessions were closed as idle (timers.md).
	catchUp = int64(time.Second)
)
