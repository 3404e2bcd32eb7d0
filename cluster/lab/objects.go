package lab

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
)

// The resources of the lab.
var (
	Nodes         = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
	Machines      = schema.GroupVersionResource{Group: "cluster.x-k8s.io", Version: "v1beta1", Resource: "machines"}
	Clusters      = schema.GroupVersionResource{Group: "cluster.x-k8s.io", Version: "v1beta1", Resource: "clusters"}
	ControlPlanes = schema.GroupVersionResource{Group: "controlplane.cluster.x-k8s.io", Version: "v1alpha3", Resource: "taloscontrolplanes"}
)

// A Node is what the lab writes of one.
type Node struct {
	Name, ProviderID, Address   string
	ControlPlane, Uninitialized bool
	NotReady                    bool
	Age                         time.Duration
}

// Object is the node as Kubernetes has it.
func (n Node) Object() *unstructured.Unstructured {
	created := time.Now().Add(-n.Age).UTC().Format(time.RFC3339)
	labels := map[string]any{"kubernetes.io/hostname": n.Name}
	if n.ControlPlane {
		labels["node-role.kubernetes.io/control-plane"] = ""
	}
	spec := map[string]any{}
	if n.ProviderID != "" {
		spec["providerID"] = n.ProviderID
	}
	if n.Uninitialized {
		spec["taints"] = []any{map[string]any{"key": "node.cloudprovider.kubernetes.io/uninitialized", "value": "true", "effect": "NoSchedule"}}
	}
	ready := "True"
	if n.NotReady {
		ready = "Unknown"
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Node",
		"metadata": map[string]any{"name": n.Name, "labels": labels, "creationTimestamp": created},
		"spec":     spec,
		"status": map[string]any{
			"addresses":  []any{map[string]any{"type": "InternalIP", "address": n.Address}, map[string]any{"type": "Hostname", "address": n.Name}},
			"conditions": []any{map[string]any{"type": "Ready", "status": ready, "lastTransitionTime": created, "lastHeartbeatTime": created, "reason": "Lab", "message": ""}},
			"images":     []any{map[string]any{"names": []any{"registry.k8s.io/pause:3.10"}, "sizeBytes": int64(1)}},
		},
	}}
}

// A Machine is what the lab writes of one of Cluster API.
type Machine struct {
	Name, Cluster, Infra, ProviderID, NodeRef, Address string
	Hostname                                           string
	ControlPlane                                       bool
	Age                                                time.Duration
}

// Object is the Machine as Cluster API has it.
func (m Machine) Object() *unstructured.Unstructured {
	labels := map[string]any{"cluster.x-k8s.io/cluster-name": m.Cluster}
	if m.ControlPlane {
		labels["cluster.x-k8s.io/control-plane"] = ""
	}
	addresses := []any{map[string]any{"type": "InternalIP", "address": m.Address}}
	if m.Hostname != "" {
		addresses = append(addresses, map[string]any{"type": "Hostname", "address": m.Hostname})
	}
	status := map[string]any{"addresses": addresses}
	if m.NodeRef != "" {
		status["nodeRef"] = map[string]any{"kind": "Node", "name": m.NodeRef}
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "cluster.x-k8s.io/v1beta1", "kind": "Machine",
		"metadata": map[string]any{"name": m.Name, "namespace": "default", "labels": labels, "creationTimestamp": time.Now().Add(-m.Age).UTC().Format(time.RFC3339)},
		"spec": map[string]any{
			"clusterName": m.Cluster, "providerID": m.ProviderID,
			"infrastructureRef": map[string]any{"apiVersion": "infrastructure.cluster.x-k8s.io/v1beta1", "kind": "HCloudMachine", "name": m.Infra},
		},
		"status": status,
	}}
}

// Put creates an object with its status, or replaces it.
func (k *Kube) Put(ctx context.Context, resource schema.GroupVersionResource, o *unstructured.Unstructured) error {
	client, err := dynamic.NewForConfig(k.Config)
	if err != nil {
		return err
	}
	var of dynamic.ResourceInterface = client.Resource(resource)
	if o.GetNamespace() != "" {
		of = client.Resource(resource).Namespace(o.GetNamespace())
	}
	made, err := of.Create(ctx, o, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if _, ok := o.Object["status"]; !ok {
		return nil
	}
	made.Object["status"] = o.Object["status"]
	_, err = of.UpdateStatus(ctx, made, metav1.UpdateOptions{})
	return err
}

// Delete takes an object away.
func (k *Kube) Delete(ctx context.Context, resource schema.GroupVersionResource, namespace, name string) error {
	client, err := dynamic.NewForConfig(k.Config)
	if err != nil {
		return err
	}
	if namespace != "" {
		return client.Resource(resource).Namespace(namespace).Delete(ctx, name, metav1.DeleteOptions{})
	}
	return client.Resource(resource).Delete(ctx, name, metav1.DeleteOptions{})
}

//go:embed crds.yaml
var definitions []byte

// ServeClusterAPI makes the real API server serve the kinds of Cluster API, with the fields that are used, and waits until it does.
func (k *Kube) ServeClusterAPI(ctx context.Context) error {
	client, err := dynamic.NewForConfig(k.Config)
	if err != nil {
		return err
	}
	all, err := Objects(definitions)
	if err != nil {
		return err
	}
	crds := schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	var served []schema.GroupVersionResource
	for _, d := range all {
		if _, err := client.Resource(crds).Create(ctx, d, metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict}); err != nil {
			return err
		}
		group, _, _ := unstructured.NestedString(d.Object, "spec", "group")
		plural, _, _ := unstructured.NestedString(d.Object, "spec", "names", "plural")
		versions, _, _ := unstructured.NestedSlice(d.Object, "spec", "versions")
		version, _, _ := unstructured.NestedString(versions[0].(map[string]any), "name")
		served = append(served, schema.GroupVersionResource{Group: group, Version: version, Resource: plural})
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, r := range served {
		for {
			_, err := client.Resource(r).List(ctx, metav1.ListOptions{})
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s is not served: %w", r.Resource, errors.Join(ctx.Err(), err))
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	return nil
}

// Objects reads manifests of any number of documents.
func Objects(text []byte) ([]*unstructured.Unstructured, error) {
	var all []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		o := &unstructured.Unstructured{}
		err := decoder.Decode(&o.Object)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		if o.Object != nil {
			all = append(all, o)
		}
	}
}
