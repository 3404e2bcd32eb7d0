//go:build linux

package lasting

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/nametag-boot/nametag/internal/joined"
	"github.com/nametag-boot/nametag/internal/node/replace"
)

// quieten tells the two daemons that name a machine by its lease not to, for this
// boot. Where there is a static name they leave it alone by themselves.
func (r Root) quieten(run string) error {
	const byNetworkManager = "# nametag has named this machine.\n[main]\nhostname-mode=none\n"
	const byNetworkd = "# nametag has named this machine.\n[DHCPv4]\nUseHostname=no\n\n[DHCPv6]\nUseHostname=no\n"
	put := func(name, text string) error { return replace.File(filepath.Join(run, name), []byte(text)) }
	err := put("NetworkManager/conf.d/90-nametag.conf", byNetworkManager)
	// networkd has no such setting but in each network's file.
	for _, name := range r.networks(run) {
		err = joined.Errors(err, put(filepath.Join("systemd/network", name+".d", "90-nametag.conf"), byNetworkd))
	}
	if err != nil {
		return fmt.Errorf("lasting: %w", err)
	}
	return nil
}

// networks are the names of networkd's .network files (systemd.network(5)).
func (r Root) networks(run string) []string {
	var names []string
	for _, dir := range []string{r.path("etc/systemd/network"), filepath.Join(run, "systemd/network"), r.path("usr/lib/systemd/network"), r.path("lib/systemd/network")} {
		entries, _ := os.ReadDir(dir) // not there: no networks
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".network") {
				names = append(names, e.Name())
			}
		}
	}
	return names
}
