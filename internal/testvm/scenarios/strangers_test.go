package scenarios

import (
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/internal/testvm"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
)

var (
	onlyDHCP      = []earlynet.Method{earlynet.DHCP}
	onlyLinkLocal = []earlynet.Method{earlynet.LinkLocal}
)

// attacked is a server whose public NIC has strangers on the wire and DHCP servers beside the honest one. As at a
// hypervisor, it sends from no other address than its own.
func attacked(servers []cloud.DHCP, strangers ...cloud.Stranger) []testvm.Option {
	return []testvm.Option{testvm.NIC("eth0", cloud.NIC{DHCP: append(servers, cloud.DHCP{}), Strangers: strangers, Guarded: true})}
}

// rogue is a second server on the wire whose lease leads nowhere.
func rogue(after time.Duration) cloud.DHCP {
	id := netip.MustParseAddr("172.31.1.66")
	return cloud.DHCP{
		ID: id, Address: netip.MustParsePrefix("203.0.113.99/32"), Delay: after,
		Routes: []cloud.Route{{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: id}},
	}
}

// What others on the link send ends no path: the right name comes.
func TestStrangers(t *testing.T) {
	honest := cloud.DHCP{Delay: 300 * time.Millisecond}
	play(t, []scenario{
		{about: "an offer and an acknowledgement under the honest server's identifier", methods: onlyDHCP, lab: attacked([]cloud.DHCP{cloud.HonestIDs(2)})},
		{about: "twenty of them", methods: onlyDHCP, lab: attacked([]cloud.DHCP{cloud.HonestIDs(20)})},
		{about: "a second server that is 300 ms sooner", methods: onlyDHCP, lab: []testvm.Option{testvm.NIC("eth0", cloud.NIC{Guarded: true, DHCP: []cloud.DHCP{rogue(0), honest}})}},
		{about: "a server with a new identifier for each offer", methods: onlyDHCP, lab: attacked([]cloud.DHCP{cloud.RogueDHCP(1)})},
		{about: "eight new identifiers each time", methods: onlyDHCP, lab: attacked([]cloud.DHCP{cloud.RogueDHCP(8)})},
		{about: "a refusal of each request, under the honest server's identifier", methods: onlyDHCP, lab: attacked([]cloud.DHCP{cloud.ForgedDHCP(dhcpv4.MessageTypeNak)})},
		{about: "ARP replies for each address of ours, from eleven MACs", methods: onlyLinkLocal, cloud: cloud.Config{Link: far}, lab: attacked(nil, cloud.Times(11, cloud.HasEveryAddress()))},
		{about: "ARP replies for each address of ours, from another MAC each time", methods: onlyLinkLocal, cloud: cloud.Config{Link: far}, lab: attacked(nil, cloud.HasEveryAddress())},
		{about: "ARP replies for each address of ours, and a service that is slow", methods: onlyLinkLocal, cloud: always(cloud.Delay(time.Second)), lab: attacked(nil, cloud.HasEveryAddress())},
		{about: "two forged leases, and ARP replies from eleven MACs", cloud: cloud.Config{Link: far}, lab: attacked([]cloud.DHCP{cloud.HonestIDs(2)}, cloud.Times(11, cloud.HasEveryAddress()))},
		{about: "rotating servers, and ARP replies from another MAC each time", cloud: cloud.Config{Link: far}, lab: attacked([]cloud.DHCP{cloud.RogueDHCP(1)}, cloud.HasEveryAddress())},
		{about: "somebody answers for the service's address", methods: onlyLinkLocal, cloud: cloud.Config{Link: far}, lab: attacked(nil, cloud.IsTheNextHop(cloud.Service))},
		{about: "somebody answers for the service's address, once", methods: onlyLinkLocal, cloud: cloud.Config{Link: far}, lab: attacked(nil, cloud.Times(2, cloud.IsTheNextHop(cloud.Service)))},
		{about: "somebody answers for the gateway's address", methods: onlyDHCP, cloud: cloud.Config{Link: far}, lab: attacked(nil, cloud.IsTheNextHop(cloud.Gateway))},
		{about: "resets of the first connections", cloud: cloud.Config{Link: far}, lab: attacked(nil, cloud.Times(6, cloud.ResetsConnections()))},
		{about: "closed windows", cloud: cloud.Config{Link: far}, lab: attacked(nil, cloud.Times(6, cloud.ClosesWindows()))},
		{about: "host unreachable, for the first connections", cloud: cloud.Config{Link: far}, lab: attacked(nil, cloud.Times(6, cloud.SaysByICMP(cloud.HostUnreachable)))},
		{about: "port unreachable, for the first connections", cloud: cloud.Config{Link: far}, lab: attacked(nil, cloud.Times(6, cloud.SaysByICMP(cloud.PortUnreachable)))},
		{about: "fragmentation needed, down to 68 bytes", cloud: cloud.Config{Link: far}, lab: attacked(nil, cloud.SaysByICMP(cloud.FragmentationNeed))},
		{about: "a redirect to a gateway that is none", methods: onlyDHCP, cloud: first(300*time.Millisecond, cloud.Status(503)), lab: attacked(nil, cloud.Times(8, cloud.Redirects(cloud.Gateway, netip.MustParseAddr("172.31.1.77"))))},
	})
}
