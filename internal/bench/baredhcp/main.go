// Command baredhcp is bare's sibling for networks that want DHCP: a lease, its address and classless routes, one request;
// no check of the answer, nothing undone. It prints the hostname that the metadata service gives for the interface named
// as argument.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/jsimonetti/rtnetlink/v2"
	"golang.org/x/sys/unix"
)

const url = "http://169.254.169.254/hetzner/v1/metadata/hostname"

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: baredhcp INTERFACE")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "baredhcp:", err)
		os.Exit(1)
	}
}

func run(name string, out io.Writer) error {
	nic, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	index := uint32(nic.Index)
	conn, err := rtnetlink.Dial(nil)
	if err != nil {
		return err
	}
	defer conn.Close()

	up := &rtnetlink.LinkMessage{Index: index, Flags: unix.IFF_UP, Change: unix.IFF_UP}
	if err := conn.Link.Set(up); err != nil {
		return err
	}
	for link := (rtnetlink.LinkMessage{}); link.Flags&unix.IFF_LOWER_UP == 0; {
		if link, err = conn.Link.Get(index); err != nil {
			return err
		}
	}

	client, err := nclient4.New(name)
	if err != nil {
		return err
	}
	defer client.Close() //nolint:errcheck // after the answer is printed: the kernel takes its time to close a packet socket
	lease, err := client.Request(context.Background(), dhcpv4.WithRequestedOptions(dhcpv4.OptionClasslessStaticRoute))
	if err != nil {
		return err
	}
	if err := configure(conn, index, lease.ACK); err != nil {
		return err
	}

	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s\n", body)
	return err
}

// configure sets the address and the routes of option 121, which both of Hetzner's networks give.
func configure(conn *rtnetlink.Conn, index uint32, ack *dhcpv4.DHCPv4) error {
	ip := ack.YourIPAddr.To4()
	err := conn.Address.New(&rtnetlink.AddressMessage{
		Family: unix.AF_INET, PrefixLength: 32, Index: index,
		Attributes: &rtnetlink.AddressAttributes{Address: ip, Local: ip},
	})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	for _, r := range ack.ClasslessStaticRoute() {
		ones, _ := r.Dest.Mask.Size()
		route := &rtnetlink.RouteMessage{
			Family: unix.AF_INET, DstLength: uint8(ones), Table: unix.RT_TABLE_MAIN, Protocol: unix.RTPROT_DHCP,
			Type: unix.RTN_UNICAST, Scope: unix.RT_SCOPE_LINK,
			Attributes: rtnetlink.RouteAttributes{Dst: r.Dest.IP.To4(), OutIface: index},
		}
		if !r.Router.IsUnspecified() {
			route.Scope, route.Flags, route.Attributes.Gateway = unix.RT_SCOPE_UNIVERSE, unix.RTNH_F_ONLINK, r.Router.To4()
		}
		if err := conn.Route.Add(route); err != nil {
			return fmt.Errorf("route to %s: %w", r.Dest, err)
		}
	}
	return nil
}
