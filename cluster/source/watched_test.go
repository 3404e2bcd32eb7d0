package source_test

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/nametag-boot/nametag/cluster/audit"
	"github.com/nametag-boot/nametag/cluster/lab"
	"github.com/nametag-boot/nametag/cluster/source"
)

// A bystander watches Cluster API.
type bystander struct {
	t       *testing.T
	kube    *lab.StandIn
	watched *source.WatchedClusterAPI
	changes atomic.Int64
}

func aBystander(t *testing.T) *bystander {
	b := &bystander{t: t, kube: lab.NewStandIn(true)}
	watched, err := source.NewWatchedClusterAPI(&source.ClusterAPI{Config: b.kube.Config}, func() { b.changes.Add(1) })
	if err != nil {
		t.Fatal(err)
	}
	b.watched = watched
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		watched.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-ended
		b.kube.Close()
	})
	return b
}

// sees reads until what is read is right.
func (b *bystander) sees(what string, right func(*audit.Snapshot, audit.SourceReport) bool) {
	b.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		s, reports := source.Collect(b.t.Context(), []source.Reader{b.watched}, time.Minute)
		report := reports[3]
		if right(s, report) {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("in vain: %s: %+v, %+v", what, report, s)
		}
	}
}

func (b *bystander) machine(name, nodeRef string) {
	b.t.Helper()
	m := lab.Machine{Name: name, Cluster: "example", Infra: name, ProviderID: "hcloud://1", NodeRef: nodeRef, Address: "10.0.0.1"}.Object()
	m.SetCreationTimestamp(metav1.NewTime(time.Unix(1700000000, 0)))
	if err := b.kube.Put(b.t.Context(), lab.Machines, m); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bystander) cluster(paused bool) {
	b.t.Helper()
	err := b.kube.Put(b.t.Context(), lab.Clusters, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "cluster.x-k8s.io/v1beta1", "kind": "Cluster",
		"metadata": map[string]any{"name": "example", "namespace": "default"}, "spec": map[string]any{"paused": paused},
	}})
	if err != nil {
		b.t.Fatal(err)
	}
}

func TestClusterAPIIsWatched(t *testing.T) {
	b := aBystander(t)
	b.cluster(true)
	b.machine("one", "")
	plane := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "controlplane.cluster.x-k8s.io/v1alpha3", "kind": "TalosControlPlane",
		"metadata": map[string]any{"name": "plane", "namespace": "default", "labels": map[string]any{"cluster.x-k8s.io/cluster-name": "example"}},
	}}
	if err := b.kube.Put(t.Context(), lab.ControlPlanes, plane); err != nil {
		t.Fatal(err)
	}
	b.sees("what is there", func(s *audit.Snapshot, r audit.SourceReport) bool {
		return r.State == audit.SourceRead && len(s.Machines) == 1 && len(s.ControlPlanes) == 1 && s.ControlPlanes[0].Paused && s.ControlPlanes[0].Kind == "TalosControlPlane"
	})
	b.cluster(false)
	b.sees("it is unpaused", func(s *audit.Snapshot, _ audit.SourceReport) bool {
		return len(s.ControlPlanes) == 1 && !s.ControlPlanes[0].Paused
	})
	b.machine("one", "")     // as it was, in a newer version
	b.machine("one", "node") // and what the audit looks at
	b.sees("its node", func(s *audit.Snapshot, _ audit.SourceReport) bool {
		return len(s.Machines) == 1 && s.Machines[0].NodeRef == "node"
	})
	b.machine("two", "")
	b.sees("a second one", func(s *audit.Snapshot, _ audit.SourceReport) bool { return len(s.Machines) == 2 })
	// What the store has, the handler is told of a moment later. Three objects came at first, one was unpaused, one got its node, one came.
	const want = 6
	for deadline := time.Now().Add(time.Minute); b.changes.Load() < want && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if told := b.changes.Load(); told != want {
		t.Errorf("told of %d changes, want %d", told, want)
	}
}

func TestABrokenWatchIsNoAnswer(t *testing.T) {
	b := aBystander(t)
	b.machine("one", "")
	b.sees("what is there", func(s *audit.Snapshot, _ audit.SourceReport) bool { return len(s.Machines) == 1 })
	b.kube.Fault(func(r *http.Request) int {
		if strings.HasSuffix(r.URL.Path, "/machines") {
			return http.StatusForbidden
		}
		return 0
	})
	b.kube.Cut()
	b.sees("that it sees nothing", func(s *audit.Snapshot, r audit.SourceReport) bool {
		return r.State == audit.SourceFailed && len(s.Machines) == 0 && strings.Contains(r.Error, "machines: the watch is broken")
	})
	b.kube.Fault(nil)
	b.sees("what is there again", func(s *audit.Snapshot, r audit.SourceReport) bool {
		return r.State == audit.SourceRead && len(s.Machines) == 1
	})
}

func TestClusterAPIMayComeAndGo(t *testing.T) {
	b := aBystander(t)
	b.kube.ServeClusterAPI(false)
	b.sees("that there is none", func(_ *audit.Snapshot, r audit.SourceReport) bool { return r.State == audit.SourceOff })
	b.kube.ServeClusterAPI(true)
	b.machine("one", "")
	b.sees("what has come", func(s *audit.Snapshot, r audit.SourceReport) bool {
		return r.State == audit.SourceRead && len(s.Machines) == 1
	})
	b.kube.ServeClusterAPI(false)
	b.kube.Cut()
	b.sees("that it has gone", func(s *audit.Snapshot, r audit.SourceReport) bool {
		return r.State == audit.SourceOff && len(s.Machines) == 0
	})
}
