package hetzner_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"time"

	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/dmi"
	"github.com/nametag-boot/nametag/identity/hetzner"
)

// Inside an OS, against a stand-in of the metadata service. On a server it is
// hetzner.Source() without options.
func ExampleSource() {
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, map[string]string{"hostname": "my-server", "instance-id": "42", "region": "eu-central"}[path.Base(r.URL.Path)])
	}))
	defer service.Close()

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	id, err := identity.Resolve(ctx, hetzner.Source(hetzner.WithEndpoint(service.URL)),
		identity.OverHost(), identity.WithFacts(dmi.Facts{Vendor: hetzner.Vendor, Serial: "42"}))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(id.Hostname, id.InstanceID, id.Region)
	// Output: my-server 42 eu-central
}
