package watch

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/cluster/audit"
	"github.com/nametag-boot/nametag/cluster/source"
)

// A told source has what it is told to have.
type told struct {
	of   audit.Source
	read func(*audit.Snapshot)
}

func (s told) Source() audit.Source { return s.of }

func (s told) Read(_ context.Context, into *audit.Snapshot) error {
	s.read(into)
	return nil
}

var nameOfMetric = regexp.MustCompile(`nametag_audit_[a-z_]+`)

func metricsIn(text string) []string {
	all := nameOfMetric.FindAllString(text, -1)
	slices.Sort(all)
	return slices.Compact(all)
}

// Alert rules, the dashboard and the documentation name metrics that are served, and the documentation names all of them.
func TestWhatIsToldOfMetricsIsTrue(t *testing.T) {
	address := []netip.Addr{netip.MustParseAddr("10.0.0.1")}
	w := &Watcher{
		Readers: []source.Reader{
			told{audit.Cloud, func(s *audit.Snapshot) { s.Servers = []audit.Server{{ID: 1, Name: "one", Addresses: address}} }},
			told{audit.Kubernetes, func(s *audit.Snapshot) {
				s.Nodes = []audit.Node{{Name: "talos-8qy-c5p", ProviderID: "hcloud://1", Addresses: address, Ready: true}}
			}},
			told{audit.Etcd, func(s *audit.Snapshot) {
				s.Members = []audit.Member{{ID: 1, Name: "one", PeerURLs: []string{"https://10.0.0.1:2380"}, Health: audit.Healthy}}
			}},
		},
		Auditor: &audit.Auditor{}, Interval: time.Hour, Log: slog.New(slog.DiscardHandler),
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Run(ctx)
	}()
	defer func() {
		cancel()
		<-done
	}()
	server := httptest.NewServer(w.Handler())
	defer server.Close()
	var served []string
	for deadline := time.Now().Add(time.Minute); !slices.Contains(served, "nametag_audit_finding"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no finding among %v", served)
		}
		answer, err := http.Get(server.URL + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		served = metricsIn(string(text))
	}
	const documentation = "../../docs/audit.md"
	for _, file := range []string{"../deploy/chart/nametag-audit/files/rules.yaml", "../deploy/chart/nametag-audit/files/dashboard.json", documentation} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		names := metricsIn(string(text))
		if len(names) < 5 {
			t.Errorf("%s has only %v", file, names)
		}
		for _, name := range names {
			if !slices.Contains(served, name) {
				t.Errorf("%s has %s, which is not served", file, name)
			}
		}
		if file != documentation {
			continue
		}
		for _, name := range served {
			if !slices.Contains(names, name) {
				t.Errorf("%s does not have %s", file, name)
			}
		}
	}
}

// However fast changes come, half of the cloud's rate limit is left to others.
func TestChangesAreGatheredForLongerWhereTheCloudIsAskedMuch(t *testing.T) {
	for requests, want := range map[int]time.Duration{0: 2 * time.Second, 1: 2 * time.Second, 20: 40 * time.Second} {
		if got := gather(requests); got != want {
			t.Errorf("%d requests: %s, want %s", requests, got, want)
		}
	}
}
