package source

import (
	"context"
	"errors"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/nametag-boot/nametag/cluster/audit"
)

// Kubernetes reads the Nodes.
type Kubernetes struct{ Config *rest.Config }

// Source is audit.Kubernetes.
func (*Kubernetes) Source() audit.Source { return audit.Kubernetes }

// uninitialized is the taint that only a cloud controller takes away.
const uninitialized = "node.cloudprovider.kubernetes.io/uninitialized"

// Read lists the nodes.
func (k *Kubernetes) Read(ctx context.Context, into *audit.Snapshot) error {
	client, err := nodesOf(k.Config)
	if err != nil {
		return err
	}
	var nodes []audit.Node
	_, err = pages(ctx, listNodes(client), func() { nodes = nil }, func(n *corev1.Node) { nodes = append(nodes, Node(n)) })
	into.Nodes = nodes
	return err
}

// nodesOf is a client for the nodes that takes them in Kubernetes' own binary form: a tenth of the work that JSON is, and most of
// what an audit of a large cluster does.
func nodesOf(config *rest.Config) (typed.NodeInterface, error) {
	own := quick(config)
	own.ContentType = runtime.ContentTypeProtobuf
	own.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	client, err := typed.NewForConfig(own)
	if err != nil {
		return nil, err
	}
	return client.Nodes(), nil
}

func listNodes(client typed.NodeInterface) lister[*corev1.Node] {
	return func(ctx context.Context, o metav1.ListOptions) ([]*corev1.Node, metav1.ListInterface, error) {
		list, err := client.List(ctx, o)
		if err != nil {
			return nil, nil, err
		}
		return pointers(list.Items), list, nil
	}
}

// pointers are those to the elements of a list.
func pointers[T any](list []T) []*T {
	all := make([]*T, len(list))
	for i := range list {
		all[i] = &list[i]
	}
	return all
}

// quick is the configuration without the client's own brake: a round asks a handful of questions.
func quick(config *rest.Config) *rest.Config {
	own := rest.CopyConfig(config)
	own.QPS = -1
	own.UserAgent = "nametag-audit"
	return own
}

// A lister gives out one page of a list.
type lister[O any] func(context.Context, metav1.ListOptions) ([]O, metav1.ListInterface, error)

// pages calls each for every object, 500 of which are in memory at once, and gives the version that the list is of. A list whose
// continuation has expired is begun anew, once: then its beginning and its end would be of two moments.
func pages[O any](ctx context.Context, list lister[O], begin func(), each func(O)) (version string, err error) {
	for again := range 2 {
		begin()
		opts := metav1.ListOptions{Limit: 500}
		for {
			items, page, err := list(ctx, opts)
			if (apierrors.IsResourceExpired(err) || apierrors.IsGone(err)) && again == 0 {
				break
			}
			if err != nil {
				return "", err
			}
			for _, item := range items {
				each(item)
			}
			opts.Continue = page.GetContinue()
			if opts.Continue == "" {
				return page.GetResourceVersion(), nil
			}
		}
	}
	return "", errors.New("the list expired while it was read, twice")
}

// Node makes of an object what the audit looks at.
func Node(n *corev1.Node) audit.Node {
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
	return node
}
