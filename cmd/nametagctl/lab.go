package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/identity/dmi"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/netns"
)

// labFlags describe the fake cloud of a lab.
type labFlags struct {
	hostname, instanceID     string
	rtt                      time.Duration
	loss, duplicate, reorder float64
	corrupt                  float64
	metadataAfter            time.Duration
	metadataUntil            string
	shapes                   []string
	pcap                     string
	seed                     uint64
}

const labLong = `Run a command in a fresh network namespace whose NIC eth0 is down and plugged into a fake Hetzner cloud.

The cloud has a DHCP server and the metadata service with its whole document tree, as Hetzner Cloud shows them to a
server. The command finds the server's DMI facts, its serial number among them, in the folder $NAMETAG_DMI, where
nametag looks. Nothing leaves the machine. It runs as root, and without root where the system allows user namespaces.

The exit status is the command's; 125 when the lab itself fails, 126 when the command cannot be run and 127 when it is
not found.`

const labExample = `  nametagctl lab -- nametag resolve --nic eth0
  nametagctl lab --rtt 20ms --loss 0.2 --pcap lab.pcap -- nametag resolve --nic eth0
  nametagctl lab --metadata-after 3s -- sh -c 'ip link set eth0 up; udhcpc -i eth0 -n; curl http://169.254.169.254/hetzner/v1/metadata'`

func labCommand() *cobra.Command {
	var f labFlags
	cmd := &cobra.Command{
		Use:     "lab [flags] -- COMMAND [ARG…]",
		Short:   "Run a command on a fake Hetzner network",
		Long:    labLong,
		Example: labExample,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &exitError{exitUsage, errors.New("lab: no command given; for example: nametagctl lab -- nametag resolve --nic eth0")}
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return runLab(f, args) },
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false) // the command's own flags are its own, also without --
	flags.StringVar(&f.hostname, "hostname", "example-controlplane-3d3d26d1-69c5k", "the server's name")
	flags.StringVar(&f.instanceID, "instance-id", "42", "the server's instance id")
	flags.DurationVar(&f.rtt, "rtt", 0, "round-trip time between the node and the cloud")
	flags.Float64Var(&f.loss, "loss", 0, "share of frames that are lost, in each direction: 0.2 is a fifth")
	flags.Float64Var(&f.duplicate, "duplicate", 0, "share of frames that arrive twice")
	flags.Float64Var(&f.reorder, "reorder", 0, "share of frames that are overtaken by later ones")
	flags.Float64Var(&f.corrupt, "corrupt", 0, "share of frames with a flipped bit")
	flags.DurationVar(&f.metadataAfter, "metadata-after", 0, "the metadata service answers rightly only after this time")
	flags.StringVar(&f.metadataUntil, "metadata-until-then", "unreachable", "what it does before: "+strings.Join(behaviourNames, ", ")+", or an HTTP status such as 503")
	flags.StringSliceVar(&f.shapes, "shape", []string{"public"}, "the network behind eth0, eth1, …: public, private, ipv6-only or dead; may be repeated")
	flags.StringVar(&f.pcap, "pcap", "", "record every frame to this file")
	flags.Uint64Var(&f.seed, "seed", 0, "seed of what is lost, doubled and reordered")
	return cmd
}

var behaviourNames = []string{"unreachable", "dropped", "refused", "silent"}

// behaviour is the metadata service's behaviour of that name.
func behaviour(name string) (cloud.Behaviour, error) {
	switch name {
	case "unreachable":
		return cloud.Unreachable(), nil
	case "dropped":
		return cloud.Dropped(), nil
	case "refused":
		return cloud.Refused(), nil
	case "silent":
		return cloud.Silent(), nil
	}
	var status int
	if _, err := fmt.Sscanf(name, "%d", &status); err == nil && status >= 100 && status <= 599 && fmt.Sprint(status) == name {
		return cloud.Status(status), nil
	}
	return cloud.Behaviour{}, fmt.Errorf("--metadata-until-then %s: choose %s, or an HTTP status such as 503", name, strings.Join(behaviourNames, ", "))
}

// shape is the network of that name.
func shape(name string) (cloud.Shape, error) {
	for _, s := range []cloud.Shape{cloud.Public, cloud.Private, cloud.IPv6Only, cloud.Dead} {
		if s.String() == name {
			return s, nil
		}
	}
	return 0, fmt.Errorf("--shape %s: choose public, private, ipv6-only or dead", name)
}

