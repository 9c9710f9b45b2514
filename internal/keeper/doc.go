// Package keeper keeps sockets for a process that may die: a process of its own holds
// duplicates of them, and gives them to the next one. It has no logic beside that, so that it
// has no reason to die itself.
//
// [Server] is that process, [Client] is the other side. They talk over a UNIX socket of packets.
// What a client has given stays when its connection ends, which the kernel does no sooner than
// when its process makes no more calls. The next client may take it; if none does, it is closed
// after [Patience]. Only Linux has both.
package keeper

import "time"

// Patience is how long what a process has left waits for the next one.
const Patience = time.Minute
