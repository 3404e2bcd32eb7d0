//go:build unix

package cmdline

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/u-root/u-root/pkg/cpio"
	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/image/initramfs"
	"github.com/nametag-boot/nametag/procfs"
)

const (
	path    = "usr/lib/firmware/nametag/nametag"
	right   = "talos.platform=hcloud talos.hostname.wait=2m"
	rdinit  = "rdinit=/" + path
	andInit = right + " " + rdinit + " init=/init"
)

func TestWhatIsAddedIsWhatIsRight(t *testing.T) {
	t.Parallel()
	policy := procfs.Default().String()
	for _, tt := range []struct{ path, want string }{
		{"", policy},
		{path, policy + " " + rdinit + " init=/init"},
		{"/" + path, policy + " " + rdinit + " init=/init"},
	} {
		got := strings.Join(Arguments(policy, tt.path), " ")
		if got != tt.want {
			t.Errorf("for %q: %s", tt.path, got)
		}
		if found := Check(got, Options{Path: strings.TrimPrefix(tt.path, "/")}); found != nil {
			t.Errorf("%s: %+v", got, found)
		}
	}
}

// image is an initramfs of these programs, by path; the value is the ELF machine, or negative: it cannot be executed.
func image(t *testing.T, programs map[string]int) *initramfs.Image {
	t.Helper()
	var b bytes.Buffer
	w := cpio.Newc.Writer(&b)
	dirs := []string{"usr", "usr/lib", "usr/lib/firmware", "usr/lib/firmware/nametag"}
	for _, d := range dirs {
		if err := w.WriteRecord(cpio.Directory(d, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	for name, machine := range programs {
		mode := uint64(unix.S_IFREG | 0o755)
		if machine < 0 {
			mode = unix.S_IFREG | 0o644
		}
		if err := w.WriteRecord(cpio.StaticRecord(elf(machine), cpio.Info{Name: name, Mode: mode})); err != nil {
			t.Fatal(err)
		}
	}
	if err := cpio.WriteTrailer(w); err != nil {
		t.Fatal(err)
	}
	return read(t, append(b.Bytes(), make([]byte, -b.Len()&3)...))
}

func read(t *testing.T, b []byte) *initramfs.Image {
	t.Helper()
	im, err := initramfs.Read(context.Background(), bytes.NewReader(b), int64(len(b)), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// elf is the beginning of a program.
func elf(machine int) []byte {
	b := make([]byte, 64)
	copy(b, "\x7fELF\x02\x01\x01")
	b[16], b[18], b[20], b[52], b[54], b[58] = 2, byte(machine), 1, 64, 56, 64 //nolint:gosec // one of two
	return b
}

const (
	amd64 = 62
	arm64 = 183
)

// with is the image with nametag added to it.
func with(t *testing.T, im *initramfs.Image, o initramfs.Options) *initramfs.Image {
	t.Helper()
	h, err := initramfs.NewHelper(bytes.NewReader(elf(amd64)), 64)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := im.Add(context.Background(), &out, h, o); err != nil {
		t.Fatal(err)
	}
	return read(t, out.Bytes())
}

func TestMistakesAreFound(t *testing.T) {
	t.Parallel()
	bare := image(t, map[string]int{"init": amd64})
	asInit := with(t, bare, initramfs.Options{})
	byRdinit := with(t, bare, initramfs.Options{Way: initramfs.RDInit})
	elsewhere := with(t, bare, initramfs.Options{Way: initramfs.RDInit, Path: "nametag"})
	for _, tt := range []struct {
		name, line string
		options    Options
		says       string // of the one mistake; empty: none
		remedy     string
	}{
		{"all is right", right, Options{}, "", ""},
		{"all is right, by rdinit", andInit, Options{Path: path}, "", ""},
		{"all is right in the image", right, Options{Image: asInit}, "", ""},
		{"all is right in the image, by rdinit", andInit, Options{Image: byRdinit}, "", ""},
		{"all is right by the other name", "nametag.wait=2m", Options{}, "", ""},
		{"the two names agree", "nametag.wait=2m talos.hostname.wait=2m", Options{}, "", ""},
		{"the two names differ", "nametag.wait=2m talos.hostname.wait=3m", Options{}, "contradicts", "write what is meant"},
		{"the other name, malformed", "nametag.wait=90", Options{}, "has no unit", "write what is meant"},
		{"the other name, twice", "nametag.wait=2m nametag.wait=3m", Options{}, "the first counts", "leave one"},
		{"a key beside the other name", "nametag.wait=2m then=halt", Options{}, "nothing reads it", "write nametag.wait=…,then=halt"},
		{"a name for systemd", right + " systemd.hostname=a", Options{}, "finds nothing out", "take it away"},
		{"a name for dracut", right + " hostname=a", Options{}, "finds nothing out", "take it away"},
		{"nothing asks to wait", "quiet", Options{}, "nametag does nothing", "talos.hostname.wait=5m"},
		{"malformed", "talos.hostname.wait=90", Options{}, "did you mean 90s?", "the default counts"},
		{"misspelt", "talos.hostname.wiat=2m", Options{}, "talos.hostname.wait", ""},
		{"an unknown key", "talos.hostname.wait=2m,than=halt", Options{}, "then", ""},
		{"twice", right + " talos.hostname.wait=3m", Options{}, "given 2 times: the first counts", "leave one"},
		{"rdinit twice", andInit + " rdinit=/init", Options{}, "given 2 times: the kernel takes the last", "leave one"},
		{"a name is given", right + " talos.hostname=web-1", Options{}, `names the node "web-1"`, "take it away"},
		{"a name is given by ip=", right + " ip=10.0.0.2::10.0.0.1:255.255.255.0:web-1:eth0:off", Options{}, `names the node "web-1"`, "take it away"},
		{"another platform", "talos.platform=metal talos.hostname.wait=2m", Options{}, "another platform", "talos.platform=hcloud"},
		{"no init=/init", right + " " + rdinit, Options{}, "no init=/init", "add init=/init"},
		{"rdinit behind --", right + " init=/init -- " + rdinit, Options{}, "behind --", "before the --"},
		{"rdinit misspelt", right + " rd.init=/" + path + " init=/init", Options{}, "rd.init= is no argument", rdinit},
		{"rdinit with letters swapped", right + " ridnit=/x init=/init", Options{}, "ridnit= is no argument", "rdinit=/x"},
		{"initrd instead of rdinit", right + " initrd=/" + path + " init=/init", Options{}, "not a program in it", rdinit},
		{"no slash", right + " rdinit=" + path + " init=/init", Options{}, "slash", rdinit},
		{"the path of another release", andInit, Options{Path: "lib/firmware/nametag/nametag"}, "elsewhere", "rdinit=/lib/firmware/nametag/nametag"},
		{"an extension without rdinit", right, Options{Path: path}, "nothing runs the helper", rdinit + " init=/init"},
		{"the image has no nametag", right, Options{Image: bare}, "nothing runs nametag", "initramfs add"},
		{"the image wants rdinit", right, Options{Image: byRdinit}, "nothing runs nametag", rdinit + " init=/init"},
		{"not in the image", andInit, Options{Image: bare}, "Unable to mount root fs", "add --rdinit"},
		{"elsewhere in the image", andInit, Options{Image: elsewhere}, "Unable to mount root fs", "at /nametag"},
		{"rdinit, and nametag is /init", andInit, Options{Image: asInit}, "Unable to mount root fs", "take it away"},
		{"not executable in the image", andInit, Options{Image: image(t, map[string]int{"init": amd64, path: -1})}, "not a program", ""},
		{"a folder in the image", right + " rdinit=/usr init=/init", Options{Image: bare}, "not a program", ""},
		{"for another processor", andInit, Options{Image: image(t, map[string]int{"init": amd64, path: arm64})}, "is for arm64, its /init for amd64", "amd64"},
		{"no /init in the image", andInit, Options{Image: image(t, map[string]int{path: arm64})}, "no /init", ""},
		{"the time by itself", "talos.platform=hcloud talos.hostname.wait 90s", Options{}, "stands by itself", "talos.hostname.wait=90s"},
		{"a key by itself", right + " then=halt", Options{}, "stands by itself", ",then=halt, with a comma"},
		{"a word of somebody else's", "talos.hostname.wait quiet then=later", Options{}, "", ""},
		{"the platform misspelt", "talos.platfrom=metal talos.hostname.wait=2m", Options{}, "no argument that anything reads", "talos.platform=metal"},
		{"the name misspelt", right + " talos.hostnam=web-1", Options{}, "no argument that anything reads", "talos.hostname=web-1"},
		{"init instead of rdinit", right + " init=/" + path, Options{}, "not of the initramfs", rdinit + " init=/init"},
		{"init=/init behind --", right + " " + rdinit + " -- init=/init", Options{}, "no init=/init", "add init=/init"},
		{"rdinit in quotes, which the kernel takes away", right + ` rdinit="/` + path + `" init=/init`, Options{Image: byRdinit}, "", ""},
		{"the next init misspelt", right + " nametag.int=/x", Options{}, "no argument that anything reads", "nametag.init=/x"},
		{"the next init twice", right + " nametag.init=/x nametag.init=/y", Options{}, "nametag takes the first", "leave one"},
		{"the next init without a slash", right + " nametag.init=init", Options{}, "slash", "the whole path"},
		{"the next init is not in the image", right + " nametag.init=/x", Options{Image: asInit}, "no program at /x", "that is there"},
		{"the next init is in the image", right + " nametag.init=/init.next", Options{Image: asInit}, "", ""},
		{"too long", right + " x=" + strings.Repeat("x", 2100), Options{}, "cut it off", "shorten"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			found := slices.DeleteFunc(Check(tt.line, tt.options), func(f Finding) bool { return !f.Mistake })
			if tt.says == "" {
				if len(found) > 0 {
					t.Errorf("found %+v", found)
				}
				return
			}
			if len(found) != 1 || !strings.Contains(found[0].Problem, tt.says) || !strings.Contains(found[0].Remedy, tt.remedy) {
				t.Errorf("found %+v\nwant one with %q and %q", found, tt.says, tt.remedy)
			}
		})
	}
}

func TestHintsAreNoMistakes(t *testing.T) {
	t.Parallel()
	for line, says := range map[string]string{
		"talos.hostname.wait=off":                      "switches nametag off",
		right + " initrd=initramfs.xz":                 "for the boot loader",
		right + " " + rdinit + " init=/sbin/something": "falls back to /sbin/something",
		"talos.hostname.wait=2m,nic=enp1s0":            "the kernel's own names count",
		"talos.hostname.wait=2m,nic=en*":               "the kernel's own names count",
	} {
		found := Check(line, Options{})
		if len(found) != 1 || found[0].Mistake || !strings.Contains(found[0].Problem, says) {
			t.Errorf("%s: found %+v", line, found)
		}
	}
}

func TestANICByItsNameInTheKernelIsNoHint(t *testing.T) {
	t.Parallel()
	for _, nic := range []string{"eth0", "eth*", "96:00:00:12:34:56"} {
		if found := Check("talos.hostname.wait=2m,nic="+nic, Options{}); found != nil {
			t.Errorf("%s: found %+v", nic, found)
		}
	}
}

// The argument is told by the finding; the problem does not tell it again.
func TestAnArgumentIsToldOnce(t *testing.T) {
	t.Parallel()
	found := Check(`talos.hostname.wait="2m"`, Options{})
	if len(found) != 1 || strings.Contains(found[0].Problem, "hostname.wait") || !strings.Contains(found[0].Problem, "in quotes") {
		t.Errorf("found %+v", found)
	}
}

func FuzzCheck(f *testing.F) {
	for _, line := range []string{"", andInit, right + " initrd=x -- rdinit=", "rdini", "rdiint=a", "= == rdinit", "\x00\xff ip=::::a"} {
		f.Add(line)
	}
	f.Fuzz(func(_ *testing.T, line string) {
		Check(line, Options{})
		Check(line, Options{Path: path})
	})
}

func TestWhatIsSaidOfAKnownName(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		argument string
		found    int
		mistake  bool
	}{
		{"talos.hostname.wait=2m,known=10s,rename=stop", 0, false},
		{"talos.hostname.wait=10s", 0, false}, // nobody wrote that one is longer than the other
		{"talos.hostname.wait=10s,known=20s", 1, false},
		{"talos.hostname.wait=forever,known=20s", 0, false},
		{"talos.hostname.wait=2m,known=off,rename=stop", 1, true},
		{"talos.hostname.wait=2m known=10s", 1, true}, // a blank where a comma belongs
		{"talos.hostname.wait=2m rename=stop", 1, true},
		{"talos.hostname.wait=2m,id=unproven", 0, false},
		{"talos.hostname.wait=2m id=unproven", 1, true},
		{"talos.hostname.wait=2m,known=ten", 1, true},
	} {
		found := Check("talos.platform=hcloud "+tt.argument, Options{})
		if len(found) != tt.found || len(found) > 0 && found[0].Mistake != tt.mistake {
			t.Errorf("%s: %+v", tt.argument, found)
		}
	}
}
