package command

import (
	"context"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/nametag-boot/nametag/cluster/lab"
)

// theManifest are the objects of deploy/nametag-audit.yaml.
func theManifest(t *testing.T) []*unstructured.Unstructured {
	t.Helper()
	text, err := os.ReadFile("../deploy/nametag-audit.yaml")
	if err != nil {
		t.Fatal(err)
	}
	all, err := lab.Objects(text)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

var resources = map[string]string{
	"Namespace": "namespaces", "ServiceAccount": "serviceaccounts", "ClusterRole": "clusterroles", "ClusterRoleBinding": "clusterrolebindings", "Role": "roles",
	"Cluster": "clusters", "ClusterClass": "clusterclasses", "MachineDeployment": "machinedeployments", "TalosControlPlane": "taloscontrolplanes",
	"TalosControlPlaneTemplate": "taloscontrolplanetemplates", "TalosConfigTemplate": "talosconfigtemplates", "HetznerCluster": "hetznerclusters",
	"HetznerClusterTemplate": "hetznerclustertemplates", "HCloudMachineTemplate": "hcloudmachinetemplates",
	"RoleBinding": "rolebindings", "Deployment": "deployments", "Service": "services", "NetworkPolicy": "networkpolicies", "Pod": "pods",
}

// create creates an object; a field that the API server does not know is an error. It may be only tried.
func create(ctx context.Context, client dynamic.Interface, o *unstructured.Unstructured, dry ...string) error {
	gvk := o.GroupVersionKind()
	var of dynamic.ResourceInterface = client.Resource(schema.GroupVersionResource{Group: gvk.Group, Version: gvk.Version, Resource: resources[gvk.Kind]})
	if ns := o.GetNamespace(); ns != "" {
		of = client.Resource(schema.GroupVersionResource{Group: gvk.Group, Version: gvk.Version, Resource: resources[gvk.Kind]}).Namespace(ns)
	}
	_, err := of.Create(ctx, o, metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict, DryRun: dry})
	return err
}

// What the manifest allows is enough for all that the Deployment's arguments ask for, and its pod is one that the strictest policy admits.
func TestTheManifestsRightsAreEnough(t *testing.T) {
	if _, there := lab.APIServer(); !there {
		missing(t, "no kube-apiserver: hack/kube-deps builds it")
	}
	u := aUser(t)
	etcd, err := lab.NewEtcd(t.Context(), 45, "kube")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { etcd.Close() })
	const token = "the-pods-own"
	kube, err := lab.StartKube(t.Context(), etcd.Endpoints(), map[string]string{token: "system:serviceaccount:nametag:nametag-audit"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kube.Close() })
	if err := kube.ServeClusterAPI(t.Context()); err != nil {
		t.Fatal(err)
	}
	client, err := dynamic.NewForConfig(kube.Config)
	if err != nil {
		t.Fatal(err)
	}
	var pod *unstructured.Unstructured
	var args []string
	for _, o := range theManifest(t) {
		if err := create(t.Context(), client, o); err != nil {
			t.Fatalf("%s %s: %v", o.GetKind(), o.GetName(), err)
		}
		if o.GetKind() != "Deployment" {
			continue
		}
		template, _, err := unstructured.NestedMap(o.Object, "spec", "template")
		if err != nil {
			t.Fatal(err)
		}
		pod = &unstructured.Unstructured{Object: template}
		pod.SetAPIVersion("v1")
		pod.SetKind("Pod")
		pod.SetName("audit")
		pod.SetNamespace("nametag")
		containers, _, _ := unstructured.NestedSlice(template, "spec", "containers")
		args, _, _ = unstructured.NestedStringSlice(containers[0].(map[string]any), "args")
	}
	if err := create(t.Context(), client, pod); err != nil {
		t.Errorf("its pod is refused: %v", err)
	}
	if err := kube.Put(t.Context(), lab.Nodes, lab.Node{Name: lab.Invented, ProviderID: "hcloud://101", Address: "10.0.0.1"}.Object()); err != nil {
		t.Fatal(err)
	}
	cloud, done := lab.NewCloud(lab.Server{ID: 101, Name: "node-1", Created: time.Now().Add(-time.Hour), Private: map[int64]string{1: "10.0.0.1"}})
	t.Cleanup(done)
	t.Setenv("HCLOUD_ENDPOINT", cloud.URL)
	tokenFile := u.dir + "/token"
	if err := os.WriteFile(tokenFile, []byte(lab.Token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	as := &lab.Kube{Config: rest.CopyConfig(kube.Config)}
	as.Config.BearerToken = token
	kubeconfig, err := as.Kubeconfig(u.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBECONFIG", kubeconfig)
	for i, a := range args {
		args[i] = strings.NewReplacer("/run/secrets/hcloud/token", tokenFile, ":9477", "127.0.0.1:0").Replace(a)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var stderr said
	ended := make(chan int, 1)
	go func() { ended <- Run(ctx, "test", args, strings.NewReader(""), io.Discard, &stderr) }()
	url := ""
	becomes(t, "it listens", func() bool { url = listening(stderr.String()); return url != "" })
	becomes(t, "the node is found", func() bool {
		_, m := fetch(t, url+"/metrics")
		return strings.Contains(m, `nametag_audit_finding{id="node-name-invented",server="101",severity="critical"} 1`) &&
			strings.Contains(m, `nametag_audit_source_up{source="clusterapi"} 1`)
	})
	events := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "events"}).Namespace("default")
	becomes(t, "its Event is there", func() bool {
		list, err := events.List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=" + lab.Invented})
		return err == nil && len(list.Items) == 1
	})
	becomes(t, "its first name is remembered", func() bool {
		o, err := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace("nametag").Get(t.Context(), "nametag-audit", metav1.GetOptions{})
		text, _, _ := unstructured.NestedString(o.UnstructuredContent(), "data", "memory.json")
		return err == nil && strings.Contains(text, `"node-1"`)
	})
	if said := stderr.String(); strings.Contains(said, "forbidden") {
		t.Errorf("a right is missing:\n%s", said)
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
	// And no more than enough.
	lesser, err := dynamic.NewForConfig(as.Config)
	if err != nil {
		t.Fatal(err)
	}
	if err := lesser.Resource(lab.Nodes).Delete(t.Context(), lab.Invented, metav1.DeleteOptions{}); err == nil {
		t.Error("it may delete nodes")
	}
	if _, err := lesser.Resource(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}).List(t.Context(), metav1.ListOptions{}); err == nil {
		t.Error("it may read secrets")
	}
}
