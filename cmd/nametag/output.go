//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/nametag-boot/nametag/identity"
)

// write prints an identity as JSON or as shell assignments.
func write(w io.Writer, format string, id *identity.Identity) error {
	if format == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(id)
	}
	var b strings.Builder
	for _, v := range variables {
		fmt.Fprintf(&b, "%s=%s\n", v.name, quote(v.of(id)))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// variables are what --output env prints, in order; docs/output.md lists them. A name that is there stays.
var variables = []struct {
	name, about string
	of          func(*identity.Identity) string
}{
	{"NAMETAG_HOSTNAME", "the name, whole", func(id *identity.Identity) string { return id.Hostname }},
	{"NAMETAG_SHORT_HOSTNAME", "its first label", (*identity.Identity).ShortName},
	{"NAMETAG_DOMAIN", "the rest; empty without a domain", func(id *identity.Identity) string { return id.Domain }},
	{"NAMETAG_INSTANCE_ID", "the server's number", func(id *identity.Identity) string { return id.InstanceID }},
	{"NAMETAG_REGION", "its region", func(id *identity.Identity) string { return id.Region }},
	{"NAMETAG_AVAILABILITY_ZONE", "its availability zone", func(id *identity.Identity) string { return id.AvailabilityZone }},
	{"NAMETAG_PUBLIC_IPV4", "its public address; empty where it has none", func(id *identity.Identity) string { return address(id.PublicIPv4) }},
	{"NAMETAG_PRIVATE_IPV4", "its addresses in private networks, separated by spaces", func(id *identity.Identity) string { return privateAddresses(id.PrivateNetworks) }},
	{"NAMETAG_ID_PROVEN_BY", "what says that the number is this machine's: `dmi`, `expected` or `none`", func(id *identity.Identity) string { return string(id.IDProvenBy) }},
	{"NAMETAG_SOURCE", "who said so: `hetzner`, or `known` for a name of an earlier boot", func(id *identity.Identity) string { return id.Source }},
	{"NAMETAG_INTERFACE", "the NIC that it came by", func(id *identity.Identity) string { return id.Path.Interface }},
	{"NAMETAG_METHOD", "how that NIC got its address", func(id *identity.Identity) string { return id.Path.Method }},
}

// quote makes a value safe for a shell and for systemd's EnvironmentFile=, whatever the network put into it: line ends
// and other control characters are dropped, since the two disagree about how to write them.
func quote(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, s)
	plain := strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._:/", r)
	}) < 0
	if plain {
		return s
	}
	return `'` + strings.ReplaceAll(s, `'`, `'\''`) + `'`
}

// address is an address in words; the zero one is empty.
func address(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// privateAddresses are this server's addresses in its private networks, separated by spaces.
func privateAddresses(networks []identity.PrivateNetwork) string {
	var all []string
	for _, n := range networks {
		if n.IP.IsValid() {
			all = append(all, n.IP.String())
		}
	}
	return strings.Join(all, " ")
}
