package capi

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nametag-boot/nametag/cluster/audit"
)

func check(t *testing.T, text string, o Options) (*Checker, *Result) {
	t.Helper()
	c := &Checker{Options: o}
	if err := c.Add("f.yaml", []byte(text)); err != nil {
		t.Fatal(err)
	}
	return c, c.Check()
}

func rules(r *Result) []string {
	var all []string
	for _, f := range r.Findings {
		all = append(all, fmt.Sprintf("%s:%d", f.Rule, f.Line))
	}
	return all
}

func TestTheExamplesGiveEveryNodeItsServersName(t *testing.T) {
	files, err := filepath.Glob("../../examples/cluster-api/*.yaml")
	if err != nil || len(files) != 3 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, r := check(t, string(text), Options{})
		if len(r.Findings) != 0 || len(r.Names) != 2 {
			t.Errorf("%s: %v", file, rules(r))
		}
		for _, n := range r.Names {
			if n.Name != "the server's own" || n.Image == "" {
				t.Errorf("%s: %+v", file, n)
			}
		}
	}
}

// template is a TalosConfigTemplate, with a MachineDeployment and servers of that image. Its spec begins at line 7.
func template(image, spec string) string {
	return `apiVersion: bootstrap.cluster.x-k8s.io/v1alpha3
kind: TalosConfigTemplate
metadata: {name: workers}
spec:
  template:
    spec:
` + spec + `---
apiVersion: cluster.x-k8s.io/v1beta2
kind: MachineDeployment
metadata: {name: workers}
spec:
  template:
    spec:
      bootstrap: {configRef: {kind: TalosConfigTemplate, name: workers}}
      infrastructureRef: {kind: HCloudMachineTemplate, name: workers}
---
apiVersion: infrastructure.cluster.x-k8s.io/v1beta1
kind: HCloudMachineTemplate
metadata: {name: workers}
spec: {template: {spec: {imageName: ` + image + `}}}
`
}

func TestWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		image, spec string
		want        []string
		mended      []string // what is left when the fixes were carried out
	}{
		"the Machine's name": {
			"talos", "      talosVersion: v1.9\n      hostname:\n        source: MachineName # as in the guide\n",
			[]string{"capi-machine-name:9"},
			nil,
		},
		"a source that is none":            {"talos", "      hostname: {source: ServerName}\n", []string{"capi-unknown-source:7"}, []string{"capi-unknown-source:7"}},
		"a race":                           {"talos", "      talosVersion: v1.12\n", []string{"capi-image-without-nametag:7"}, nil},
		"nametag, and nothing else to say": {"talos-nametag", "      talosVersion: v1.12\n", nil, nil},
		"nametag before 1.12 without its argument": {
			"talos-nametag", "      talosVersion: v1.9.1\n", []string{"capi-argument-missing:7"}, []string{"capi-argument-missing:7"},
		},
		"nametag before 1.12 with its argument": {
			"talos-nametag", "      talosVersion: v1.9.1\n      configPatches:\n        - op: add\n          path: /machine/install/extraKernelArgs\n          value: [talos.hostname.wait=2m]\n", nil, nil,
		},
		"RFC 6902 where there are several documents": {
			"talos-nametag", "      talosVersion: v1.12\n      configPatches:\n        - op: add\n          path: /machine/kubelet/extraArgs\n          value:\n            cloud-provider: external\n        - op: replace\n          path: /cluster/externalCloudProvider/enabled\n          value: true\n      generateType: worker\n",
			[]string{"capi-json-patches:8"},
			nil,
		},
		"RFC 6902 that no strategic patch can be made of by a program": {
			"talos-nametag", "      talosVersion: v1.12\n      configPatches:\n        - {op: remove, path: /machine/kubelet}\n",
			[]string{"capi-json-patches:8"},
			[]string{"capi-json-patches:8"},
		},
		"RFC 6902 without a version": {
			"talos-nametag", "      configPatches:\n        - op: add\n          path: /machine/sysctls\n          value: {a: b}\n", []string{"capi-json-patches:7"}, nil,
		},
		"RFC 6902 before 1.12": {"talos", "      talosVersion: v1.11\n      hostname: {source: InfrastructureName}\n      configPatches:\n        - {op: add, path: /machine/sysctls, value: {a: b}}\n", nil, nil},
		"one hostname for all, in a patch": {
			"talos-nametag", "      talosVersion: v1.12\n      strategicPatches:\n        - |\n          machine:\n            network:\n              hostname: worker\n",
			[]string{"capi-shared-hostname:12"},
			[]string{"capi-shared-hostname:12"},
		},
		"one hostname for all, in RFC 6902": {
			"talos", "      talosVersion: v1.9\n      configPatches:\n        - op: add\n          path: /machine/network/hostname\n          value: worker\n",
			[]string{"capi-shared-hostname:11"},
			[]string{"capi-shared-hostname:11"},
		},
		"one hostname for all, in a document": {
			"talos", "      talosVersion: v1.12\n      strategicPatches:\n        - |\n          kind: HostnameConfig\n          hostname: worker\n",
			[]string{"capi-shared-hostname:11"},
			[]string{"capi-shared-hostname:11"},
		},
		"auto beside a source": {
			"talos", "      talosVersion: v1.12\n      hostname: {source: InfrastructureName}\n      strategicPatches:\n        - |\n          kind: HostnameConfig\n          auto: stable\n",
			[]string{"capi-auto-conflicts:12"},
			[]string{"capi-auto-conflicts:12"},
		},
		"a document that the version does not know": {
			"talos-nametag", "      talosVersion: v1.11\n      strategicPatches:\n        - |\n          machine: {install: {extraKernelArgs: [talos.hostname.wait=1m]}}\n          ---\n          kind: HostnameConfig\n          auto: \"off\"\n",
			[]string{"capi-document-too-new:12"},
			[]string{"capi-document-too-new:12"},
		},
		"rdinit where it outlives its image": {
			"talos-nametag", "      talosVersion: v1.12\n      strategicPatches:\n        - |\n          machine:\n            install:\n              extraKernelArgs:\n                - rdinit=/usr/lib/firmware/nametag\n",
			[]string{"capi-rdinit-in-config:13"},
			[]string{"capi-rdinit-in-config:13"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			text := template(c.image, c.spec)
			checker, r := check(t, text, Options{})
			if got := rules(r); !slices.Equal(got, c.want) {
				t.Fatalf("%v, want %v", got, c.want)
			}
			var fixes []Fix
			for _, f := range r.Findings {
				if f.Fix != nil {
					fixes = append(fixes, *f.Fix)
					if d := Diff("f.yaml", checker.File("f.yaml"), *f.Fix); !strings.Contains(d, "\n+") || !strings.HasPrefix(d, "--- a/f.yaml\n") {
						t.Error(d)
					}
				}
			}
			after := Apply([]byte(text), fixes)
			if _, r := check(t, string(after), Options{}); !slices.Equal(rules(r), c.mended) {
				t.Errorf("mended: %v\n%s", rules(r), after)
			}
		})
	}
}

