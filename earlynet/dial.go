//go:build linux

package earlynet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/joined"
)

// dialVia returns a dialer bound to an interface and a source address.
//
// onLink confines it to the link: with SO_DONTROUTE the kernel passes over
// routes that have a gateway (RT_SCOPE_LINK, net/ipv4/route.c), such as the
// one that a DHCP path laid to the same destination on the same interface.
func dialVia(index int, name string, source netip.Addr, onLink bool) DialFunc {
	control := func(_, _ string, c syscall.RawConn) error {
		var err error
		cerr := c.Control(func(fd uintptr) { err = bindTo(int(fd), index, name, onLink) })
		return joined.Errors(cerr, err)
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return nil, &net.OpError{Op: "dial", Net: network, Err: fmt.Errorf("%w: %q", ErrName, address)}
		}
		to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
		if to.Addr().Is4() != source.Is4() {
			return nil, &net.OpError{Op: "dial", Net: network, Err: fmt.Errorf("%v cannot be reached from %v: other family", to.Addr(), source)}
		}
		// A zone as a number spares the kernel a look at all interfaces.
		zone := strconv.Itoa(index)
		if a := to.Addr(); a.Is6() && a.IsLinkLocalUnicast() {
			to = netip.AddrPortFrom(a.WithZone(zone), to.Port())
		}
		from := netip.AddrPortFrom(source, 0)
		if source.Is6() {
			from = netip.AddrPortFrom(source.WithZone(zone), 0)
		}
		// No keep-alive: connections are short, and each option is a system call.
		d := net.Dialer{Control: control, KeepAliveConfig: net.KeepAliveConfig{Enable: false}, KeepAlive: -1}
		switch {
		case strings.HasPrefix(network, "tcp"):
			d.LocalAddr = net.TCPAddrFromAddrPort(from)
		case strings.HasPrefix(network, "udp"):
			d.LocalAddr = net.UDPAddrFromAddrPort(from)
		default:
			return nil, &net.OpError{Op: "dial", Net: network, Err: net.UnknownNetworkError(network)}
		}
		return d.DialContext(ctx, network, to.String())
	}
}

// bindTo binds a socket to an interface: by its index, which a rename leaves
// alone, or by name before Linux 5.1.
func bindTo(fd, index int, name string, onLink bool) error {
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, index)
	if errors.Is(err, unix.ENOPROTOOPT) {
		err = unix.BindToDevice(fd, name)
	}
	if err != nil {
		return fmt.Errorf("bind to %s: %w", name, permission(err))
	}
	if onLink {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DONTROUTE, 1); err != nil {
			return fmt.Errorf("confine to %s: %w", name, err)
		}
	}
	return nil
}
