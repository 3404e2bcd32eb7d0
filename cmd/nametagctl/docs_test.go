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
	"github.com/nametag-boot/nametag/internal/testvm/helpertest"
	"github.com/nametag-boot/nametag/internal/testvm/netns"
)

// standIns are the commands of the documentation that cannot run in a test, and why. Each is a program that does nothing
// in the place of the true one. What is neither here nor ours is not found by the shell: so a new one is noticed.
var standIns = map[string]string{
	"docker":              "runs Talos' imager, which is an image in a registry",
	"hcloud":              "makes servers that cost money",
	"skopeo":              "pushes to a registry",
	"hcloud-upload-image": "makes a snapshot",
	"kubectl":             "speaks to a cluster",
	"make":                "makes what this test is made of; tested by CI",
	"nametag":             "would look for a server's metadata on this machine's own network; bin/nametag runs, in the lab",
	"sbsign":              "signs by a user's key; tested in internal/image/uki",
	"helm":                "speaks to a cluster; the chart is tested in cluster/deploy",
	"packer":              "makes a snapshot",
	"nametag-audit":       "speaks to a cloud and a cluster; run in cluster/command",
	"ssh":                 "writes a server's disk",
	"talosctl":            "speaks to a node",
	"zstd":                "unpacks the disk that the imager makes",
}

// exits are the commands that are shown because they fail.
var exits = map[string]int{
	`nametagctl cmdline check "talos.platform=hcloud talos.hostname.wait=90"`: cli.Failed,
}

// The languages of the blocks. In sh every line is a command; in console a prompt comes before each, and behind it what it
// prints; an ipxe script has a kernel's command line. The others have no commands.
const languages = " sh console ipxe yaml go json hcl text "

// A block is a fenced one of a page.
type block struct {
	language string
	line     int // of the fence
	text     string
}

// blocksOf reads a page.
func blocksOf(t *testing.T, page string) []block {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var found []block
	inside := false
	for n, line := range strings.Split(string(b), "\n") {
		language, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && !inside:
			inside = true
			found = append(found, block{language: language, line: n + 1})
			if language != "" && !strings.Contains(languages, " "+language+" ") {
				t.Errorf("%s:%d: what is %s? This test must know whether it has commands", page, n+1, language)
			}
		case fence:
			inside = false
		case inside:
			found[len(found)-1].text += line + "\n"
		}
	}
	return found
}

// A step is a command, and what the page says that it prints.
type step struct {
	line    int
	command string
	prints  string
}

