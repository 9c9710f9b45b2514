// Package core has what both engines decide alike: how a client gets its host
// ([Admission]), what is counted and under which reasons, how addresses to listen on
// are read, and which time-outs hold. It makes no system call for a session.
package core
