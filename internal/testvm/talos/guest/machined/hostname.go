//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
	"github.com/nametag-boot/nametag/internal/testvm/talos/guest/standin"
	"github.com/nametag-boot/nametag/internal/testvm/unnamed"
)

// layer is where a hostname comes from. The highest that has one wins.
type layer int

const (
	layerDefault layer = iota
	layerCommandLine
	layerPlatform
	layerOperator // DHCP
	layerConfig
	layers
)

func (l layer) String() string {
	return [layers]string{"default", "cmdline", "platform", "operator", "config"}[l]
}

// hostnames is the node's name by layer, and the kernel's as the outcome.
type hostnames struct {
	log       *report.Writer
	arguments standin.Arguments

	mu    sync.Mutex
	given *sync.Cond
	by    [layers]string
	now   string
}

func newHostnames(log *report.Writer, arguments standin.Arguments) *hostnames {
	h := &hostnames{log: log, arguments: arguments}
	h.given = sync.NewCond(&h.mu)
	return h
}

// set gives a layer its name and the kernel the one that wins. The kernel gets the first label as its hostname and
// the rest as its domain, as Talos does.
func (h *hostnames) set(l layer, name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.by[l] = name
	top := layers - 1
	for top > 0 && h.by[top] == "" {
		top--
	}
	if h.by[top] == h.now {
		return // the same name again is no change
	}
	h.now = h.by[top]
	host, domain, _ := strings.Cut(h.now, ".")
	if err := unix.Sethostname([]byte(host)); err != nil {
		standin.Die(h.log, fmt.Errorf("sethostname %q: %w", host, err))
	}
	if err := unix.Setdomainname([]byte(domain)); err != nil {
		standin.Die(h.log, fmt.Errorf("setdomainname %q: %w", domain, err))
	}
	fmt.Fprintf(os.Stderr, "machined: setting hostname %q from %s\n", h.now, top)
	h.log.Write(report.Event{Kind: report.Named, Name: h.now, Text: top.String()})
	h.given.Broadcast()
	h.arguments.Hook("named", h.log)
}

// remembered gives the platform's layer the name of an earlier boot, where there is no newer one.
func (h *hostnames) remembered(name string) {
	h.mu.Lock()
	newer := h.by[layerPlatform] != ""
	h.mu.Unlock()
	if name != "" && !newer {
		h.set(layerPlatform, name)
	}
}

// configure applies a machine configuration: the name in it, if there is one, and the default name, which a
// configuration that says nothing else switches on.
func (h *hostnames) configure(document string) {
	for d := yaml.NewDecoder(strings.NewReader(document)); ; {
		var doc struct {
			Kind     string `yaml:"kind"`
			Hostname string `yaml:"hostname"`
			Machine  struct {
				Network struct {
					Hostname string `yaml:"hostname"`
				} `yaml:"network"`
			} `yaml:"machine"`
		}
		err := d.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			standin.Die(h.log, fmt.Errorf("machine configuration: %w", err))
		}
		name := doc.Machine.Network.Hostname
		if doc.Kind == "HostnameConfig" {
			name = doc.Hostname
		}
		if name != "" {
			h.set(layerConfig, name)
			return
		}
	}
	h.set(layerDefault, unnamed.Invent())
}

// wait blocks until there is any name, and returns it.
func (h *hostnames) wait() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.now == "" {
		h.given.Wait()
	}
	host, _, _ := strings.Cut(h.now, ".")
	return host
}
