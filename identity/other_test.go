//go:build !linux

package identity_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/hetzner"
)

func TestASystemThatIsNotLinuxAsksOverItsOwnNetwork(t *testing.T) {
	const document = "hostname: my-server\ninstance-id: 42\nregion: eu-central\n"
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(document)) }))
	defer service.Close()
	r := identity.Resolver{Source: hetzner.Source(hetzner.WithEndpoint(service.URL + "/hetzner/v1/metadata")), ExpectID: "42"}

	_, err := r.Resolve(t.Context())
	var config *identity.ConfigError
	if !errors.As(err, &config) || !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("over links of its own: %v", err)
	}
	r.Host = true
	id, err := r.Resolve(t.Context())
	if err != nil || id.Hostname != "my-server" || id.InstanceID != "42" || id.Region != "eu-central" || id.IDProvenBy != identity.ProofExpected {
		t.Errorf("over the system's: %+v, %v", id, err)
	}
}
