// Package earlynet brings up as little network as a program needs before
// anything else of user space has: a link, an address, a route to the few
// destinations that will be dialled, and in the end nothing of it.
//
// [Open] looks for network interfaces (NICs) by rtnetlink, sets those up that
// are down, and races every [Method] on each of them. Every success is a
// [Path]: one way to reach the destinations, with a dialer bound to its
// interface. Paths arrive on [Network.Paths] as they become usable; nothing
// waits for a slower one. [Network.Close] takes everything back.
//
//	n, err := earlynet.Open(ctx, earlynet.Config{Destinations: []netip.Addr{metadata}})
//	if err != nil {
//		return err
//	}
//	defer n.Close()
//	for path := range n.Paths() {
//		conn, err := path.DialContext(ctx, "tcp", "169.254.169.254:80")
//		…
//	}
//
// [Host] gives the same shape over a network that somebody else configured,
// and changes nothing.
//
// # Whose is what
//
// Other programs may configure the same NIC at the same time. So everything
// that this package adds can be told from everything else, and only that is
// ever removed:
//
//   - Routes carry the protocol number 110, lead to a [Config.Destinations]
//     member only, are created exclusively with a metric of their own, and are
//     deleted by an exact match.
//   - Addresses carry the same number (IFA_PROTO, Linux 5.18 and later), bring
//     no prefix route, and have a lifetime of a minute that is extended while
//     they are in use. An address that was there already is used and left. One
//     that somebody took over (other mark, other lifetime) is left as well.
//   - A link is set down again only if it was down before and nobody else has
//     begun to use it meanwhile: put an address, a route or another link (a VLAN,
//     a macvlan) on it, made it a port of a bridge or bond, opened a packet socket
//     on it or bound another one to it, or set it down or up. In doubt it stays up,
//     and an event says why. See [Config.Alone].
//   - Settings are put back: the link's ARP timers, rp_filter, and accept_ra, which
//     is 0 on a link that was down, so that nothing is learnt from a router
//     advertisement. The neighbour entries that its traffic made are removed where
//     the link stays up.
//
// One Network at a time uses a link, in this process or another; others wait for it.
//
// A process that is killed leaves, for a minute at most, an address and the
// routes that hang on it: the kernel removes both. The link stays up. Its alias
// says what its settings were, and the next Network that uses it puts them back,
// with the neighbour entry of a next hop that several hosts have claimed to be.
//
// No DHCPRELEASE is sent: the system that boots next asks with the same
// hardware address and is given the same lease.
//
// # Requirements
//
// Open needs CAP_NET_ADMIN and CAP_NET_RAW in the user namespace that owns the
// network namespace; without them it fails with [ErrPermission]. All sockets
// are opened from ordinary goroutines: a process whose threads are in
// different network namespaces must not use this package.
//
// Links are brought up on Linux only. Elsewhere Open fails with
// [errors.ErrUnsupported], and Host works as it does here, but for the notice of
// changes.
package earlynet
