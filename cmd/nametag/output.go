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
	for _, kv := range [][2]string{
		{"HOSTNAME", id.Hostname},
		{"SHORT_HOSTNAME", id.ShortName()},
		{"DOMAIN", id.Domain},
		{"INSTANCE_ID", id.InstanceID},
		{"REGION", id.Region},
		{"AVAILABILITY_ZONE", id.AvailabilityZone},
		{"PUBLIC_IPV4", address(id.PublicIPv4)},
		{"PRIVATE_IPV4", privateAddresses(id.PrivateNetworks)},
		{"SOURCE", id.Source},
		{"INTERFACE", id.Path.Interface},
		{"METHOD", id.Path.Method},
	} {
		fmt.Fprintf(&b, "NAMETAG_%s=%s\n", kv[0], quote(kv[1]))
	}
	_, err := io.WriteString(w, b.String())
	return err
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
