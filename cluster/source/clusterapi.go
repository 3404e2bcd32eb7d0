package source

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/nametag-boot/nametag/cluster/audit"
)

// ClusterAPI reads the Machines and control planes of a management cluster.
type ClusterAPI struct {
	Config *rest.Config
	// Required makes it an error that the cluster serves no Cluster API; else the source is then off.
	Required bool
}

// Source is audit.ClusterAPI.
func (*ClusterAPI) Source() audit.Source { return audit.ClusterAPI }

// The kinds that are read, by group and resource.
const (
	clusters = "cluster.x-k8s.io/clusters"
	machines = "cluster.x-k8s.io/machines"
)

var controlPlanes = []string{"controlplane.cluster.x-k8s.io/taloscontrolplanes", "controlplane.cluster.x-k8s.io/kubeadmcontrolplanes"}

func (c *ClusterAPI) clients() (*discovery.DiscoveryClient, dynamic.Interface, error) {
	config := quick(c.Config)
	finder, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, nil, err
	}
	client, err := dynamic.NewForConfig(config)
	return finder, client, err
}

// served asks which versions are served, and has the preferred one of each kind.
func (c *ClusterAPI) served(finder *discovery.DiscoveryClient) (map[string]schema.GroupVersionResource, error) {
	served, err := Served(finder, "cluster.x-k8s.io", "controlplane.cluster.x-k8s.io")
	if err != nil {
		return nil, err
	}
	if served[machines].Empty() {
		if c.Required {
			return nil, fmt.Errorf("the cluster serves no machines of cluster.x-k8s.io: is this the management cluster?")
		}
		return nil, errNotServed
	}
	return served, nil
}

// Read asks which versions are served and reads the preferred one of each kind, all at the same time.
func (c *ClusterAPI) Read(ctx context.Context, into *audit.Snapshot) error {
	finder, client, err := c.clients()
	if err != nil {
		return err
	}
	served, err := c.served(finder)
	if err != nil {
		return err
	}
	var parts clusterAPIParts
	planes := make([][]audit.ControlPlane, len(controlPlanes))
	all, ctx := errgroup.WithContext(ctx)
	all.Go(func() error { return listAll(ctx, client, served[clusters], &parts.clusters, pauseOf) })
	all.Go(func() error { return listAll(ctx, client, served[machines], &parts.machines, machine) })
	for i, name := range controlPlanes {
		all.Go(func() error { return listAll(ctx, client, served[name], &planes[i], controlPlane) })
	}
	if err := all.Wait(); err != nil {
		return err
	}
	parts.planes = slices.Concat(planes...)
	parts.put(into)
	return nil
}

// listAll reads all objects of a resource; the empty one has none.
func listAll[T any](
	ctx context.Context, client dynamic.Interface, resource schema.GroupVersionResource, into *[]T, of func(*unstructured.Unstructured) T,
) error {
	if resource.Empty() {
		return nil
	}
	_, err := pages(ctx, listObjects(client.Resource(resource)), func() { *into = nil }, func(o *unstructured.Unstructured) {
		*into = append(*into, of(o))
	})
	if err != nil {
		return fmt.Errorf("%s: %w", resource.Resource, err)
	}
	return nil
}

func listObjects(client dynamic.ResourceInterface) lister[*unstructured.Unstructured] {
	return func(ctx context.Context, o metav1.ListOptions) ([]*unstructured.Unstructured, metav1.ListInterface, error) {
		list, err := client.List(ctx, o)
		if err != nil {
			return nil, nil, err
		}
		return pointers(list.Items), list, nil
	}
}

// clusterAPIParts are the objects that were read, each for itself.
type clusterAPIParts struct {
	clusters []clusterPause
	machines []audit.Machine
	planes   []audit.ControlPlane
}

// put puts them together: a control plane is paused with its cluster.
func (p *clusterAPIParts) put(into *audit.Snapshot) {
	paused := map[string]bool{}
	for _, c := range p.clusters {
		paused[c.key] = c.paused
	}
	for _, plane := range p.planes {
		plane.Paused = plane.Paused || paused[plane.Namespace+"/"+plane.Cluster]
		into.ControlPlanes = append(into.ControlPlanes, plane)
	}
	into.Machines = p.machines
}

