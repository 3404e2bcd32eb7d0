package source

import (
	"context"
	"fmt"
	"net/netip"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
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

// Read asks which versions are served and reads the preferred one of each kind.
func (c *ClusterAPI) Read(ctx context.Context, into *audit.Snapshot) error {
	config := quick(c.Config)
	finder, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return err
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	served, err := preferred(ctx, finder)
	if err != nil {
		return err
	}
	machines, ok := served["cluster.x-k8s.io/machines"]
	if !ok {
		if c.Required {
			return fmt.Errorf("the cluster serves no machines of cluster.x-k8s.io: is this the management cluster?")
		}
		return errNotServed
	}
	paused := map[string]bool{}
	if clusters, ok := served["cluster.x-k8s.io/clusters"]; ok {
		err := pages(ctx, client.Resource(clusters), func() { clear(paused) }, func(o *unstructured.Unstructured) error {
			spec, _, _ := unstructured.NestedBool(o.Object, "spec", "paused")
			paused[o.GetNamespace()+"/"+o.GetName()] = spec || isPaused(o)
			return nil
		})
		if err != nil {
			return fmt.Errorf("clusters: %w", err)
		}
	}
	err = pages(ctx, client.Resource(machines), func() { into.Machines = nil }, func(o *unstructured.Unstructured) error {
		into.Machines = append(into.Machines, machine(o))
		return nil
	})
	if err != nil {
		return fmt.Errorf("machines: %w", err)
	}
	for _, kind := range []string{"controlplane.cluster.x-k8s.io/taloscontrolplanes", "controlplane.cluster.x-k8s.io/kubeadmcontrolplanes"} {
		resource, ok := served[kind]
		if !ok {
			continue
		}
		var found []audit.ControlPlane
		err := pages(ctx, client.Resource(resource), func() { found = nil }, func(o *unstructured.Unstructured) error {
			cluster := o.GetLabels()["cluster.x-k8s.io/cluster-name"]
			for _, owner := range o.GetOwnerReferences() {
				if owner.Kind == "Cluster" {
					cluster = owner.Name
				}
			}
			source, _, _ := unstructured.NestedString(o.Object, "spec", "controlPlaneConfig", "controlplane", "hostname", "source")
			found = append(found, audit.ControlPlane{
				Namespace: o.GetNamespace(), Name: o.GetName(), Kind: o.GetKind(), Cluster: cluster, HostnameSource: source,
				Paused: isPaused(o) || paused[o.GetNamespace()+"/"+cluster],
			})
			return nil
		})
		if err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		into.ControlPlanes = append(into.ControlPlanes, found...)
	}
	return nil
}

func isPaused(o *unstructured.Unstructured) bool {
	_, paused := o.GetAnnotations()["cluster.x-k8s.io/paused"]
	return paused
}

// preferred has, by group/resource, the version that the server prefers, of Cluster API's groups only.
func preferred(_ context.Context, finder *discovery.DiscoveryClient) (map[string]schema.GroupVersionResource, error) {
	groups, err := finder.ServerGroups()
	if err != nil {
		return nil, err
	}
	served := map[string]schema.GroupVersionResource{}
	for _, g := range groups.Groups {
		if g.Name != "cluster.x-k8s.io" && g.Name != "controlplane.cluster.x-k8s.io" {
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
