//go:build linux

package identity_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/dmi"
	"github.com/nametag-boot/nametag/identity/hetzner"
	"github.com/nametag-boot/nametag/internal/testvm"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
)

// All over one link that is down: each has its turn, and the lab finds it as it was.
func TestResolveMayBeCalledFromSeveralGoroutines(t *testing.T) {
	server := cloud.Server{Hostname: "my-server.example.com", InstanceID: "42"}
	testvm.Start(t, cloud.Config{Server: server})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r := identity.Resolver{
		Source: hetzner.Source(), Link: earlynet.Config{NICs: []string{"eth0"}},
		Facts: &dmi.Facts{Vendor: hetzner.Vendor, Serial: "42"},
	}
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			id, err := r.Resolve(ctx)
			if err != nil || id.Hostname != server.Hostname {
				t.Errorf("%+v, %v", id, err)
			}
		})
	}
	all.Wait()
}
