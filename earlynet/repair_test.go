//go:build linux

package earlynet

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
)

// Killed at any moment, a run leaves nothing that Repair does not put back.
func TestRepairPutsBackWhatARunHasLeftThatWasKilled(t *testing.T) {
	for _, c := range []struct {
		by     Method
		moment string
		before string // what is done to the link first
	}{
		{LinkLocal, "found", ""},
		{LinkLocal, "link set up", ""},
		{LinkLocal, "carrier", ""},
		{LinkLocal, "address: 169.254.", ""},
		{LinkLocal, "path ready", ""},
		{LinkLocal, "path ready", "echo 1 > /proc/sys/net/ipv4/conf/eth0/rp_filter"},
		{LinkLocal, "undone", ""},
		{LinkLocal, "undone: net.ipv6.conf.eth0.accept_ra", ""},
		{LinkLocal, "undone: ARP timers", ""},
		{DHCP, "discover", ""},
		{DHCP, "ack", ""},
		{DHCP, "path ready", ""},
		{DHCP, "undone", ""},
		{IPv6, "link set up", ""},
	} {
		t.Run(c.by.String()+", "+c.moment+" "+c.before, func(t *testing.T) {
			testvm.Start(t, cloud.Config{}, testvm.KeepTraces()) // what is done first stays
			if c.before != "" {
				run(t, c.before)
			}
			restored(t)
			killedAt(t, c.by, c.moment)
			var told recorder
			if err := Repair(t.Context(), Config{Alone: true, Observer: told.observe}); err != nil {
				t.Error(err)
			}
			if c.moment == "path ready" && !told.saw(TakenOver, "address ") {
				t.Errorf("what was told is %v", told.events)
			}
		})
	}
	t.Run("it sees procfs where that is", func(t *testing.T) {
		serving(t)
		restored(t)
		killedAt(t, LinkLocal, "path ready")
		if err := Repair(t.Context(), Config{Alone: true, Proc: t.TempDir()}); err != nil {
			t.Error(err)
		}
		if got := setting(t, "accept_ra"); got != "0" {
			t.Errorf("there is no procfs there, and accept_ra is %s", got)
		}
		run(t, "echo 1 > /proc/sys/net/ipv6/conf/eth0/accept_ra")
	})
	t.Run("a link that a living process uses is waited for as long as the context lasts, and is an error then", func(t *testing.T) {
		serving(t)
		n := traceless(t, LinkLocal)
		p := next(t, n)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		var e *Error
		if err := Repair(ctx, Config{}); !errors.As(err, &e) || !errors.Is(err, context.DeadlineExceeded) || e.Interface != "eth0" {
			t.Errorf("the error is %v", err)
		}
		reaches(t, p)
	})
	t.Run("links of others are left alone", func(t *testing.T) {
		serving(t)
		run(t, "ip link set eth0 alias 'the uplink'; ip addr add 192.0.2.7/24 dev eth0")
		restored(t)
		if err := Repair(t.Context(), Config{Alone: true}); err != nil {
			t.Error(err)
		}
	})
	t.Run("what others have begun meanwhile keeps the link up", func(t *testing.T) {
		serving(t)
		killedAt(t, LinkLocal, "path ready")
		run(t, "ip addr add 192.0.2.7/24 dev eth0")
		if err := Repair(t.Context(), Config{Alone: true}); err != nil {
			t.Error(err)
		}
		if l := run(t, "ip -o link show eth0"); !strings.Contains(l, ",UP") || strings.Contains(l, "nametag") || setting(t, "accept_ra") != "1" {
			t.Errorf("accept_ra is %s, and the link %s", setting(t, "accept_ra"), l)
		}
	})
}
