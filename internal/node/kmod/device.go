//go:build linux

package kmod

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Device is a network device on a bus or, with [Config.Disks], one that disks are
// behind.
type Device struct {
	Bus      string // "pci", "virtio" or "scsi"
	Address  string // such as "0000:00:03.0" or "virtio0"
	Modalias string // what the kernel asks for
	Driver   string // the driver that has it; empty if none has
}

// String returns bus and address, such as "pci 0000:00:03.0".
func (d Device) String() string { return d.Bus + " " + d.Address }

func (d Device) key() string { return d.Bus + " " + d.Address + " " + d.Modalias }

// Disk reports whether it is not for the network but for disks.
func (d Device) Disk() bool {
	return slices.ContainsFunc(disks(d.Bus), func(p string) bool { return match(p, d.Modalias) })
}

// HasDisks reports whether it is a device that disks appear behind, with its driver: not
// a virtio device on PCI, behind which another device comes first.
func (d Device) HasDisks() bool {
	return d.Driver != "" && d.Disk() && d.Driver != "virtio-pci"
}

// network is, by bus, the pattern for the modalias of a network device: base class
// 02 on PCI (PCI Code and ID Assignment, 1.3; the form is that of pci_uevent in
// drivers/pci/pci-driver.c), device 1 on virtio (VIRTIO 1.2, 5).
func network(bus string) []string {
	switch bus {
	case "pci":
		return []string{"pci:v*d*sv*sd*bc02sc*i*"}
	case "virtio":
		return []string{"virtio:d00000001v*"}
	}
	return nil
}

// disks is the same for what disks are behind: base class 01 on PCI, devices 2
// (block) and 8 (SCSI host) on virtio, and disks themselves on a SCSI bus (type 0;
// the form is that of scsi_bus_uevent in drivers/scsi/scsi_sysfs.c).
func disks(bus string) []string {
	switch bus {
	case "pci":
		return []string{"pci:v*d*sv*sd*bc01sc*i*"}
	case "virtio":
		return []string{"virtio:d00000002v*", "virtio:d00000008v*"}
	case "scsi":
		return []string{"scsi:t-0x00"}
	case "fs":
		return []string{"fs-*"}
	}
	return nil
}

// withFileSystems adds, where there may be a disk, the file systems that it is to be read
// by and that the kernel does not have yet, each under the alias that the kernel itself
// asks for.
func withFileSystems(sysfs string, names []string, devices []Device) []Device {
	if !slices.ContainsFunc(devices, Device.Disk) {
		return devices
	}
	devices = slices.Clone(devices)
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(sysfs, "fs", name)); err != nil {
			devices = append(devices, Device{Bus: "fs", Address: name, Modalias: "fs-" + name})
		}
	}
	return devices
}

// scan lists the network devices of the buses, and behind them what disks are
// behind, if that is wanted. A bus that is not there, such as virtio before its
// module, has none.
func scan(sysfs string, withDisks bool) ([]Device, error) {
	if _, err := os.Stat(filepath.Join(sysfs, "bus")); err != nil {
		return nil, &Error{Op: "look for devices", Err: err, Remedy: "mount sysfs at " + sysfs}
	}
	var devices, behind []Device
	for _, bus := range []string{"pci", "virtio", "scsi"} {
		if network(bus) == nil && !withDisks {
			continue
		}
		dir := filepath.Join(sysfs, "bus", bus, "devices")
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, &Error{Op: "look for devices", Err: err}
		}
		for _, e := range entries {
			alias, err := readShort(filepath.Join(dir, e.Name(), "modalias"))
			if err != nil {
				continue // unplugged in this moment
			}
			d := Device{Bus: bus, Address: e.Name(), Modalias: strings.TrimSpace(alias)}
			forNetwork := slices.ContainsFunc(network(bus), func(p string) bool { return match(p, d.Modalias) })
			if !forNetwork && (!withDisks || !d.Disk()) {
				continue
			}
			if driver, err := os.Readlink(filepath.Join(dir, e.Name(), "driver")); err == nil {
				d.Driver = filepath.Base(driver)
			}
			if forNetwork {
				devices = append(devices, d)
			} else {
				behind = append(behind, d)
			}
		}
	}
	return append(devices, behind...), nil
}

// readShort reads a sysfs attribute, which is a page at most.
func readShort(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 4097))
	if err == nil && len(text) > 4096 {
		err = fmt.Errorf("%s is longer than a page", name)
	}
	return string(text), err
}
