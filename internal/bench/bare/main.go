// Command bare is the reference that the benchmarks measure nametag against: the least a Go program can do to learn a
// name over a link that is down. A fixed address, one interface, one request; no DHCP, no check of the answer, no
// retry, nothing undone. It prints the hostname that the metadata service gives for the interface named as argument.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	"github.com/jsimonetti/rtnetlink/v2"
	"golang.org/x/sys/unix"
)

const url = "http://169.254.169.254/hetzner/v1/metadata/hostname"

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: bare INTERFACE")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bare:", err)
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
	ip := net.IPv4(169, 254, 0, 1).To4()
	err = conn.Address.New(&rtnetlink.AddressMessage{
		Family: unix.AF_INET, PrefixLength: 16, Scope: unix.RT_SCOPE_LINK, Index: index,
		Attributes: &rtnetlink.AddressAttributes{Address: ip, Local: ip},
	})
	if err != nil && !errors.Is(err, unix.EEXIST) {
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
