package deploy

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	serializer "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	sigs "sigs.k8s.io/yaml"
)

// objects are manifests by kind, namespace and name.
type objects map[string]map[string]any

func (o objects) add(t *testing.T, text string) {
	t.Helper()
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096)
	for {
		var object map[string]any
		err := decoder.Decode(&object)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if object == nil {
			continue // a document of comments
		}
		about := object["metadata"].(map[string]any)
		namespace, _ := about["namespace"].(string)
		key := path.Join(object["kind"].(string), namespace, about["name"].(string))
		if o[key] != nil {
			t.Errorf("%s is there twice", key)
		}
		o[key] = object
	}
}

// rendered is what helm install NAME -n NAMESPACE would apply.
func rendered(t *testing.T, name, namespace, values string) objects {
	t.Helper()
	all, err := render(name, namespace, values)
	if err != nil {
		t.Fatal(err)
	}
	found := objects{}
	for _, file := range slices.Sorted(maps.Keys(all)) {
		if strings.HasSuffix(file, ".yaml") {
			found.add(t, all[file])
		}
	}
	return found
}

func render(name, namespace, values string) (map[string]string, error) {
	chart, err := loader.Load("chart/nametag-audit")
	if err != nil {
		return nil, err
	}
	var set map[string]any
	if err := sigs.Unmarshal([]byte(values), &set); err != nil {
		return nil, err
	}
	all, err := chartutil.ToRenderValues(chart, set, chartutil.ReleaseOptions{Name: name, Namespace: namespace, Revision: 1, IsInstall: true}, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	return engine.Engine{Strict: true}.Render(chart, all)
}

func plain(t *testing.T, files ...string) objects {
	t.Helper()
	all := objects{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.add(t, string(text))
	}
	return all
}

func same(t *testing.T, got, want objects) {
	t.Helper()
	for key, w := range want {
		g := got[key]
		if !reflect.DeepEqual(g, w) {
			t.Errorf("%s is\n%s\nwant\n%s", key, asYAML(t, g), asYAML(t, w))
		}
	}
	for key := range got {
		if want[key] == nil {
			t.Errorf("%s is one too many", key)
		}
	}
}

func asYAML(t *testing.T, o any) []byte {
	t.Helper()
	b, err := sigs.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTheChartsDefaultIsThePlainManifest(t *testing.T) {
	want := plain(t, "nametag-audit.yaml")
	same(t, rendered(t, "nametag-audit", "nametag", "namespace: {create: true}"), want)
	delete(want, "Namespace/nametag") // helm's own business
	same(t, rendered(t, "nametag-audit", "nametag", ""), want)
}

// everything sets every value to something.
const everything = `
image: {repository: registry.example.com/audit, digest: "sha256:0123", pullPolicy: Always}
imagePullSecrets: [{name: registry}]
replicas: 3
hcloud: {secret: cloud, key: hcloud, network: private}
talos: {secret: reader, key: talosconfig}
interval: 2m
grace: 20m
clusterAPI: {cluster: clusters/example, kubeconfig: {secret: management, key: value}}
extraArgs: [--timeout=1m]
extraEnv: [{name: HTTPS_PROXY, value: "http://proxy.example.com:3128"}]
nodeSelector: {kubernetes.io/arch: amd64}
affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: zone, operator: Exists}]}]}}}
priorityClassName: system-cluster-critical
podAnnotations: {a: b}
podLabels: {team: platform}
serviceAccount: {annotations: {c: d}}
namespace: {create: true}
networkPolicy: {from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}], ports: [443]}
serviceMonitor: {enabled: true, interval: 30s, labels: {release: prometheus}}
prometheusRule: {enabled: true, labels: {release: prometheus}}
dashboard: {enabled: true}
`

func TestEveryValueMakesWhatKubernetesKnows(t *testing.T) {
	for why, values := range map[string]string{
		"nothing":    "",
		"everything": everything,
		"less":       "events: false\nclusterAPI: {enabled: false}\ntalos: {secret: \"\"}\ntolerations: []\nnetworkPolicy: {enabled: false}\n",
	} {
		t.Run(why, func(t *testing.T) {
			strict := serializer.NewSerializerWithOptions(serializer.DefaultMetaFactory, scheme.Scheme, scheme.Scheme, serializer.SerializerOptions{Strict: true})
			for key, o := range rendered(t, "names", "watching", values) {
				if strings.HasPrefix(o["apiVersion"].(string), "monitoring.coreos.com/") {
					continue
				}
				b, err := json.Marshal(o)
				if err != nil {
					t.Fatal(err)
				}
				if _, _, err := strict.Decode(b, nil, nil); err != nil {
					t.Errorf("%s: %v", key, err)
				}
			}
		})
	}
}

func TestWhatIsSetIsThere(t *testing.T) {
	all := rendered(t, "names", "watching", everything)
	deployment := string(asYAML(t, all["Deployment/watching/names-nametag-audit"]))
	for _, want := range []string{
		"image: registry.example.com/audit@sha256:0123", "imagePullPolicy: Always", "- name: registry", "replicas: 3", "secretName: cloud", "- --network=private",
		"secretName: reader", "- --interval=2m", "- --grace=20m", "- --cluster=clusters/example", "- --management-kubeconfig=/run/secrets/management/kubeconfig",
		"secretName: management", "- --timeout=1m", "name: HTTPS_PROXY", "kubernetes.io/arch: amd64", "nodeAffinity:", "priorityClassName: system-cluster-critical",
		"a: b", "team: platform", "- --leader-elect=watching/names-nametag-audit", "- --state-configmap=watching/names-nametag-audit",
	} {
		if !strings.Contains(deployment, want) {
			t.Errorf("no %s in\n%s", want, deployment)
		}
	}
	for _, key := range []string{
		"Namespace/watching", "ServiceMonitor/watching/names-nametag-audit", "PrometheusRule/watching/names-nametag-audit", "ConfigMap/watching/names-nametag-audit-dashboard",
	} {
		if all[key] == nil {
			t.Errorf("no %s", key)
		}
	}
	less := rendered(t, "names", "watching", "events: false\nclusterAPI: {enabled: false}\ntalos: {secret: \"\"}")
	if text := string(asYAML(t, less)); strings.Contains(text, "--events") || strings.Contains(text, "cluster.x-k8s.io") || !strings.Contains(text, "--sources=cloud,kubernetes\n") {
		t.Errorf("more than asked for:\n%s", text)
	}
}

// Two clusters' releases, or a test beside the real thing: neither takes the other's objects.
func TestTwoReleasesDoNotMeet(t *testing.T) {
	one, other := rendered(t, "one", "nametag", ""), rendered(t, "other", "nametag", "")
	for key := range one {
		if other[key] != nil {
			t.Errorf("both have %s", key)
		}
	}
	selects := func(o objects, name string) any {
		return o["Deployment/nametag/"+name]["spec"].(map[string]any)["selector"]
	}
	if reflect.DeepEqual(selects(one, "one-nametag-audit"), selects(other, "other-nametag-audit")) {
		t.Error("both have the same pods")
	}
}

func TestAMistakeInTheValuesIsRefused(t *testing.T) {
	for _, values := range []string{"replica: 2", "image: {tags: v1}", "replicas: many", "events: 1", "networkPolicy: {ports: [443, \"https\"]}", "interval: often"} {
		if _, err := render("nametag-audit", "nametag", values); err == nil || !bytes.Contains([]byte(err.Error()), []byte("schema")) {
			t.Errorf("%s: %v", values, err)
		}
	}
}
