package cloud

import (
	"cmp"
	"os"
	"path/filepath"
)

// WriteDMI writes into dir what the firmware of the cloud's server says.
func (c *Cloud) WriteDMI(dir string) error { return c.cfg.Server.WriteDMI(dir) }

// WriteDMI writes into dir what the server's firmware says, in files as those of /sys/class/dmi/id.
func (s Server) WriteDMI(dir string) error {
	for name, value := range map[string]string{
		"sys_vendor": "Hetzner", "product_name": "vServer", "bios_vendor": "Hetzner",
		"product_serial": cmp.Or(s.InstanceID, "42"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value+"\n"), 0o644); err != nil { //nolint:gosec // whoever runs in the lab reads it
			return err
		}
	}
	return nil
}
