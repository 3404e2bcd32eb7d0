package earlynet

import "net/netip"

// A Config says what to bring up. The zero value brings up every physical
// Ethernet NIC by LinkLocal and DHCP, with routes to nowhere.
type Config struct {
	// NICs selects interfaces by name, glob or MAC address. A glob selects
	// among physical Ethernet NICs; an Ethernet interface named exactly is taken
	// whatever its kind, a bridge or a VLAN too. Empty: every physical Ethernet NIC.
	// An empty string and a malformed glob are errors of Open.
	NICs []string

	// Methods to race on each NIC. Empty: LinkLocal and DHCP. (IPv6 is for who
	// asks: where nobody serves the address, whoever claims it has no competitor.)
	// Any other is an error of Open.
	Methods []Method

	// Destinations are the addresses that the caller will dial. Routes are
	// laid to nothing else. A zero Addr is an error of Open, and with the method
	// IPv6 one of IPv6 that is not link-local (fe80::/10): nothing leads there.
	Destinations []netip.Addr

	// Alone says that no other program configures links meanwhile, as in the
	// first process of an initramfs. Without it a link that was set up stays up
	// where others may have begun to use it, sockets that are bound to it
	// included, and in doubt; and one that udev has not finished with is not set
	// up, for half a minute.
	Alone bool

	// Proc is where procfs is mounted; empty: /proc. Without it settings of links are left as they are.
	Proc string

	udev string // where udev's files are, in tests; empty: where they are, if there is an udev
	sys  string // where sysfs is, in tests; empty: /sys

	// Observer is told what happens, if it is not nil. It is called from one
	// goroutine at a time, must not block, and must not call the Network.
	Observer func(Event)

	// Seed makes random choices repeatable in tests. 0: a new one each time.
	// The link-local address does not depend on it: RFC 3927 wants the same
	// one each time, so it depends on the NIC's MAC address.
	Seed uint64
}
