//go:build linux

package testvm

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/cloud"
)

// bareGet is one GET with nothing around it: a connection, a request, an answer to its end.
func bareGet(path string) (string, error) {
	c, err := net.DialTimeout("tcp", "169.254.169.254:80", 10*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: 169.254.169.254\r\nConnection: close\r\n\r\n"); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// BenchmarkHostname measures what the lab itself costs: ARP, TCP and HTTP from a link-local address are three round
// trips, and all above three times the round-trip time is the lab's and the kernel's.
func BenchmarkHostname(b *testing.B) {
	for _, rtt := range []time.Duration{0, 5 * time.Millisecond, 20 * time.Millisecond} {
		b.Run(fmt.Sprintf("rtt=%s", rtt), func(b *testing.B) {
			Start(b, cloud.Config{Link: cloud.Link{RTT: rtt}}, KeepTraces())
			sh(b, "ip addr add 169.254.0.1/16 dev eth0", "ip link set eth0 up")
			b.ResetTimer()
			var worst time.Duration
			for range b.N {
				b.StopTimer()
				sh(b, "ip neigh flush dev eth0")
				b.StartTimer()
				began := time.Now()
				if got, err := bareGet("/hetzner/v1/metadata/hostname"); err != nil || strings.TrimSpace(got) != "my-server" {
					b.Fatal(got, err)
				}
				worst = max(worst, time.Since(began))
			}
			b.ReportMetric(float64(worst.Microseconds())/1000, "worst-ms")
			b.ReportMetric(float64((b.Elapsed()/time.Duration(b.N) - 3*rtt).Microseconds()), "own-µs/op")
		})
	}
}
