//go:build linux

package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pmorjan/kmod"
	"golang.org/x/sys/unix"
)

// drivers loads what the devices' modaliases ask for, as Talos' udevd does: those that are there, and those that
// come later.
func drivers(context.Context) {
	release := kernelRelease()
	root := "/lib/modules"
	modules, err := kmod.New(kmod.SetRootDir(root))
	if err != nil {
		return // no modules in this image
	}
	aliases := readAliases(filepath.Join(root, release, "modules.alias"))
	asked := map[string]bool{}
	for {
		loaded := false
		for _, bus := range []string{"pci", "virtio", "scsi"} {
			files, _ := filepath.Glob("/sys/bus/" + bus + "/devices/*/modalias")
			for _, file := range files {
				b, _ := os.ReadFile(file)
				alias := strings.TrimSpace(string(b))
				if alias == "" || asked[alias] {
					continue
				}
				asked[alias] = true
				for _, a := range aliases {
					if ok, _ := filepath.Match(a.pattern, alias); ok {
						loaded = modules.Load(a.module, "", 0) == nil || loaded
					}
				}
			}
		}
		if !loaded { // what was loaded brings devices of its own: look again at once
			time.Sleep(100 * time.Millisecond)
		}
	}
}

type alias struct{ pattern, module string }

// readAliases reads modules.alias: "alias PATTERN MODULE". A pattern is a glob without slashes (fnmatch).
func readAliases(path string) []alias {
	b, _ := os.ReadFile(path)
	var found []alias
	for _, line := range strings.Split(string(b), "\n") {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "alias" {
			found = append(found, alias{f[1], f[2]})
		}
	}
	return found
}

func kernelRelease() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return ""
	}
	return unix.ByteSliceToString(name.Release[:])
}
