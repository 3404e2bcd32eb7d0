//go:build linux

package systemd

import (
	"github.com/coreos/go-systemd/v22/journal"
)

// The fields of an entry, beside the journal's own. They are part of the interface:
// `journalctl NAMETAG_EVENT=named -o verbose`.
const (
	FieldEvent      = "NAMETAG_EVENT"       // what happened, in one word: named, failed, applied, …
	FieldHostname   = "NAMETAG_HOSTNAME"    // the name
	FieldInstanceID = "NAMETAG_INSTANCE_ID" // the cloud's id of this server
	FieldPath       = "NAMETAG_PATH"        // interface/method
	FieldError      = "NAMETAG_ERROR"       // what went wrong
	FieldThen       = "NAMETAG_THEN"        // what follows where there is no name
)

// A Level is a line's severity, with syslog's numbers.
type Level = journal.Priority

// Entry puts a line with fields into the journal; empty ones are left out. It
// reports whether the journal took it.
func Entry(level Level, text string, fields map[string]string) bool {
	if !journal.Enabled() {
		return false
	}
	all := map[string]string{"SYSLOG_IDENTIFIER": "nametag"}
	for name, value := range fields {
		if value != "" {
			all[name] = value
		}
	}
	return journal.Send(text, level, all) == nil
}