// clusterPause is a Cluster, by namespace and name, and whether it is paused.
type clusterPause struct {
	key    string
	paused bool
}

func pauseOf(o *unstructured.Unstructured) clusterPause {
	spec, _, _ := unstructured.NestedBool(o.Object, "spec", "paused")
	return clusterPause{o.GetNamespace() + "/" + o.GetName(), spec || isPaused(o)}
}

// controlPlane makes of an object what the audit looks at; whether its cluster is paused it does not know.
func controlPlane(o *unstructured.Unstructured) audit.ControlPlane {
	cluster := o.GetLabels()["cluster.x-k8s.io/cluster-name"]
	for _, owner := range o.GetOwnerReferences() {
		if owner.Kind == "Cluster" {
			cluster = owner.Name
		}
	}
	source, _, _ := unstructured.NestedString(o.Object, "spec", "controlPlaneConfig", "controlplane", "hostname", "source")
	return audit.ControlPlane{
		Namespace: o.GetNamespace(), Name: o.GetName(), Kind: o.GetKind(), Cluster: cluster, HostnameSource: source, Paused: isPaused(o),
	}
}

func isPaused(o *unstructured.Unstructured) bool {
	_, paused := o.GetAnnotations()["cluster.x-k8s.io/paused"]
	return paused
}

// Served has, by group/resource, the version that the server prefers, of those groups only.
func Served(finder *discovery.DiscoveryClient, wanted ...string) (map[string]schema.GroupVersionResource, error) {
	groups, err := finder.ServerGroups()
	if err != nil {
		return nil, err
	}
	served := map[string]schema.GroupVersionResource{}
	for _, g := range groups.Groups {
		if !slices.Contains(wanted, g.Name) {
			continue
		}
		versions := append([]string{g.PreferredVersion.GroupVersion}, "")[:1]
		for _, v := range g.Versions {
			versions = append(versions, v.GroupVersion)
		}
		for _, v := range versions {
			resources, err := finder.ServerResourcesForGroupVersion(v)
			if apierrors.IsNotFound(err) {
				continue // a version that is gone meanwhile
			}
			if err != nil {
				return nil, err
			}
			gv, err := schema.ParseGroupVersion(v)
			if err != nil {
				return nil, err
			}
			for _, r := range resources.APIResources {
				if key := g.Name + "/" + r.Name; served[key].Empty() {
					served[key] = gv.WithResource(r.Name)
				}
			}
		}
	}
	return served, nil
}

// machine makes of an object, of whichever version, what the audit looks at.
func machine(o *unstructured.Unstructured) audit.Machine {
	text := func(path ...string) string {
		s, _, _ := unstructured.NestedString(o.Object, path...)
		return s
	}
	m := audit.Machine{
		Namespace: o.GetNamespace(), Name: o.GetName(), Cluster: text("spec", "clusterName"),
		InfraKind: text("spec", "infrastructureRef", "kind"), InfraName: text("spec", "infrastructureRef", "name"),
		ProviderID: text("spec", "providerID"), NodeRef: text("status", "nodeRef", "name"),
		Deleting: o.GetDeletionTimestamp() != nil, Created: o.GetCreationTimestamp().Time,
	}
	_, m.ControlPlane = o.GetLabels()["cluster.x-k8s.io/control-plane"]
	addresses, _, _ := unstructured.NestedSlice(o.Object, "status", "addresses")
	for _, a := range addresses {
		entry, _ := a.(map[string]any)
		kind, _ := entry["type"].(string)
		address, _ := entry["address"].(string)
		switch kind {
		case "MachineHostName", "Hostname":
			m.Hostname = address
		case "MachineInternalIP", "MachineExternalIP", "InternalIP", "ExternalIP":
			if ip, err := netip.ParseAddr(address); err == nil {
				m.Addresses = append(m.Addresses, ip.Unmap())
			}
		}
	}
	return m
}
