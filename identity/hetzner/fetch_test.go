package hetzner

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"reflect"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/dmi"
)

func fetch(t testing.TB, s *rawServer) (identity.Answer, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return Source(WithEndpoint(s.endpoint())).Fetch(ctx, hostPath(t))
}

// hostnames of answers are refused or taken as these say. Each is what the
// service sends for "hostname" on one connection, which it then closes.
func TestFetchRefuses(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, c := range []struct {
		about  string
		answer string
		want   error  // errors.Is
		text   string // in the message
	}{
		{"a body cut short of its Content-Length", ok + "Content-Length: 9\r\n\r\nmy-serv", ErrCutShort, ""},
		{"chunks cut short", ok + "Transfer-Encoding: chunked\r\n\r\n7\r\nmy-serv\r\n", ErrCutShort, ""},
		{"a chunk cut short", ok + "Transfer-Encoding: chunked\r\n\r\n9\r\nmy-serv", ErrCutShort, ""},
		{"headers cut short", ok + "Content-Length: 9", ErrCutShort, ""},
		{"a close without a byte", "", ErrCutShort, "without a byte"},
		{"more than Content-Length says", ok + "Content-Length: 7\r\n\r\nmy-server", ErrTrailing, ""},
		{"two lengths", ok + "Content-Length: 7\r\nContent-Length: 9\r\n\r\nmy-server", ErrMalformed, ""},
		{"204", "HTTP/1.1 204 No Content\r\n\r\n", nil, "status 204"},
		{"206", "HTTP/1.1 206 Partial Content\r\nContent-Length: 7\r\n\r\nmy-serv", nil, "status 206"},
		{"404", "HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nnot-found", nil, "status 404 (Not Found)"},
		{"429", "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", nil, "retry after 7s"},
		{"500", "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 5\r\n\r\nerror", nil, "status 500"},
		{"503", "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", nil, "status 503"},
		{"a switch of protocols", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n", nil, "status 101"},
		{"a redirect to a file", "HTTP/1.1 302 Found\r\nLocation: file:///etc/hostname\r\nContent-Length: 0\r\n\r\n", nil, "redirects are not followed"},
		{"a redirect to another host", "HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.2/hostname\r\nContent-Length: 0\r\n\r\n", nil, "redirects are not followed"},
		{"an empty body", ok + "Content-Length: 0\r\n\r\n", ErrEmpty, ""},
		{"a body of blanks", ok + "Content-Length: 3\r\n\r\n \r\n", ErrEmpty, ""},
		{"HTML by its type", ok + "Content-Type: text/html; charset=utf-8\r\nContent-Length: 9\r\n\r\nmy-server", ErrHTML, ""},
		{"HTML by its looks", ok + "Content-Length: 15\r\n\r\n<!doctype html>", ErrHTML, ""},
		{"HTML behind a byte order mark", ok + "Content-Length: 9\r\n\r\n\xef\xbb\xbf<html>", ErrHTML, ""},
		{"gzip", ok + "Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\nmy-server", ErrEncoded, ""},
		{"gzip as a transfer coding", ok + "Transfer-Encoding: gzip\r\n\r\nmy-server", ErrMalformed, ""},
		{"a length beyond the bound", ok + "Content-Length: 104857600\r\n\r\n", ErrTooLarge, ""},
		{"a body beyond the bound, with a length", ok + "Content-Length: 65537\r\n\r\n" + strings.Repeat("a", 65537), ErrTooLarge, ""},
		{"a body beyond the bound, in chunks", ok + "Transfer-Encoding: chunked\r\n\r\n20000\r\n" + strings.Repeat("a", 0x20000), ErrTooLarge, ""},
		{"a body beyond the bound, without end", ok + "\r\n" + strings.Repeat("a", 1<<17), ErrTooLarge, ""},
		{"headers beyond the bound", ok + "X-Long: " + strings.Repeat("a", 1<<15), ErrTooLarge, ""},
		{"many headers", ok + strings.Repeat("X-Many: a\r\n", 1<<13), ErrTooLarge, ""},
		{"interim answers without end", strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 100), ErrMalformed, ""},
		{"no HTTP", "my-server\n", ErrMalformed, ""},
		{"TLS", "\x15\x03\x01\x00\x02\x02\x28", ErrMalformed, ""},
	} {
		t.Run(c.about+" is refused", func(t *testing.T) {
			s := serve(t)
			s.rawClose("hostname", c.answer)
			a, err := fetch(t, s)
			if err == nil {
				t.Fatalf("accepted: %+v", a)
			}
			if c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if !strings.Contains(err.Error(), c.text) || !strings.HasPrefix(err.Error(), "hostname: ") {
				t.Errorf("the message is %q, want %q in it", err, c.text)
			}
			var e *Error
			if !errors.As(err, &e) || e.Path != "hostname" {
				t.Errorf("got %T, want an *Error about hostname", err)
			}
			if strings.Contains(err.Error(), "127.0.0.1") || len(err.Error()) > 300 {
				t.Errorf("not a line for a console: %q", err)
			}
			most := 2
			if c.answer == "" {
				most = 3 // over the other one's connection, where that is there already, it is asked again over a fresh one
			}
			if requests, _ := s.count(); requests > most {
				t.Errorf("%d requests were made, not %d at most", requests, most)
			}
		})
	}
}

