package command

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"

	"github.com/nametag-boot/nametag/cluster/capi"
	"github.com/nametag-boot/nametag/cluster/lab"
)

// theExamples are the files of examples/cluster-api.
var theExamples = []string{"nametag.yaml", "infrastructure-name.yaml", "clusterclass.yaml"}

// names are what the machines will be called, by object.
func names(t *testing.T, out string) []string {
	t.Helper()
	var r capi.Result
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var all []string
	for _, n := range r.Names {
		all = append(all, strings.ReplaceAll(n.Object, "default/", "")+": "+n.Name+" from "+n.From+" "+n.Image)
	}
	for _, f := range r.Findings {
		all = append(all, f.Rule)
	}
	slices.Sort(all)
	return all
}

// A real API server that knows the providers' fields takes the examples, and capi check says the same of it as of the files.
func TestTheExamplesAndTheManagementCluster(t *testing.T) {
	if _, there := lab.APIServer(); !there {
		missing(t, "no kube-apiserver: hack/kube-deps builds it")
	}
	u := aUser(t)
	etcd, err := lab.NewEtcd(t.Context(), 46, "kube")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { etcd.Close() })
	kube, err := lab.StartKube(t.Context(), etcd.Endpoints(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kube.Close() })
	kubeconfig, err := kube.Kubeconfig(u.dir)
	if err != nil {
		t.Fatal(err)
	}
	live := []string{"capi", "check", "--live", "--kubeconfig", kubeconfig, "-o", "json"}
	if status, _, stderr := u.runs(live...); status != exitSource || !strings.Contains(stderr, "is this the management cluster?") {
		t.Errorf("without Cluster API: %d: %s", status, stderr)
	}
	if err := kube.ServeClusterAPI(t.Context()); err != nil {
		t.Fatal(err)
	}
	if status, _, stderr := u.runs(live...); status != exitSource || !strings.Contains(stderr, "no TalosControlPlane") {
		t.Errorf("an empty one: %d: %s", status, stderr)
	}
	client, err := dynamic.NewForConfig(kube.Config)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range theExamples {
		text, err := os.ReadFile("../../examples/cluster-api/" + file)
		if err != nil {
			t.Fatal(err)
		}
		all, err := lab.Objects(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range all {
			o.SetNamespace("default")
			if err := create(t.Context(), client, o, metav1.DryRunAll); err != nil {
				t.Errorf("%s: %s %s: %v", file, o.GetKind(), o.GetName(), err)
			}
			// A field of another name is refused: what is taken is known.
			wrong := o.DeepCopy()
			if err := unstructured.SetNestedField(wrong.Object, true, "spec", "nobodyKnowsThis"); err != nil {
				t.Fatal(err)
			}
			if err := create(t.Context(), client, wrong, metav1.DryRunAll); err == nil {
				t.Errorf("%s: %s takes any field", file, o.GetKind())
			}
		}
	}
	// Each cluster has a namespace of its own: its templates have the names of others'.
	for _, file := range theExamples {
		text, err := os.ReadFile("../../examples/cluster-api/" + file)
		if err != nil {
			t.Fatal(err)
		}
		namespace := strings.TrimSuffix(file, ".yaml")
		if err := create(t.Context(), client, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": namespace},
		}}); err != nil {
			t.Fatal(err)
		}
		all, err := lab.Objects(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range all {
			o.SetNamespace(namespace)
			if err := create(t.Context(), client, o); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, file := range theExamples {
		namespace := strings.TrimSuffix(file, ".yaml")
		wantStatus, out, _ := u.runs("capi", "check", "../../examples/cluster-api/"+file, "-o", "json")
		want := names(t, out)
		status, out, stderr := u.runs(append(live, "-n", namespace)...)
		got := names(t, strings.ReplaceAll(out, namespace+"/", ""))
		if status != wantStatus || !slices.Equal(got, want) || len(got) < 2 {
			t.Errorf("%s: %d, want %d: %s\n%q, want\n%q", file, status, wantStatus, stderr, got, want)
		}
	}
	// All at once: a template is never taken for that of another namespace.
	status, out, stderr := u.runs(live...)
	if status != exitAgree || len(names(t, out)) != 6 {
		t.Errorf("%d: %s\n%q", status, stderr, names(t, out))
	}
	// What goes wrong in the cluster is found where kubectl edit shows it.
	plane, err := client.Resource(lab.ControlPlanes).Namespace("nametag").Get(t.Context(), "example-controlplane", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := unstructured.SetNestedField(plane.Object, "MachineName", "spec", "controlPlaneConfig", "controlplane", "hostname", "source"); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Resource(lab.ControlPlanes).Namespace("nametag").Update(t.Context(), plane, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	status, out, stderr = u.runs("capi", "check", "--live", "--kubeconfig", kubeconfig)
	if status != exitFindings || !strings.Contains(out, "taloscontrolplanes.controlplane.cluster.x-k8s.io/nametag/example-controlplane:") ||
		!strings.Contains(out, "source: InfrastructureName") {
		t.Errorf("%d: %s%s", status, out, stderr)
	}
}

func TestALiveCheckIsAskedForRightly(t *testing.T) {
	for _, args := range [][]string{{"--live"}, {"--live", "file"}, {"-", "--kubeconfig", "file"}, {"-", "-n", "default"}, {"--live", "--kubeconfig", "/nowhere"}} {
		u := aUser(t)
		if status, out, stderr := u.runs(append([]string{"capi", "check"}, args...)...); status != exitUsage || out != "" || stderr == "" {
			t.Errorf("%v: exit status %d: %s%s", args, status, out, stderr)
		}
	}
}
