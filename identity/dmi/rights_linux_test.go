package dmi_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/identity/dmi"
)

// The kernel gives these files the mode 0400. Where we are root, this thread gives that up as far as files go.
func TestANumberThatOnlyRootMayReadIsNoErrorAndAnotherFieldIs(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"sys_vendor": "Hetzner", "product_serial": "42", "product_uuid": "u", "board_serial": "b", "bios_vendor": "Hetzner",
	})
	for _, name := range []string{filepath.Dir(dir), dir, filepath.Join(dir, "sys_vendor"), filepath.Join(dir, "bios_vendor")} {
		if err := os.Chmod(name, 0o755); err != nil { //nolint:gosec // everybody may read /sys
			t.Fatal(err)
		}
	}
	hide := func(names ...string) {
		for _, name := range names {
			if err := os.Chmod(filepath.Join(dir, name), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	hide("product_serial", "product_uuid", "board_serial")
	got, err := readAsAnother(t, dir)
	if want := (dmi.Facts{Vendor: "Hetzner", BIOSVendor: "Hetzner", SerialHidden: true}); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	hide("bios_vendor")
	if got, err := readAsAnother(t, dir); !errors.Is(err, fs.ErrPermission) || got.Vendor != "Hetzner" || !got.SerialHidden {
		t.Errorf("got %+v, %v", got, err)
	}
}

// readAsAnother reads the facts as a user who is not root.
func readAsAnother(t *testing.T, dir string) (f dmi.Facts, err error) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if os.Getuid() == 0 {
			runtime.LockOSThread() // and the thread ends with the goroutine
			if err = unix.Setfsuid(65534); err != nil {
				return
			}
		}
		f, err = dmi.Read(dir)
	}()
	<-done
	return f, err
}
