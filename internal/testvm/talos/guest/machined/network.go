//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/jsimonetti/rtnetlink/v2"
	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
	"github.com/nametag-boot/nametag/internal/testvm/talos/guest/standin"
)

// network configures every Ethernet NIC by DHCP, each as it comes.
type network struct {
	log   *report.Writer
	names *hostnames
	once  sync.Once
	ready chan struct{} // closed with the first lease
}

func newNetwork(log *report.Writer, names *hostnames) *network {
	return &network{log: log, names: names, ready: make(chan struct{})}
}

// wait blocks until there is a network.
func (n *network) wait(context.Context) { <-n.ready }

func (n *network) run(ctx context.Context) {
	known := map[int]bool{}
	for {
		links, err := net.Interfaces()
		if err != nil {
			standin.Die(n.log, fmt.Errorf("interfaces: %w", err))
		}
		for _, l := range links {
			if known[l.Index] {
				continue
			}
			known[l.Index] = true
			if err := up(l); err != nil {
				standin.Die(n.log, fmt.Errorf("%s: up: %w", l.Name, err))
			}
			if l.Flags&net.FlagLoopback == 0 {
				go n.configure(ctx, l)
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func up(l net.Interface) error {
	conn, err := rtnetlink.Dial(nil)
	if err != nil {
		return err
	}
	defer conn.Close()                                                                                            //nolint:errcheck // a socket
	return conn.Link.Set(&rtnetlink.LinkMessage{Index: uint32(l.Index), Flags: unix.IFF_UP, Change: unix.IFF_UP}) //nolint:gosec // an index is positive
}

func (n *network) configure(ctx context.Context, l net.Interface) {
	for {
		text, err := n.lease(ctx, l)
		if err == nil {
			n.log.Write(report.Event{Kind: report.Network, Name: l.Name, Text: text})
			n.once.Do(func() { close(n.ready) })
			return
		}
		if _, err := net.InterfaceByIndex(l.Index); err != nil {
			return // unplugged
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (n *network) lease(ctx context.Context, l net.Interface) (string, error) {
	client, err := nclient4.New(l.Name, nclient4.WithTimeout(500*time.Millisecond), nclient4.WithRetry(10))
	if err != nil {
		return "", err
	}
	defer client.Close() //nolint:errcheck // a socket
	lease, err := client.Request(ctx, dhcpv4.WithRequestedOptions(dhcpv4.OptionClasslessStaticRoute, dhcpv4.OptionHostName))
	if err != nil {
		return "", err
	}
	conn, err := rtnetlink.Dial(nil)
	if err != nil {
		return "", err
	}
	defer conn.Close()                       //nolint:errcheck // a socket
	index, ack := uint32(l.Index), lease.ACK //nolint:gosec // an index is positive
	if name := ack.HostName(); name != "" {
		n.names.set(layerOperator, name) // before the address, with which the platform's name could come first
	}
	ones, _ := ack.SubnetMask().Size()
	err = conn.Address.New(&rtnetlink.AddressMessage{
		Family: unix.AF_INET, PrefixLength: uint8(ones), Index: index, //nolint:gosec // at most 32
		Attributes: &rtnetlink.AddressAttributes{Address: ack.YourIPAddr, Local: ack.YourIPAddr},
	})
	if err != nil && !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("address: %w", err)
	}
	routes := ack.ClasslessStaticRoute() // RFC 3442: counts instead of option 3
	if len(routes) == 0 {
		for _, router := range ack.Router() {
			routes = append(routes, &dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, Router: router})
		}
	}
	text := fmt.Sprintf("%s/%d", ack.YourIPAddr, ones)
	for _, r := range routes {
		to, _ := r.Dest.Mask.Size()
		message := &rtnetlink.RouteMessage{
			Family: unix.AF_INET, DstLength: uint8(to), Table: unix.RT_TABLE_MAIN, Protocol: unix.RTPROT_DHCP, //nolint:gosec // at most 32
			Scope: unix.RT_SCOPE_UNIVERSE, Type: unix.RTN_UNICAST,
			Attributes: rtnetlink.RouteAttributes{OutIface: index, Priority: 1024},
		}
		if to > 0 {
			message.Attributes.Dst = r.Dest.IP.To4()
		}
		if r.Router.IsUnspecified() {
			message.Scope = unix.RT_SCOPE_LINK
		} else {
			message.Flags = unix.RTNH_F_ONLINK // the gateway stands outside the /32
			message.Attributes.Gateway = r.Router.To4()
		}
		if err := conn.Route.Add(message); err != nil && !errors.Is(err, os.ErrExist) {
			return "", fmt.Errorf("route %v: %w", r, err)
		}
		text += fmt.Sprintf(", %s via %s", r.Dest, r.Router)
	}
	return text, nil
}
