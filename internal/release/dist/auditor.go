package main

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/nametag-boot/nametag/internal/image/helper"
	"github.com/nametag-boot/nametag/internal/release/ship"
)

// The auditor is of a module of its own, for its clients are large: from an empty cache it takes two minutes of two processors for
// each architecture, more than all the rest together.
const (
	auditor       = "nametag-audit"
	auditorModule = "cluster"
)

// buildAuditor builds it, with its SBOMs, and gives the files. For this machine's processor only, as CI does it, it is not built from an
// empty cache the second time either: then what is compared is all but the compiler's work on other people's modules.
func buildAuditor(dir, version, which string, source time.Time, env []string) ([]string, error) {
	arches := helper.Architectures()
	if which == "own" {
		arches, env = []string{runtime.GOARCH}, nil
	}
	var binaries []string
	for _, arch := range arches {
		path := filepath.Join(dir, auditor+"-linux-"+arch)
		b := ship.Build{
			Command: "cmd/" + auditor, Module: auditorModule, Arch: arch, Output: path, Link: "-buildid= -X main.version=" + version, Env: env,
		}
		if err := b.Run(context.Background()); err != nil {
			return nil, err
		}
		if err := writeSBOMs(path, version, source); err != nil {
			return nil, fmt.Errorf("the SBOM of %s: %w", path, err)
		}
		binaries = append(binaries, path)
	}
	return binaries, nil
}

// moduleOf is the folder of the module that a built command is of.
func moduleOf(binary string) string {
	if strings.HasPrefix(filepath.Base(binary), auditor) {
		return auditorModule
	}
	return "."
}
