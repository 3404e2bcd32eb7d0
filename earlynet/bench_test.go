//go:build linux

package earlynet

import (
	"context"
	"net/netip"
	"testing"
	"time"
)

// BenchmarkLinkLocal measures from a NIC that is down to an answer of the
// service, and what it takes to take everything back.
func BenchmarkLinkLocal(b *testing.B) { benchmark(b, LinkLocal) }

// BenchmarkAll is the same with all methods at work; the first path is used.
func BenchmarkAll(b *testing.B) { benchmark(b, LinkLocal, DHCP, IPv6) }

func benchmark(b *testing.B, methods ...Method) {
	serving(b)
	ctx := context.Background()
	var path, answer, undo time.Duration
	for b.Loop() {
		began := time.Now()
		n, err := Open(ctx, Config{NICs: []string{"eth0"}, Methods: methods, Destinations: []netip.Addr{metadata}})
		if err != nil {
			b.Fatal(err)
		}
		p := <-n.Paths()
		path += time.Since(began)
		if _, err := ask(ctx, p); err != nil {
			b.Fatal(err)
		}
		answer += time.Since(began)
		began = time.Now()
		if err := n.Close(); err != nil {
			b.Fatal(err)
		}
		undo += time.Since(began)
	}
	per := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(b.N) }
	b.ReportMetric(per(path), "µs/path")
	b.ReportMetric(per(answer), "µs/answer")
	b.ReportMetric(per(undo), "µs/undo")
}
