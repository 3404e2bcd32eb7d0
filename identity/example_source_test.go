package identity_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/dmi"
	"github.com/nametag-boot/nametag/identity/metadata"
)

// ownCloud is the source of a cloud whose service says "ID NAME" in one line.
type ownCloud struct{ service netip.AddrPort }

func (ownCloud) Name() string { return "own-cloud" }

func (ownCloud) Present(f dmi.Facts) identity.Presence {
	switch f.Vendor {
	case "Own Cloud Ltd.":
		return identity.PresenceYes
	case "":
		return identity.PresenceUnknown
	}
	return identity.PresenceNo
}

func (ownCloud) InstanceID(f dmi.Facts) string { return strings.TrimPrefix(f.Serial, "vm-") }

func (c ownCloud) Addresses() ([]netip.Addr, error) { return []netip.Addr{c.service.Addr()}, nil }

func (c ownCloud) Fetch(ctx context.Context, via *earlynet.Path) (identity.Answer, error) {
	client := metadata.Client{Dial: via.DialContext}
	defer client.Close()
	body, err := client.Get(ctx, "http://"+c.service.String()+"/whoami") // whole, bounded and no error page
	if err != nil {
		return identity.Answer{}, err
	}
	// Name and id are of one answer.
	id, name, found := strings.Cut(strings.TrimSpace(string(body)), " ")
	if !found {
		return identity.Answer{}, errors.New("the answer has no id and name")
	}
	return identity.Answer{Hostname: name, InstanceID: id}, nil
}

// A source for another cloud, and a service like its own to try it on.
func ExampleSource() {
	fake := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "4711 web-1") }))
	defer fake.Close()

	r := identity.Resolver{
		Source: ownCloud{netip.MustParseAddrPort(fake.Listener.Addr().String())},
		Host:   true,
		Facts:  &dmi.Facts{Vendor: "Own Cloud Ltd.", Serial: "vm-4711"},
	}
	id, err := r.Resolve(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(id.Hostname, id.InstanceID, id.IDProvenBy)
	// Output: web-1 4711 dmi
}
