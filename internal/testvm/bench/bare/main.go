//go:build linux

// Command bare is the reference that the benchmarks measure nametag against: the least a Go program can do to learn a
// name over a link that is down. A fixed address, one interface, one request; no DHCP, no check of the answer, no
// retry, nothing undone. It prints the hostname that the metadata service gives for the interface named as argument.
package main

import (
	"net"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/testvm/bench/bare/prototype"
)

func main() { prototype.Main("bare", run) }

func run(nic string) error {
	link, err := prototype.Up(nic)
	if err != nil {
		return err
	}
	defer link.Close()
	if err := link.Give(net.IPv4(169, 254, 0, 1).To4(), 16, unix.RT_SCOPE_LINK); err != nil {
		return err
	}
	return prototype.Ask()
}
