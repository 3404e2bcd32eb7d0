package hetzner

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/dmi"
	"github.com/nametag-boot/nametag/identity/metadata"
)

func fetch(t testing.TB, s *rawServer) (identity.Answer, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return Source(WithEndpoint(s.endpoint())).Fetch(ctx, hostPath(t))
}

// Each is what the service sends for the document on one connection, which it then closes.
func TestFetchRefuses(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	const whole = "hostname: my-server\ninstance-id: 42\n" // 36 bytes
	for _, c := range []struct {
		about  string
		answer string
		want   error  // errors.Is
		text   string // in the message
	}{
		{"a body cut short of its Content-Length", ok + "Content-Length: 37\r\n\r\n" + whole, metadata.ErrCutShort, ""},
		{"chunks cut short", ok + "Transfer-Encoding: chunked\r\n\r\n24\r\n" + whole + "\r\n", metadata.ErrCutShort, ""},
		{"a chunk cut short", ok + "Transfer-Encoding: chunked\r\n\r\n25\r\n" + whole, metadata.ErrCutShort, ""},
		{"headers cut short", ok + "Content-Length: 9", metadata.ErrCutShort, ""},
		{"a close without a byte", "", metadata.ErrCutShort, "without a byte"},
		{"more than Content-Length says", ok + "Content-Length: 35\r\n\r\n" + whole, metadata.ErrTrailing, ""},
		{"two lengths", ok + "Content-Length: 35\r\nContent-Length: 36\r\n\r\n" + whole, metadata.ErrMalformed, ""},
		{"206", "HTTP/1.1 206 Partial Content\r\nContent-Length: 36\r\n\r\n" + whole, nil, "status 206"},
		{"429", "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", nil, "retry after 7s"},
		{"500", "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 5\r\n\r\nerror", nil, "status 500"},
		{"503", "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", nil, "status 503"},
		{"a switch of protocols", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n", nil, "status 101"},
		{"a redirect to a file", "HTTP/1.1 302 Found\r\nLocation: file:///etc/hostname\r\nContent-Length: 0\r\n\r\n", nil, "redirects are not followed"},
		{"a redirect to another host", "HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.2/hostname\r\nContent-Length: 0\r\n\r\n", nil, "redirects are not followed"},
		{"HTML by its type", ok + "Content-Type: text/html; charset=utf-8\r\nContent-Length: 36\r\n\r\n" + whole, metadata.ErrHTML, ""},
		{"HTML by its looks", ok + "Content-Length: 15\r\n\r\n<!doctype html>", metadata.ErrHTML, ""},
		{"HTML behind a byte order mark", ok + "Content-Length: 9\r\n\r\n\xef\xbb\xbf<html>", metadata.ErrHTML, ""},
		{"gzip", ok + "Content-Encoding: gzip\r\nContent-Length: 36\r\n\r\n" + whole, metadata.ErrEncoded, ""},
		{"gzip as a transfer coding", ok + "Transfer-Encoding: gzip\r\n\r\n" + whole, metadata.ErrMalformed, ""},
		{"a length beyond the bound", ok + "Content-Length: 104857600\r\n\r\n", metadata.ErrTooLarge, ""},
		{"a body beyond the bound, with a length", ok + "Content-Length: 262145\r\n\r\n" + strings.Repeat("a", 262145), metadata.ErrTooLarge, ""},
		{"a body beyond the bound, in chunks", ok + "Transfer-Encoding: chunked\r\n\r\n50000\r\n" + strings.Repeat("a", 0x50000), metadata.ErrTooLarge, ""},
		{"a body beyond the bound, without end", ok + "\r\n" + strings.Repeat("a", 1<<19), metadata.ErrTooLarge, ""},
		{"headers beyond the bound", ok + "X-Long: " + strings.Repeat("a", 1<<15), metadata.ErrTooLarge, ""},
		{"many headers", ok + strings.Repeat("X-Many: a\r\n", 1<<13), metadata.ErrTooLarge, ""},
		{"interim answers without end", strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 100), metadata.ErrMalformed, ""},
		{"no HTTP", "my-server\n", metadata.ErrMalformed, ""},
		{"just an end, in the last of the two", ok + "\r\n" + whole, metadata.ErrUncertain, ""},
		{"just an end, in the key that would show the last of the two whole", ok + "\r\n" + whole + "region:", metadata.ErrUncertain, ""},
		{"an empty name", ok + "Content-Length: 26\r\n\r\nhostname:\ninstance-id: 42\n", ErrEmpty, ""},
		{"TLS", "\x15\x03\x01\x00\x02\x02\x28", metadata.ErrMalformed, ""},
	} {
		t.Run(c.about+" is refused", func(t *testing.T) {
			s := serve(t)
			s.rawClose("metadata", c.answer)
			a, err := fetch(t, s)
			if err == nil {
				t.Fatalf("accepted: %+v", a)
			}
			if c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if !strings.Contains(err.Error(), c.text) || !strings.HasPrefix(err.Error(), "metadata: ") {
				t.Errorf("the message is %q, want %q in it", err, c.text)
			}
			var e *Error
			if !errors.As(err, &e) || e.Path != "metadata" {
				t.Errorf("got %T, want an *Error about the document", err)
			}
			if strings.Contains(err.Error(), "127.0.0.1") || len(err.Error()) > 300 {
				t.Errorf("not a line for a console: %q", err)
			}
			if requests, _ := s.count(); requests != 1 {
				t.Errorf("%d requests were made, want 1", requests)
			}
		})
	}
}

