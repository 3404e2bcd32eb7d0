package identity_test

import (
	"testing"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	. "github.com/nametag-boot/nametag/identity/identitytest"
)

func TestAPathInfoIsCalledAsItsPathIs(t *testing.T) {
	scenario(t, "the one that won", func(l *lab) {
		l.Up("eth0", earlynet.LinkLocal)
		src := New(Answer("my-server", "42"))
		id, err := l.resolve(time.Minute, src)
		l.named(id, err, "my-server", 0, 0)
		if asked := src.Calls()[0].Path; id.Path.String() != asked || asked != "eth0/linklocal" {
			l.Errorf("it is %q, and was asked over %q", id.Path, asked)
		}
	})
	for _, c := range []struct {
		info identity.PathInfo
		want string
	}{
		{identity.PathInfo{}, ""},
		{identity.PathInfo{Method: "host"}, "host"},
		{identity.PathInfo{Interface: "eth0"}, "eth0"},
		{identity.PathInfo{Interface: "eth0", Method: "dhcp"}, "eth0/dhcp"},
	} {
		if got := c.info.String(); got != c.want {
			t.Errorf("%+v is called %q", c.info, got)
		}
	}
}
