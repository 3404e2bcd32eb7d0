//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/testvm/controlplane/machine"
	"github.com/nametag-boot/nametag/internal/testvm/unnamed"
)

// onceAsked is how long the metadata service is waited for.
const onceAsked = 2 * time.Second

// boot is the machine's life: a name, then a network, then services. It does not return but with an error before all that.
func boot(c machine.Config) error {
	// A volume of a pod is seen by the containers' own namespaces.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return err
	}
	if err := os.MkdirAll(machine.State, 0o755); err != nil { //nolint:gosec // the lab reads it
		return err
	}
	m := &node{Config: c}
	if err := m.run(context.Background()); err != nil {
		tell(machine.Failed, err.Error())
	}
	for {
		time.Sleep(time.Hour) // until somebody switches it off
	}
}

// tell writes one of the files of machine.State, whole or not at all.
func tell(what, text string) {
	at := filepath.Join(machine.State, what)
	if os.WriteFile(at+".new", []byte(text), 0o644) == nil { //nolint:gosec // the lab reads it
		_ = os.Rename(at+".new", at)
	}
}

// A node is a machine of a control plane.
type node struct {
	machine.Config
	kubelet *service
}

func (m *node) run(ctx context.Context) error {
	late, err := m.name(ctx)
	if err != nil {
		tell(machine.NoName, err.Error())
		return err
	}
	if err := m.network(ctx); err != nil {
		return err
	}
	if late { // by luck it is there before the services are
		if name, err := unnamed.Ask(ctx, onceAsked); err == nil {
			late = false
			if err := unix.Sethostname([]byte(name)); err != nil {
				return err
			}
		}
	}
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	tell(machine.Named, name)
	if err := m.services(ctx); err != nil {
		return err
	}
	if late {
		m.nameLater(ctx)
	}
	return nil
}

// name gives the machine the name under which its services start: nametag's, or one as Talos invents it where the metadata
// service does not answer at once. late says that the true one is still to come.
func (m *node) name(ctx context.Context) (late bool, err error) {
	if m.Nametag != "" {
		return false, m.byNametag(ctx)
	}
	if m.Service {
		return false, nil
	}
	if m.Root == "" { // a virtual machine, in which nametag has run before us, or has not
		if name, err := given(); err != nil || name != "" {
			return false, errors.Join(err, unix.Sethostname([]byte(name)))
		}
	}
	name, err := unnamed.Ask(ctx, onceAsked)
	if err != nil { // the first attempt comes before the network does
		name = unnamed.Invent()
	}
	return err != nil, unix.Sethostname([]byte(name))
}

// given is the name on the kernel's command line, as Talos reads it; "" where there is none.
func given() (string, error) {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "", err
	}
	for _, argument := range strings.Fields(string(line)) {
		if name, ok := strings.CutPrefix(argument, "talos.hostname="); ok {
			return name, nil
		}
	}
	return "", nil
}

// byNametag runs nametag as its unit nametag.service does. The machine's firmware is a folder in the lab.
func (m *node) byNametag(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, filepath.Join(machine.Dir, "nametag"), "apply", "--wait", m.Nametag, "--dmi", filepath.Join(machine.Dir, "dmi"))
	log, err := os.Create("/var/log/nametag")
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		said, _ := os.ReadFile("/var/log/nametag") //nolint:errcheck // then it said nothing
		return fmt.Errorf("nametag apply: %w: %s", err, strings.TrimSpace(string(said)))
	}
	return nil
}

// nameLater takes the name that the metadata service gives at last. Talos sets the hostname then, and the kubelet starts again
// under it, with certificates of its own for it; etcd goes on as it is.
func (m *node) nameLater(ctx context.Context) {
	for {
		name, err := unnamed.Ask(ctx, onceAsked)
		if err == nil {
			err = unix.Sethostname([]byte(name))
		}
		if err == nil {
			m.kubelet.restart()
			tell(machine.Renamed, name)
			return
		}
		time.Sleep(time.Second)
	}
}

// network configures the machine's two NICs: the public one with a link-local address, by which the metadata service is reached,
// and the private one as Hetzner's networks are: the gateway is the only neighbour.
func (m *node) network(ctx context.Context) error {
	public, private, err := nics()
	if err != nil {
		return err
	}
	var errs []error
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"link", "set", public, "up"},
		{"address", "add", "169.254.17.17/16", "dev", public},
		{"link", "set", private, "up"},
		{"address", "add", m.Address + "/32", "dev", private},
		{"route", "add", m.Gateway + "/32", "dev", private},
		{"route", "add", "default", "via", m.Gateway, "dev", private},
	} {
		if out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out))
		}
	}
	return errors.Join(errs...)
}

// nics are the machine's, by their names' order: the public one is the first that a server has.
func nics() (public, private string, err error) {
	entries, err := os.ReadDir("/sys/class/net")
	if err != nil {
		return "", "", err
	}
	var all []string
	for _, e := range entries {
		if e.Name() != "lo" {
			all = append(all, e.Name())
		}
	}
	if len(all) != 2 {
		return "", "", fmt.Errorf("%d NICs, want a public and a private one", len(all))
	}
	return all[0], all[1], nil
}
