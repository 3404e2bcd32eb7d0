//go:build linux

// Command guest is the first process of a server in the lab. In the place of a system that is not at hand it does what the node's
// own would: it finds a hostname, by nametag or as Talos does without it, configures the network, and starts the real containerd,
// etcd, kube-apiserver and kubelet under the name that the kernel has at that moment.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/controlplane/machine"
)

func main() {
	if err := run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch filepath.Base(args[0]) {
	case "bridge", "loopback": // as a plugin of the pods' network
		return plugin(os.Getenv("CNI_COMMAND"), os.Stdin, os.Stdout)
	case "init", "init.next": // as the kernel or nametag starts it in a virtual machine
		return lives(initramfs)
	}
	if len(args) < 2 {
		return fmt.Errorf("usage: guest namespaces DIR | boot | machine | service | sweep GROUP")
	}
	switch args[1] {
	case "namespaces": // the process is in new ones: they are furnished, and what is to run there takes its place
		c, err := machine.Read(args[2])
		if err != nil {
			return err
		}
		return enter(c)
	case "boot":
		c, err := machine.Read(machine.Dir)
		if err != nil {
			return err
		}
		return boot(c)
	case "machine":
		return lives(inMachine)
	case "service": // of systemd, in a virtual machine
		return inSystem()
	case "sweep":
		return sweep(args[2])
	}
	return fmt.Errorf("%q is no command", args[1])
}

// lives keeps the first process of a virtual machine from ending: the kernel would panic, and say less.
func lives(f func() error) error {
	err := f()
	for err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		time.Sleep(time.Minute)
	}
	return nil
}
