package source

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"
)

// manifestKinds are the kinds of a management cluster that decide which names nodes get, by group and resource.
var manifestKinds = []string{
	"cluster.x-k8s.io/clusterclasses",
	"cluster.x-k8s.io/machinedeployments",
	"controlplane.cluster.x-k8s.io/taloscontrolplanes",
	"controlplane.cluster.x-k8s.io/taloscontrolplanetemplates",
	"bootstrap.cluster.x-k8s.io/talosconfigtemplates",
	"infrastructure.cluster.x-k8s.io/hcloudmachinetemplates",
}

// A Manifest is an object of a management cluster as kubectl get -o yaml shows it.
type Manifest struct {
	Name string // RESOURCE.GROUP/NAMESPACE/NAME
	Text []byte
}

// Manifests reads all objects of a management cluster that decide which names nodes get; of one namespace, or of all where that is "".
func Manifests(ctx context.Context, config *rest.Config, namespace string) ([]Manifest, error) {
	config = quick(config)
	finder, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, err
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	served, err := Served(finder, "cluster.x-k8s.io", "controlplane.cluster.x-k8s.io", "bootstrap.cluster.x-k8s.io", "infrastructure.cluster.x-k8s.io")
	if err != nil {
		return nil, err
	}
	if served[machines].Empty() {
		return nil, fmt.Errorf("the cluster serves no machines of cluster.x-k8s.io: is this the management cluster?")
	}
	parts := make([][]Manifest, len(manifestKinds))
	all, ctx := errgroup.WithContext(ctx)
	for i, kind := range manifestKinds {
		all.Go(func() error {
			part, err := manifestsOf(ctx, client, served[kind], namespace)
			parts[i] = part
			return err
		})
	}
	if err := all.Wait(); err != nil {
		return nil, err
	}
	var found []Manifest
	for _, part := range parts {
		found = append(found, part...)
	}
	return found, nil
}

func manifestsOf(ctx context.Context, client dynamic.Interface, resource schema.GroupVersionResource, namespace string) ([]Manifest, error) {
	if resource.Empty() {
		return nil, nil
	}
	var found []Manifest
	var failed error
	_, err := pages(ctx, listObjects(client.Resource(resource).Namespace(namespace)), func() { found = nil }, func(o *unstructured.Unstructured) {
		unstructured.RemoveNestedField(o.Object, "metadata", "managedFields")
		unstructured.RemoveNestedField(o.Object, "status")
		text, err := yaml.Marshal(o.Object)
		if err != nil {
			failed = fmt.Errorf("%s/%s: %w", o.GetNamespace(), o.GetName(), err)
			return
		}
		found = append(found, Manifest{Name: resource.GroupResource().String() + "/" + o.GetNamespace() + "/" + o.GetName(), Text: text})
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", resource.Resource, err)
	}
	return found, failed
}
