package hetzner_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/dmi"
	"github.com/nametag-boot/nametag/identity/hetzner"
)

// TestFlip resolves, over the loopback and by the public API, while the service turns once from a predecessor's answers to
// ours, at a random moment of the first 5 ms. NAMETAG_FLIPS says how many times; a long run has 100000.
func TestFlip(t *testing.T) {
	calls := 400
	if n, err := strconv.Atoi(os.Getenv("NAMETAG_FLIPS")); err == nil {
		calls = n
	}
	for _, document := range []bool{true, false} {
		t.Run(fmt.Sprintf("with the document: %v", document), func(t *testing.T) {
			var turns sync.Map // by the call's number: when
			service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				call, _, _ := strings.Cut(r.URL.Path[1:], "/")
				turn, _ := turns.Load(call)
				name, id := "your-server", "41"
				if time.Now().After(turn.(time.Time)) {
					name, id = "my-server", "42"
				}
				switch path.Base(r.URL.Path) {
				case "hostname":
					fmt.Fprint(w, name)
				case "instance-id":
					fmt.Fprint(w, id)
				case "metadata":
					if document {
						fmt.Fprintf(w, "hostname: %s\ninstance-id: %s\nregion: eu-central\n", name, id)
						return
					}
					fallthrough
				default:
					http.NotFound(w, r)
				}
			}))
			defer service.Close()
			var wrong, begun atomic.Int64
			var workers sync.WaitGroup
			for range 32 { // they mostly wait
				workers.Go(func() {
					for {
						n := begun.Add(1)
						if n > int64(calls) {
							return
						}
						call := strconv.FormatInt(n, 10)
						turns.Store(call, time.Now().Add(time.Duration(rand.IntN(5000))*time.Microsecond))
						ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
						r := identity.Resolver{
							Source: hetzner.Source(hetzner.WithEndpoint(service.URL + "/" + call + "/metadata")),
							Host:   true, Minimal: true, Facts: &dmi.Facts{Vendor: hetzner.Vendor, Serial: "42"},
						}
						id, err := r.Resolve(ctx)
						cancel()
						if err != nil {
							t.Error(err)
							return
						}
						if id.Hostname != "my-server" || id.InstanceID != "42" {
							wrong.Add(1)
						}
					}
				})
			}
			workers.Wait()
			if wrong.Load() > 0 {
				t.Errorf("%d of %d calls had a wrong name", wrong.Load(), calls)
			}
		})
	}
}
