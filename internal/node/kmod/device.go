package kmod

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Device is a network device on a bus.
type Device struct {
	Bus      string // "pci" or "virtio"
	Address  string // such as "0000:00:03.0" or "virtio0"
	Modalias string // what the kernel asks for
	Driver   string // the driver that has it; empty if none has
}

// String returns bus and address, such as "pci 0000:00:03.0".
func (d Device) String() string { return d.Bus + " " + d.Address }

func (d Device) key() string { return d.Bus + " " + d.Address + " " + d.Modalias }

// networkDevice is, by bus, the pattern for the modalias of a network device:
// base class 02 on PCI (PCI Code and ID Assignment, 1.3; the form is that of
// pci_uevent in drivers/pci/pci-driver.c), device 1 on virtio (VIRTIO 1.2, 5).
func networkDevice(bus string) string {
	if bus == "pci" {
		return "pci:v*d*sv*sd*bc02sc*i*"
	}
	return "virtio:d00000001v*"
}

// scan lists the network devices of the buses. A bus that is not there, such as
// virtio before its module, has none.
func scan(sysfs string) ([]Device, error) {
	if _, err := os.Stat(filepath.Join(sysfs, "bus")); err != nil {
		return nil, &Error{Op: "look for devices", Err: err, Remedy: "mount sysfs at " + sysfs}
	}
	var devices []Device
	for _, bus := range []string{"pci", "virtio"} {
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
			if !match(networkDevice(bus), d.Modalias) {
				continue
			}
			if driver, err := os.Readlink(filepath.Join(dir, e.Name(), "driver")); err == nil {
				d.Driver = filepath.Base(driver)
			}
			devices = append(devices, d)
		}
	}
	return devices, nil
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
