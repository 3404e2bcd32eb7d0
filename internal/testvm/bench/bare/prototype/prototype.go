//go:build linux

// Package prototype is what the bare prototypes share: the least it takes to bring a link up, and to ask over it. They
// are the measure of the benchmarks, so nothing may come in that not all of them need.
package prototype

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

// Main runs a prototype for the interface that its argument names. It exits where that fails.
func Main(program string, run func(nic string) error) {
	if len(os.Args) != 2 {
		fmt.Fprintf(os.Stderr, "usage: %s INTERFACE\n", program)
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", program, err)
		os.Exit(1)
	}
}

// A Link is an interface that can carry frames.
type Link struct {
	*rtnetlink.Conn
	Index uint32
}

// Up sets an interface up and waits until it can carry frames.
func Up(nic string) (*Link, error) {
	found, err := net.InterfaceByName(nic)
	if err != nil {
		return nil, err
	}
	index := uint32(found.Index)
	conn, err := rtnetlink.Dial(nil)
	if err != nil {
		return nil, err
	}
	up := &rtnetlink.LinkMessage{Index: index, Flags: unix.IFF_UP, Change: unix.IFF_UP}
	if err := conn.Link.Set(up); err != nil {
		return nil, err
	}
	for link := (rtnetlink.LinkMessage{}); link.Flags&unix.IFF_LOWER_UP == 0; {
		if link, err = conn.Link.Get(index); err != nil {
			return nil, err
		}
	}
	return &Link{conn, index}, nil
}

// Give gives the link an IPv4 address, that it may have already.
func (l *Link) Give(ip net.IP, bits, scope uint8) error {
	err := l.Address.New(&rtnetlink.AddressMessage{
		Family: unix.AF_INET, PrefixLength: bits, Scope: scope, Index: l.Index,
		Attributes: &rtnetlink.AddressAttributes{Address: ip, Local: ip},
	})
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// Ask prints the hostname that the metadata service gives.
func Ask() error {
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
	_, err = fmt.Fprintf(os.Stdout, "%s\n", body)
	return err
}
