//go:build linux

package progress

import (
	"errors"
	"testing"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
)

func TestAnEventIsOneSentence(t *testing.T) {
	ack := earlynet.Event{Interface: "eth0", Method: earlynet.DHCP, Kind: earlynet.DHCPAck, Detail: "10.0.0.2/32"}
	for _, c := range []struct {
		event identity.Event
		says  string
	}{
		{identity.Event{Kind: identity.EventTrying, Path: "eth0/dhcp"}, "eth0/dhcp: trying"},
		{identity.Event{Kind: identity.EventNamed, Path: "eth0/dhcp", Detail: "my-server"}, "eth0/dhcp: named: my-server"},
		{identity.Event{Kind: identity.EventFailed, Path: "eth0/dhcp", Err: errors.New("connection refused")}, "eth0/dhcp: failed: connection refused"},
		{identity.Event{Kind: identity.EventPlatform, Detail: "a server of Hetzner Cloud"}, "platform: a server of Hetzner Cloud"},
		{identity.Event{Kind: identity.EventLink, Path: "eth0/dhcp", Detail: "ack: 10.0.0.2/32", Link: &ack}, "eth0 (dhcp): ack: 10.0.0.2/32"},
	} {
		if got := c.event.Sentence(); got != c.says {
			t.Errorf("it says %q, not %q", got, c.says)
		}
	}
}
