//go:build linux

package boot

import (
	"io"
	"testing"

	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/dmi"
	"github.com/nametag-boot/nametag/identity/hetzner"
	"github.com/nametag-boot/nametag/internal/node/kmsg"
)

// The platform on the command line × the firmware's vendor × its serial number.
func TestPlatform(t *testing.T) {
	const serial = "4711"
	for _, c := range []struct {
		given  bool // talos.platform=hcloud; another platform never comes as far as the worker
		vendor string
		serial string
		asks   bool
		proof  bool // the serial number is one if the answer has it
	}{
		{false, "Hetzner", serial, true, true},
		{false, "Hetzner", "", true, false},
		{false, "", serial, true, true},
		{false, "", "", true, false},
		{false, "QEMU", serial, false, false},
		{false, "Amazon EC2", serial, false, false},
		{true, "Hetzner", serial, true, true},
		{true, "Hetzner", "", true, false},
		{true, "", serial, true, true},
		{true, "", "", true, false},
		{true, "QEMU", serial, true, true}, // the operator knows more than we of a vendor that is no cloud
		{true, "QEMU", "", true, false},
		{true, "Amazon EC2", serial, false, false}, // one image serves every cloud
		{true, "Google", "", false, false},
	} {
		w := worker{request: request{OnHetzner: c.given}, console: kmsg.New(io.Discard, kmsg.Format{Unlimited: true})}
		facts, elsewhere := w.weigh(hetzner.Source(), dmi.Facts{Vendor: c.vendor, Serial: c.serial})
		if (elsewhere == "") != c.asks {
			t.Errorf("%+v: %q", c, elsewhere)
		}
		if elsewhere != "" {
			continue
		}
		if hetzner.Source().Present(facts) == identity.PresenceNo {
			t.Errorf("%+v: it would not be asked", c)
		}
		if (hetzner.Source().InstanceID(facts) != "") != c.proof {
			t.Errorf("%+v: proven by %q", c, hetzner.Source().InstanceID(facts))
		}
	}
}