// steps are the commands of a block; a backslash continues one.
func (b block) steps() []step {
	var found []step
	n, continued := b.line, false
	for line := range strings.Lines(b.text) {
		n++
		line = strings.TrimSuffix(line, "\n")
		command, isCommand := line, b.language == "sh" && line != ""
		if b.language == "console" {
			for _, prompt := range []string{"$ ", "# "} {
				if after, ok := strings.CutPrefix(line, prompt); ok {
					command, isCommand = after, true
				}
			}
		}
		last := len(found) - 1
		switch {
		case continued:
			found[last].command += "\n" + line
			command = line
		case isCommand:
			found = append(found, step{line: n, command: command})
		case last >= 0 && b.language == "console":
			found[last].prints += line + "\n"
		}
		continued = (continued || isCommand) && strings.HasSuffix(command, `\`)
	}
	return found
}

// A reader is where the commands run: a folder with what a user has, a registry, and a PATH of our command, stand-ins
// and little else.
type reader struct {
	dir, path, bin, registry, calls string
}

// allStandInsAreUsed fails where a page has a command no longer.
func (r reader) allStandInsAreUsed(t *testing.T) {
	t.Helper()
	called, _ := os.ReadFile(r.calls) //nolint:errcheck // none: then each is missed
	for _, name := range slices.Sorted(maps.Keys(standIns)) {
		if !t.Failed() && !strings.Contains("\n"+string(called), "\n"+name+"\n") {
			t.Errorf("no page has a command %s: take it from the list", name)
		}
	}
}

// benches makes the workbenches of all pages; what they have in common is made once.
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
	calls := filepath.Join(t.TempDir(), "calls")
	for name := range standIns {
		script(t, filepath.Join(others, name), "echo "+name+" >> "+calls+"\nwhile read -r line; do :; done < /dev/stdin\n")
	}
	for _, name := range []string{"jq", "grep"} {
		if found, err := exec.LookPath(name); err != nil {
			script(t, filepath.Join(others, name), "while read -r line; do :; done\n")
		} else if err := os.Symlink(found, filepath.Join(others, name)); err != nil {
			t.Fatal(err)
		}
	}
	return func(t *testing.T) reader {
		r := reader{dir: t.TempDir(), path: others + ":" + bin, bin: bin, registry: serveRegistry(t), calls: calls}
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

// check runs a step and compares.
func (r reader) check(t *testing.T, s step) {
	t.Helper()
	got := r.run(t, s.command)
	if name, _, _ := strings.Cut(s.command, " "); standIns[name] != "" {
		if got.exit == 127 {
			t.Errorf("line %d: %s\n%s", s.line, s.command, got.stderr)
		}
		return // it says nothing of what is shown
	}
	if words := strings.Fields(s.command); words[0] == "nametagctl" && slices.ContainsFunc(clusterCommands(), func(c *cobra.Command) bool { return c.Name() == words[1] }) {
		s.prints = "" // it is the auditor's, which is a stand-in here
	}
	if want := exits[s.command]; got.exit != want {
		t.Errorf("line %d: %s\nexit status %d, want %d: %s%s", s.line, s.command, got.exit, want, got.stdout, got.stderr)
	}
	if s.prints != "" && !shown(s.prints).MatchString(got.stdout) {
		t.Errorf("line %d: %s\nthe page shows\n%s\nprinted was\n%s", s.line, s.command, s.prints, got.stdout)
	}
}

var (
	aSize   = regexp.MustCompile(`\d+(\.|\\\.)\d [KM]iB`)
	aDigest = regexp.MustCompile(`sha256:[0-9a-f]+`)
)

// shown is what a page shows, as what is compared with: sizes and digests are those of its author's files, and … is
// whatever there is.
func shown(text string) *regexp.Regexp {
	pattern := regexp.QuoteMeta(text)
	pattern = aSize.ReplaceAllString(pattern, `\d+\.\d [KM]iB`)
	pattern = aDigest.ReplaceAllString(pattern, `sha256:[0-9a-f]+`)
	pattern = strings.ReplaceAll(pattern, "\n…\n", "\n(?s:.*)")
	return regexp.MustCompile(`^` + strings.ReplaceAll(pattern, "…", ".*") + `$`)
}

// Every command of a page is run, in order, in one folder: what a user is told to type works, and prints what is shown.
func TestTheCommandsOfTheDocumentationRun(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	newReader := readers(t)
	ours := map[string]int{}
	for _, page := range append(pages, "../../README.md") {
		name := filepath.Base(page)
		t.Run(name, func(t *testing.T) {
			r := newReader(t)
			for _, b := range blocksOf(t, page) {
				switch b.language {
				case "sh", "console":
					for _, s := range b.steps() {
						r.check(t, s)
						if strings.HasPrefix(strings.TrimPrefix(s.command, "bin/"), "nametagctl ") {
							ours[name]++
						}
					}
				case "ipxe":
					r.checkScript(t, b)
				default:
					if regexp.MustCompile(`(?m)^(\$ |# )?(bin/)?nametagctl `).MatchString(b.text) {
						t.Errorf("line %d: a command of ours that nobody runs: the block must be sh or console", b.line)
					}
				}
			}
			if name == "extension.md" {
				r.showsProfile(t, page)
			}
		})
	}
	newReader(t).allStandInsAreUsed(t)
	for page, least := range map[string]int{"install.md": 6, "extension.md": 8, "initramfs.md": 7, "uki.md": 4, "README.md": 5} {
		if ours[page] < least {
			t.Errorf("%s: %d of its commands were run, and it had %d", page, ours[page], least)
		}
	}
}

// checkScript looks at the command lines that a script of iPXE has: nametag finds no mistake in them, and the initramfs is
// one that the page has made.
func (r reader) checkScript(t *testing.T, b block) {
	t.Helper()
	var line, initrd string
	for l := range strings.Lines(b.text) {
		switch words := strings.Fields(l); {
		case len(words) > 2 && words[0] == "kernel":
			line = strings.Join(words[2:], " ")
		case len(words) == 2 && words[0] == "initrd":
			initrd = path.Base(words[1])
		}
	}
	got := r.run(t, fmt.Sprintf("nametagctl cmdline check --image '%s' '%s'", initrd, line))
	if got.exit != 0 || line == "" {
		t.Errorf("line %d: %q with %q: %s%s", b.line, line, initrd, got.stdout, got.stderr)
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
		if b.language == "yaml" {
			if b.text != string(printed) {
				t.Errorf("line %d: the page shows\n%s\nprinted was\n%s", b.line, b.text, printed)
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
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, page := range append(pages, "../../README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range inProse.FindAllStringSubmatch(string(text), -1) {
			seen++
			if err := understood(strings.Fields(m[1])); err != nil {
				t.Errorf("%s: nametagctl %s: %v", filepath.Base(page), m[1], err)
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
