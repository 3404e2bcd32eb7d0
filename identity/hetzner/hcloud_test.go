package hetzner

import (
	"net/netip"
	"reflect"
	"strconv"
	"testing"

	"github.com/hetznercloud/hcloud-go/v2/hcloud/metadata"
	"go.yaml.in/yaml/v3"

	"github.com/nametag-boot/nametag/identity"
)

// TestHcloudGoReadsTheSame compares what comes out of the one document with what hcloud-go's client reads, one by one.
func TestHcloudGoReadsTheSame(t *testing.T) {
	s := serve(t)
	a, err := fetch(t, s)
	if err != nil {
		t.Fatal(err)
	}
	var id identity.Identity
	if err := a.More(t.Context(), &id); err != nil {
		t.Fatal(err)
	}

	theirs := metadata.NewClient(metadata.WithEndpoint(s.endpoint()))
	for about, c := range map[string]struct {
		ours string
		ask  func() (string, error)
	}{
		"hostname": {a.Hostname, func() (string, error) { return theirs.HostnameWithContext(t.Context()) }},
		"instance-id": {a.InstanceID, func() (string, error) {
			id, err := theirs.InstanceIDWithContext(t.Context())
			return strconv.FormatInt(id, 10), err
		}},
		"region":            {id.Region, func() (string, error) { return theirs.RegionWithContext(t.Context()) }},
		"availability-zone": {id.AvailabilityZone, func() (string, error) { return theirs.AvailabilityZoneWithContext(t.Context()) }},
		"public-ipv4": {id.PublicIPv4.String(), func() (string, error) {
			ip, err := theirs.PublicIPv4WithContext(t.Context())
			return ip.String(), err
		}},
	} {
		if got, err := c.ask(); err != nil || got != c.ours {
			t.Errorf("%s: hcloud-go reads %q, %v; we %q", about, got, err, c.ours)
		}
	}
	text, err := theirs.PrivateNetworksWithContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var networks []struct {
		IP       netip.Addr
		AliasIPs []netip.Addr `yaml:"alias_ips"`
		ID       int64        `yaml:"network_id"`
		Name     string       `yaml:"network_name"`
		MAC      string       `yaml:"mac_address"`
		Network  netip.Prefix
		Subnet   netip.Prefix
		Gateway  netip.Addr
	}
	if err := yaml.Unmarshal([]byte(text), &networks); err != nil {
		t.Fatal(err)
	}
	var want []identity.PrivateNetwork
	for _, n := range networks {
		p := identity.PrivateNetwork{ID: n.ID, Name: n.Name, IP: n.IP, Network: n.Network, Subnet: n.Subnet, Gateway: n.Gateway, MAC: n.MAC}
		if len(n.AliasIPs) > 0 {
			p.AliasIPs = n.AliasIPs
		}
		want = append(want, p)
	}
	if !reflect.DeepEqual(id.PrivateNetworks, want) {
		t.Errorf("private networks: got %+v, want %+v", id.PrivateNetworks, want)
	}
}