func TestFetchAccepts(t *testing.T) {
	const whole = "hostname: my-server\ninstance-id: 42\n" // 36 bytes
	for about, answer := range map[string]string{
		"a body with its length": "HTTP/1.1 200 OK\r\nContent-Length: 36\r\n\r\n" + whole,
		"chunks":                 "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhostn\r\n1f\r\n" + whole[5:] + "\r\n0\r\n\r\n",
		"HTTP/1.0 with a length": "HTTP/1.0 200 OK\r\nContent-Length: 36\r\n\r\n" + whole,
		"HTTP/1.0 without one, whole by its lines":  "HTTP/1.0 200 OK\r\n\r\n" + whole + "region: eu-central\n",
		"just an end, long after the two":           "HTTP/1.1 200 OK\r\n\r\n" + whole + "region: eu-central\nvendor_data: \"Content-Ty",
		"as many interim answers first as are read": strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 4) + "HTTP/1.1 200 OK\r\nContent-Length: 36\r\n\r\n" + whole,
		"an interim answer first":                   "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 36\r\n\r\n" + whole,
		"an identity encoding that is named":        "HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nContent-Length: 36\r\n\r\n" + whole,
		"200 KiB of vendor data":                    "HTTP/1.0 200 OK\r\n\r\n" + whole + "vendor_data: \"" + strings.Repeat(strings.Repeat("x", 78)+"\\\n  ", 2500) + "\"\n",
		"vendor data before them":                   "HTTP/1.0 200 OK\r\n\r\na: \"" + strings.Repeat("x\\\n  ", 2500) + "\"\n" + whole + "z: 1\n",
	} {
		t.Run(about+" counts", func(t *testing.T) {
			s := serve(t)
			s.rawClose("metadata", answer)
			a, err := fetch(t, s)
			if err != nil || a.Hostname != "my-server" || a.InstanceID != "42" {
				t.Errorf("got %q, %q, %v", a.Hostname, a.InstanceID, err)
			}
			if requests, _ := s.count(); requests != 1 {
				t.Errorf("%d requests, want 1", requests)
			}
		})
	}
	t.Run("a reset in mid-answer is refused", func(t *testing.T) {
		s := serve(t)
		s.on("metadata", func(_ int, conn net.Conn) {
			fmt.Fprint(conn, "HTTP/1.1 200 OK\r\n\r\n"+whole)
			_ = conn.(*net.TCPConn).SetLinger(0)
			_ = conn.Close()
		})
		if a, err := fetch(t, s); err == nil {
			t.Errorf("got %q", a.Hostname)
		}
	})
	t.Run("a body that nobody wants is not waited for", func(t *testing.T) {
		s := serve(t)
		s.raw("metadata", "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 9\r\n\r\n")
		var status *metadata.StatusError
		if _, err := fetch(t, s); !errors.As(err, &status) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("characters that a name cannot have reach Resolve as they are", func(t *testing.T) {
		for _, name := range []string{"bücher", strings.Repeat("a", 64), "../../etc/passwd", "a b", "my_server", "#x"} {
			s := serve(t)
			s.body("metadata", "hostname: '"+name+"'\ninstance-id: 42\n")
			a, err := fetch(t, s)
			if err != nil || a.Hostname != name || identity.ValidateHostname(a.Hostname) == nil {
				t.Errorf("got %q, %v", a.Hostname, err)
			}
		}
	})
}

// TestWithoutTheDocument: id, name and id over one connection, where there is no document that has both.
func TestWithoutTheDocument(t *testing.T) {
	ok := func(body string) string {
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}
	none := map[string]string{
		"a 404":                              "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
		"a 204":                              "HTTP/1.1 204 No Content\r\n\r\n",
		"an empty one":                       ok(""),
		"one without a name":                 ok("instance-id: 42\n"),
		"one without an id":                  ok("hostname: my-server\n"),
		"a list of what there is":            ok("hostname\ninstance-id\n"),
		"one with two names":                 ok("hostname: a\nhostname: b\ninstance-id: 42\n"),
		"one whose name needs to be decoded": ok("hostname: \"my\\x2dserver\"\ninstance-id: 42\n"),
	}
	for about, document := range none {
		t.Run(about+" is made up for by id, name and id on one connection", func(t *testing.T) {
			s := serve(t)
			s.raw("metadata", document)
			a, err := fetch(t, s)
			if err != nil || a.Hostname != "my-server" || a.InstanceID != "42" {
				t.Errorf("got %q, %q, %v", a.Hostname, a.InstanceID, err)
			}
			if requests, connections := s.count(); requests != 4 || connections > 2 { // an error's connection is not used again
				t.Errorf("%d requests on %d connections", requests, connections)
			}
		})
	}
	for about, document := range map[string]string{
		"too busy":                     "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n",
		"not able to make it up":       "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
		"cut off before there is one":  "HTTP/1.1 200 OK\r\n\r\nhostname: my-ser",
		"closed without a byte":        "",
		"a page of somebody else":      ok("<html>"),
		"shorter than it says":         "HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\nhostname: my-serv\n",
		"cut off, and not to be read":  "HTTP/1.1 200 OK\r\n\r\nhostname my-server\ninstance-id: 42\nregion: x\n",
		"one with an id that is none":  ok("hostname: my-server\ninstance-id: forty-two\n"),
		"one with a name that is none": ok("hostname: ''\ninstance-id: 42\n"),
	} {
		t.Run("a document that may be there, but is "+about+", is asked for again, and nothing else", func(t *testing.T) {
			s := serve(t)
			s.rawClose("metadata", document)
			var e *Error
			if a, err := fetch(t, s); !errors.As(err, &e) {
				t.Errorf("got %+v, %v", a, err)
			}
			for _, req := range s.requests {
				if path.Base(req.URL.Path) != "metadata" {
					t.Errorf("asked for %s", req.URL.Path)
				}
			}
		})
	}
	for _, c := range []struct {
		about string
		ids   []string
		name  string
		want  error
	}{
		{"an id that has changed by the time of the name", []string{ok("42"), ok("43")}, ok("your-server"), ErrChanged},
		{"an id that was another's before", []string{ok("43"), ok("42")}, ok("your-server"), ErrChanged},
		{"an id that is none by then", []string{ok("42"), ok("")}, ok("my-server"), ErrEmpty},
		{"an id that just ends", []string{"HTTP/1.1 200 OK\r\n\r\n42\n"}, ok("my-server"), metadata.ErrUncertain},
		{"a name that just ends", []string{ok("42")}, "HTTP/1.1 200 OK\r\n\r\nmy-server\n", metadata.ErrUncertain},
		{"an id that is no number", []string{ok("forty-two")}, ok("my-server"), metadata.ErrMalformed},
		{"an empty name", []string{ok("42")}, ok(" \n"), ErrEmpty},
	} {
		t.Run(c.about+" is refused", func(t *testing.T) {
			s := serve(t)
			s.raw("metadata", none["a 404"])
			s.on("instance-id", func(n int, conn net.Conn) {
				said := c.ids[min(n, len(c.ids))-1]
				fmt.Fprint(conn, said)
				if !strings.Contains(said, "Content-Length") {
					_ = conn.Close()
				}
			})
			s.on("hostname", func(_ int, conn net.Conn) {
				fmt.Fprint(conn, c.name)
				if !strings.Contains(c.name, "Content-Length") {
					_ = conn.Close()
				}
			})
			if a, err := fetch(t, s); !errors.Is(err, c.want) {
				t.Errorf("got %+v, %v; want %v", a, err, c.want)
			}
		})
	}
	t.Run("a service that closes after each answer has no proof, and is told apart", func(t *testing.T) {
		s := serve(t)
		s.raw("metadata", none["a 404"])
		s.rawClose("instance-id", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n42")
		if a, err := fetch(t, s); !errors.Is(err, errClosed) {
			t.Errorf("got %+v, %v", a, err)
		}
	})
}

func TestInstanceID(t *testing.T) {
	for _, id := range []string{"-1", "0", "4 2", "forty-two", "99999999999999999999", strings.Repeat("1", 60000), "042", "+42", "4_2", "0x2a", "4.2"} {
		t.Run(fmt.Sprintf("%.20q is refused", id), func(t *testing.T) {
			s := serve(t)
			s.body("metadata", "hostname: my-server\ninstance-id: "+id+"\n")
			a, err := fetch(t, s)
			if !errors.Is(err, metadata.ErrMalformed) || len(err.Error()) > 300 {
				t.Errorf("got %q, %v", a.InstanceID, err)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	for _, c := range []struct {
		about, headers string
		want           time.Duration
	}{
		{"seconds", "Retry-After: 7\r\n", 7 * time.Second},
		{"a date, by the service's own clock", "Date: Thu, 01 Jan 1970 00:00:10 GMT\r\nRetry-After: Thu, 01 Jan 1970 00:00:25 GMT\r\n", 15 * time.Second},
		{"a date in the past", "Date: Thu, 01 Jan 1970 00:00:10 GMT\r\nRetry-After: Thu, 01 Jan 1970 00:00:05 GMT\r\n", 0},
		{"a date without the service's clock", "Retry-After: Thu, 01 Jan 2099 00:00:05 GMT\r\n", 0},
		{"nonsense", "Retry-After: soon\r\n", 0},
		{"less than nothing", "Retry-After: -7\r\n", 0},
		{"for ever", "Retry-After: 2147483647\r\n", 24 * time.Hour},
	} {
		t.Run(c.about, func(t *testing.T) {
			s := serve(t)
			s.rawClose("metadata", "HTTP/1.1 503 Service Unavailable\r\n"+c.headers+"Content-Length: 0\r\n\r\n")
			_, err := fetch(t, s)
			var status *metadata.StatusError
			if !errors.As(err, &status) || status.Code != 503 || status.RetryAfter() != c.want {
				t.Errorf("got %+v, want %v", err, c.want)
			}
		})
	}
}

func TestFetchIsOneRequest(t *testing.T) {
	s := serve(t)
	a, err := fetch(t, s)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.More(t.Context(), new(identity.Identity)); err != nil {
		t.Error(err)
	}
	if requests, connections := s.count(); requests != 1 || connections != 1 {
		t.Errorf("%d requests over %d connections", requests, connections)
	}
}

func TestRequest(t *testing.T) {
	s := serve(t)
	if _, err := fetch(t, s); err != nil {
		t.Fatal(err)
	}
	for _, req := range s.requests {
		if req.Method != http.MethodGet || req.Host != s.listener.Addr().String() || req.UserAgent() != "nametag" {
			t.Errorf("%s %s, agent %q", req.Method, req.Host, req.UserAgent())
		}
		if len(req.Header) != 1 {
			t.Errorf("headers %v: only the agent is to be told", req.Header)
		}
	}
}

func TestProxiesAreNotAsked(t *testing.T) {
	// net/http leaves loopback addresses alone, so go by a dialer that notes what is dialled.
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("http_proxy", "http://127.0.0.1:1")
	var dialled []string
	via := earlynet.NewPath(t.Context(), "eth0", earlynet.LinkLocal, func(_ context.Context, _, address string) (net.Conn, error) {
		dialled = append(dialled, address) // the first failure ends the other; this path answers neither
		return nil, os.ErrDeadlineExceeded
	})
	if _, err := Source().Fetch(t.Context(), via); err == nil {
		t.Fatal("answered")
	}
	if want := []string{"169.254.169.254:80"}; !reflect.DeepEqual(dialled, want) {
		t.Errorf("dialled %q, want %q", dialled, want)
	}
}

func TestEndpoint(t *testing.T) {
	path := func(source string) *earlynet.Path {
		p := earlynet.NewPath(t.Context(), "eth0", earlynet.IPv6, nil)
		if source != "" {
			p.Source = netip.MustParseAddr(source)
		}
		return p
	}
	for _, c := range []struct{ about, source, url, host, dial string }{
		{"IPv4", "169.254.7.9", "http://169.254.169.254/hetzner/v1/metadata", "169.254.169.254", "169.254.169.254:80"},
		{"the host's network", "", "http://169.254.169.254/hetzner/v1/metadata", "169.254.169.254", "169.254.169.254:80"},
		{"IPv6, with the interface as zone, which the Host header leaves out", "fe80::1%eth0", "http://[fe80::a9fe:a9fe%25eth0]/hetzner/v1/metadata", "[fe80::a9fe:a9fe]", "[fe80::a9fe:a9fe%eth0]:80"},
	} {
		t.Run(c.about, func(t *testing.T) {
			url := Source().(*source).endpointFor(path(c.source))
			if url != c.url {
				t.Errorf("asks at %s, want %s", url, c.url)
			}
			client, server := net.Pipe()
			defer client.Close()
			got := make(chan string, 1)
			go func() {
				defer server.Close()
				b := make([]byte, 4096)
				n, _ := server.Read(b)
				got <- string(b[:n])
			}()
			asker, err := newService(url, func(_ context.Context, _, address string) (net.Conn, error) {
				if address != c.dial {
					t.Errorf("dials %s, want %s", address, c.dial)
				}
				return client, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			_, _ = asker.ask(t.Context(), "hostname")
			if request := <-got; !strings.Contains(request, "\r\nHost: "+c.host+"\r\n") {
				t.Errorf("the request is %q, want host %s", request, c.host)
			}
		})
	}
	t.Run("a name is not resolved", func(t *testing.T) {
		_, err := Source(WithEndpoint("http://metadata.example/")).Fetch(t.Context(), hostPath(t))
		if err == nil || !strings.Contains(err.Error(), "names are not resolved") {
			t.Errorf("got %v", err)
		}
	})
}

func TestPresent(t *testing.T) {
	for vendor, want := range map[string]identity.Presence{"Hetzner": identity.PresenceYes, "": identity.PresenceUnknown, "QEMU": identity.PresenceNo, "FUJITSU": identity.PresenceNo, "hetzner": identity.PresenceNo} {
		if got := Source().Present(dmi.Facts{Vendor: vendor}); got != want {
			t.Errorf("vendor %q: %v, want %v", vendor, got, want)
		}
	}
}

func TestMore(t *testing.T) {
	fill := func(t *testing.T, s *rawServer) (id identity.Identity, err error) {
		t.Helper()
		a, err := fetch(t, s)
		if err != nil {
			t.Fatal(err)
		}
		err = a.More(t.Context(), &id)
		return id, err
	}
	t.Run("all of it, without another request", func(t *testing.T) {
		s := serve(t)
		id, err := fill(t, s)
		if err != nil {
			t.Fatal(err)
		}
		if id.Region != "eu-central" || id.AvailabilityZone != "hel1-dc2" || id.PublicIPv4 != netip.MustParseAddr("203.0.113.7") {
			t.Errorf("got %+v", id)
		}
		want := identity.PrivateNetwork{
			ID: 1234, Name: "nw-test1", IP: netip.MustParseAddr("10.0.0.2"),
			AliasIPs: []netip.Addr{netip.MustParseAddr("10.0.0.3"), netip.MustParseAddr("10.0.0.4")},
			Network:  netip.MustParsePrefix("10.0.0.0/8"), Subnet: netip.MustParsePrefix("10.0.0.0/24"),
			Gateway: netip.MustParseAddr("10.0.0.1"), MAC: "86:00:00:2a:7d:e0",
		}
		if len(id.PrivateNetworks) != 2 || !reflect.DeepEqual(id.PrivateNetworks[0], want) {
			t.Errorf("got %+v", id.PrivateNetworks)
		}
		if requests, connections := s.count(); requests != 1 || connections != 1 {
			t.Errorf("%d requests over %d connections", requests, connections)
		}
	})
	t.Run("a server without public address and networks has neither, and that is no error", func(t *testing.T) {
		s := serve(t)
		s.body("metadata", "hostname: my-server\ninstance-id: 42\nregion: ''\navailability-zone: ''\npublic-ipv4: ''\nprivate-networks: []\n")
		id, err := fill(t, s)
		if err != nil || id.PublicIPv4.IsValid() || id.PrivateNetworks != nil {
			t.Errorf("got %+v, %v", id, err)
		}
	})
	t.Run("what is malformed is left out and named, the rest is kept", func(t *testing.T) {
		s := serve(t)
		s.body("metadata", strings.NewReplacer("203.0.113.7", "203.0.113.256", "eu-central", "eu central", "10.0.0.2\n", "10.0.0.256\n").Replace(exampleDocument))
		id, err := fill(t, s)
		if !errors.Is(err, metadata.ErrMalformed) || !strings.Contains(err.Error(), "public-ipv4") || !strings.Contains(err.Error(), "region") {
			t.Errorf("got error %v", err)
		}
		if id.PublicIPv4.IsValid() || id.Region != "" || id.AvailabilityZone != "hel1-dc2" || len(id.PrivateNetworks) != 2 || id.PrivateNetworks[0].IP.IsValid() {
			t.Errorf("got %+v", id)
		}
	})
	t.Run("what the document does not have is asked for by itself, over the connection that is open", func(t *testing.T) {
		s := serve(t)
		s.body("metadata", "hostname: my-server\ninstance-id: 42\n")
		id, err := fill(t, s)
		if err != nil || id.Region != "eu-central" || id.AvailabilityZone != "hel1-dc2" || !id.PublicIPv4.IsValid() || len(id.PrivateNetworks) != 2 {
			t.Errorf("got %+v, %v", id, err)
		}
		if requests, connections := s.count(); requests != 5 || connections != 1 {
			t.Errorf("%d requests over %d connections", requests, connections)
		}
	})
	t.Run("what is asked for by itself needs a certain end", func(t *testing.T) {
		s := serve(t)
		s.body("metadata", "hostname: my-server\ninstance-id: 42\n")
		s.rawClose("region", "HTTP/1.0 200 OK\r\n\r\neu-cent")
		id, err := fill(t, s)
		if !errors.Is(err, metadata.ErrUncertain) || id.Region != "" || len(id.PrivateNetworks) != 2 {
			t.Errorf("got %+v, %v", id, err)
		}
	})
	t.Run("a service that closes after each answer is dialled again", func(t *testing.T) {
		s := serve(t)
		s.rawClose("metadata", "HTTP/1.1 200 OK\r\nContent-Length: 36\r\n\r\nhostname: my-server\ninstance-id: 42\n")
		id, err := fill(t, s)
		if err != nil || id.Region != "eu-central" {
			t.Errorf("got %+v, %v", id, err)
		}
	})
	t.Run("documents that answer slowly are not asked for", func(t *testing.T) {
		s := serve(t)
		for _, name := range []string{"region", "availability-zone", "public-ipv4", "private-networks"} {
			s.on(name, func(int, net.Conn) {})
		}
		if id, err := fill(t, s); err != nil || id.Region != "eu-central" || len(id.PrivateNetworks) != 2 {
			t.Errorf("got %+v, %v", id, err)
		}
	})
	t.Run("a silent service does not hold it up beyond the context", func(t *testing.T) {
		s := serve(t)
		s.body("metadata", strings.Split(exampleDocument, "private-networks")[0])
		s.on("private-networks", func(int, net.Conn) {})
		a, err := fetch(t, s)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		var id identity.Identity
		if err := a.More(ctx, &id); err == nil || id.Region != "eu-central" || !id.PublicIPv4.IsValid() {
			t.Errorf("got %+v, %v", id, err)
		}
	})
}

func TestFetchEndsWithItsContext(t *testing.T) {
	for about, answer := range map[string]func(int, net.Conn){
		"silence": func(int, net.Conn) {},
		"one byte a second": func(_ int, conn net.Conn) {
			for _, b := range []byte("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nmy-server") {
				if _, err := conn.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond) // a second's worth, in a test's time
			}
		},
	} {
		t.Run(about, func(t *testing.T) {
			s := serve(t)
			s.on("metadata", answer)
			ctx, cancel := context.WithCancelCause(t.Context())
			why := errors.New("enough")
			time.AfterFunc(100*time.Millisecond, func() { cancel(why) })
			_, err := Source(WithEndpoint(s.endpoint())).Fetch(ctx, hostPath(t))
			if !errors.Is(err, why) {
				t.Errorf("got %v, want the context's cause", err)
			}
		})
	}
}

// TestHundredMegabytes checks that the bound is one of memory, not only of what
// is handed on.
func TestHundredMegabytes(t *testing.T) {
	s := serve(t)
	sent := make(chan int, 1)
	s.on("metadata", func(_ int, conn net.Conn) {
		fmt.Fprint(conn, "HTTP/1.1 200 OK\r\n\r\n")
		chunk := make([]byte, 64<<10)
		n := 0
		for n < 100<<20 {
			k, err := conn.Write(chunk)
			n += k
			if err != nil {
				break
			}
		}
		sent <- n
	})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := fetch(t, s)
	if !errors.Is(err, metadata.ErrTooLarge) {
		t.Errorf("got %v, want %v", err, metadata.ErrTooLarge)
	}
	n := <-sent
	runtime.ReadMemStats(&after)
	if n >= 100<<20 {
		t.Error("the connection was not cut off")
	}
	if cost := after.TotalAlloc - before.TotalAlloc; cost > 3<<20 {
		t.Errorf("it cost %d KiB in all", cost>>10)
	}
}

// TestConnectionsEnd counts at the other end: nothing of an attempt may outlive
// its use, because there are many attempts in a long wait. And nothing may ask
// for an answer: the address goes next.
func TestConnectionsEnd(t *testing.T) {
	for about, use := range map[string]func(ctx context.Context, t *testing.T, s *rawServer, refuse func()){
		"when an attempt has failed": func(ctx context.Context, t *testing.T, s *rawServer, _ func()) {
			s.body("metadata", "hostname:\ninstance-id: 42\n")
			if _, err := Source(WithEndpoint(s.endpoint())).Fetch(ctx, hostPath(t)); err == nil {
				t.Error("no error")
			}
		},
		"when the answer is refused": func(ctx context.Context, t *testing.T, s *rawServer, refuse func()) {
			if _, err := Source(WithEndpoint(s.endpoint())).Fetch(ctx, hostPath(t)); err != nil {
				t.Error(err)
			}
			if s.open() == 0 {
				t.Error("no connection is kept for More")
			}
			refuse()
		},
		"when More is through": func(ctx context.Context, t *testing.T, s *rawServer, _ func()) {
			a, err := Source(WithEndpoint(s.endpoint())).Fetch(ctx, hostPath(t))
			if err != nil {
				t.Fatal(err)
			}
			if err := a.More(ctx, new(identity.Identity)); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(about, func(t *testing.T) {
			s := serve(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			use(ctx, t, s, cancel)
			for end := time.Now().Add(10 * time.Second); s.open() > 0; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("%d connections are open still", s.open())
				}
			}
			// One that is cut off while it writes is told then, and reads an end like any other.
			if s.mu.Lock(); s.goodbyes > 0 && about != "when an attempt has failed" {
				t.Errorf("%d connections were ended, not reset", s.goodbyes)
			}
			s.mu.Unlock()
		})
	}
}
