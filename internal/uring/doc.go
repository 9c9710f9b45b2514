// Package uring makes many system calls in one, by a ring of io_uring(7) whose operations
// all complete before the call returns.
//
// Concurrency: a ring belongs to one goroutine at a time.
//
// Source: io_uring(7), io_uring_setup(2), io_uring_enter(2), linux/io_uring.h.
package uring