// config is the cloud that the flags describe, but for its capture.
func (f labFlags) config() (cloud.Config, []cloud.NIC, error) {
	impairment := cloud.Impairment{Loss: f.loss, Duplicate: f.duplicate, Reorder: f.reorder, Corrupt: f.corrupt}
	cfg := cloud.Config{
		Server: cloud.Server{Hostname: f.hostname, InstanceID: f.instanceID},
		Link:   cloud.Link{RTT: f.rtt, Up: impairment, Down: impairment},
		Seed:   f.seed,
	}
	until, err := behaviour(f.metadataUntil)
	if err != nil {
		return cfg, nil, err
	}
	if f.metadataAfter > 0 {
		cfg.Metadata = []cloud.Phase{{Until: f.metadataAfter, Answer: until}}
	}
	var nics []cloud.NIC
	for i, name := range f.shapes {
		s, err := shape(name)
		if err != nil {
			return cfg, nil, err
		}
		nics = append(nics, cloud.NIC{Name: fmt.Sprintf("eth%d", i), Shape: s})
	}
	return cfg, nics, nil
}

// runLab makes the lab, runs the command in it and returns its exit status as an error.
func runLab(f labFlags, args []string) (err error) {
	cfg, nics, err := f.config()
	if err != nil {
		return &exitError{exitUsage, fmt.Errorf("lab: %w", err)}
	}
	failed := func(err error) error { return &exitError{exitLab, fmt.Errorf("lab: %w", err)} }
	if err := netns.Enter(); err != nil {
		return failed(err)
	}
	if f.pcap != "" {
		file, err := os.Create(f.pcap)
		if err != nil {
			return failed(err)
		}
		defer func() {
			if cerr := file.Close(); cerr != nil && err == nil {
				err = failed(cerr)
			}
		}()
		cfg.Pcap = file
	}

	lab, err := startLab(cfg, netns.Options{}, nics...)
	if err != nil {
		return failed(err)
	}
	defer func() {
		if cerr := lab.Close(); cerr != nil && err == nil {
			err = failed(cerr)
		}
	}()

	cmd := exec.Command(args[0], args[1:]...) //nolint:noctx // it ends by itself or by the signals that are passed on
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// The machine's firmware is not that of a server in this cloud.
	facts, err := os.MkdirTemp("", "nametag-lab-")
	if err != nil {
		return failed(err)
	}
	defer os.RemoveAll(facts)
	if err := os.Chmod(facts, 0o755); err != nil { //nolint:gosec // the command may give up its rights
		return failed(err)
	}
	if err := lab.cloud.WriteDMI(facts); err != nil {
		return failed(err)
	}
	cmd.Env = append(os.Environ(), dmi.DirVariable+"="+facts)
	return lab.run(cmd)
}

// A lab is a node with its NICs plugged into a fake cloud.
type lab struct {
	cloud *cloud.Cloud
	node  *netns.Node
}

// startLab makes a node and plugs it into a new cloud.
func startLab(cfg cloud.Config, node netns.Options, nics ...cloud.NIC) (*lab, error) {
	c, err := cloud.New(cfg)
	if err != nil {
		return nil, err
	}
	l := &lab{cloud: c}
	if l.node, err = plug(c, node, nics...); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	c.Restart()
	return l, nil
}

// plug makes a node whose NICs are down and plugged into the cloud.
func plug(c *cloud.Cloud, options netns.Options, nics ...cloud.NIC) (*netns.Node, error) {
	node, err := netns.New(options)
	if err != nil {
		return nil, err
	}
	for _, nic := range nics {
		port, err := node.Plug(nic.Name)
		if err == nil {
			err = c.Attach(nic, port)
		}
		if err != nil {
			return nil, errors.Join(err, node.Close())
		}
	}
	return node, nil
}

// Close takes node and cloud down.
func (l *lab) Close() error { return errors.Join(l.node.Close(), l.cloud.Close()) }

// inForeground says whether this process' group is the one that its terminal interrupts.
func inForeground() bool {
	terminal, err := os.Open("/dev/tty")
	if err != nil {
		return false // there is none
	}
	defer terminal.Close()
	group, err := unix.IoctlGetInt(int(terminal.Fd()), unix.TIOCGPGRP) //nolint:gosec // a descriptor
	return err == nil && group == unix.Getpgrp()
}

// run runs a command on the node; its exit status comes back as an *exitError.
func (l *lab) run(cmd *exec.Cmd) error {
	// A terminal's interrupt reaches the command as well: it decides. What is sent to the lab alone is passed on.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)

	if err := l.node.Start(cmd); err != nil {
		switch {
		case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
			return &exitError{127, fmt.Errorf("lab: %w", err)}
		case errors.Is(err, fs.ErrPermission):
			return &exitError{126, fmt.Errorf("lab: %w", err)}
		}
		return &exitError{exitLab, fmt.Errorf("lab: %w", err)}
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case s := <-signals:
				if s == syscall.SIGTERM || s == syscall.SIGHUP || !inForeground() {
					_ = cmd.Process.Signal(s)
				}
			case <-ended:
				return
			}
		}
	}()

	err := cmd.Wait()
	if err == nil {
		return nil
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return &exitError{exitLab, fmt.Errorf("lab: %w", err)}
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return &exitError{128 + int(ws.Signal()), nil}
	}
	return &exitError{exit.ExitCode(), nil}
}
