//go:build linux

package earlynet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/safely"
)

// On a node the process is the first one: whatever panics, it goes on, and so does the path.
func TestAPanicEndsNoPath(t *testing.T) {
	// A request of the kernel's is made in each of the goroutines, and anywhere a fault of ours may show.
	for request, name := range map[netlink.HeaderType]string{
		unix.RTM_NEWLINK:     "set the link up",
		unix.RTM_NEWADDR:     "add an address",
		unix.RTM_NEWROUTE:    "lay a route",
		unix.RTM_GETNEIGHTBL: "read the ARP timers",
		unix.RTM_DELROUTE:    "remove a route, which goes with its address too",
	} {
		t.Run("in a request to "+name, func(t *testing.T) {
			c := plug(t)
			c.serve()
			restored(t)
			var once sync.Once
			var r recorder
			n := openFaulty(context.Background(), t, Config{Methods: []Method{LinkLocal}, Observer: r.observe}, func(m netlink.Message) unix.Errno {
				if m.Header.Type == request {
					once.Do(func() { panic(fmt.Sprintf("at request %d", request)) })
				}
				return 0
			})
			reaches(t, next(t, n))
			err := n.Close()
			if inUndo := request == unix.RTM_DELROUTE; inUndo != isPanic(err) {
				t.Errorf("Close: %v", err)
			} else if !inUndo && !r.sawErr(isPanic) {
				t.Error("nobody was told of the panic")
			}
		})
	}
	t.Run("in the observer, each time", func(t *testing.T) {
		c := plug(t)
		c.serve()
		restored(t)
		n, err := Open(t.Context(), Config{NICs: []string{"eth0"}, Methods: []Method{LinkLocal}, Destinations: []netip.Addr{metadata}, Observer: func(Event) { panic("no more of this") }})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		reaches(t, next(t, n))
		var told bool
		for _, err := range n.Status() {
			told = told || isPanic(err)
		}
		if !told {
			t.Errorf("the status says nothing of it: %v", n.Status())
		}
	})
}

func isPanic(err error) bool {
	var p *safely.PanicError
	return errors.As(err, &p)
}
