package hetzner

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// cannedConn gives bytes and swallows what it is told.
type cannedConn struct {
	r      *bytes.Reader
	closed atomic.Bool
}

func (c *cannedConn) Read(b []byte) (int, error)     { return c.r.Read(b) }
func (*cannedConn) Write(b []byte) (int, error)      { return len(b), nil }
func (c *cannedConn) Close() error                   { c.closed.Store(true); return nil }
func (*cannedConn) LocalAddr() net.Addr              { return nil }
func (*cannedConn) RemoteAddr() net.Addr             { return nil }
func (*cannedConn) SetDeadline(time.Time) error      { return nil }
func (*cannedConn) SetReadDeadline(time.Time) error  { return nil }
func (*cannedConn) SetWriteDeadline(time.Time) error { return nil }

// FuzzAsk feeds it whatever a service may send, to every question. What comes out is bounded, and stands in one 200.
func FuzzAsk(f *testing.F) {
	const whole = "hostname: my-server\ninstance-id: 42\nregion: x\n"
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 46\r\n\r\n" + whole,
		"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + whole,
		"HTTP/1.0 200 OK\r\n\r\n" + whole,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n24;x=y\r\nhostname: my-server\ninstance-id: 42\n\r\n0\r\n\r\n",
		"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 429 Slow\r\nRetry-After: 5\r\n\r\n",
		"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n",
		"<html>",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		c, err := newService("http://169.254.169.254/hetzner/v1/metadata", func(context.Context, string, string) (net.Conn, error) {
			return &cannedConn{r: bytes.NewReader(answer)}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		who, err := ask(t.Context(), c)
		if err != nil {
			if len(err.Error()) > 1000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		if !bytes.Contains(answer, []byte(" 200")) || !bytes.Contains(answer, []byte(who.name)) || !bytes.Contains(answer, []byte(who.id)) || who.name == "" {
			t.Errorf("%q and %q out of %q", who.name, who.id, answer)
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
		got, err := parseNetworksText(text)
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
		"too much":            strings.Repeat("- ip: 10.0.0.2\n", 65),
		"two spaces of depth": strings.Repeat("-  ", 2000) + "x",
		"no YAML":             "\t- ip: x",
	} {
		t.Run(about+" is refused", func(t *testing.T) {
			if got, err := parseNetworksText(text); err == nil {
				t.Errorf("got %+v", got)
			} else if len(err.Error()) > 300 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
	t.Run("an item that is none is left out and named, the others are kept", func(t *testing.T) {
		for _, odd := range []string{"- 10.0.0.9", "- {ip: 10.0.0.9}", "- network_id: many", "- ip: [10.0.0.9]", "- ip: !!binary aaaa", "- - ip: 10.0.0.9", "- |\n  x", "-"} {
			got, err := parseNetworksText("- ip: 10.0.0.2\n" + odd + "\n- ip: 10.1.0.2\n  alias_ips:\n  - 10.1.0.3\n  - \"10.1.0.4\"\n")
			if len(got) != 2 || got[0].IP.String() != "10.0.0.2" || got[1].IP.String() != "10.1.0.2" || len(got[1].AliasIPs) != 2 {
				t.Errorf("%q: got %+v", odd, got)
			}
			if err == nil && odd != "-" {
				t.Errorf("%q: no error", odd)
			}
		}
	})
	t.Run("a malformed field is left out and named", func(t *testing.T) {
		got, err := parseNetworksText("- ip: 10.0.0.256\n  network_name: nw\n  gateway: 10.0.0.1\n")
		if err == nil || !strings.Contains(err.Error(), "10.0.0.256") {
			t.Errorf("got error %v", err)
		}
		if len(got) != 1 || got[0].Name != "nw" || got[0].IP.IsValid() || !got[0].Gateway.IsValid() {
			t.Errorf("got %+v", got)
		}
	})
}
