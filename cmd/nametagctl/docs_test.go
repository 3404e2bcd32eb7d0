//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/nametag-boot/nametag/internal/cli"
	"github.com/nametag-boot/nametag/internal/image/installer/installertest"
	"github.com/nametag-boot/nametag/internal/image/oci"
	"github.com/nametag-boot/nametag/internal/pages"
	"github.com/nametag-boot/nametag/internal/testvm/helpertest"
	"github.com/nametag-boot/nametag/internal/testvm/netns"
)

// exits are the commands that are shown because they fail.
var exits = map[string]int{
	`nametagctl cmdline check "talos.platform=hcloud talos.hostname.wait=90"`: cli.Failed,
}

// top is the top of the tree.
const top = "../.."

// A reader is where the commands run: a folder with what a user has, a registry, and a PATH of our command, stand-ins
// and little else.
type reader struct {
	dir, path, bin, registry string
}

// readers makes the workbenches of all pages; what they have in common is made once.
func readers(t *testing.T) func(*testing.T) reader {
	t.Helper()
	bin, others := filepath.Join(t.TempDir(), "bin"), t.TempDir()
	if err := os.CopyFS(bin, os.DirFS(helpertest.StandIn(t))); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Not a symbolic link: nametagctl looks for the helper beside the program that it is.
	helpertest.Copy(t, self, filepath.Join(bin, "nametagctl"))
	helpertest.Copy(t, filepath.Join(helpertest.Build(t), "nametag-linux-"+runtime.GOARCH), filepath.Join(bin, "nametag"))
	for _, name := range append(slices.Collect(maps.Keys(pages.Others)), "make", "nametag", "nametag-audit", "ip", "sysctl", "minisign", "sha256sum") { // these run elsewhere
		script(t, filepath.Join(others, name), "while read -r line; do :; done < /dev/stdin\n")
	}
	for _, name := range []string{"jq", "grep"} {
		if found, err := exec.LookPath(name); err != nil {
			script(t, filepath.Join(others, name), "while read -r line; do :; done\n")
		} else if err := os.Symlink(found, filepath.Join(others, name)); err != nil {
			t.Fatal(err)
		}
	}
	return func(t *testing.T) reader {
		r := reader{dir: t.TempDir(), path: others + ":" + bin, bin: bin, registry: serveRegistry(t)}
		r.furnish(t)
		if err := os.Symlink(bin, filepath.Join(r.dir, "bin")); err != nil {
			t.Fatal(err)
		}
		return r
	}
}

