//go:build linux

package qemu

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// formatOf is the format of a disk's image, as QEMU calls it: qcow2 begins with a magic number (QEMU's docs/interop/qcow2),
// and what has none is raw.
func formatOf(image string) (string, error) {
	f, err := os.Open(image)
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // it was only read
	var magic [4]byte
	if _, err := io.ReadFull(f, magic[:]); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return "", err
	}
	if string(magic[:]) == "QFI\xfb" {
		return "qcow2", nil
	}
	return "raw", nil
}

// arguments are the disk as QEMU takes it. The host's page cache outlives a machine that is killed: a cut of the power
// loses what the guest has not written, and nothing else.
func (d Disk) arguments(i int) []string {
	args := []string{"-drive", fmt.Sprintf("if=none,id=disk%d,format=raw,file=%s", i, escape(d.Path))}
	if d.After > 0 { // it needs a slot that can be plugged
		return append(args, "-device", fmt.Sprintf("pcie-root-port,id=bay%d,chassis=%d,slot=%d", i, 100+i, 100+i))
	}
	for _, device := range d.devices(i) {
		text := device["driver"]
		for _, key := range []string{"id", "drive", "bus", "serial"} {
			if value, ok := device[key]; ok {
				text += "," + key + "=" + value
			}
		}
		args = append(args, "-device", text)
	}
	return args
}

// devices are what the guest sees, each behind the one before it.
func (d Disk) devices(i int) []map[string]string {
	drive := fmt.Sprintf("disk%d", i)
	switch d.Bus {
	case VirtioSCSI:
		host := fmt.Sprintf("scsi%d", i)
		return []map[string]string{
			{"driver": "virtio-scsi-pci", "id": host},
			{"driver": "scsi-hd", "id": "dev" + drive, "drive": drive, "bus": host + ".0"},
		}
	case NVMe:
		return []map[string]string{{"driver": "nvme", "id": "dev" + drive, "drive": drive, "serial": drive}}
	default:
		return []map[string]string{{"driver": "virtio-blk-pci", "id": "dev" + drive, "drive": drive}}
	}
}

// plug is how the disk is plugged in later.
func (d Disk) plug(i int) []command {
	var commands []command
	for n, device := range d.devices(i) {
		if n == 0 {
			device["bus"] = fmt.Sprintf("bay%d", i)
		}
		commands = append(commands, command{"device_add", device})
	}
	return commands
}
