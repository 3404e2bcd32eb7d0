//go:build linux

// Package lasting makes a host name last on a system that keeps its static name in
// /etc/hostname (hostname(5)): so that no later lease and no restart of a daemon
// brings another one.
//
// A name that somebody else wrote there is the operator's, and wins. What this
// package wrote it knows again by a copy beside it, [Mark]: where the two differ, an
// operator has changed the first. So a machine that is made of another one's disk
// gets its own name, and one whose operator ran `hostnamectl hostname` keeps that.
//
// Where the file cannot be written, it does the next best, see [How].
package lasting