// furnish brings what a user has: images in a registry, what the imager wrote, an initramfs, a UKI, one that is signed.
func (r reader) furnish(t *testing.T) {
	t.Helper()
	for name, one := range map[string]oci.Artifact{
		"siderolabs/installer:v1.9.1": {Index: installertest.Index(t, installertest.Old)},
		"hcloud-installer/376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba:v1.12.7": {
			Index: installertest.Index(t, installertest.Merged),
		},
	} {
		if _, err := (oci.Registry{}).Push(t.Context(), one, r.registry+"/"+name); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"installer-amd64.tar", "_out/installer-amd64.tar"} {
		file = filepath.Join(r.dir, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil { //nolint:gosec // a test's own
			t.Fatal(err)
		}
		if err := oci.WriteArchive(t.Context(), file, "ghcr.io/siderolabs/installer:v1.12.7", installertest.Merged(t, "amd64")); err != nil {
			t.Fatal(err)
		}
	}
	initramfs, line := installertest.Initramfs(t, "amd64"), "talos.platform=hcloud console=tty0"
	for name, content := range map[string][]byte{
		"initramfs-amd64.xz": initramfs,
		"cmdline":            []byte(line + " talos.hostname.wait=2m\n"),
	} {
		if err := os.WriteFile(filepath.Join(r.dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sections := []ukiSection{
		{".osrel", "PRETTY_NAME=\"Talos (v1.12.7)\"\n"},
		{".uname", "6.18.0-talos"},
		{".cmdline", line},
		{".initrd", string(initramfs)},
		{".linux", "the kernel"},
		{".profile", "ID=main\n"},
		{".profile", "ID=reset-maintenance\n"},
		{".cmdline", line + " talos.experimental.wipe=system"},
	}
	helpertest.Copy(t, ukiFile(t, false, sections...), filepath.Join(r.dir, "vmlinuz.efi"))
	helpertest.Copy(t, ukiFile(t, true, sections...), filepath.Join(r.dir, "vmlinuz.efi.signed"))
}

func script(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte("#!/bin/sh\n"+text), 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
}

// here puts what is in a test in the place of what is elsewhere.
func (r reader) here(command string) string {
	return strings.NewReplacer("ghcr.io/", r.registry+"/", "factory.talos.dev/", r.registry+"/", "/proc/cmdline", "cmdline").Replace(command)
}

// run is a command in the shell, as a user types it.
func (r reader) run(t *testing.T, command string) said {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/bin/bash", "-o", "pipefail", "-c", r.here(command))
	cmd.Dir = r.dir
	cmd.Env = []string{
		"PATH=" + r.path, "HOME=" + r.dir, "TMPDIR=" + os.TempDir(), actAs + "=1",
		"GORACE=atexit_sleep_ms=0", // a race build waits for a second at each exit
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if strings.Contains(stderr.String(), "netns: no namespaces here") {
		netns.Missing(t, stderr.String())
	}
	there := strings.ReplaceAll(stdout.String(), r.registry+"/", "ghcr.io/")
	return said{cmd.ProcessState.ExitCode(), there, stderr.String()}
}

// check runs a command and compares.
func (r reader) check(t *testing.T, c pages.Command) {
	t.Helper()
	got := r.run(t, c.Text)
	if guard, ok := c.Guard(); !ok || guard != pages.Workstation {
		if got.exit == 127 {
			t.Errorf("%s\n%s", c, got.stderr)
		}
		return // a stand-in, which says nothing of what is shown
	}
	if want := exits[c.Text]; got.exit != want {
		t.Errorf("%s\nexit status %d, want %d: %s%s", c, got.exit, want, got.stdout, got.stderr)
	}
	if c.Prints != "" && !pages.Shown(c.Prints).MatchString(got.stdout) {
		t.Errorf("%s\nthe page shows\n%s\nprinted was\n%s", c, c.Prints, got.stdout)
	}
}

// Every command of a page is run, in order, in one folder: what a user is told to type works, and prints what is shown.
func TestTheCommandsOfTheDocumentationRun(t *testing.T) {
	newReader := readers(t)
	ours := map[string]int{}
	for _, page := range allPages(t) {
		t.Run(page, func(t *testing.T) {
			r := newReader(t)
			for _, b := range blocksOf(t, page) {
				for _, c := range b.Commands() {
					r.check(t, c)
					if guard, ok := c.Guard(); ok && guard == pages.Workstation {
						ours[page]++
					}
				}
				if b.Language == "ipxe" {
					r.checkScript(t, b)
				}
			}
			if page == "docs/extension.md" {
				r.showsProfile(t, page)
			}
		})
	}
	for page, least := range map[string]int{"docs/install.md": 6, "docs/extension.md": 8, "docs/initramfs.md": 7, "docs/uki.md": 4, "README.md": 5} {
		if ours[page] < least {
			t.Errorf("%s: %d of its commands were run, and it had %d", page, ours[page], least)
		}
	}
}

func allPages(t *testing.T) []string {
	t.Helper()
	all, err := pages.Files(top)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func blocksOf(t *testing.T, page string) []pages.Block {
	t.Helper()
	all, err := pages.Blocks(top, page)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// checkScript looks at the command lines that a script of iPXE has: nametag finds no mistake in them, and the initramfs is
// one that the page has made.
func (r reader) checkScript(t *testing.T, b pages.Block) {
	t.Helper()
	var line, initrd string
	for l := range strings.Lines(b.Text) {
		switch words := strings.Fields(l); {
		case len(words) > 2 && words[0] == "kernel":
			line = strings.Join(words[2:], " ")
		case len(words) == 2 && words[0] == "initrd":
			initrd = path.Base(words[1])
		}
	}
	got := r.run(t, fmt.Sprintf("nametagctl cmdline check --image '%s' '%s'", initrd, line))
	if got.exit != 0 || line == "" {
		t.Errorf("line %d: %q with %q: %s%s", b.Line, line, initrd, got.stdout, got.stderr)
	}
}

// showsProfile compares the first profile that the page shows with the one that was printed.
func (r reader) showsProfile(t *testing.T, page string) {
	t.Helper()
	printed, err := os.ReadFile(filepath.Join(r.dir, "profile.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blocksOf(t, page) {
		if b.Language == "yaml" {
			if b.Text != string(printed) {
				t.Errorf("line %d: the page shows\n%s\nprinted was\n%s", b.Line, b.Text, printed)
			}
			return
		}
	}
	t.Error("the page shows no profile")
}

// inProse is a command in the running text.
var inProse = regexp.MustCompile("`(?:bin/)?nametagctl ([^`\n]+)`")

// A command that is only spoken of is there, with each of its flags.
func TestTheCommandsInTheDocumentationsProseAreUnderstood(t *testing.T) {
	seen := 0
	for _, page := range allPages(t) {
		text, err := os.ReadFile(filepath.Join(top, page))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range inProse.FindAllStringSubmatch(string(text), -1) {
			seen++
			if err := understood(strings.Fields(m[1])); err != nil {
				t.Errorf("%s: nametagctl %s: %v", page, m[1], err)
			}
		}
	}
	if seen < 10 {
		t.Errorf("only %d commands were found", seen)
	}
}

// understood finds the command and parses its flags, and runs nothing.
func understood(args []string) error {
	root := &cobra.Command{Use: "nametagctl"}
	root.AddCommand(commands()...)
	root.AddCommand(clusterCommands()...)
	cmd, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	return cmd.ParseFlags(slices.DeleteFunc(rest, func(a string) bool { return a == "--help" }))
}
