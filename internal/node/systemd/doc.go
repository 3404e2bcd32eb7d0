//go:build linux

// Package systemd is what nametag and systemd tell each other where nametag is a
// service: how far it is (sd_notify(3)), what happened, as fields of the journal
// (systemd.journal-fields(7)), and, the other way, what a unit must do when there
// is no name in time (a drop-in that a generator writes, systemd.generator(7)).
//
// Everything here does nothing where there is no systemd, and never blocks a boot.
package systemd
