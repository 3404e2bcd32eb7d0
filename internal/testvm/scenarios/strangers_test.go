//go:build linux

package scenarios

import (
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

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
	return besideHonest(cloud.DHCP{}, servers, strangers...)
}

// besideHonest is attacked with an honest server of its own kind: one that is slow, for instance.
func besideHonest(honest cloud.DHCP, servers []cloud.DHCP, strangers ...cloud.Stranger) []testvm.Option {
	return []testvm.Option{testvm.NIC("eth0", cloud.NIC{DHCP: append(servers, honest), Strangers: strangers, Guarded: true})}
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
func TestStrangers(t *testing.T) { play(t, strangers()) }

// manyHosts are n new servers for each question, on as many hosts.
func manyHosts(n int) cloud.DHCP {
	s := cloud.RogueDHCP(n)
	s.OwnMAC = true
	return s
}

// strangers are the attacks, each fresh.
func strangers() []scenario {
	refusals, slow := cloud.ForgedDHCP(dhcpv4.MessageTypeNak), cloud.DHCP{Delay: time.Second}
	return []scenario{
		{about: "an offer and an acknowledgement under the honest server's identifier", methods: onlyDHCP, lab: attacked([]cloud.DHCP{cloud.HonestIDs(2)})},
		{about: "twenty of them", methods: onlyDHCP, lab: attacked([]cloud.DHCP{cloud.HonestIDs(20)})},
		{about: "a second server that is 300 ms sooner", methods: onlyDHCP, lab: besideHonest(cloud.DHCP{Delay: 300 * time.Millisecond}, []cloud.DHCP{rogue(0)})},
		{about: "a server with a new identifier for each offer", methods: onlyDHCP, lab: attacked([]cloud.DHCP{cloud.RogueDHCP(1)})},
		{about: "eight new identifiers each time", methods: onlyDHCP, lab: attacked([]cloud.DHCP{cloud.RogueDHCP(8)})},
		{about: "eight new identifiers each time, each with a MAC of its own", methods: onlyDHCP, lab: attacked([]cloud.DHCP{manyHosts(8)})},
		{about: "a refusal of each request, under the honest server's identifier", methods: onlyDHCP, lab: attacked([]cloud.DHCP{refusals})},
		{about: "a refusal of each request, and an honest server that takes a second for each answer", methods: onlyDHCP, lab: besideHonest(slow, []cloud.DHCP{refusals})},
		{about: "eight new identifiers each time, and an honest server that takes a second", methods: onlyDHCP, lab: besideHonest(slow, []cloud.DHCP{cloud.RogueDHCP(8)})},
		{about: "eight new identifiers each time, each with a MAC of its own, and an honest server that takes a second", methods: onlyDHCP, lab: besideHonest(slow, []cloud.DHCP{manyHosts(8)})},
		{about: "a new identifier for each offer, a refusal of each request, and an honest server that takes a second", methods: onlyDHCP, lab: besideHonest(slow, []cloud.DHCP{cloud.RogueDHCP(1), refusals})},
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
		{about: "a carrier that flaps", lab: attacked(nil), during: func(_ *testing.T, l *testvm.Lab) {
			for i := range 20 {
				l.SetCarrier("eth0", i%2 == 1)
				time.Sleep(20 * time.Millisecond)
			}
		}, cloud: first(200*time.Millisecond, cloud.Silent())},
		{about: "an MTU of 576 and a lease of ten seconds", methods: onlyDHCP, lab: []testvm.Option{testvm.NIC("eth0", cloud.NIC{Guarded: true, DHCP: []cloud.DHCP{{Extra: map[uint8][]byte{26: {2, 64}, 51: {0, 0, 0, 10}}}}})}},
		{about: "an acknowledgement of a lease of one second, in the honest server's name", methods: onlyDHCP, lab: attacked([]cloud.DHCP{{Extra: map[uint8][]byte{51: {0, 0, 0, 1}}}})},
		{about: "a redirect to a gateway that is none", methods: onlyDHCP, cloud: first(300*time.Millisecond, cloud.Status(503)), lab: attacked(nil, cloud.Times(8, cloud.Redirects(cloud.Gateway, netip.MustParseAddr("172.31.1.77"))))},
	}
}

// A flood of a hundred thousand packets a second, with everything on one core, the flood included.
func TestFlood(t *testing.T) {
	const perSecond = 100_000
	for about, methods := range map[string][]earlynet.Method{"by link-local": onlyLinkLocal, "by DHCP": onlyDHCP, "by both": nil} {
		t.Run(about, func(t *testing.T) {
			onOneCore(t)
			flood := new(cloud.Flooder)
			var sent uint32
			var took time.Duration
			scenario{
				methods: methods, cloud: cloud.Config{Link: far}, lab: attacked(nil, flood.Sees),
				flood: func(l *testvm.Lab, resolved <-chan struct{}) {
					began := time.Now()
					for {
						select {
						case <-resolved:
							took = time.Since(began)
							return
						default:
						}
						if due := uint32(time.Since(began).Seconds() * perSecond); sent >= due {
							time.Sleep(100 * time.Microsecond)
							continue
						}
						if frame := flood.Frame(sent); frame != nil {
							_ = l.Cloud.Inject("eth0", frame)
						}
						sent++
					}
				},
			}.play(t)
			t.Logf("%d packets in %v", sent, took.Round(time.Millisecond))
		})
	}
}

// onOneCore keeps all threads of the process on one processor until the test ends.
func onOneCore(t *testing.T) {
	t.Helper()
	var was, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &was); err != nil {
		t.Fatal(err)
	}
	for cpu := range 1024 {
		if was.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	set := func(cpus *unix.CPUSet) {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		for _, thread := range threads {
			id, _ := strconv.Atoi(thread.Name())
			_ = unix.SchedSetaffinity(id, cpus) // it may have ended
		}
	}
	set(&one)
	t.Cleanup(func() { set(&was) })
}
