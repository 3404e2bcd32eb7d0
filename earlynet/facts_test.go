//go:build linux

package earlynet

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/nametag-boot/nametag/internal/testvm"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
)

// of returns the events of a kind.
func (r *recorder) of(k EventKind) []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(r.events), func(e Event) bool { return e.Kind != k })
}

// first returns the first event of a kind, which must have been told by now, or soon.
func (r *recorder) first(t testing.TB, k EventKind) Event {
	t.Helper()
	eventually(t, k.String(), func() bool { return len(r.of(k)) > 0 })
	return r.of(k)[0]
}

func TestThatThereIsNoNICIsAnEvent(t *testing.T) {
	t.Run("once while there is none, and once more when the last one has gone", func(t *testing.T) {
		testvm.Start(t, cloud.Config{}, testvm.Without("eth0"), testvm.KeepTraces())
		n := open(context.Background(), t, Config{Methods: []Method{LinkLocal}})
		if e := n.told.first(t, NoNIC); !errors.Is(e.Err, ErrNoNIC) || e.Interface != "" || e.Method != 0 {
			t.Errorf("told was %+v", e)
		}
		for round := 1; round <= 2; round++ {
			run(t, "ip tuntap add eth0 mode tap")
			eventually(t, "the NIC", func() bool { return len(n.told.of(NICFound)) == round })
			if got := len(n.told.of(NoNIC)); got != round {
				t.Errorf("there was none %d times, and it was told %d times", round, got)
			}
			run(t, "ip link del eth0")
			eventually(t, "its end", func() bool { return len(n.told.of(NoNIC)) == round+1 })
		}
	})
	t.Run("what comes and goes beside is told ever more seldom", func(t *testing.T) {
		testvm.Start(t, cloud.Config{}, testvm.Without("eth0"), testvm.KeepTraces())
		n := open(context.Background(), t, Config{Methods: []Method{LinkLocal}})
		n.told.first(t, NoNIC)
		for range 32 {
			run(t, "ip link add other0 type veth peer name other1; ip link del other0")
		}
		// Both ends of each are left, and the kernel tells each of them; that the last was heard shows a NIC.
		run(t, "ip link add eth0 type veth peer name other0")
		t.Cleanup(func() { run(t, "ip link del eth0") })
		n.told.first(t, NICFound)
		if none, left := len(n.told.of(NoNIC)), len(n.told.of(NICIgnored)); left < 32 || none > 9 {
			t.Errorf("%d NICs were left, and that there is none was told %d times", left, none)
		}
	})
	t.Run("the host's own network needs none", func(t *testing.T) {
		var told recorder
		n, err := Host(t.Context(), Config{Observer: told.observe})
		if err != nil {
			t.Fatal(err)
		}
		next(t, n)
		if err := n.Close(); err != nil || len(told.of(NoNIC)) > 0 {
			t.Errorf("%v, %v", told.of(NoNIC), err)
		}
	})
}

func TestWhatDHCPHasGivenIsInFields(t *testing.T) {
	server := netip.MustParseAddr("172.31.1.1")
	start := func(t *testing.T, d cloud.DHCP) *opened {
		d.ID = server
		testvm.Start(t, cloud.Config{}, testvm.NIC("eth0", cloud.NIC{DHCP: []cloud.DHCP{d}}))
		return openBy(t, DHCP)
	}
	t.Run("address, server and lease time", func(t *testing.T) {
		n := start(t, cloud.DHCP{Lease: time.Hour})
		p := next(t, n)
		if e := n.told.first(t, DHCPDiscover); e.Try != 1 || e.Interface != "eth0" || e.Method != DHCP {
			t.Errorf("the question is %+v", e)
		}
		if e := n.told.first(t, DHCPOffer); e.Address != p.Source || e.Server != server {
			t.Errorf("the offer is %+v", e)
		}
		if e := n.told.first(t, DHCPAck); e.Address != p.Source || e.Server != server || e.Lease != time.Hour {
			t.Errorf("the lease is %+v", e)
		}
		if e := n.told.first(t, AddressAdded); e.Address != p.Source {
			t.Errorf("the address is %+v", e)
		}
		if e := n.told.first(t, PathReady); e.Address != p.Source {
			t.Errorf("the path is %+v", e)
		}
	})
	t.Run("a lease for ever is the largest Duration", func(t *testing.T) {
		n := start(t, cloud.DHCP{Extra: map[uint8][]byte{51: {255, 255, 255, 255}}})
		next(t, n)
		if e := n.told.first(t, DHCPAck); e.Lease != 1<<63-1 {
			t.Errorf("the lease is %+v", e)
		}
	})
	t.Run("who has refused", func(t *testing.T) {
		n := start(t, cloud.DHCP{NAK: true})
		if e := n.told.first(t, DHCPNak); e.Server != server || !errors.Is(e.Err, errNak) {
			t.Errorf("the refusal is %+v", e)
		}
	})
}

// inSilence is what is told, and what the status is, after half a minute with a DHCP server that answers like this.
func inSilence(t *testing.T, answers func(*dhcpv4.DHCPv4) [][]byte) (told *recorder, status []error) {
	t.Helper()
	told = new(recorder)
	acquireWith(t, answers, told.observe, func(n *Network) { status = n.Status() })
	return told, status
}

func TestSilenceIsATimeout(t *testing.T) {
	silent := func(err error) bool {
		var e *Error
		var timeout interface{ Timeout() bool }
		return errors.As(err, &e) && errors.As(err, &timeout) && timeout.Timeout() && os.IsTimeout(e)
	}
	t.Run("nobody answers DHCP: each try is counted, and told ever more seldom", func(t *testing.T) {
		told, status := inSilence(t, func(*dhcpv4.DHCPv4) [][]byte { return nil })
		if !slices.ContainsFunc(status, silent) {
			t.Errorf("status: %v", status)
		}
		var tries []int
		for _, e := range told.of(DHCPDiscover) {
			tries = append(tries, e.Try)
		}
		if !slices.Equal(tries, []int{1, 2, 4, 8}) {
			t.Errorf("told were the tries %v", tries)
		}
		failed := told.of(PathFailed)
		if len(failed) == 0 {
			t.Error("nobody was told of the silence")
		}
		for _, e := range failed {
			if !silent(e.Err) || e.Try < 4 {
				t.Errorf("%+v", e)
			}
		}
	})
	t.Run("whoever talks nonsense is not silent", func(t *testing.T) {
		_, status := inSilence(t, func(m *dhcpv4.DHCPv4) [][]byte {
			return [][]byte{replyTo(m, ack(dhcpv4.OptIPAddressLeaseTime(0)))}
		})
		for _, err := range status {
			if errors.Is(err, ErrNoNIC) {
				continue // none is there in truth
			}
			if silent(err) {
				t.Errorf("%v is a timeout", err)
			}
		}
	})
	t.Run("nor is one who says that it is not permitted, or that there is no NIC", func(t *testing.T) {
		for _, err := range []error{&Error{Op: "configure links", Err: ErrPermission}, &Error{Op: "find a NIC", Err: ErrNoNIC}, &Error{Op: "no carrier"}} {
			if silent(err) {
				t.Errorf("%v is a timeout", err)
			}
		}
	})
	t.Run("nobody answers ARP", func(t *testing.T) {
		c := plug(t)
		c.run("ip addr flush dev cloud0")
		n := openBy(t, LinkLocal)
		attempted(t, n)
		eventually(t, "a status of silence", func() bool { return slices.ContainsFunc(n.Status(), silent) })
	})
}