func TestFetchAccepts(t *testing.T) {
	for _, c := range []struct {
		about    string
		answers  []string
		requests int // for the name
	}{
		{"a body with its length", []string{"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nmy-server"}, 1},
		{"a line with CR and LF", []string{"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nmy-server\r\n"}, 1},
		{"chunks", []string{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nmy-serv\r\n2\r\ner\r\n0\r\n\r\n"}, 1},
		{"HTTP/1.0 with a length", []string{"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\nmy-server"}, 1},
		{"an interim answer first", []string{"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nmy-server"}, 1},
		{"no certain end, the same twice, and in the whole document", []string{"HTTP/1.0 200 OK\r\n\r\nmy-server"}, 3},
		{"no certain end, the same twice, with the end of a line", []string{"HTTP/1.0 200 OK\r\n\r\nmy-server\n"}, 2},
		{"no certain end first, a certain one then", []string{"HTTP/1.1 200 OK\r\n\r\nmy-serv", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nmy-server"}, 2},
		{"an identity encoding that is named", []string{"HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nContent-Length: 9\r\n\r\nmy-server"}, 1},
	} {
		t.Run(c.about, func(t *testing.T) {
			s := serve(t)
			s.rawClose("hostname", c.answers...)
			a, err := fetch(t, s)
			if err != nil || a.Hostname != "my-server" || a.InstanceID != "42" {
				t.Errorf("got %q, %q, %v", a.Hostname, a.InstanceID, err)
			}

			// By itself: beside an instance id that is late, the name is asked for once more.
			s = serve(t)
			s.rawClose("hostname", c.answers...)
			g := &guard{dial: new(net.Dialer).DialContext}
			defer g.Close()
			resp, err := g.RoundTrip(mustRequest(t, s.endpoint()+"/hostname"))
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if requests, _ := s.count(); requests != c.requests {
				t.Errorf("%d requests, want %d", requests, c.requests)
			}
		})
	}
	t.Run("a half name that is valid too is refused: no certain end, two reads differ", func(t *testing.T) {
		s := serve(t)
		s.rawClose("hostname", "HTTP/1.1 200 OK\r\n\r\nmy-serv", "HTTP/1.1 200 OK\r\n\r\nmy-server")
		if a, err := fetch(t, s); !errors.Is(err, ErrUncertain) {
			t.Errorf("got %q, %v; want %v", a.Hostname, err, ErrUncertain)
		}
	})
	const half = "HTTP/1.1 200 OK\r\n\r\nmy-serv"
	for about, document := range map[string]string{
		"the whole document has another":                        "HTTP/1.1 200 OK\r\n\r\n" + exampleDocument,
		"the whole document is cut off at a place of its own":   "HTTP/1.1 200 OK\r\n\r\navailability-zone: hel1-dc2\nhostname: my-server\ninst",
		"the whole document is cut off where the name is":       "HTTP/1.1 200 OK\r\n\r\navailability-zone: hel1-dc2\nhostname: my-serv",
		"the whole document is cut off before there is a name":  "HTTP/1.1 200 OK\r\n\r\navailab",
		"the whole document has no name":                        "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\ninstance-id: 42\n",
		"the whole document is of another kind":                 "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
		"the whole document is shorter than it says":            "HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\nhostname: my-serv\n",
		"the service is too busy for the whole document":        "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n",
		"the service is not able to make up the whole document": "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
		"the whole document is an end without a byte":           "",
	} {
		t.Run("a name that is cut at the same byte each time is refused: "+about, func(t *testing.T) {
			s := serve(t)
			s.rawClose("hostname", half)
			s.rawClose("metadata", document)
			a, err := fetch(t, s)
			var e *Error
			if !errors.As(err, &e) || e.Path != "hostname" {
				t.Errorf("got %q, %v", a.Hostname, err)
			}
		})
	}
	t.Run("an instance id that is cut at the same byte each time is refused", func(t *testing.T) {
		s := serve(t)
		s.rawClose("instance-id", "HTTP/1.1 200 OK\r\n\r\n4")
		if a, err := fetch(t, s); !errors.Is(err, ErrUnconfirmed) {
			t.Errorf("got %q, %v; want %v", a.InstanceID, err, ErrUnconfirmed)
		}
	})
	for about, document := range map[string]string{
		"there is no whole document":   "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
		"the whole document is empty":  "HTTP/1.1 204 No Content\r\n\r\n",
		"the whole document quotes it": "HTTP/1.1 200 OK\r\nContent-Length: 23\r\n\r\nhostname: \"my-server\"\r\n",
	} {
		t.Run("a name without a certain end counts: "+about, func(t *testing.T) {
			s := serve(t)
			s.rawClose("hostname", "HTTP/1.0 200 OK\r\n\r\nmy-server")
			s.rawClose("metadata", document)
			if a, err := fetch(t, s); err != nil || a.Hostname != "my-server" {
				t.Errorf("got %q, %v", a.Hostname, err)
			}
		})
	}
	t.Run("a name that changes while the whole document is asked for in vain is refused", func(t *testing.T) {
		s := serve(t)
		s.rawClose("hostname", half, half, "HTTP/1.1 200 OK\r\n\r\nmy-server")
		s.rawClose("metadata", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
		if a, err := fetch(t, s); !errors.Is(err, ErrUncertain) {
			t.Errorf("got %q, %v; want %v", a.Hostname, err, ErrUncertain)
		}
	})
	t.Run("a reset in mid-answer is refused", func(t *testing.T) {
		s := serve(t)
		s.on("hostname", func(_ int, conn net.Conn) {
			fmt.Fprint(conn, "HTTP/1.1 200 OK\r\n\r\nmy-serv")
			_ = conn.(*net.TCPConn).SetLinger(0)
			_ = conn.Close()
		})
		if a, err := fetch(t, s); err == nil {
			t.Errorf("got %q", a.Hostname)
		}
	})
	t.Run("a body that nobody wants is not waited for", func(t *testing.T) {
		s := serve(t)
		s.raw("hostname", "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 9\r\n\r\n")
		var status *StatusError
		if _, err := fetch(t, s); !errors.As(err, &status) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("bytes that a name cannot have reach Resolve as they are", func(t *testing.T) {
		for _, name := range []string{"my\x00server", "my\rserver", "\xef\xbb\xbfmy-server", "bücher", strings.Repeat("a", 64), "../../etc/passwd"} {
			s := serve(t)
			s.body("hostname", name+"\n")
			a, err := fetch(t, s)
			if err != nil || a.Hostname != name || identity.ValidateHostname(a.Hostname) == nil {
				t.Errorf("got %q, %v", a.Hostname, err)
			}
		}
	})
}

func TestNameAndIDBelongTogether(t *testing.T) {
	// The service turns from one server's into another's when the one of the two has been told. The network holds the
	// question for the other up for so long.
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"
	for _, tc := range []struct {
		about, early string
		told         []string // early, each time that it is asked for
		late, tells  string
		err          error
	}{
		{"a name that has changed by the time of the id is refused", "hostname", []string{"your-server", "my-server"}, "instance-id", "42", ErrChanged},
		{"a name that is still the same is taken", "hostname", []string{"my-server"}, "instance-id", "42", nil},
		{"an id that has changed by the time of the name is refused", "instance-id", []string{"42", "43"}, "hostname", "your-server", ErrChanged},
		{"an id that is still the same is taken", "instance-id", []string{"42"}, "hostname", "my-server", nil},
		{"an id that is none by the time of the name is refused", "instance-id", []string{"42", "forty-two"}, "hostname", "my-server", ErrMalformed},
	} {
		t.Run(tc.about, func(t *testing.T) {
			s := serve(t)
			s.on(tc.early, func(n int, conn net.Conn) {
				told := tc.told[min(n, len(tc.told))-1]
				fmt.Fprintf(conn, ok, len(told), told)
			})
			s.on(tc.late, func(_ int, conn net.Conn) {
				time.Sleep(5 * sameMoment)
				fmt.Fprintf(conn, ok, len(tc.tells), tc.tells)
			})
			a, err := fetch(t, s)
			if !errors.Is(err, tc.err) || err == nil && (a.Hostname != "my-server" || a.InstanceID != "42") {
				t.Errorf("got %+v, %v", a, err)
			}
			// One connection is enough for a fetch that is so slow to ask for the late one that the early one is there already.
			if requests, connections := s.count(); requests != 3 || connections > 2 {
				t.Errorf("%d requests on %d connections", requests, connections)
			}
		})
	}
}

func TestInstanceID(t *testing.T) {
	for _, body := range []string{"-1", "0", "4 2", "forty-two", "99999999999999999999", strings.Repeat("1", 60000), "42\x00"} {
		t.Run(fmt.Sprintf("%.20q is refused", body), func(t *testing.T) {
			s := serve(t)
			s.body("instance-id", body)
			a, err := fetch(t, s)
			if !errors.Is(err, ErrMalformed) || len(err.Error()) > 300 {
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
			s.rawClose("hostname", "HTTP/1.1 503 Service Unavailable\r\n"+c.headers+"Content-Length: 0\r\n\r\n")
			_, err := fetch(t, s)
			var status *StatusError
			if !errors.As(err, &status) || status.Code != 503 || status.RetryAfter() != c.want {
				t.Errorf("got %+v, want %v", err, c.want)
			}
		})
	}
}

func TestFetchIsThreeRoundTrips(t *testing.T) {
	t.Run("name and id are under way at the same time, on two connections", func(t *testing.T) {
		s := serve(t)
		var both atomic.Int32
		wait := func(body string) func(int, net.Conn) {
			return func(_ int, conn net.Conn) {
				for both.Add(1); both.Load() < 2; {
					time.Sleep(time.Millisecond) // until the other request has come in
				}
				fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			}
		}
		s.on("hostname", wait("my-server"))
		s.on("instance-id", wait("42"))
		if _, err := fetch(t, s); err != nil {
			t.Fatal(err)
		}
		// A third request is for the name, where the answers came apart.
		if requests, connections := s.count(); requests > 3 || connections != 2 {
			t.Errorf("%d requests over %d connections", requests, connections)
		}
	})
}

func TestRequest(t *testing.T) {
	s := serve(t)
	if _, err := fetch(t, s); err != nil {
		t.Fatal(err)
	}
	for _, req := range s.requests {
		if req.Method != http.MethodGet || req.Host != s.listener.Addr().String() || !strings.HasPrefix(req.UserAgent(), "nametag ") {
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
	g := &guard{dial: via.DialContext}
	req := mustRequest(t, "http://169.254.169.254/hetzner/v1/metadata/hostname")
	if _, err := g.RoundTrip(req); err == nil { //nolint:bodyclose // there is none
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
			g := &guard{dial: func(_ context.Context, _, address string) (net.Conn, error) {
				if address != c.dial {
					t.Errorf("dials %s, want %s", address, c.dial)
				}
				return client, nil
			}}
			_, _ = g.RoundTrip(mustRequest(t, url+"/hostname")) //nolint:bodyclose // there is none
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
	for vendor, want := range map[string]identity.Presence{"Hetzner": identity.Yes, "": identity.Unknown, "QEMU": identity.No, "FUJITSU": identity.No, "hetzner": identity.No} {
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
	t.Run("all of it, over the connections that are open", func(t *testing.T) {
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
		if _, connections := s.count(); connections > 2 {
			t.Errorf("%d connections, want no more than the 2 of Fetch", connections)
		}
	})
	t.Run("a server without public address and networks has neither, and that is no error", func(t *testing.T) {
		s := serve(t)
		s.body("public-ipv4", "")
		s.body("private-networks", "")
		id, err := fill(t, s)
		if err != nil || id.PublicIPv4.IsValid() || id.PrivateNetworks != nil {
			t.Errorf("got %+v, %v", id, err)
		}
	})
	t.Run("what is malformed is left out and named, the rest is kept", func(t *testing.T) {
		s := serve(t)
		s.body("public-ipv4", "203.0.113.256")
		s.body("region", "eu\x1b[31m")
		id, err := fill(t, s)
		if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), "public-ipv4") || !strings.Contains(err.Error(), "region") {
			t.Errorf("got error %v", err)
		}
		if id.PublicIPv4.IsValid() || id.Region != "" || id.AvailabilityZone != "hel1-dc2" || len(id.PrivateNetworks) != 2 {
			t.Errorf("got %+v", id)
		}
	})
	t.Run("a service that closes after each answer is dialled again", func(t *testing.T) {
		s := serve(t)
		for name, body := range map[string]string{"hostname": "my-server", "instance-id": "42"} {
			s.rawClose(name, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
		}
		id, err := fill(t, s)
		if err != nil || id.Region != "eu-central" {
			t.Errorf("got %+v, %v", id, err)
		}
	})
	t.Run("a silent service does not hold it up beyond the context", func(t *testing.T) {
		s := serve(t)
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
			s.on("hostname", answer)
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
	s.on("hostname", func(_ int, conn net.Conn) {
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
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v, want %v", err, ErrTooLarge)
	}
	n := <-sent
	runtime.ReadMemStats(&after)
	if n >= 100<<20 {
		t.Error("the connection was not cut off")
	}
	if cost := after.TotalAlloc - before.TotalAlloc; cost > 1<<20 {
		t.Errorf("it cost %d KiB in all", cost>>10)
	}
}

// TestConnectionsEnd counts at the other end: nothing of an attempt may outlive
// its use, because there are many attempts in a long wait. And nothing may ask
// for an answer: the address goes next.
func TestConnectionsEnd(t *testing.T) {
	for about, use := range map[string]func(ctx context.Context, t *testing.T, s *rawServer, refuse func()){
		"when an attempt has failed": func(ctx context.Context, t *testing.T, s *rawServer, _ func()) {
			s.body("hostname", "")
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