func TestWhichImagesHaveNametagIsTheUsersToSay(t *testing.T) {
	text := template("4711", "      talosVersion: v1.12\n")
	if _, r := check(t, text, Options{}); len(r.Findings) != 1 {
		t.Error(rules(r))
	}
	if _, r := check(t, text, Options{Images: []string{"47*"}}); len(r.Findings) != 0 {
		t.Error(rules(r))
	}
	if _, r := check(t, strings.ReplaceAll(text, "4711", "x-nametag"), Options{Images: []string{"47*"}}); len(r.Findings) != 1 {
		t.Error(rules(r))
	}
}

func TestAListOfKubectlIsManyObjects(t *testing.T) {
	text := "apiVersion: v1\nkind: List\nitems:\n- apiVersion: controlplane.cluster.x-k8s.io/v1alpha3\n  kind: TalosControlPlane\n  metadata: {name: cp, namespace: a}\n" +
		"  spec:\n    infrastructureTemplate: {kind: HCloudMachineTemplate, name: gone}\n    controlPlaneConfig:\n      controlplane:\n        talosVersion: v1.12\n        hostname:\n          source: MachineName\n"
	_, r := check(t, text, Options{})
	if got := rules(r); !slices.Equal(got, []string{"capi-template-missing:8", "capi-machine-name:13"}) {
		t.Error(got)
	}
	if r.Findings[0].Severity != audit.Info || r.Findings[1].Object != "TalosControlPlane a/cp" {
		t.Errorf("%+v", r.Findings)
	}
}

func TestSARIF(t *testing.T) {
	_, r := check(t, template("talos", "      hostname:\n        source: MachineName\n"), Options{})
	b, err := SARIF(r, "test")
	if err != nil {
		t.Fatal(err)
	}
	var s struct {
		Version string
		Runs    []struct {
			Tool struct {
				Driver struct{ Rules []struct{ ID string } }
			}
			Results []struct {
				RuleID, Level string
				Locations     []struct {
					PhysicalLocation struct{ Region struct{ StartLine int } }
				}
				Fixes []struct {
					ArtifactChanges []struct {
						Replacements []struct {
							DeletedRegion   struct{ StartLine, StartColumn, EndLine, EndColumn int }
							InsertedContent struct{ Text string }
						}
					}
				}
			}
		}
	}
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	run := s.Runs[0]
	got := run.Results[0]
	if s.Version != "2.1.0" || got.RuleID != MachineName || got.Level != "error" || got.Locations[0].PhysicalLocation.Region.StartLine != 8 {
		t.Errorf("%s", b)
	}
	change := got.Fixes[0].ArtifactChanges[0].Replacements[0]
	if change.DeletedRegion.StartLine != 8 || change.DeletedRegion.EndLine != 9 || change.InsertedContent.Text != "        source: InfrastructureName\n" {
		t.Errorf("%+v", change)
	}
	if len(run.Tool.Driver.Rules) != len(Rules()) {
		t.Errorf("%d rules", len(run.Tool.Driver.Rules))
	}
}

func FuzzCheck(f *testing.F) {
	f.Add(template("talos", "      configPatches:\n        - op: add\n          path: /a/b\n          value: 1\n"))
	f.Add("kind: List\nitems: [{kind: X}]\n---\n&a [*a]\n")
	f.Add("&a\nkind: List\nitems: [*a]\n")
	f.Add("apiVersion: bootstrap.cluster.x-k8s.io/v1\nkind: TalosConfig\nspec: &a\n  configPatches: [{op: add, path: /a, value: *a}]\n")
	f.Fuzz(func(t *testing.T, text string) {
		c := &Checker{}
		if c.Add("f", []byte(text)) != nil {
			return
		}
		for _, finding := range c.Check().Findings {
			if finding.Fix != nil {
				Diff("f", []byte(text), *finding.Fix)
				Apply([]byte(text), []Fix{*finding.Fix})
			}
		}
	})
}
