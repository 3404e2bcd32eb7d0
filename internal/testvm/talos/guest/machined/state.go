//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
	"github.com/nametag-boot/nametag/internal/testvm/talos/guest/standin"
)

// memory is what Talos keeps on STATE and applies before any service starts.
type memory struct {
	hostname string // the platform's, of an earlier boot
	config   string // the machine configuration
}

const stateOn = "/run/state"

// recall waits for STATE, as Talos does, and reads it: read-only and without its log, so that a test can compare the disk.
// One that is encrypted is one that this system has the key for: the test says what is in it.
func recall(arguments standin.Arguments) (memory, error) {
	device := partition("STATE")
	for device == "" {
		time.Sleep(50 * time.Millisecond)
		device = partition("STATE")
	}
	begins := make([]byte, 4096)
	f, err := os.Open(device)
	if err != nil {
		return memory{}, err
	}
	_, err = io.ReadFull(f, begins)
	_ = f.Close()
	if err != nil {
		return memory{}, err
	}
	switch {
	case bytes.HasPrefix(begins, []byte("LUKS")):
		name := arguments[standin.Unlocks]
		if name == "" {
			return memory{}, nil
		}
		return memory{hostname: name, config: "version: v1alpha1\n"}, nil
	case !bytes.HasPrefix(begins, []byte("XFSB")):
		return memory{}, nil // it will be made anew
	}
	if err := mountState(device, unix.MS_RDONLY, "norecovery"); err != nil {
		return memory{}, err
	}
	defer unix.Unmount(stateOn, 0) //nolint:errcheck // read-only
	var m memory
	var platform struct {
		Metadata struct {
			Hostname string `yaml:"hostname"`
		} `yaml:"metadata"`
	}
	// What cannot be read is asked for again, as Talos does.
	if text, err := os.ReadFile(filepath.Join(stateOn, "platform-network.yaml")); err == nil && yaml.Unmarshal(text, &platform) == nil {
		m.hostname = platform.Metadata.Hostname
	}
	if text, err := os.ReadFile(filepath.Join(stateOn, "config.yaml")); err == nil && wellFormed(text) {
		m.config = string(text)
	}
	return m, nil
}

func wellFormed(text []byte) bool {
	for d := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var document any
		if err := d.Decode(&document); err != nil {
			return errors.Is(err, io.EOF)
		}
	}
}

// remember writes STATE as Talos does once it has a configuration and the platform's answer. "dirty" leaves it as a machine
// does whose power is cut: mounted, its log not empty.
func remember(log *report.Writer, how, hostname, config string) error {
	device := partition("STATE")
	if device == "" {
		return errors.New("there is no STATE")
	}
	if err := mountState(device, 0, ""); err != nil {
		return err
	}
	host, domain, _ := strings.Cut(hostname, ".")
	serial, _ := os.ReadFile("/sys/class/dmi/id/product_serial")
	id := strings.TrimSpace(string(serial))
	platform := fmt.Sprintf("addresses: []\nhostnames:\n    - hostname: %s\n      domainname: %q\n      layer: platform\nmetadata:\n    platform: hcloud\n    hostname: %s\n    instanceId: %q\n    providerId: hcloud://%s\n",
		host, domain, hostname, id, id)
	for name, text := range map[string]string{"platform-network.yaml": platform, "config.yaml": config} {
		if err := os.WriteFile(filepath.Join(stateOn, name), []byte(text), 0o400); err != nil {
			return err
		}
	}
	if how != "dirty" {
		if err := unix.Unmount(stateOn, 0); err != nil {
			return err
		}
		log.Write(report.Event{Kind: report.Stored, Name: hostname})
		return nil
	}
	// What was written stands in its place, and something later only in the log.
	dir, err := os.Open(stateOn)
	if err != nil {
		return err
	}
	defer dir.Close()                                        //nolint:errcheck // a folder
	for _, request := range []uint{0xc0045877, 0xc0045878} { // FIFREEZE, FITHAW (linux/fs.h)
		if err := unix.IoctlSetInt(int(dir.Fd()), request, 0); err != nil {
			return fmt.Errorf("freezing: %w", err)
		}
	}
	f, err := os.Create(filepath.Join(stateOn, "later"))
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	log.Write(report.Event{Kind: report.Stored, Name: hostname, Text: "dirty"})
	return nil
}

func mountState(device string, flags uintptr, options string) error {
	if err := os.MkdirAll(stateOn, 0o700); err != nil {
		return err
	}
	if err := unix.Mount(device, stateOn, "xfs", flags, options); err != nil {
		return fmt.Errorf("mounting %s: %w", device, err)
	}
	return nil
}

// partition is the device of the first partition with a label; "": there is none.
func partition(label string) string {
	files, _ := filepath.Glob("/sys/class/block/*/uevent")
	for _, file := range files {
		text, _ := os.ReadFile(file)
		name := ""
		found := false
		for _, line := range strings.Split(string(text), "\n") {
			key, value, _ := strings.Cut(line, "=")
			switch {
			case key == "DEVNAME":
				name = value
			case key == "PARTNAME" && value == label:
				found = true
			}
		}
		if found {
			return "/dev/" + name
		}
	}
	return ""
}
