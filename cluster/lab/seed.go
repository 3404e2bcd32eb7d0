package lab

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// The names of the broken cluster, as they were reported.
const (
	Invented = "talos-8qy-c5p"
	Right    = "example-controlplane-3d3d26d1-69c5k"
)

// A Seed is the cluster that nametag was made because of: three control-plane machines, one of which called itself talos-8qy-c5p
// before it knew its name. The cloud is a fake one, etcd is real.
type Seed struct {
	Cloud *Cloud
	Etcd  *Etcd
	Kube  *Kube

	closeCloud func()
}

// Names are the servers', in order; the first is the misnamed one.
func (*Seed) Names() []string {
	return []string{Right, "example-controlplane-3d3d26d1-b7xw2", "example-controlplane-3d3d26d1-q9zzt"}
}

// NewSeed starts it. first makes the members' addresses: 127.0.first.1 and on. genuine takes the real API server, else a stand-in.
func NewSeed(ctx context.Context, first int, genuine bool) (*Seed, error) {
	s := &Seed{}
	names := s.Names()
	var err error
	if s.Etcd, err = NewEtcd(ctx, first, append([]string{Invented}, names[1:]...)...); err != nil {
		return nil, err
	}
	s.Cloud, s.closeCloud = NewCloud()
	if genuine {
		s.Kube, err = StartKube(ctx, s.Etcd.Endpoints(), nil)
		if err == nil {
			err = s.Kube.ServeClusterAPI(ctx)
		}
	} else {
		s.Kube = NewStandIn(true).Kube
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	for i, name := range names {
		if err := s.machine(ctx, i, name, s.Etcd.Members[i].Address, true); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	if err := s.machine(ctx, len(names), "example-md-0-xk2lp-5tr9d", fmt.Sprintf("127.0.%d.9", first), false); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	err = errors.Join(
		s.Kube.Put(ctx, Clusters, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "cluster.x-k8s.io/v1beta1", "kind": "Cluster", "metadata": map[string]any{"name": "example", "namespace": "default"}, "spec": map[string]any{"paused": true},
		}}),
		s.Kube.Put(ctx, ControlPlanes, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "controlplane.cluster.x-k8s.io/v1alpha3", "kind": "TalosControlPlane",
			"metadata": map[string]any{"name": "example-controlplane", "namespace": "default", "labels": map[string]any{"cluster.x-k8s.io/cluster-name": "example"}},
			"spec": map[string]any{
				"version": "v1.32.0", "controlPlaneConfig": map[string]any{"controlplane": map[string]any{"generateType": "controlplane"}},
				"infrastructureTemplate": map[string]any{"kind": "HCloudMachineTemplate", "name": "example-controlplane"},
			},
		}}),
	)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// day is how old the machines are; but the real API server gives objects its own time of creation.
const day = 24 * time.Hour

func (s *Seed) machine(ctx context.Context, i int, name, address string, controlPlane bool) error {
	id := int64(4711001 + i)
	provider := fmt.Sprintf("hcloud://%d", id)
	s.Cloud.Add(Server{ID: id, Name: name, Created: time.Now().Add(-day), Private: map[int64]string{1: address}})
	return errors.Join(
		s.Kube.Put(ctx, Nodes, Node{Name: name, ProviderID: provider, Address: address, ControlPlane: controlPlane, Age: day}.Object()),
		s.Kube.Put(ctx, Machines, Machine{
			Name: fmt.Sprintf("example-machine-%d", i+1), Cluster: "example", Infra: name, ProviderID: provider, NodeRef: name, Hostname: name,
			Address: address, ControlPlane: controlPlane, Age: day,
		}.Object()),
	)
}

// Ghost adds the node that the misnamed machine registered first, and that has no kubelet any more.
func (s *Seed) Ghost(ctx context.Context) error {
	return s.Kube.Put(ctx, Nodes, Node{Name: Invented, Address: s.Etcd.Members[0].Address, ControlPlane: true, Uninitialized: true, NotReady: true, Age: day}.Object())
}

// Close ends all of it.
func (s *Seed) Close() error {
	var err error
	if s.Kube != nil {
		err = s.Kube.Close()
	}
	if s.closeCloud != nil {
		s.closeCloud()
	}
	return errors.Join(err, s.Etcd.Close())
}
