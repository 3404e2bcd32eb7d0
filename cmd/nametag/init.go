//go:build linux

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/nametag-boot/nametag/internal/node/boot"
)

const initUsage = `nametag init is what nametag does as the first process of an initramfs.

It reads talos.hostname.wait= from the kernel command line, finds this node's name, hands it to the operating system and
executes that one's init. Without that argument, or with talos.hostname.wait=off, it executes the init at once.
The kernel runs it by rdinit=/path/to/nametag, or as /init; as process 1 no word is needed.

Usage:
  nametag init [--next PATH] [-- ARG…]

Flags:
  --next PATH  the init to execute next; default /init.next where nametag is run as /init, else /init.
               The kernel argument nametag.init=PATH does the same
`

// firstProcess is nametag as the kernel started it: all arguments are the next init's, unless the first is the word
// init. It does not return.
func firstProcess() {
	if len(os.Args) > 1 && os.Args[1] == "init" {
		if options, err := parseInit(os.Args[2:]); err == nil {
			boot.Init(options)
		}
	}
	boot.Init(boot.Options{Args: os.Args[1:]})
}

// runInit is `nametag init` in any other process, which can only be told about it.
func runInit(args []string, stdout io.Writer) error {
	_, err := parseInit(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, initUsage)
		return nil
	}
	if err != nil {
		return err
	}
	return &usageError{fmt.Errorf("init is for the first process of an initramfs, and this is process %d; 'nametag init --help' says more", os.Getpid())}
}

// parseInit reads the flags of `nametag init`. What follows them is the next init's.
func parseInit(args []string) (boot.Options, error) {
	var o boot.Options
	set := flag.NewFlagSet("init", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.StringVar(&o.Next, "next", "", "")
	if err := set.Parse(args); err != nil {
		return o, &usageError{err}
	}
	o.Args = set.Args()
	return o, nil
}
