//go:build linux

package earlynet

import (
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/testvm"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
)

func TestNextHop(t *testing.T) {
	neighbours := func(t *testing.T) string { return run(t, "ip neigh show dev eth0") }

	t.Run("where nobody lies, nothing is told and nothing changed", func(t *testing.T) {
		testvm.Start(t, cloud.Config{Server: cloud.Server{Hostname: "my-server"}})
		n := openBy(t, LinkLocal)
		p := next(t, n)
		if got := hostname(t, p); got != "my-server" {
			t.Errorf("name %q", got)
		}
		time.Sleep(firstTrial + 3*askHop) // and it has been looked
		if list := neighbours(t); strings.Contains(list, "PERMANENT") || n.saw(NextHop, "") {
			t.Errorf("the neighbours are\n%s", list)
		}
	})
	t.Run("who claims the service's address is seen through, and the entry goes with the path", func(t *testing.T) {
		testvm.Start(t, cloud.Config{Server: cloud.Server{Hostname: "my-server"}}, testvm.NIC("eth0", cloud.NIC{
			Strangers: []cloud.Stranger{cloud.IsTheNextHop(cloud.Service)},
		}))
		run(t, "ip link set eth0 up") // so that what stays is seen
		defer run(t, "ip link set eth0 down")
		n := openBy(t, LinkLocal)
		p := next(t, n)
		eventually(t, "the other one tried", func() bool { return strings.Contains(neighbours(t), "PERMANENT") })
		if got := hostname(t, p); got != "my-server" {
			t.Errorf("name %q", got)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if list := neighbours(t); strings.Contains(list, "169.254.169.254") {
			t.Errorf("the neighbours are\n%s", list)
		}
	})
	t.Run("an entry that somebody has made for good is left alone", func(t *testing.T) {
		testvm.Start(t, cloud.Config{}, testvm.NIC("eth0", cloud.NIC{Strangers: []cloud.Stranger{cloud.IsTheNextHop(cloud.Service)}}))
		run(t, "ip link set eth0 up; ip neigh add 169.254.169.254 lladdr 02:00:00:00:00:77 dev eth0 nud permanent")
		defer run(t, "ip neigh del 169.254.169.254 dev eth0; ip link set eth0 down")
		next(t, openBy(t, LinkLocal))
		time.Sleep(firstTrial + 3*askHop)
		if list := neighbours(t); !strings.Contains(list, "02:00:00:00:00:77 PERMANENT") {
			t.Errorf("the neighbours are\n%s", list)
		}
	})
	t.Run("the entry of a run that was killed is taken back by the next one", func(t *testing.T) {
		testvm.Start(t, cloud.Config{})
		run(t, "ip link set eth0 up")
		defer run(t, "ip link set eth0 down")
		r, err := dialRTNL()
		if err != nil {
			t.Fatal(err)
		}
		defer r.close()
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		if err := r.setNeighbour(eth0.Index, metadata, [6]byte{2, 0, 0, 0, 0, 0x66}, unix.NUD_PERMANENT); err != nil {
			t.Fatal(err)
		}
		n := openBy(t, LinkLocal)
		next(t, n)
		if list := neighbours(t); strings.Contains(list, "PERMANENT") || !n.saw(TakenOver, "169.254.169.254") {
			t.Errorf("the neighbours are\n%s", list)
		}
	})
}
