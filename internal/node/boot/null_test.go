//go:build linux

package boot

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/testvm/netns"
)

const takeNullIn = "NAMETAG_TEST_TAKE_NULL"

// tree makes an initramfs with a device of that number at dev/null and a marker; "" for none.
func tree(t *testing.T, marker string, minor uint32) string {
	t.Helper()
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "dev"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod(filepath.Join(root, "dev/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, minor))); err != nil {
		netns.Missing(t, "no device can be made here: "+err.Error())
	}
	if marker != "" {
		if err := os.WriteFile(filepath.Join(root, markerPath), []byte(marker), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestTheNullDeviceIsTakenAwayWhereItIsOurs(t *testing.T) {
	for _, c := range []struct {
		about, marker string
		minor         uint32
		taken, dev    bool // is dev/null taken away; does dev stay
		err           bool
	}{
		{about: "ours", marker: `{"entries":[".nametag.json","dev/null","init"]}`, minor: 3, taken: true, dev: true},
		{about: "ours, with its folder", marker: `{"entries":[".nametag.json","dev","dev/null","init"]}`, minor: 3, taken: true},
		{about: "the image's own", marker: `{"entries":[".nametag.json","init"]}`, minor: 3, dev: true},
		{about: "no marker", minor: 3, dev: true},
		{about: "another device by now", marker: `{"entries":["dev/null"]}`, minor: 5, dev: true},
		{about: "a marker that is none", marker: "#", minor: 3, dev: true, err: true},
		{about: "an endless marker", marker: strings.Repeat(" ", 2*markerSize) + "{}", minor: 3, dev: true, err: true},
	} {
		t.Run(c.about, func(t *testing.T) {
			root := tree(t, c.marker, c.minor)
			if err := takeNull(root); (err != nil) != c.err {
				t.Errorf("the error is %v", err)
			}
			if exists(filepath.Join(root, "dev/null")) == c.taken {
				t.Errorf("taken away: %v", !c.taken)
			}
			if exists(filepath.Join(root, "dev")) != c.dev {
				t.Errorf("the folder is there: %v", !c.dev)
			}
		})
	}
	t.Run("a console in its folder", func(t *testing.T) {
		root := tree(t, `{"entries":["dev","dev/null"]}`, 3)
		if err := os.WriteFile(filepath.Join(root, "dev/console"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := takeNull(root); err != nil || !exists(filepath.Join(root, "dev/console")) {
			t.Errorf("the console is gone: %v", err)
		}
	})
}

// What our runtime has opened the kernel did not give.
func TestStandardFilesThatTheKernelDidNotGiveAreNotPassedOn(t *testing.T) {
	if root := os.Getenv(takeNullIn); root != "" {
		if err := takeNull(root); err != nil {
			panic(err)
		}
		panic(unix.Exec("/bin/sh", []string{"sh", "-c", "for fd in 0 1 2; do [ ! -e /proc/$$/fd/$fd ] || echo $fd >&9; done"}, os.Environ()))
	}
	for _, c := range []struct {
		about  string
		passed string
	}{{"ours", ""}, {"another one", "0\n1\n2\n"}} {
		t.Run(c.about, func(t *testing.T) {
			root := tree(t, `{"entries":["dev/null"]}`, 3)
			opened := filepath.Join(root, "dev/null")
			if c.passed != "" {
				opened = os.DevNull
			}
			told := filepath.Join(t.TempDir(), "told")
			sh := exec.Command("sh", "-c", `exec 9>"$1" <"$2" >"$2" 2>"$2" && exec "$0" -test.run='^TestStandardFilesThatTheKernelDidNotGiveAreNotPassedOn$'`, os.Args[0], told, opened)
			sh.Env = append(os.Environ(), takeNullIn+"="+root)
			if err := sh.Run(); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(told); err != nil || string(got) != c.passed {
				t.Errorf("passed on are %q, %v", got, err)
			}
		})
	}
}
