// Package dmi reads what the firmware says the machine is.
//
// The kernel shows the SMBIOS tables' system and BIOS fields as small files
// (drivers/firmware/dmi-id.c). They are there before any driver for a network
// card is, so they answer "is this machine one of that cloud's?" before the
// first packet.
package dmi

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/nametag-boot/nametag/internal/joined"
)

// Dir is where the kernel shows the fields, once /sys is mounted.
const Dir = "/sys/class/dmi/id"

// maxField bounds one field. SMBIOS strings are rarely longer than 64 bytes.
const maxField = 1024

// Facts are what the firmware says. An empty field is one that it does not
// say, or that may not be read; the zero Facts are a machine that says nothing.
type Facts struct {
	Vendor     string `json:"vendor,omitempty"`      // sys_vendor, for instance "Hetzner"
	Product    string `json:"product,omitempty"`     // product_name, for instance "vServer"
	Serial     string `json:"serial,omitempty"`      // product_serial; only root may read it
	BIOSVendor string `json:"bios_vendor,omitempty"` // bios_vendor

	// What other clouds have their instance's number in.
	UUID            string `json:"uuid,omitempty"`              // product_uuid; only root may read it
	BoardSerial     string `json:"board_serial,omitempty"`      // board_serial; only root may read it
	BoardAssetTag   string `json:"board_asset_tag,omitempty"`   // board_asset_tag, for instance "i-0123456789abcdef0" on EC2
	ChassisAssetTag string `json:"chassis_asset_tag,omitempty"` // chassis_asset_tag

	// SerialHidden says that there is a serial number which this process may not
	// read: the kernel shows it to root only (CAP_DAC_READ_SEARCH will do).
	SerialHidden bool `json:"serial_hidden,omitempty"`
}

// DirVariable is the environment variable that names another folder than [Dir],
// for a lab that gives its machines facts of their own.
const DirVariable = "NAMETAG_DMI"

// Read reads the facts below dir; an empty dir is what [DirVariable] says, or [Dir].
//
// A missing directory or field is no error: not every machine has DMI. Nor is a
// number that only root may read. Another field that is there but cannot be read is
// one: it comes together with the facts that could be read. Read may be called from
// several goroutines.
func Read(dir string) (Facts, error) {
	if dir == "" {
		dir = cmp.Or(os.Getenv(DirVariable), Dir)
	}
	var (
		f    Facts
		errs []error
	)
	for _, field := range []struct {
		file string
		to   *string
		root bool // only root may read it
	}{
		{"sys_vendor", &f.Vendor, false},
		{"product_name", &f.Product, false},
		{"product_serial", &f.Serial, true},
		{"bios_vendor", &f.BIOSVendor, false},
		{"product_uuid", &f.UUID, true},
		{"board_serial", &f.BoardSerial, true},
		{"board_asset_tag", &f.BoardAssetTag, false},
		{"chassis_asset_tag", &f.ChassisAssetTag, false},
	} {
		value, err := readField(filepath.Join(dir, field.file))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case field.root && errors.Is(err, fs.ErrPermission):
			f.SerialHidden = f.SerialHidden || field.to == &f.Serial
		case err != nil:
			errs = append(errs, fmt.Errorf("dmi: %w", err))
		default:
			*field.to = value
		}
	}
	return f, joined.Errors(errs...)
}

// readField returns one field without the newline that the kernel appends and
// the blanks that some firmware pads with.
func readField(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxField))
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(b)), nil
}
