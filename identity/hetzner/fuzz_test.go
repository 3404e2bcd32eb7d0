package hetzner

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// cannedConn gives bytes and swallows what it is told.
type cannedConn struct {
	r      *bytes.Reader
	closed bool
}

func (c *cannedConn) Read(b []byte) (int, error)     { return c.r.Read(b) }
func (*cannedConn) Write(b []byte) (int, error)      { return len(b), nil }
func (c *cannedConn) Close() error                   { c.closed = true; return nil }
func (*cannedConn) LocalAddr() net.Addr              { return nil }
func (*cannedConn) RemoteAddr() net.Addr             { return nil }
func (*cannedConn) SetDeadline(time.Time) error      { return nil }
func (*cannedConn) SetReadDeadline(time.Time) error  { return nil }
func (*cannedConn) SetWriteDeadline(time.Time) error { return nil }

// FuzzGuard feeds it whatever a service may send. What gets through is bounded,
// and never a part of a body whose length was said to be another.
func FuzzGuard(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nmy-server",
		"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nmy-serv",
		"HTTP/1.0 200 OK\r\n\r\nmy-server",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nmy\r\n0\r\n\r\n",
		"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 429 Slow\r\nRetry-After: 5\r\n\r\n",
		"<html>",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		g := &guard{dial: func(context.Context, string, string) (net.Conn, error) {
			return &cannedConn{r: bytes.NewReader(answer)}, nil
		}}
		defer g.Close()
		resp, err := g.RoundTrip(mustRequest(t, "http://169.254.169.254/hetzner/v1/metadata/hostname"))
		if err != nil {
			if len(err.Error()) > 1000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || len(bytes.TrimSpace(body)) == 0 || len(body) > maxBody {
			t.Errorf("%d bytes, %v", len(body), err)
		}
		if !bytes.Contains(answer, []byte(" 200")) {
			t.Errorf("no 200 in %q", answer)
		}
	})
}

func FuzzPrivateNetworks(f *testing.F) {
	for _, s := range []string{
		exampleNetworks, "", "[]", "- ip: 10.0.0.256", "- {ip: 10.0.0.2, alias_ips: [10.0.0.3]}", "a: &a [*a,*a]",
		"- &x {ip: 1}\n- *x", strings.Repeat("[", 8000), strings.Repeat("- ", 4000), "- ip: !!binary aaaa", "- network_id: -1", "%YAML 9.9\n---\n",
		"- network_name: \"a\\nb\"",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parsePrivateNetworks(text)
		if err != nil && len(err.Error()) > 64<<10 {
			t.Errorf("an error of %d bytes for %d", len(err.Error()), len(text))
		}
		for _, n := range got {
			if strings.ContainsAny(n.Name, "\n\r\x00\x1b") || n.ID < 0 || len(n.AliasIPs) > maxAliases {
				t.Errorf("accepted %+v", n)
			}
		}
	})
}

func TestPrivateNetworks(t *testing.T) {
	for about, text := range map[string]string{
		"an alias bomb":       "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b]",
		"an anchor":           "- &x {ip: 10.0.0.2}",
		"deep flow":           strings.Repeat("[", 4000),
		"deep blocks":         strings.Repeat("- ", 4000) + "x",
		"no list":             "ip: 10.0.0.2",
		"a list of scalars":   "- 10.0.0.2",
		"too much":            strings.Repeat("# comment\n", 1000),
		"two spaces of depth": strings.Repeat("-  ", 2000) + "x",
		"no YAML":             "\t- ip: x",
	} {
		t.Run(about+" is refused", func(t *testing.T) {
			if got, err := parsePrivateNetworks(text); err == nil {
				t.Errorf("got %+v", got)
			} else if len(err.Error()) > 300 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
	t.Run("a malformed field is left out and named", func(t *testing.T) {
		got, err := parsePrivateNetworks("- ip: 10.0.0.256\n  network_name: nw\n  gateway: 10.0.0.1\n")
		if err == nil || !strings.Contains(err.Error(), "10.0.0.256") {
			t.Errorf("got error %v", err)
		}
		if len(got) != 1 || got[0].Name != "nw" || got[0].IP.IsValid() || !got[0].Gateway.IsValid() {
			t.Errorf("got %+v", got)
		}
	})
}
