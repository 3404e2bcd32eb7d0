//go:build linux

package earlynet

import (
	"context"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/testvm"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
)

func TestRoutesThatSomebodyRemovesAreLaidAgain(t *testing.T) {
	testvm.Start(t, cloud.Config{Server: cloud.Server{Hostname: "my-server"}}, testvm.NIC("eth0", cloud.NIC{Shape: cloud.Private}))
	n := open(context.Background(), t, Config{Methods: []Method{DHCP}})
	p := next(t, n)
	routes := func() int {
		rts, err := n.rtnl.routes(p.Index, unix.AF_INET)
		if err != nil {
			t.Fatal(err)
		}
		return len(slices.DeleteFunc(rts, func(rt route) bool { return rt.protocol != rtprotNametag }))
	}
	laid := routes()
	run(t, "ip route flush dev eth0") // as some scripts of DHCP clients do
	if laid == 0 || routes() != 0 {
		t.Fatalf("%d routes were laid, %d are left: the test shows nothing", laid, routes())
	}
	for range 2 { // what is done every 20 s
		if err := p.attempt.extend(addressLife); err != nil {
			t.Fatal(err)
		}
	}
	if got := routes(); got != laid {
		t.Errorf("%d routes, not %d", got, laid)
	}
	if got := hostname(t, p); got != "my-server" {
		t.Errorf("name %q", got)
	}
}
