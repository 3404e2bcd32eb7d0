package hetzner

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/bits"
	"net"
	"strings"
	"testing"

	"github.com/nametag-boot/nametag/earlynet"
)

// The service of these tests is one server's at first and turns into another's: what a server is told while it is being
// made can be its predecessor's. Name and id of one answer must never be of two.
var (
	before = map[string]string{"": "availability-zone: fsn1\nhostname: your-server\ninstance-id: 41\nregion: eu-west\n", "hostname": "your-server", "instance-id": "41"}
	after  = map[string]string{"": "availability-zone: hel1\nhostname: my-server\ninstance-id: 42\nregion: eu-central\n", "hostname": "my-server", "instance-id": "42"}
)

// A framing is how an answer tells its end.
var framings = map[string]func(body string) string{
	"with a length": func(body string) string {
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	},
	"in chunks": func(body string) string {
		half := len(body) / 2
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n", half, body[:half], len(body)-half, body[half:])
	},
	"that just ends": func(body string) string { return "HTTP/1.0 200 OK\r\n\r\n" + body },
}

// A turning service says how each request is answered, with what bytes, and whether the connection goes on then.
type turning func(request int, doc string) (answer string, goesOn bool)

func (s turning) fetch(t *testing.T) (name, id string, err error) {
	t.Helper()
	requests := 0
	via := earlynet.NewPath(t.Context(), "eth0", earlynet.LinkLocal, func(context.Context, string, string) (net.Conn, error) {
		return &scriptedConn{answer: func(doc string) (string, bool) {
			requests++
			return s(requests-1, doc)
		}}, nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	a, err := Source().Fetch(ctx, via)
	if err == nil && (a.Hostname == "my-server") != (a.InstanceID == "42") || err == nil && (a.Hostname == "your-server") != (a.InstanceID == "41") {
		t.Errorf("%q with %q", a.Hostname, a.InstanceID)
	}
	return a.Hostname, a.InstanceID, err
}

// scriptedConn answers requests without a goroutine.
type scriptedConn struct {
	cannedConn
	answer func(doc string) (string, bool)
	asked  []byte
	said   bytes.Buffer
	ended  bool
}

func (c *scriptedConn) Write(b []byte) (int, error) {
	if c.asked = append(c.asked, b...); bytes.HasSuffix(c.asked, []byte("\r\n\r\n")) && !c.ended {
		target, _, _ := strings.Cut(strings.TrimPrefix(string(c.asked), "GET "), " ")
		said, goesOn := c.answer(strings.Trim(strings.TrimPrefix(target, basePath), "/"))
		c.said.WriteString(said)
		c.ended, c.asked = !goesOn, nil
	}
	return len(b), nil
}

func (c *scriptedConn) Read(b []byte) (int, error) {
	if c.said.Len() == 0 && !c.ended {
		panic("nobody has asked")
	}
	n, err := c.said.Read(b)
	if n == 0 && c.ended {
		return 0, io.EOF
	}
	return n, err
}

func TestAServiceThatTurnsBetweenRequests(t *testing.T) {
	const requests = 8 // more than a fetch makes
	for about, frame := range framings {
		t.Run("with the document "+about+", any number of times", func(t *testing.T) {
			named := 0
			for pattern := range 1 << requests {
				_, _, err := turning(func(n int, doc string) (string, bool) {
					said := before
					if pattern>>n&1 == 1 {
						said = after
					}
					return frame(said[doc]), !strings.Contains(about, "ends")
				}).fetch(t)
				if err == nil {
					named++
				}
			}
			if named != 1<<requests {
				t.Errorf("%d of %d had a name", named, 1<<requests)
			}
		})
		t.Run("without the document, single answers "+about+", once", func(t *testing.T) {
			named := 0
			for pattern := range 1 << requests {
				if turns := bits.OnesCount(uint((pattern ^ pattern>>1) & (1<<(requests-1) - 1))); turns > 1 {
					continue
				}
				_, _, err := turning(func(n int, doc string) (string, bool) {
					said := before
					if pattern>>n&1 == 1 {
						said = after
					}
					if doc == "" {
						return "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", true
					}
					return frame(said[doc]), !strings.Contains(about, "ends")
				}).fetch(t)
				if err == nil {
					named++
				}
			}
			// Of 16 patterns, two turn between the first id and the name, and two between that and the second id.
			if want := map[bool]int{false: 12, true: 0}[strings.Contains(about, "ends")]; named != want {
				t.Errorf("%d had a name, want %d", named, want)
			}
		})
	}
}

// TestAServiceThatTurnsWithinAResponse: it stops after each byte of each response, and everything else is of the other server.
func TestAServiceThatTurnsWithinAResponse(t *testing.T) {
	for about, frame := range framings {
		for _, whole := range []bool{true, false} {
			for _, turn := range [][2]map[string]string{{before, after}, {after, before}} {
				first, last := 0, 0
				if !whole {
					first, last = 1, 3 // behind the refusal
				}
				for response := first; response <= last; response++ {
					for cut := range 300 {
						beyond := false
						_, _, _ = turning(func(n int, doc string) (string, bool) {
							if doc == "" && !whole {
								return "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", true
							}
							said := turn[0]
							if n > response {
								said = turn[1]
							}
							answer := frame(said[doc])
							if n == response && cut < len(answer) {
								return answer[:cut], false
							}
							beyond = beyond || n == response
							return answer, !strings.Contains(about, "ends")
						}).fetch(t)
						if t.Failed() {
							t.Fatalf("%s, with the document: %v, response %d cut after %d bytes", about, whole, response, cut)
						}
						if beyond {
							break
						}
					}
				}
			}
		}
	}
}
