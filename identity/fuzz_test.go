package identity_test

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/dmi"
	"github.com/nametag-boot/nametag/identity/hetzner"
)

// FuzzMetadata has a service that sends whatever bytes for the document and for the single answers, to all of Resolve and
// of the source. What comes out is a valid name of this server, or a time-out of one line, at the bound.
func FuzzMetadata(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 36\r\n\r\nhostname: my-server\ninstance-id: 42\n", "HTTP/1.0 200 OK\r\n\r\nhostname: my-server\ninstance-id: 42\nregion: x\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n24\r\nhostname: my-server\ninstance-id: 42\n\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n42",
		"HTTP/1.1 429 Slow\r\nRetry-After: 99999999999\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\x1b[", "",
	} {
		f.Add([]byte(s), []byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n42"))
		f.Add([]byte("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), []byte(s))
	}
	f.Fuzz(func(t *testing.T, document, single []byte) {
		synctest.Test(t, func(t *testing.T) {
			var conns sync.WaitGroup
			defer conns.Wait()
			lab := identity.NewFakeNet()
			lab.UpWith("eth0", earlynet.LinkLocal, func(context.Context, string, string) (net.Conn, error) {
				near, far := net.Pipe()
				conns.Go(func() {
					defer far.Close()
					req, err := http.ReadRequest(bufio.NewReader(far))
					if err != nil {
						return
					}
					answer := single
					if strings.HasSuffix(req.URL.Path, "/metadata") {
						answer = document
					}
					_, _ = far.Write(answer)
				})
				return near, nil
			})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			began := time.Now()
			got, err := identity.ResolveWith(ctx, hetzner.Source(), identity.Over(lab), identity.WithFacts(dmi.Facts{Vendor: hetzner.Vendor, Serial: "42"}))
			if took := time.Since(began); took > 1200*time.Millisecond {
				t.Errorf("it took %v", took)
			}
			switch {
			case err != nil && (got != nil || len(err.Error()) > 2000 || strings.ContainsAny(err.Error(), "\n\r\x00\x1b")):
				t.Errorf("got %+v, %q", got, err)
			case err == nil && (identity.ValidateHostname(got.Hostname) != nil || got.InstanceID != "42" || !strings.Contains(string(document)+string(single), " 200")):
				t.Errorf("accepted %+v", got)
			}
		})
	})
}
