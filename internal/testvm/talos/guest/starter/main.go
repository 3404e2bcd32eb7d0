//go:build linux

// Command starter is the first process of a machine that starts many an initramfs, each without the helper and with it,
// and tells by what the two differ. It finds them described in /trees.json, and what they are made of in /store.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/testvm/qemu/insmod"
	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
	"github.com/nametag-boot/nametag/internal/testvm/talos/guest/standin"
	"github.com/nametag-boot/nametag/internal/testvm/talos/start"
)

func main() {
	log := report.Open("starter")
	log.Write(report.Event{Kind: report.First})
	if err := run(log); err != nil {
		standin.Die(log, err)
	}
	log.Write(report.Event{Kind: report.Settled})
	standin.Pause()
}

func run(log *report.Writer) error {
	if err := os.MkdirAll("/proc", 0o755); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	if err := insmod.All("/standin"); err != nil {
		return err
	}
	console, err := os.OpenFile("/dev/console", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	text, err := os.ReadFile("/trees.json")
	if err != nil {
		return err
	}
	var trees []start.Tree
	if err := json.Unmarshal(text, &trees); err != nil {
		return err
	}
	for _, t := range trees {
		alone, err := t.Look("/store", "/tree", start.Without, console)
		if err != nil {
			return err
		}
		if t.Runs != "" && alone["it runs"] != t.Says {
			return fmt.Errorf("%s, without the helper: it runs: %q", t.Name, alone["it runs"])
		}
		for _, way := range []start.Way{start.AsInit, start.ByPath} {
			e := report.Event{Kind: report.Compared, Name: t.Name + ", " + string(way)}
			behind, err := t.Look("/store", "/tree", way, console)
			if err != nil {
				e.Text = err.Error()
			} else {
				e.Text = strings.Join(alone.Difference(behind), "\n")
			}
			log.Write(e)
		}
	}
	return nil
}
