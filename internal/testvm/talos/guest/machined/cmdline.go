//go:build linux

package main

import (
	"os"
	"strings"
)

// commandLine is what of the kernel command line decides the name.
type commandLine struct{ hostname, platform string }

// readCommandLine reads /proc/cmdline afresh. The first occurrence of an argument counts.
func readCommandLine() commandLine {
	text, _ := os.ReadFile("/proc/cmdline")
	var c commandLine
	fromIP := ""
	for _, word := range strings.Fields(string(text)) {
		key, value, _ := strings.Cut(word, "=")
		switch {
		case key == "talos.hostname" && c.hostname == "":
			c.hostname = value
		case key == "talos.platform" && c.platform == "":
			c.platform = value
		case key == "ip" && fromIP == "":
			// ip=client:server:gateway:netmask:hostname:device:…
			if f := strings.Split(value, ":"); len(f) > 4 {
				fromIP = f[4]
			}
		}
	}
	if c.hostname == "" {
		c.hostname = fromIP
	}
	return c
}
