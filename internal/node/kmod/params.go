//go:build linux

package kmod

import (
	"strings"

	"github.com/nametag-boot/nametag/internal/kernelarg"
)

// params returns what the kernel command line has for a module, in the form that
// finit_module(2) takes: "virtio_net.napi_tx=0" gives "napi_tx=0". The kernel parts that
// as it parts its own line.
func params(cmdline, module string) string {
	var found []string
	args, _ := kernelarg.Split(cmdline) // what stands behind "--" is for init
	for _, a := range args {
		name, param, ok := strings.Cut(a.Name, ".")
		if !ok || param == "" || strings.ReplaceAll(name, "-", "_") != module {
			continue
		}
		switch {
		case a.Quoted && a.HasValue: // around the whole, of which this is a part
			param += `="` + a.Value + `"`
		case a.HasValue:
			_, value, _ := strings.Cut(a.Text, "=")
			param += "=" + value
		}
		found = append(found, param)
	}
	return strings.Join(found, " ")
}
