//go:build linux

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/nametag-boot/nametag/internal/node/lasting"
)

const pinUsage = `nametag pin keeps the name that this system has in /etc/hostname, for good: from the next boot on that name is the
operator's, and nametag asks nobody, whatever the server is called in the cloud.

It is for systems that keep their name in /etc/hostname. A Talos node is pinned by its machine configuration.

Usage:
  nametag pin [flags]

Flags:
  --undo      give the name back to nametag, which asks again at the next boot
  --root DIR  the system; default /

Exit status:
  0  the name is kept, or is nametag's again
  1  another failure, as printed
  2  bad usage

Example:
  nametag pin && nametag status
`

// runPin is `nametag pin`.
func runPin(args []string, stdout io.Writer) error {
	set := flag.NewFlagSet("pin", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	undo := set.Bool("undo", false, "")
	dir := set.String("root", "/", "")
	switch err := set.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, pinUsage)
		return nil
	case err != nil:
		return &usageError{err}
	case set.NArg() > 0:
		return &usageError{fmt.Errorf("pin takes flags only, not %q: it keeps the name that is there; hostnamectl hostname NAME sets another, which nametag leaves alone as well", set.Arg(0))}
	}
	root := lasting.Root(*dir)
	if *undo {
		name, err := root.Unpin()
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "%s is nametag's again: the next boot asks for this server's name\n", name)
		return nil
	}
	name, err := root.Pin()
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s is pinned: nametag leaves it alone from now on\n", name)
	return nil
}
