package dmi_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nametag-boot/nametag/identity/dmi"
)

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRead(t *testing.T) {
	t.Run("every field, without the kernel's newline", func(t *testing.T) {
		dir := t.TempDir()
		write(t, dir, map[string]string{
			"sys_vendor": "Hetzner\n", "product_name": "vServer\n", "product_serial": "42 \n", "bios_vendor": "Hetzner\n",
			"product_uuid": "u\n", "board_serial": "b\n", "board_asset_tag": "i-1\n", "chassis_asset_tag": "c\n",
		})
		got, err := dmi.Read(dir)
		if want := (dmi.Facts{
			Vendor: "Hetzner", Product: "vServer", Serial: "42", BIOSVendor: "Hetzner",
			UUID: "u", BoardSerial: "b", BoardAssetTag: "i-1", ChassisAssetTag: "c",
		}); err != nil || got != want {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
	})
	t.Run("a machine without DMI says nothing, and that is no error", func(t *testing.T) {
		got, err := dmi.Read(filepath.Join(t.TempDir(), "missing"))
		if err != nil || got != (dmi.Facts{}) {
			t.Errorf("got %+v, %v", got, err)
		}
	})
	t.Run("a field that cannot be read leaves the others", func(t *testing.T) {
		dir := t.TempDir()
		write(t, dir, map[string]string{"sys_vendor": "Hetzner\n"})
		// A directory cannot be read as a file, whoever asks: root may read every mode.
		if err := os.Mkdir(filepath.Join(dir, "product_serial"), 0o700); err != nil {
			t.Fatal(err)
		}
		got, err := dmi.Read(dir)
		if err == nil || !strings.Contains(err.Error(), "product_serial") {
			t.Errorf("got error %v, want one that names product_serial", err)
		}
		if got.Vendor != "Hetzner" || got.Serial != "" {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("several that cannot be read are one line, with each cause in it", func(t *testing.T) {
		dir := t.TempDir()
		fields := []string{"sys_vendor", "bios_vendor"}
		for _, field := range fields {
			if err := os.Mkdir(filepath.Join(dir, field), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		_, err := dmi.Read(dir)
		if err == nil || strings.Contains(err.Error(), "\n") || !errors.Is(err, syscall.EISDIR) {
			t.Fatalf("got error %v", err)
		}
		for _, field := range fields {
			if !strings.Contains(err.Error(), field) {
				t.Errorf("%v does not name %s", err, field)
			}
		}
	})
	t.Run("a field without end is cut", func(t *testing.T) {
		dir := t.TempDir()
		write(t, dir, map[string]string{"sys_vendor": strings.Repeat("x", 1<<20)})
		got, err := dmi.Read(dir)
		if err != nil || len(got.Vendor) != 1024 {
			t.Errorf("got %d bytes, %v", len(got.Vendor), err)
		}
	})
}

func ExampleRead() {
	facts, err := dmi.Read("testdata/cx22")
	fmt.Printf("%s %s, serial %s, %v\n", facts.Vendor, facts.Product, facts.Serial, err)
	// Output: Hetzner vServer, serial 42, <nil>
}
