// Package core has what both engines share: how a client gets its host
// ([Admission]), what is counted and under which reasons, how listen addresses are
// read, and which timeouts apply. It makes no system call for a session.
package core
