//go:build linux

// Command baredhcp is bare's sibling for networks that want DHCP: a lease, its address and classless routes, one request;
// no check of the answer, nothing undone. It prints the hostname that the metadata service gives for the interface named
// as argument.
package main

import (
	"context"
	"fmt"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/jsimonetti/rtnetlink/v2"
	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/testvm/bench/bare/prototype"
)

func main() { prototype.Main("baredhcp", run) }

func run(nic string) error {
	link, err := prototype.Up(nic)
	if err != nil {
		return err
	}
	defer link.Close()
	client, err := nclient4.New(nic)
	if err != nil {
		return err
	}
	defer client.Close() //nolint:errcheck // after the answer is printed: the kernel takes its time to close a packet socket
	lease, err := client.Request(context.Background(), dhcpv4.WithRequestedOptions(dhcpv4.OptionClasslessStaticRoute))
	if err != nil {
		return err
	}
	if err := configure(link, lease.ACK); err != nil {
		return err
	}
	return prototype.Ask()
}

// configure sets the address and the routes of option 121, which both of Hetzner's networks give.
func configure(link *prototype.Link, ack *dhcpv4.DHCPv4) error {
	if err := link.Give(ack.YourIPAddr.To4(), 32, unix.RT_SCOPE_UNIVERSE); err != nil {
		return err
	}
	for _, r := range ack.ClasslessStaticRoute() {
		ones, _ := r.Dest.Mask.Size()
		route := &rtnetlink.RouteMessage{
			Family: unix.AF_INET, DstLength: uint8(ones), Table: unix.RT_TABLE_MAIN, Protocol: unix.RTPROT_DHCP,
			Type: unix.RTN_UNICAST, Scope: unix.RT_SCOPE_LINK,
			Attributes: rtnetlink.RouteAttributes{Dst: r.Dest.IP.To4(), OutIface: link.Index},
		}
		if !r.Router.IsUnspecified() {
			route.Scope, route.Flags, route.Attributes.Gateway = unix.RT_SCOPE_UNIVERSE, unix.RTNH_F_ONLINK, r.Router.To4()
		}
		if err := link.Route.Add(route); err != nil {
			return fmt.Errorf("route to %s: %w", r.Dest, err)
		}
	}
	return nil
}
