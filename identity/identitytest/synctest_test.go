package identitytest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/dmi"
	"github.com/nametag-boot/nametag/identity/identitytest"
)

// As the package's documentation says: without privileges, without a network, an hour in no time. The bubble itself checks
// that Resolve leaves no goroutine.
func TestPathsWorkInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := identitytest.New(identitytest.Fail(errors.New("connection refused"))).
			On("eth0/dhcp", identitytest.Silence(), identitytest.After(time.Hour, identitytest.Answer("too-late", "42")))
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		r := identity.Resolver{Source: src, Paths: identitytest.Paths("eth0/linklocal", "eth0/dhcp"), Facts: &dmi.Facts{Serial: "42"}}
		began := time.Now()
		_, err := r.Resolve(ctx)
		timeout, is := errors.AsType[*identity.TimeoutError](err)
		if !is || len(timeout.Paths) != 2 || time.Since(began) != time.Hour {
			t.Fatalf("after %v: %v", time.Since(began), err)
		}
		for i, want := range []identity.PathInfo{{Interface: "eth0", Method: "linklocal"}, {Interface: "eth0", Method: "dhcp"}} {
			if got := timeout.Paths[i]; got.Path != want || got.Tries < 10 {
				t.Errorf("of %v it says %+v", want, got)
			}
		}
	})
}

// A cable that is plugged in later, and one that is pulled.
func TestPathsMayComeLaterAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		paths := make(chan *earlynet.Path)
		go func() {
			plugged, pull := context.WithCancel(t.Context())
			paths <- earlynet.NewPath(plugged, "eth0", earlynet.DHCP, nil)
			time.Sleep(10 * time.Second)
			pull()
			time.Sleep(10 * time.Second)
			paths <- earlynet.NewPath(t.Context(), "eth1", earlynet.DHCP, nil)
		}()
		src := identitytest.New().On("eth1/dhcp", identitytest.Answer("my-server", "42"))
		r := identity.Resolver{Source: src, Paths: paths, Facts: &dmi.Facts{Serial: "42"}}
		began := time.Now()
		id, err := r.Resolve(t.Context())
		if err != nil || id.Path.String() != "eth1/dhcp" || time.Since(began) != 20*time.Second {
			t.Errorf("after %v: %+v, %v", time.Since(began), id, err)
		}
	})
}
