package source

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/nametag-boot/nametag/cluster/audit"
)

// Kubernetes reads the Nodes.
type Kubernetes struct{ Config *rest.Config }

// Source is audit.Kubernetes.
func (*Kubernetes) Source() audit.Source { return audit.Kubernetes }

// Nodes is the resource.
var Nodes = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}

// uninitialized is the taint that only a cloud controller takes away.
const uninitialized = "node.cloudprovider.kubernetes.io/uninitialized"

// Read lists the nodes.
func (k *Kubernetes) Read(ctx context.Context, into *audit.Snapshot) error {
	client, err := dynamic.NewForConfig(quick(k.Config))
	if err != nil {
		return err
	}
	var nodes []audit.Node
	err = pages(ctx, client.Resource(Nodes), func() { nodes = nil }, func(item *unstructured.Unstructured) error {
		node, err := Node(item)
		nodes = append(nodes, node)
		return err
	})
	into.Nodes = nodes
	return err
}

// quick is the configuration without the client's own brake: a round asks a handful of questions.
func quick(config *rest.Config) *rest.Config {
	own := rest.CopyConfig(config)
	own.QPS = -1
	own.UserAgent = "nametag-audit"
	return own
}

// pages calls each for every object, 500 of which are in memory at once. A list whose continuation has expired is begun anew,
// once: then its beginning and its end would be of two moments.
func pages(ctx context.Context, resource dynamic.ResourceInterface, begin func(), each func(*unstructured.Unstructured) error) error {
	for again := range 2 {
		begin()
		opts := metav1.ListOptions{Limit: 500}
		for {
			list, err := resource.List(ctx, opts)
			if (apierrors.IsResourceExpired(err) || apierrors.IsGone(err)) && again == 0 {
				break
			}
			if err != nil {
				return err
			}
			for i := range list.Items {
				if err := each(&list.Items[i]); err != nil {
					return err
				}
			}
			opts.Continue = list.GetContinue()
			if opts.Continue == "" {
				return nil
			}
		}
	}
	return errors.New("the list expired while it was read, twice")
}

// Node makes of an object what the audit looks at.
func Node(object *unstructured.Unstructured) (audit.Node, error) {
	unstructured.RemoveNestedField(object.Object, "status", "images") // most of a node's bytes
	unstructured.RemoveNestedField(object.Object, "metadata", "managedFields")
	var n corev1.Node
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &n); err != nil {
		return audit.Node{}, fmt.Errorf("node %s: %w", object.GetName(), err)
	}
	node := audit.Node{
		Name: n.Name, ProviderID: n.Spec.ProviderID, Created: n.CreationTimestamp.Time,
		Cordoned: n.Spec.Unschedulable, Deleting: n.DeletionTimestamp != nil,
	}
	for _, role := range []string{"node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"} {
		if _, ok := n.Labels[role]; ok {
			node.ControlPlane = true
		}
	}
	for _, a := range n.Status.Addresses {
		switch a.Type {
		case corev1.NodeHostName:
			node.Hostname = a.Address
		case corev1.NodeInternalIP, corev1.NodeExternalIP:
			if ip, err := netip.ParseAddr(a.Address); err == nil {
				node.Addresses = append(node.Addresses, ip.Unmap())
			}
		case corev1.NodeInternalDNS, corev1.NodeExternalDNS:
		}
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			node.Ready, node.ReadySince = c.Status == corev1.ConditionTrue, c.LastTransitionTime.Time
		}
	}
	for _, t := range n.Spec.Taints {
		node.Uninitialized = node.Uninitialized || t.Key == uninitialized
	}
	return node, nil
}
