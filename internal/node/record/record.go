//go:build linux

// Package record writes what is known of this machine's identity to a file that
// the operating system, and every program on it, can read:
// /run/nametag/identity.json.
//
// # The file
//
// One JSON object, UTF-8, ended by a line feed:
//
//	{
//	  "schema": 1,
//	  "hostname": "my-server.example.com",
//	  "domain": "example.com",
//	  "instance_id": "42",
//	  "id_proven_by": "dmi",
//	  "region": "eu-central",
//	  "availability_zone": "hel1-dc2",
//	  "public_ipv4": "192.0.2.7",
//	  "private_networks": [
//	    {
//	      "id": 7,
//	      "name": "internal",
//	      "ip": "10.0.0.2",
//	      "alias_ips": ["10.0.0.9"],
//	      "network": "10.0.0.0/16",
//	      "subnet": "10.0.0.0/24",
//	      "gateway": "10.0.0.1",
//	      "mac": "86:00:00:aa:bb:cc"
//	    }
//	  ],
//	  "source": "hetzner",
//	  "path": {"interface": "eth0", "method": "linklocal", "address": "169.254.7.9"},
//	  "short_name": "my-server",
//	  "elapsed_ms": 12.5,
//	  "boot_id": "7d5ef5a4-…"
//	}
//
// Always there are schema, hostname, short_name, source, path.method and
// elapsed_ms, the time from the first step to the proven name; what else is not
// known is left out. id_proven_by says what the instance id was compared with: dmi
// (the firmware's serial number), expected (a number given by hand), or none. hostname is the exact string that the cloud gave, short_name
// its first label. Where source is "known", the service gave no name, and this one is
// that of an earlier boot, which was first written down at known_since; path.method is
// "memory" then. boot_id is the kernel's; a record that carries another is left
// over from another boot.
//
// Schema 1 will get further members, never lose one or change what one means: a
// reader ignores what it does not know. Anything else would be schema 2.
//
// The file is complete whenever it is there: it is written beside its place and
// renamed. Its mode is 0644, its folder's 0755.
package record

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/internal/node/replace"
)

const (
	// Schema is the version of the file's form.
	Schema = 1
	// Path is where the record is, for readers.
	Path = "/run/nametag/identity.json"
)

// A Record is the file's content: an identity in its own JSON, and what the file says
// beside it.
type Record struct {
	Schema int `json:"schema"`
	identity.Identity
	ShortName  string    `json:"short_name"`
	ElapsedMS  float64   `json:"elapsed_ms"`
	BootID     string    `json:"boot_id,omitempty"`
	KnownSince time.Time `json:"known_since,omitzero"`
}

// From is the record of an identity. The boot id is filled in by [Record.Write].
func From(id *identity.Identity) Record {
	r := Record{
		Schema: Schema, Identity: *id, ShortName: id.ShortName(),
		ElapsedMS: float64(id.Proven.Round(time.Microsecond)) / float64(time.Millisecond),
	}
	// The file has no member for them: the time is told as elapsed_ms, and how the name was found is nobody's business
	// once it is there.
	r.Proven, r.Timeline = 0, nil
	return r
}

// Write puts the record at name, [Path] as a rule, making the folder where it is
// missing. A reader sees the old file, if there was one, or the new one whole.
func (r Record) Write(name string) error {
	if r.BootID == "" {
		id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // no /proc, no id
		r.BootID = strings.TrimSpace(string(id))
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	if err := replace.File(name, append(text, '\n')); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	return nil
}

// Read reads a record. One of a schema that this package does not know is an error.
func Read(name string) (Record, error) {
	var r Record
	text, err := os.ReadFile(name)
	if err != nil {
		return r, fmt.Errorf("record: %w", err)
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return Record{}, fmt.Errorf("record: %s: %w", name, err)
	}
	if r.Schema != Schema {
		return Record{}, fmt.Errorf("record: %s: schema %d, not %d", name, r.Schema, Schema)
	}
	return r, nil
}
