//go:build linux

package main

import (
	"maps"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/nametag-boot/nametag/internal/cli"
	"github.com/nametag-boot/nametag/internal/image/installer/installertest"
	"github.com/nametag-boot/nametag/internal/image/oci"
	"github.com/nametag-boot/nametag/internal/testvm/helpertest"
	"github.com/nametag-boot/nametag/internal/testvm/netns"
)

// notRun are the examples that do not run here, and why.
var notRun = map[string]string{
	"nametagctl demo": "runs by itself: TestTheDemoNamesBothOutcomes",
}

// before are commands that each example of a help is run behind.
var before = map[string]string{
	"nametagctl cmdline check":    "nametagctl initramfs add initramfs-amd64.xz",
	"nametagctl initramfs remove": "nametagctl initramfs add initramfs-amd64.xz --out initramfs-nametag.xz",
}

// Each example of each help works as it stands, in the order in which it is read: what one makes the next one finds.
func TestTheExamplesOfTheHelpsRun(t *testing.T) {
	for _, program := range []string{"udhcpc", "curl"} {
		if _, err := exec.LookPath(program); err != nil {
			netns.Missing(t, program+" is not installed; an example of the lab uses it: apt-get install "+program)
		}
	}
	newReader := readers(t)
	seen, left := 0, maps.Clone(notRun)
	var try func(cmd *cobra.Command)
	try = func(cmd *cobra.Command) {
		if cmd.Hidden || cmd.DisableFlagParsing { // another program's
			return
		}
		if cmd.Example != "" {
			t.Run(cmd.CommandPath(), func(t *testing.T) {
				r := newReader(t)
				r.path = r.bin + ":" + r.path + ":/usr/sbin:/usr/bin:/sbin:/bin" // the lab's commands are true ones
				r.furnishForHelps(t)
				for n, example := range examplesOf(cmd) {
					if notRun[example] != "" {
						delete(left, example)
						continue
					}
					seen++
					want := exampleStatus(example)
					if first := before[cmd.CommandPath()]; first != "" {
						if got := r.run(t, first); got.exit != 0 {
							t.Fatal(got.stderr)
						}
					}
					if got := r.run(t, example); got.exit != want {
						t.Errorf("example %d: %s\nexit status %d, want %d: %s%s", n+1, example, got.exit, want, got.stdout, got.stderr)
					}
				}
			})
		}
		for _, c := range cmd.Commands() {
			try(c)
		}
	}
	try(rootCommand())
	if seen < 25 || len(left) > 0 {
		t.Errorf("%d examples were run; in no help is %v any more", seen, left)
	}
}

// Who is to read what a command prints must not take nothing for an answer: on a full disk each command that prints fails.
// Where standard output is closed, Go's runtime has opened /dev/null: the command does what it does.
func TestWhatCannotBePrintedIsAFailure(t *testing.T) {
	newReader := readers(t)
	walked := 0
	each(rootCommand(), func(cmd *cobra.Command) {
		t.Run(cmd.CommandPath(), func(t *testing.T) {
			walked++
			r := newReader(t)
			r.furnishForHelps(t)
			fails := func(line string) {
				t.Helper()
				if got := r.run(t, line+" >/dev/full"); got.exit != cli.Failed || !strings.Contains(got.stderr, "no space left") {
					t.Errorf("%s on a full disk: exit status %d: %s", line, got.exit, got.stderr)
				}
			}
			fails(cmd.CommandPath() + " --help")
			line, status := plainExample(cmd)
			if line == "" || cmd.Name() == "lab" { // what the lab's command prints is its own
				return
			}
			if first := before[cmd.CommandPath()]; first != "" {
				r.run(t, first)
			}
			if cmd.Name() != "demo" { // it takes its time
				if got := r.run(t, line+" >&-"); got.exit != status {
					t.Errorf("%s, standard output closed: exit status %d: %s", line, got.exit, got.stderr)
				}
				r = newReader(t)
				r.furnishForHelps(t)
				if first := before[cmd.CommandPath()]; first != "" {
					r.run(t, first)
				}
			}
			fails(line)
		})
	})
	if walked < 14 {
		t.Errorf("only %d commands were walked", walked)
	}
}

// plainExample is the first example of a command that is nothing but the command, or the command where it has none, and how
// it ends.
func plainExample(cmd *cobra.Command) (line string, status int) {
	all := examplesOf(cmd)
	for _, example := range all {
		if strings.HasPrefix(example, cmd.CommandPath()) && !strings.ContainsAny(example, "|>;") {
			return example, exampleStatus(example)
		}
	}
	if len(all) > 0 || !cmd.Runnable() {
		return "", 0
	}
	return cmd.CommandPath(), 0
}

// exampleStatus is how an example ends.
func exampleStatus(example string) int {
	if strings.HasSuffix(example, "talos.hostname.wait=90'") {
		return cli.Failed // it is shown for that
	}
	return cli.OK
}

// examplesOf are a help's examples; a backslash continues one.
func examplesOf(cmd *cobra.Command) (all []string) {
	continued := false
	for line := range strings.Lines(cmd.Example) {
		line = strings.TrimSpace(line)
		if continued {
			all[len(all)-1] += "\n" + line
		} else if line != "" {
			all = append(all, line)
		}
		continued = strings.HasSuffix(line, `\`)
	}
	return all
}

// furnishForHelps brings what the examples of another help have made.
func (r reader) furnishForHelps(t *testing.T) {
	t.Helper()
	if err := oci.WriteLayout(t.Context(), filepath.Join(r.dir, "installer"), oci.Artifact{Index: installertest.Index(t, installertest.Merged)}, false); err != nil {
		t.Fatal(err)
	}
	helpertest.Copy(t, filepath.Join(r.dir, "initramfs-amd64.xz"), filepath.Join(r.dir, "initramfs-nametag.zst"))
}
