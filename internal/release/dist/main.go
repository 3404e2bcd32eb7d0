// Command dist builds all that a release consists of into a folder: the two commands for both architectures, static and
// free of paths and times, an SBOM for each (CycloneDX and SPDX), man pages, shell completions, the system extension for
// each line of Talos, nametagctl and the auditor as container images, the licences of all that is in them, where it all comes from
// (in-toto), and the checksums, signed where a key is given. It runs at the top of a checkout.
//
// The same source and the same Go give the same bytes, wherever and whenever it runs: `dist -check` builds twice, in
// different folders and with empty caches of its own, and compares.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/nametag-boot/nametag/internal/image/helper"
	"github.com/nametag-boot/nametag/internal/release/ship"
)

func main() {
	out := flag.String("o", "dist", "the folder to build into; what it has is replaced")
	version := flag.String("version", "devel", "the version that the commands print")
	check := flag.Bool("check", false, "build a second time and compare byte for byte")
	auditor := flag.String("auditor", "all", "the processors that the auditor is built for: all; or own, this machine's, which takes minutes less")
	key := flag.String("sign", "", "sign the checksums with the minisign key in this file; "+passwordEnv+" has its password")
	flag.Parse()
	if err := run(*out, *version, *auditor, *check, *key); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(out, version, auditor string, check bool, key string) error {
	if auditor != "all" && auditor != "own" {
		return fmt.Errorf("-auditor: %q is neither all nor own", auditor)
	}
	if err := release(out, version, auditor); err != nil {
		return err
	}
	if check {
		again, err := os.MkdirTemp("", "nametag-release-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(again)
		// A cache of its own, so that the second build really builds.
		if err := release(filepath.Join(again, "dist"), version, auditor, "GOCACHE="+filepath.Join(again, "cache")); err != nil {
			return err
		}
		if err := same(out, filepath.Join(again, "dist")); err != nil {
			return err
		}
		fmt.Fprintln(os.Stdout, "release: built twice, the same byte for byte")
	}
	if key != "" {
		if err := sign(out, key, version); err != nil {
			return fmt.Errorf("signing: %w", err)
		}
	}
	sums, err := os.ReadFile(filepath.Join(out, sumsFile))
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "%s", sums)
	return nil
}

// release builds everything into dir. env goes on top of the builds' environment.
func release(dir, version, auditor string, env ...string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	for _, sub := range []string{"", "man", "completions"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil { //nolint:gosec // for everybody to read
			return err
		}
	}
	source, err := sourceTime()
	if err != nil {
		return err
	}
	var binaries []string
	for _, command := range []string{"nametag", "nametagctl"} { // in this order: the second carries the first
		for _, arch := range helper.Architectures() {
			path := filepath.Join(dir, command+"-linux-"+arch)
			if err := build(path, command, arch, version, env); err != nil {
				return err
			}
			binaries = append(binaries, path)
			if err := writeSBOMs(path, version, source); err != nil {
				return fmt.Errorf("the SBOM of %s: %w", path, err)
			}
			if command == "nametag" {
				if err := pack(path, filepath.Join(carriedDir, filepath.Base(path)+".zst")); err != nil {
					return err
				}
			}
		}
	}
	// Images are edited on other systems too.
	for _, w := range workstations {
		path := filepath.Join(dir, "nametagctl-"+w.system+"-"+w.arch+w.suffix)
		if err := build(path, "nametagctl", w.arch, version, append(slices.Clone(env), "GOOS="+w.system)); err != nil {
			return err
		}
		binaries = append(binaries, path)
		if err := writeSBOMs(path, version, source); err != nil {
			return fmt.Errorf("the SBOM of %s: %w", path, err)
		}
	}
	audits, err := buildAuditor(dir, version, auditor, source, env)
	if err != nil {
		return err
	}
	binaries = append(binaries, audits...)
	if err := writeLicences(dir, binaries); err != nil {
		return err
	}
	if err := writeManual(dir); err != nil {
		return err
	}
	if err := writeExtensions(dir); err != nil {
		return err
	}
	if err := writePackages(dir, version); err != nil {
		return err
	}
	if err := writeImages(context.Background(), dir, version); err != nil {
		return fmt.Errorf("the container images: %w", err)
	}
	if err := writeProvenance(dir, version); err != nil {
		return fmt.Errorf("the provenance: %w", err)
	}
	return writeSums(dir)
}

// workstations are the systems besides Linux that nametagctl is built for: it edits images there, and has no lab. One
// processor each: every one more is built twice.
var workstations = []struct{ system, arch, suffix string }{{"darwin", "arm64", ""}, {"windows", "amd64", ".exe"}}

// build builds one command as it ships.
func build(path, command, arch, version string, env []string) error {
	b := ship.Build{
		Command: "cmd/" + command, Arch: arch, Output: path, Node: command == "nametag", Link: "-buildid= -X main.version=" + version, Env: env,
	}
	if !b.Node {
		b.Tags = "carry"
	}
	return b.Run(context.Background())
}

// carriedDir is where a build of nametagctl with -tags carry finds the helpers that it carries.
const carriedDir = "cmd/nametagctl/carried"

// pack compresses a file, the same way each time.
func pack(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil { //nolint:gosec // for everybody to read
		return err
	}
	return os.WriteFile(to, encoder.EncodeAll(content, nil), 0o644) //nolint:gosec // for everybody to read
}

// own is a built command that runs on this machine.
func own(dir, command string) (string, error) {
	if !slices.Contains(helper.Architectures(), runtime.GOARCH) {
		return "", fmt.Errorf("the manual is made by running the commands, and none is built for %s", runtime.GOARCH)
	}
	return filepath.Abs(filepath.Join(dir, command+"-linux-"+runtime.GOARCH))
}

// writeExtensions makes the system extension for each line of Talos, as OCI layouts of both architectures.
func writeExtensions(dir string) error {
	ctl, err := own(dir, "nametagctl")
	if err != nil {
		return err
	}
	for _, line := range []string{"1.9", "1.10"} {
		if _, err := ask(ctl, "extension", "--talos", line, "--helper", dir, "--oci", filepath.Join(dir, "extension-talos-"+line)); err != nil {
			return err
		}
	}
	return nil
}

const sumsFile = "SHA256SUMS"

// files lists all files below dir, sorted, but for the checksums.
func files(dir string) ([]string, error) {
	var names []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == sumsFile {
			return err
		}
		name, err := filepath.Rel(dir, path)
		names = append(names, name)
		return err
	})
	slices.Sort(names)
	return names, err
}

// writeSums writes the checksums in the form of sha256sum(1).
func writeSums(dir string) error {
	names, err := files(dir)
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, name := range names {
		sum, err := digest(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s  %s\n", sum, name)
	}
	return os.WriteFile(filepath.Join(dir, sumsFile), []byte(b.String()), 0o644) //nolint:gosec // for everybody to read
}

// same compares two releases byte for byte.
func same(a, b string) error {
	in, err := files(a)
	if err != nil {
		return err
	}
	inB, err := files(b)
	if err != nil {
		return err
	}
	if !slices.Equal(in, inB) {
		return fmt.Errorf("two builds have different files: %q and %q", in, inB)
	}
	var errs []error
	for _, name := range in {
		first, err := os.ReadFile(filepath.Join(a, name))
		if err != nil {
			return err
		}
		second, err := os.ReadFile(filepath.Join(b, name))
		if err != nil {
			return err
		}
		if !bytes.Equal(first, second) {
			errs = append(errs, fmt.Errorf("%s differs between two builds", name))
		}
	}
	return errors.Join(errs...)
}
