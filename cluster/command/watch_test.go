package command

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/nametag-boot/nametag/cluster/lab"
)

// said is what a command has written so far.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// becomes waits until a condition holds.
func becomes(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// listening is where it says that it listens, "" so far.
func listening(log string) string {
	m := regexp.MustCompile(`address=(127\.0\.0\.1:\d+)`).FindStringSubmatch(log)
	if m == nil {
		return ""
	}
	return "http://" + m[1]
}

func fetch(t *testing.T, url string) (int, string) {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(b)
}

func TestWatchTellsWhatComesAndWhatGoes(t *testing.T) {
	u := aUser(t)
	kube := lab.NewStandIn(false)
	t.Cleanup(func() { kube.Close() })
	kubeconfig, err := kube.Kubeconfig(u.dir)
	if err != nil {
		t.Fatal(err)
	}
	cloud, done := lab.NewCloud()
	t.Cleanup(done)
	t.Setenv("HCLOUD_TOKEN", lab.Token)
	t.Setenv("HCLOUD_ENDPOINT", cloud.URL)
	for i := range 3 {
		name, address := fmt.Sprintf("node-%d", i), fmt.Sprintf("10.0.0.%d", i+1)
		cloud.Add(lab.Server{ID: int64(101 + i), Name: name, Private: map[int64]string{1: address}})
		n := lab.Node{Name: name, Address: address, ProviderID: fmt.Sprintf("hcloud://%d", 101+i), Age: time.Hour}
		if err := kube.Put(t.Context(), lab.Nodes, n.Object()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var stderr said
	ended := make(chan int, 1)
	go func() {
		ended <- Run(ctx, "test", []string{
			"--watch", "--listen", "127.0.0.1:0", "--kubeconfig", kubeconfig, "--interval", "1h", "--events", "--leader-elect", "kube-system/nametag-audit",
		}, strings.NewReader(""), io.Discard, &stderr)
	}()
	var url string
	becomes(t, "it says where it listens", func() bool { url = listening(stderr.String()); return url != "" })
	metrics := func() string { _, m := fetch(t, url+"/metrics"); return m }
	becomes(t, "the first round is done", func() bool { return strings.Contains(metrics(), `nametag_audit_rounds_total{result="agree"} 1`) })
	if status, body := fetch(t, url+"/readyz"); status != http.StatusOK {
		t.Errorf("readyz: %d %s", status, body)
	}
	if status, body := fetch(t, url+"/healthz"); status != http.StatusOK {
		t.Errorf("healthz: %d %s", status, body)
	}
	for _, want := range []string{
		`nametag_audit_source_up{source="kubernetes"} 1`, `nametag_audit_source_objects{source="cloud"} 3`, `nametag_audit_machines{agree="true"} 3`,
		"nametag_audit_leader 1", "nametag_audit_source_last_success_timestamp_seconds",
	} {
		if m := metrics(); !strings.Contains(m, want) {
			t.Errorf("no %s in\n%s", want, m)
		}
	}
	// A node that changes is looked at soon, not at the next interval. The cloud's rename is seen then, too.
	cloud.Rename(103, "renamed")
	wrong := lab.Node{Name: lab.Invented, Address: "10.0.0.1", NotReady: true, Age: time.Hour}
	if err := kube.Put(t.Context(), lab.Nodes, wrong.Object()); err != nil {
		t.Fatal(err)
	}
	becomes(t, "the ghost is seen", func() bool {
		m := metrics()
		return strings.Contains(m, `nametag_audit_finding{id="node-name-invented",server="101",severity="warning"} 1`) &&
			strings.Contains(m, `nametag_audit_finding{id="server-renamed",server="103",severity="warning"} 1`)
	})
	if _, page := fetch(t, url+"/"); !strings.Contains(page, lab.Invented) || !strings.Contains(page, "kubectl delete node "+lab.Invented) {
		t.Errorf("the page has no ghost:\n%s", page)
	}
	// The watch breaks and does not come back: what was seen before is not taken for what is.
	kube.Fault(func(r *http.Request) int {
		if strings.HasSuffix(r.URL.Path, "/nodes") {
			return http.StatusServiceUnavailable
		}
		return 0
	})
	kube.Cut()
	cloud.Rename(103, "node-2")
	becomes(t, "the source counts as not read", func() bool {
		kube.Cut() // a change of the cloud alone makes no round: the interval is an hour
		return strings.Contains(stderr.String(), "service unavailable") || strings.Contains(stderr.String(), "Service Unavailable")
	})
	if strings.Contains(stderr.String(), "msg=gone") {
		t.Errorf("something is said to have gone while the nodes are not seen:\n%s", stderr.String())
	}
	kube.Fault(nil)
	if err := kube.Delete(t.Context(), lab.Nodes, "", lab.Invented); err != nil {
		t.Fatal(err)
	}
	becomes(t, "both have gone", func() bool { return !strings.Contains(metrics(), "nametag_audit_finding{") })
	log := stderr.String()
	if strings.Count(log, "msg=found id=node-name-invented") != 1 || strings.Count(log, "msg=gone id=node-name-invented") != 1 {
		t.Errorf("not one line for its coming and one for its going:\n%s", log)
	}
	client, err := dynamic.NewForConfig(kube.Config)
	if err != nil {
		t.Fatal(err)
	}
	events, err := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "events"}).Namespace("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	reasons := map[string]int{}
	for _, e := range events.Items {
		reasons[fmt.Sprint(e.Object["reason"], " ", e.Object["type"])]++
	}
	if reasons["NodeNameInvented Warning"] != 1 || reasons["NodeNameInvented Normal"] != 1 || reasons["ServerRenamed Warning"] != 1 {
		t.Errorf("%v", reasons)
	}
	cancel()
	select {
	case status := <-ended:
		if status != exitAgree {
			t.Errorf("exit status %d: %s", status, stderr.String())
		}
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
	}
}
