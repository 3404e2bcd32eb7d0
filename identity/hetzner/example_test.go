package hetzner_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/dmi"
	"github.com/nametag-boot/nametag/identity/hetzner"
)

// Inside an OS, against a stand-in of the metadata service. On a server it is
// hetzner.Source() without options.
func ExampleSource() {
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hetzner/v1/metadata" {
			fmt.Fprint(w, "hostname: my-server\ninstance-id: 42\nregion: eu-central\n")
		}
	}))
	defer service.Close()

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r := identity.Resolver{
		Source: hetzner.Source(hetzner.WithEndpoint(service.URL + "/hetzner/v1/metadata")), Host: true,
		Facts: &dmi.Facts{Vendor: hetzner.Vendor, Serial: "42"}, // on a server: nil, and they are read
	}
	id, err := r.Resolve(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(id.Hostname, id.InstanceID, id.Region)
	// Output: my-server 42 eu-central
}
