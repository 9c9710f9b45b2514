// Package loops is the engine for Linux: event loops over epoll(7).
//
// One loop a core owns its listeners (SO_REUSEPORT), sessions, pipes and timers; it
// takes no lock and starts no goroutine. Sockets are non-blocking and registered once,
// edge-triggered. An event is only a hint: the answer of a system call decides.
package loops
