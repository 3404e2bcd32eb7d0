//go:build unix

package initramfs

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// debiansTools is a folder of programs that hack/vm-deps has unpacked: lsinitramfs and unmkinitramfs of initramfs-tools,
// and dracut's lsinitrd.
func debiansTools(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../../../.cache/vm/amd64/root")
	if err == nil {
		root, err = filepath.EvalSymlinks(root)
	}
	if err == nil {
		_, err = os.Stat(filepath.Join(root, "usr/bin/lsinitrd"))
	}
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("the tools are missing: hack/vm-deps --arch amd64: %v", err)
		}
		t.Skipf("SKIPPED: the tools are missing: hack/vm-deps --arch amd64: %v", err)
	}
	return root
}

// Who looks at an edited image with the tools of its distribution must not be told that it is damaged.
func TestToolsTreatAnEditedImageAsTheOriginal(t *testing.T) {
	root := debiansTools(t)
	h := aHelper(t, helperProgram)
	run := func(t *testing.T, dir, command string) (exit int, out string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "sh", "-c", command)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+root+"/usr/bin:"+root+"/usr/sbin:"+os.Getenv("PATH"), "dracutbasedir="+root+"/usr/lib/dracut", "TMPDIR="+dir)
		var b bytes.Buffer
		cmd.Stdout, cmd.Stderr = &b, &b
		_ = cmd.Run()
		return cmd.ProcessState.ExitCode(), strings.ReplaceAll(b.String(), dir, "")
	}
	test := map[Format]string{
		Plain: "cpio -t --quiet <image", Gzip: "gzip -t <image", XZ: "xz -t <image", Zstd: "zstd -q -t <image", LZ4: "lz4 -t <image",
	}
	for _, format := range allFormats {
		for _, shape := range []string{"alone", "behind microcode"} {
			t.Run(format.String()+", "+shape, func(t *testing.T) {
				t.Parallel()
				image := debian(t, format)
				commands := []string{"lsinitramfs image", "unmkinitramfs image out && find out", "lsinitrd image"}
				if shape == "alone" {
					commands = append(commands, test[format])
				} else {
					image = join(microcode(t), image)
				}
				added, _ := mustAdd(t, image, h, Options{})
				for _, command := range commands {
					if format == Plain && strings.HasPrefix(command, "unmk") {
						continue // it makes no folder of a plain image, edited or not
					}
					at := func(b []byte) string {
						dir := t.TempDir()
						if err := os.WriteFile(filepath.Join(dir, "image"), b, 0o600); err != nil {
							t.Fatal(err)
						}
						return dir
					}
					before, was := run(t, at(image), command)
					after, is := run(t, at(added), command)
					if before != 0 && format != Plain { // of a plain image lsinitramfs always says that it ends too soon
						t.Fatalf("%s ends with %d on the original: %s", command, before, was)
					}
					if after != before {
						t.Errorf("%s ends with %d on the edited image, and with %d on the original: %s", command, after, before, is)
					}
					for line := range strings.Lines(was) {
						if strings.HasPrefix(command, "lsinitramfs") && !strings.Contains(is, line) {
							t.Errorf("%s does not show %q any more:\n%s", command, line, is)
						}
					}
					// docs/initramfs.md says that they do not, and which command does.
					if format != Plain && strings.Contains(is, markerName) {
						t.Errorf("%s shows a second archive: the page is to say so", command)
					}
				}
			})
		}
	}
}
