package identity_test

import (
	"context"
	"errors"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/dmi"
	. "github.com/nametag-boot/nametag/identity/identitytest"
)

// handedIn is a resolver over paths that are handed in.
func handedIn(src identity.Source, paths ...*earlynet.Path) identity.Resolver {
	all := make(chan *earlynet.Path, len(paths))
	for _, p := range paths {
		all <- p
	}
	return identity.Resolver{Source: src, Paths: all, Facts: &dmi.Facts{Serial: "42"}}
}

func TestAPathThatIsHandedInStaysTheCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := earlynet.NewPath(t.Context(), "eth0", earlynet.DHCP, nil)
		for range 2 {
			r := handedIn(New(Fail(errRefused), Answer("my-server", "42")), path)
			id, err := r.Resolve(t.Context())
			if err != nil || id.Path != eth0DHCP || path.Err() != nil {
				t.Errorf("%+v, %v; the path: %v", id, err, path.Err())
			}
		}
	})
}

func TestEachPathGoesToOneCallOfResolve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		r := identity.Resolver{Source: New(), Paths: Paths("eth0/dhcp", "eth1/dhcp", "eth2/dhcp"), Facts: &dmi.Facts{Serial: "42"}}
		var mu sync.Mutex
		var calls sync.WaitGroup
		asked := make(map[string]int)
		for range 2 {
			calls.Go(func() {
				_, err := r.Resolve(ctx)
				mu.Lock()
				defer mu.Unlock()
				if timeout, is := errors.AsType[*identity.TimeoutError](err); is {
					for _, p := range timeout.Paths {
						asked[p.Path.String()]++
					}
				}
			})
		}
		calls.Wait()
		if want := map[string]int{"eth0/dhcp": 1, "eth1/dhcp": 1, "eth2/dhcp": 1}; !maps.Equal(asked, want) {
			t.Errorf("of the calls, so many asked: %v", asked)
		}
	})
}

func TestWithPathsNothingElseIsOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // where a socket of ours would stop the time
		r := handedIn(New())
		r.Link.NICs, r.Link.Methods = []string{"no such card"}, []earlynet.Method{99} // of Link nothing counts
		r.Link.Observer = func(e earlynet.Event) { t.Errorf("told was %v", e) }
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		_, err := r.Resolve(ctx)
		if timeout, is := errors.AsType[*identity.TimeoutError](err); !is || len(timeout.Paths) != 0 {
			t.Errorf("got %v", err)
		}
	})
}

func TestANilPathIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := handedIn(New(Answer("my-server", "42")), nil, earlynet.NewPath(t.Context(), "eth0", earlynet.DHCP, nil))
		id, err := r.Resolve(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		said := 0
		for _, e := range id.Timeline {
			if e.Kind == identity.EventFailed && e.Err != nil {
				said++
			}
		}
		if said != 1 {
			t.Errorf("the timeline is %v", id.Timeline)
		}
	})
}
